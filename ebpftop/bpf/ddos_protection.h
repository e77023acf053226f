/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DDoS protection: allow list, then blocks, then limits, for the source of one packet.
 *
 * A source's row caches which rule holds for it, stamped with the generation of the lists:
 * a known source costs one hash lookup, however long the lists are. User space raises the
 * generation after each change, and each row looks again at its next packet.
 *
 * Limits are GCRA on one 64-bit theoretical arrival time each, moved by compare-and-swap
 * (ITU-T I.371 annex A; no window edges, no refill arithmetic), by the coarse clock: exact on
 * average, since user space keeps the burst at two of its ticks or more.
 */
#ifndef EBPFTOP_DDOS_PROTECTION_H
#define EBPFTOP_DDOS_PROTECTION_H

#define SECOND_NS 1000000000ULL
#define NEW_SOURCES_WINDOW_NS (SECOND_NS / 8)
#define FLOOD_WINDOW_NS SECOND_NS
#define FLOOD_QUIET_NS (3 * SECOND_NS)
#define STRIKES_FORGOTTEN_NS (24 * 3600 * SECOND_NS)
#define BLOCK_LONGEST_NS (30 * 24 * 3600 * SECOND_NS)
#define DOUBLINGS 63
#define CHARGE_TRIES 4
#define NESTED_ENDED_BLOCKS 4

struct decision {
	__u32 action;      /* XDP_PASS or XDP_DROP */
	__u32 reason;      /* enum reason, also of a drop that the dry run only counts */
};

static __always_inline void tell(__u32 kind, struct address *address, __u32 length, __u64 now,
				 __u64 value0, __u64 value1)
{
	__u32 zero = 0, slot;
	struct state *shared = state.lookup(&zero);
	struct event *event;
	__u64 seq;

	if (!shared)
		return;
	seq = __sync_fetch_and_add(&shared->event_seq, 1) + 1;
	slot = seq % EVENTS;
	event = events.lookup(&slot);
	if (!event)
		return;
	__sync_lock_test_and_set(&event->seq, 0);
	event->time_ns = now;
	event->address = *address;
	event->length = length;
	event->kind = kind;
	event->value[0] = value0;
	event->value[1] = value1;
	__builtin_memset(event->text, 0, sizeof(event->text));
	__sync_lock_test_and_set(&event->seq, seq);
}

/* Mark a rule whose time is over as ended; one CPU wins and tells it. */
static __always_inline int end_rule(struct rule *rule, __u64 now)
{
	__u64 until = rule->until_ns;

	if (until <= RULE_ENDED || until > now ||
	    __sync_val_compare_and_swap(&rule->until_ns, until, RULE_ENDED) != until)
		return 0;
	tell(EVENT_BLOCK_END, &rule->address, rule->length, now, until, 0);
	return 1;
}

static __always_inline int rule_holds(struct rule *rule, __u64 now)
{
	return rule->until_ns == 0 || rule->until_ns > now;
}

/* Find the rule for a source: RULE_* bits and a slot, or 0. */
static __always_inline __u32 find_rule(struct address *address, struct config *conf, __u64 now)
{
	struct prefix key = { .length = 128 };
	struct rule *rule;
	__u32 found = 0, slot;
	__u64 *entry;
	int i;

	__builtin_memcpy(key.word, address, sizeof(key.word));
	if (conf->flags & FLAG_ALLOWED) {
		entry = allowed.lookup(&key);
		if (entry)
			return RULE_ALLOWED | (*entry & RULE_SLOT);
	}
	if (conf->flags & FLAG_BLOCKS) {
		entry = blocked_ips.lookup(address);
		if (entry) {
			slot = *entry & RULE_SLOT;
			rule = rules.lookup(&slot);
			if (rule && rule_holds(rule, now))
				return RULE_BLOCKED | slot;
			if (rule)
				end_rule(rule, now);
		}
	}
	if (conf->flags & FLAG_PREFIXES) {
		for (i = 0; i <= NESTED_ENDED_BLOCKS; i++) {
			entry = blocked_nets.lookup(&key);
			if (!entry)
				break;
			slot = *entry & RULE_SLOT;
			rule = rules.lookup(&slot);
			if (!rule)
				break;
			if (rule_holds(rule, now)) {
				found = RULE_BLOCKED | RULE_PREFIX | slot;
				break;
			}
			end_rule(rule, now);
			if (rule->length == 0)
				break;
			key.length = rule->length - 1;
		}
	}
	if (found)
		return found;
	key.length = 128;
	if (conf->flags & FLAG_PROTECTED && protected.lookup(&key))
		return RULE_PROTECTED;
	return 0;
}

