/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is told: changes of state, never single packets. A slot of `events` is taken by its
 * sequence number, so that any number of readers can follow without writing.
 */
#ifndef EBPFTOP_EVENTS_H
#define EBPFTOP_EVENTS_H

#define SECOND_NS 1000000000ULL
#define FLOOD_WINDOW_NS SECOND_NS
#define FLOOD_QUIET_NS (3 * SECOND_NS)

static __always_inline void tell(struct run *run, __u32 kind, struct address *address,
				 __u32 length, __u64 value0, __u64 value1)
{
	__u32 zero = 0, slot;
	struct state *shared = state.lookup(&zero);
	struct event *event;
	__u64 seq;

	if (!shared || !run->live)
		return;
	seq = __sync_fetch_and_add(&shared->event_seq, 1) + 1;
	slot = seq % EVENTS;
	event = events.lookup(&slot);
	if (!event)
		return;
	__sync_lock_test_and_set(&event->seq, 0);
	event->time_ns = run->now;
	event->address = *address;
	event->length = length;
	event->kind = kind;
	event->value[0] = value0;
	event->value[1] = value1;
	__builtin_memset(event->text, 0, sizeof(event->text));
	__sync_lock_test_and_set(&event->seq, seq);
}

/* Once a tick of the coarse clock and CPU: who it is, and does a flood begin, go on or end? */
static __always_inline void watch_flood(struct run *run)
{
	struct cpu_stats *cpu = run->cpu;
	__u64 now = run->now;
	__u32 zero = 0;
	struct state *shared = state.lookup(&zero);
	struct address none = {};
	__u64 window, total, untracked, since;

	cpu->tick_ns = now;
	cpu->number = bpf_get_smp_processor_id() + 1;
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
	if (total >= run->conf->flood_pps) {
		shared->flood_last_ns = now;
		if (!since && !__sync_val_compare_and_swap(&shared->flood_since_ns, 0, now))
			tell(run, EVENT_FLOOD, &none, 0, total, untracked);
	} else if (since && (__s64)(now - shared->flood_last_ns) > (__s64)FLOOD_QUIET_NS &&
		   __sync_val_compare_and_swap(&shared->flood_since_ns, since, 0) == since) {
		tell(run, EVENT_FLOOD_END, &none, 0, now - since, 0);
	}
}

#endif
