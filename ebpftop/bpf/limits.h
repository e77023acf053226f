/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Limits for each source, and the automatic blocks that follow when one stays over them.
 *
 * Limits are GCRA on one 64-bit theoretical arrival time each, moved by compare-and-swap
 * (ITU-T I.371 annex A; no window edges, no refill arithmetic), by the coarse clock: exact on
 * average, since user space keeps the burst at two of its ticks or more.
 */
#ifndef EBPFTOP_LIMITS_H
#define EBPFTOP_LIMITS_H

#define STRIKES_FORGOTTEN_NS (24 * 3600 * SECOND_NS)
#define BLOCK_LONGEST_NS (30 * 24 * 3600 * SECOND_NS)
#define DOUBLINGS 63

/*
 * Move a theoretical arrival time on by one packet; 0 where it would run ahead too far. A time
 * that is over begins anew at this packet, by compare-and-swap; who loses that finds a time
 * ahead, which addition moves whoever else does, so that no packet is lost to contention.
 */
static __always_inline int charge(__u64 *time, __u64 now, __u64 cost, __u64 burst)
{
	__u64 old = *time;

	if (old <= now && __sync_val_compare_and_swap(time, old, now + cost) == old)
		return 1;
	old = __sync_fetch_and_add(time, cost);
	if (old <= now || old - now + cost <= burst)
		return 1;
	__sync_fetch_and_add(time, -cost);
	return 0;
}

static __always_inline int is_over(__u64 time, __u64 now, __u64 cost, __u64 burst)
{
	return cost && time > now && time - now + cost > burst;
}

/* The limit that this packet exceeds, or REASON_NONE after charging it to each. */
static __always_inline __u32 check_limits(struct run *run, struct limiter *limiter)
{
	struct config *conf = run->conf;
	__u64 at = run->now << LIMITER_SHIFT, burst = conf->burst;
	__u64 pps_cost = conf->pps_cost;
	__u64 byte_cost = conf->byte_cost * run->length >> BYTE_COST_SHIFT;
	__u64 syn_cost = run->packet->syn ? conf->syn_cost : 0;

	if (is_over(limiter->pps_time, at, pps_cost, burst))
		return REASON_LIMIT_PPS;
	if (is_over(limiter->byte_time, at, byte_cost, burst))
		return REASON_LIMIT_BPS;
	if (is_over(limiter->syn_time, at, syn_cost, burst))
		return REASON_LIMIT_SYN;
	if (!run->live)
		return REASON_NONE;
	if (pps_cost && !charge(&limiter->pps_time, at, pps_cost, burst))
		return REASON_LIMIT_PPS;
	if (byte_cost && !charge(&limiter->byte_time, at, byte_cost, burst))
		return REASON_LIMIT_BPS;
	if (syn_cost && !charge(&limiter->syn_time, at, syn_cost, burst))
		return REASON_LIMIT_SYN;
	if (limiter->over_since_ns && limiter->pps_time < at + burst / 2 &&
	    limiter->byte_time < at + burst / 2 && limiter->syn_time < at + burst / 2)
		limiter->over_since_ns = 0;
	return REASON_NONE;
}

/* Block a source that stayed over a limit for longer than the grace. */
static __always_inline void block_source(struct run *run, struct limiter *limiter,
					 struct address *address, __u32 length, __u32 reason)
{
	struct auto_block *block = auto_blocks.lookup(address);
	struct auto_block fresh = {};
	__u64 until, strikes = 1, duration = run->conf->block_for_ns, now = run->now;
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
	tell(run, EVENT_BLOCK_AUTO, address, length, reason, duration);
}

static __always_inline void end_auto_block(struct run *run, struct auto_block *block,
					   struct address *address, __u32 length)
{
	if (!__sync_val_compare_and_swap(&block->ended, 0, 1))
		tell(run, EVENT_BLOCK_END, address, length, block->until_ns, 1);
}

/* Whether an automatic block holds for a source; counts what it stops. */
static __always_inline int auto_blocked(struct run *run, struct limiter *limiter,
					struct address *address, __u32 prefix_length)
{
	struct auto_block *block;

	if (!(run->conf->flags & FLAG_AUTO) || (limiter && !limiter->blocked))
		return 0;
	block = auto_blocks.lookup(address);
	if (block && block->until_ns > run->now) {
		if (run->live && !(run->conf->flags & FLAG_DRY_RUN)) {
			__sync_fetch_and_add(&block->packets, 1);
			__sync_fetch_and_add(&block->bytes, run->length);
		}
		return 1;
	}
	if (!run->live)
		return 0;
	if (limiter)
		limiter->blocked = 0;
	if (block)
		end_auto_block(run, block, address, prefix_length);
	return 0;
}

/* The limiter of a source: in its row for IPv4, by /64 for IPv6. */
static __always_inline struct limiter *limiter_of(struct run *run, struct source *row)
{
	struct limiter fresh = { .blocked = 1 };
	struct packet *packet = run->packet;
	struct limiter *limiter;

	if (packet->kind == PACKET_IPV4)
		return row ? &row->limiter : 0;
	limiter = net_limiters.lookup(&packet->source.high);
	if (!limiter && row && run->live && run->conf->flags & FLAG_LIMITS) {
		net_limiters.insert(&packet->source.high, &fresh);
		limiter = net_limiters.lookup(&packet->source.high);
	}
	return limiter;
}

/* Limits and automatic blocks: why this packet is over them, or REASON_NONE. */
static __always_inline __u32 limit_source(struct run *run, struct source *row)
{
	struct address address = run->packet->source;
	__u32 prefix_length = 128, reason;
	struct config *conf = run->conf;
	struct limiter *limiter;
	__u64 since, now = run->now;

	if (!(conf->flags & (FLAG_LIMITS | FLAG_AUTO)))
		return REASON_NONE;
	if (run->packet->kind == PACKET_IPV6) {
		address.low = 0;
		prefix_length = 64;
	}
	limiter = limiter_of(run, row);
	if (auto_blocked(run, limiter, &address, prefix_length))
		return REASON_BLOCKED_AUTO;
	if (!limiter || !(conf->flags & FLAG_LIMITS))
		return REASON_NONE;
	reason = check_limits(run, limiter);
	if (reason == REASON_NONE || !run->live)
		return reason;
	if (row && row->limited_ns != now)
		row->limited_ns = now;
	since = limiter->over_since_ns;
	if (!since)
		limiter->over_since_ns = now;
	else if ((now - since > conf->grace_ns || !conf->grace_ns) && conf->block_for_ns &&
		 !(conf->flags & FLAG_DRY_RUN))
		block_source(run, limiter, &address, prefix_length, reason);
	return reason;
}

#endif