/* The rule for a source, from its row where that is fresh. */
static __always_inline __u32 rule_of(struct source *row, struct address *address,
				     struct config *conf, __u64 now)
{
	__u64 policy = row ? row->policy : 0;
	__u32 found = policy, slot = found & RULE_SLOT;
	struct rule *rule;

	if (row && policy >> 32 == conf->generation) {
		if (!(found & RULE_BLOCKED))
			return found;
		rule = rules.lookup(&slot);
		if (rule && rule_holds(rule, now))
			return found;
	}
	found = find_rule(address, conf, now);
	if (row)
		row->policy = conf->generation << 32 | found;
	return found;
}

/* Add a row for a source that has none, within this CPU's budget for new ones. */
static __always_inline struct source *add_source(struct address *address, struct cpu_stats *cpu,
						 struct config *conf, __u64 now)
{
	__u32 zero = 0;
	struct state *shared;
	struct source fresh = {};
	struct source *row;

	if (now - cpu->budget_window_ns >= NEW_SOURCES_WINDOW_NS) {
		cpu->budget_window_ns = now;
		cpu->budget_used = 0;
	}
	if (cpu->budget_used >= conf->new_sources)
		return 0;
	cpu->budget_used++;
	fresh.first_ns = now;
	fresh.last_ns = now;
	fresh.limiter.blocked = 1;
	shared = state.lookup(&zero);
	if (ip_tracker.insert(address, &fresh)) {
		row = ip_tracker.lookup(address); /* another CPU was first */
		if (row)
			return row;
		if (shared && !shared->table_full_ns &&
		    !__sync_val_compare_and_swap(&shared->table_full_ns, 0, now))
			tell(EVENT_TABLE_FULL, address, 128, now, 0, 0);
		return 0;
	}
	row = ip_tracker.lookup(address);
	if (shared && __sync_fetch_and_add(&shared->sources_added, 1) + 1 == CAPACITY_SOURCES &&
	    !__sync_val_compare_and_swap(&shared->table_full_ns, 0, now))
		tell(EVENT_TABLE_FULL, address, 128, now, CAPACITY_SOURCES, 0);
	return row;
}

/* Move a theoretical arrival time on by one packet; 0 where it would run ahead too far. */
static __always_inline int charge(__u64 *time, __u64 now, __u64 cost, __u64 burst)
{
	__u64 old, base;
	int i;

#pragma unroll
	for (i = 0; i < CHARGE_TRIES; i++) {
		old = *time;
		base = old > now ? old : now;
		if (base > now && base - now + cost > burst)
			return 0;
		if (__sync_val_compare_and_swap(time, old, base + cost) == old)
			return 1;
	}
	return 0;
}

static __always_inline int is_over(__u64 time, __u64 now, __u64 cost, __u64 burst)
{
	return cost && time > now && time - now + cost > burst;
}

/* The limit that this packet exceeds, or REASON_NONE after charging it to each. */
static __always_inline __u32 check_limits(struct limiter *limiter, struct packet *packet,
					  struct config *conf, __u64 now, __u64 length)
{
	__u64 at = now << LIMITER_SHIFT, burst = conf->burst;
	__u64 pps_cost = conf->pps_cost;
	__u64 byte_cost = conf->byte_cost * length >> BYTE_COST_SHIFT;
	__u64 syn_cost = packet->syn ? conf->syn_cost : 0;

	if (is_over(limiter->pps_time, at, pps_cost, burst))
		return REASON_LIMIT_PPS;
	if (is_over(limiter->byte_time, at, byte_cost, burst))
		return REASON_LIMIT_BPS;
	if (is_over(limiter->syn_time, at, syn_cost, burst))
		return REASON_LIMIT_SYN;
	if ((pps_cost && !charge(&limiter->pps_time, at, pps_cost, burst)) ||
	    (byte_cost && !charge(&limiter->byte_time, at, byte_cost, burst)) ||
	    (syn_cost && !charge(&limiter->syn_time, at, syn_cost, burst)))
		return REASON_LIMIT_CONTENDED;
	if (limiter->over_since_ns && limiter->pps_time < at + burst / 2 &&
	    limiter->byte_time < at + burst / 2 && limiter->syn_time < at + burst / 2)
		limiter->over_since_ns = 0;
	return REASON_NONE;
}

