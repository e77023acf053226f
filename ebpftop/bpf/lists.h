/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Allow list, blocks and protected addresses, and the rows of sources.
 *
 * A source's row caches which rule holds for it, stamped with the generation of the lists:
 * a known source costs one hash lookup, however long the lists are. User space raises the
 * generation after each change, and each row looks again at its next packet.
 */
#ifndef EBPFTOP_LISTS_H
#define EBPFTOP_LISTS_H

#define NEW_SOURCES_WINDOW_NS (SECOND_NS / 8)
#define NESTED_ENDED_BLOCKS 4

/* Mark a rule whose time is over as ended; one CPU wins and tells it. */
static __always_inline int end_rule(struct run *run, struct rule *rule)
{
	__u64 until = rule->until_ns;

	if (!run->live || until <= RULE_ENDED || until > run->now ||
	    __sync_val_compare_and_swap(&rule->until_ns, until, RULE_ENDED) != until)
		return 0;
	tell(run, EVENT_BLOCK_END, &rule->address, rule->length, until, 0);
	return 1;
}

static __always_inline int rule_holds(struct rule *rule, __u64 now)
{
	return rule->until_ns == 0 || rule->until_ns > now;
}

/* Find the rule for a source: RULE_* bits and a slot, or 0. */
static __always_inline __u32 find_rule(struct run *run, struct address *address)
{
	struct config *conf = run->conf;
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
			if (rule && rule_holds(rule, run->now))
				return RULE_BLOCKED | slot;
			if (rule)
				end_rule(run, rule);
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
			if (rule_holds(rule, run->now)) {
				found = RULE_BLOCKED | RULE_PREFIX | slot;
				break;
			}
			end_rule(run, rule);
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
static __always_inline __u32 rule_of(struct run *run, struct source *row,
				     struct address *address)
{
	__u64 policy = row ? row->policy : 0;
	__u32 found = policy, slot = found & RULE_SLOT;
	struct rule *rule;

	if (row && policy >> 32 == run->conf->generation) {
		if (!(found & RULE_BLOCKED))
			return found;
		rule = rules.lookup(&slot);
		if (rule && rule_holds(rule, run->now))
			return found;
	}
	found = find_rule(run, address);
	if (row && run->live)
		row->policy = run->conf->generation << 32 | found;
	return found;
}

/* Whether this CPU may add another row in the present window, which begins anew when it is over. */
static __always_inline int may_add_source(struct run *run)
{
	struct cpu_stats *cpu = run->cpu;

	if (run->now - cpu->budget_window_ns >= NEW_SOURCES_WINDOW_NS) {
		if (!run->live)
			return run->conf->new_sources != 0;
		cpu->budget_window_ns = run->now;
		cpu->budget_used = 0;
	}
	return cpu->budget_used < run->conf->new_sources;
}

/* Add a row for a source that has none, within this CPU's budget for new ones. */
static __always_inline struct source *add_source(struct run *run, struct address *address)
{
	struct cpu_stats *cpu = run->cpu;
	__u64 now = run->now;
	__u32 zero = 0;
	struct state *shared;
	struct source fresh = {};
	struct source *row;

	if (!run->live || !may_add_source(run))
		return 0;
	cpu->budget_used++;
	fresh.owner = cpu->number;
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
			tell(run, EVENT_TABLE_FULL, address, 128, 0, 0);
		return 0;
	}
	row = ip_tracker.lookup(address);
	if (shared && __sync_fetch_and_add(&shared->sources_added, 1) + 1 == CAPACITY_SOURCES &&
	    !__sync_val_compare_and_swap(&shared->table_full_ns, 0, now))
		tell(run, EVENT_TABLE_FULL, address, 128, CAPACITY_SOURCES, 0);
	return row;
}

#endif
