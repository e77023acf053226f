/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DDoS protection: allow list, then blocks (lists.h), then limits (limits.h), for the source of
 * one packet.
 */
#ifndef EBPFTOP_DDOS_PROTECTION_H
#define EBPFTOP_DDOS_PROTECTION_H

/* Drop a packet, or count what the dry run would have dropped. */
static __always_inline void drop(struct run *run, __u32 reason)
{
	int dry = !!(run->conf->flags & FLAG_DRY_RUN);

	run->reason = reason;
	if (!dry)
		run->action = XDP_DROP;
	if (!run->live)
		return;
	if (dry)
		run->cpu->would_drop[reason & REASON_MASK]++;
	else
		run->cpu->drops[reason & REASON_MASK]++;
}

static __always_inline void count_hit(struct run *run, __u32 slot)
{
	struct count *hits = rule_hits.lookup(&slot);

	if (hits && run->live) {
		hits->packets++;
		hits->bytes += run->length;
	}
}

/* Decide about the packet of a source, and keep that source's row. */
static __always_inline void protect(struct run *run)
{
	struct address *address = &run->packet->source;
	struct source *row = ip_tracker.lookup(address);
	__u64 flags = run->conf->flags;
	__u32 rule, reason = REASON_NONE;
	int tracked;

	if (!row)
		row = add_source(run, address);
	else if (row->last_ns != run->now && run->live)
		row->last_ns = run->now;
	tracked = row || (!run->live && may_add_source(run));
	if (!tracked && run->live)
		run->cpu->untracked++;
	rule = rule_of(run, row, address);
	if (rule & RULE_BLOCKED) {
		if (!(flags & FLAG_DRY_RUN))
			count_hit(run, rule & RULE_SLOT);
		reason = rule & RULE_PREFIX ? REASON_BLOCKED_PREFIX : REASON_BLOCKED;
	} else if (rule & RULE_ALLOWED) {
		count_hit(run, rule & RULE_SLOT);
	} else if (!(rule & RULE_PROTECTED)) {
		reason = limit_source(run, row);
		if (reason == REASON_NONE && !tracked && flags & FLAG_DROP_NEW)
			reason = REASON_NEW_SOURCE;
		if (run->live && (reason != REASON_NONE || !tracked))
			run->cpu->flood_packets++;
		if (run->live && !tracked)
			run->cpu->flood_untracked++;
	}
	if (reason == REASON_NONE && run->packet->unparsed && flags & FLAG_DROP_UNPARSED &&
	    !(rule & RULE_ALLOWED))
		reason = REASON_UNPARSED;
	if (reason != REASON_NONE)
		drop(run, reason);
	if (reason != REASON_NONE && row && run->live && flags & FLAG_DRY_RUN)
		__sync_fetch_and_add(&row->would_drop_packets, 1);
	run->row = row;
}

/* Count a packet on its source's row, by what became of it in the end. */
static __always_inline void count_row(struct run *run, struct source *row)
{
	int dropped = run->action == XDP_DROP;

	if (row->owner == run->cpu->number && dropped) {
		row->counted.dropped_packets++;
		row->counted.dropped_bytes += run->length;
	} else if (row->owner == run->cpu->number) {
		row->counted.passed_packets++;
		row->counted.passed_bytes += run->length;
	} else if (dropped) {
		__sync_fetch_and_add(&row->others.dropped_packets, 1);
		__sync_fetch_and_add(&row->others.dropped_bytes, run->length);
	} else {
		__sync_fetch_and_add(&row->others.passed_packets, 1);
		__sync_fetch_and_add(&row->others.passed_bytes, run->length);
	}
}

#endif