/* Block a source that stayed over a limit for longer than the grace. */
static __always_inline void block_source(struct limiter *limiter, struct address *address,
					 __u32 length, __u32 reason, struct config *conf,
					 __u64 now)
{
	struct auto_block *block = auto_blocks.lookup(address);
	struct auto_block fresh = {};
	__u64 until, strikes = 1, duration = conf->block_for_ns;
	__u32 doublings;

	limiter->over_since_ns = 0;
	if (block) {
		until = block->until_ns;
		if (until > now) {
			limiter->blocked = 1; /* lost to a CPU that still saw none */
			return;
		}
		if (now - until < STRIKES_FORGOTTEN_NS)
			strikes = block->strikes + 1;
	}
	doublings = strikes - 1 > DOUBLINGS ? DOUBLINGS : strikes - 1;
	if (duration > BLOCK_LONGEST_NS >> doublings)
		duration = BLOCK_LONGEST_NS;
	else
		duration <<= doublings;
	if (block) {
		if (__sync_val_compare_and_swap(&block->until_ns, until, now + duration) != until)
			return;
		block->set_ns = now;
		block->strikes = strikes;
		block->reason = reason;
		block->packets = 0;
		block->bytes = 0;
		block->ended = 0;
	} else {
		fresh.until_ns = now + duration;
		fresh.set_ns = now;
		fresh.strikes = strikes;
		fresh.reason = reason;
		if (auto_blocks.insert(address, &fresh))
			return;
	}
	limiter->blocked = 1;
	tell(EVENT_BLOCK_AUTO, address, length, now, reason, duration);
}

static __always_inline void end_auto_block(struct auto_block *block, struct address *address,
					   __u32 length, __u64 now)
{
	if (!__sync_val_compare_and_swap(&block->ended, 0, 1))
		tell(EVENT_BLOCK_END, address, length, now, block->until_ns, 1);
}

/* Whether an automatic block holds for a source; counts what it stops. */
static __always_inline int auto_blocked(struct limiter *limiter, struct address *address,
					__u32 prefix_length, struct config *conf, __u64 now,
					__u64 length)
{
	struct auto_block *block;

	if (!(conf->flags & FLAG_AUTO) || (limiter && !limiter->blocked))
		return 0;
	block = auto_blocks.lookup(address);
	if (block && block->until_ns > now) {
		if (!(conf->flags & FLAG_DRY_RUN)) {
			__sync_fetch_and_add(&block->packets, 1);
			__sync_fetch_and_add(&block->bytes, length);
		}
		return 1;
	}
	if (limiter)
		limiter->blocked = 0;
	if (block)
		end_auto_block(block, address, prefix_length, now);
	return 0;
}

/* The limiter of a source: in its row for IPv4, by /64 for IPv6. */
static __always_inline struct limiter *limiter_of(struct source *row, struct packet *packet,
						  struct config *conf)
{
	struct limiter fresh = { .blocked = 1 };
	struct limiter *limiter;

	if (packet->kind == PACKET_IPV4)
		return row ? &row->limiter : 0;
	limiter = net_limiters.lookup(&packet->source.high);
	if (!limiter && row && conf->flags & FLAG_LIMITS) {
		net_limiters.insert(&packet->source.high, &fresh);
		limiter = net_limiters.lookup(&packet->source.high);
	}
	return limiter;
}

/* Limits and automatic blocks: why this packet is over them, or REASON_NONE. */
static __always_inline __u32 limit_source(struct source *row, struct packet *packet,
					  struct config *conf, __u64 now, __u64 length)
{
	struct address address = packet->source;
	__u32 prefix_length = 128, reason;
	struct limiter *limiter;
	__u64 since;

	if (!(conf->flags & (FLAG_LIMITS | FLAG_AUTO)))
		return REASON_NONE;
	if (packet->kind == PACKET_IPV6) {
		address.low = 0;
		prefix_length = 64;
	}
	limiter = limiter_of(row, packet, conf);
	if (auto_blocked(limiter, &address, prefix_length, conf, now, length))
		return REASON_BLOCKED_AUTO;
	if (!limiter || !(conf->flags & FLAG_LIMITS))
		return REASON_NONE;
	reason = check_limits(limiter, packet, conf, now, length);
	if (reason == REASON_NONE)
		return reason;
	if (row && row->limited_ns != now)
		row->limited_ns = now;
	since = limiter->over_since_ns;
	if (!since)
		limiter->over_since_ns = now;
	else if (now - since >= conf->grace_ns && conf->block_for_ns &&
		 !(conf->flags & FLAG_DRY_RUN) && reason != REASON_LIMIT_CONTENDED)
		block_source(limiter, &address, prefix_length, reason, conf, now);
	return reason;
}

/* Count a drop on the row, or what the dry run would have dropped. */
static __always_inline void drop(struct decision *decision, __u32 reason, struct source *row,
				 struct cpu_stats *cpu, struct config *conf, __u64 length)
{
	decision->reason = reason;
	if (conf->flags & FLAG_DRY_RUN) {
		cpu->would_drop[reason & 15]++;
		if (row)
			__sync_fetch_and_add(&row->would_drop_packets, 1);
		return;
	}
	decision->action = XDP_DROP;
	cpu->drops[reason & 15]++;
	if (row) {
		__sync_fetch_and_add(&row->dropped_packets, 1);
		__sync_fetch_and_add(&row->dropped_bytes, length);
	}
}

static __always_inline void count_hit(__u32 slot, __u64 length)
{
	struct count *hits = rule_hits.lookup(&slot);

	if (hits) {
		hits->packets++;
		hits->bytes += length;
	}
}

/* Decide about the packet of a source, and keep that source's row. */
static __always_inline void protect(struct decision *decision, struct packet *packet,
				    struct cpu_stats *cpu, struct config *conf, __u64 now,
				    __u64 length)
{
	struct source *row = ip_tracker.lookup(&packet->source);
	__u32 rule, reason = REASON_NONE;

	if (!row) {
		row = add_source(&packet->source, cpu, conf, now);
		if (!row)
			cpu->untracked++;
	} else if (row->last_ns != now) {
		row->last_ns = now;
	}
	rule = rule_of(row, &packet->source, conf, now);
	if (rule & RULE_BLOCKED) {
		if (!(conf->flags & FLAG_DRY_RUN))
			count_hit(rule & RULE_SLOT, length);
		reason = rule & RULE_PREFIX ? REASON_BLOCKED_PREFIX : REASON_BLOCKED;
	} else if (rule & RULE_ALLOWED) {
		count_hit(rule & RULE_SLOT, length);
	} else if (!(rule & RULE_PROTECTED)) {
		reason = limit_source(row, packet, conf, now, length);
		if (reason == REASON_NONE && !row && conf->flags & FLAG_DROP_NEW)
			reason = REASON_NEW_SOURCE;
		if (reason != REASON_NONE || !row)
			cpu->flood_packets++;
		if (!row)
			cpu->flood_untracked++;
	}
	if (reason == REASON_NONE && packet->unparsed && conf->flags & FLAG_DROP_UNPARSED &&
	    !(rule & RULE_ALLOWED))
		reason = REASON_UNPARSED;
	if (reason != REASON_NONE)
		drop(decision, reason, row, cpu, conf, length);
	if (row && decision->action == XDP_PASS) {
		__sync_fetch_and_add(&row->passed_packets, 1);
		__sync_fetch_and_add(&row->passed_bytes, length);
	}
}

/* Once a tick of the coarse clock and CPU: does a flood begin, go on or end? */
static __always_inline void watch_flood(struct cpu_stats *cpu, struct config *conf, __u64 now)
{
	__u32 zero = 0;
	struct state *shared = state.lookup(&zero);
	struct address none = {};
	__u64 window, total, untracked, since;

	cpu->tick_ns = now;
	if (!shared)
		return;
	if (cpu->flood_packets) {
		__sync_fetch_and_add(&shared->flood_packets, cpu->flood_packets);
		__sync_fetch_and_add(&shared->flood_untracked, cpu->flood_untracked);
		cpu->flood_packets = 0;
		cpu->flood_untracked = 0;
	}
	total = shared->flood_packets;
	untracked = shared->flood_untracked;
	since = shared->flood_since_ns;
	window = shared->flood_window_ns;
	if ((__s64)(now - window) >= (__s64)FLOOD_WINDOW_NS &&
	    __sync_val_compare_and_swap(&shared->flood_window_ns, window, now) == window) {
		__sync_lock_test_and_set(&shared->flood_packets, 0);
		__sync_lock_test_and_set(&shared->flood_untracked, 0);
	}
	if (total >= conf->flood_pps) {
		shared->flood_last_ns = now;
		if (!since && !__sync_val_compare_and_swap(&shared->flood_since_ns, 0, now))
			tell(EVENT_FLOOD, &none, 0, now, total, untracked);
	} else if (since && (__s64)(now - shared->flood_last_ns) > (__s64)FLOOD_QUIET_NS &&
		   __sync_val_compare_and_swap(&shared->flood_since_ns, since, 0) == since) {
		tell(EVENT_FLOOD_END, &none, 0, now, now - since, 0);
	}
}

#endif
