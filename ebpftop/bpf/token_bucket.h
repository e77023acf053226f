/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Token buckets: what a packet costs, whether it may go, and when.
 *
 * A bucket is one number, changed by compare-and-swap alone. Its lowest bit names the one of
 * its class's two shapes that it is kept in: whoever changes a rate writes the other shape, and
 * then has `shape_control` change the number and the bit in one swap. A packet that read the
 * old shape loses that swap and looks again, so that none is charged at a rate that is not the
 * bucket's.
 */
#ifndef EBPFTOP_TOKEN_BUCKET_H
#define EBPFTOP_TOKEN_BUCKET_H

#define CAS_ATTEMPTS 4

/* A bucket as it was looked at, for one packet. */
struct account {
	struct traffic_class *class;
	struct bucket *bucket;
	__u64 before;    /* the bucket's number */
	__u64 owed;      /* line time */
	__u64 cost;      /* of the packet, line time */
	__u64 most;      /* what may be owed before it */
	__u64 burst;
};

/* What the verdict is made of, and then what it is. */
struct charge {
	struct account own, above;
	__u64 now;       /* line time */
	__u64 bytes;
	__u64 delay;     /* line time until it may leave */
	__u64 borrowed;
	__u64 mark;
};

/* Line time that lies ahead of the clock; both wrap. */
static __always_inline __u64 owed_by(__u64 number, __u64 now)
{
	__u64 ahead = (number - (now << 1)) >> 1;

	return ahead > MOST_OWED ? 0 : ahead;
}

static __always_inline __u64 line_time(__u64 byte_cost, __u64 bytes)
{
	return (bytes * byte_cost + (1ULL << (COST_SHIFT - 1))) >> COST_SHIFT;
}

static __always_inline __u64 less(__u64 from, __u64 amount)
{
	return from > amount ? from - amount : 0;
}

static __always_inline void look(struct account *account, __u64 now, __u64 bytes)
{
	struct bucket_shape *shape;

	account->before = *(volatile __u64 *)&account->bucket->time;
	shape = &account->class->shapes[account->before & 1];
	account->owed = owed_by(account->before, now);
	account->cost = line_time(shape->byte_cost, bytes);
	account->burst = shape->burst;
	/* A packet larger than the whole burst may go where the bucket is full: it leaves a debt. */
	account->most = less(shape->burst, account->cost);
}

/* Put a packet on the bucket, if no more than `most` less `reserve` is owed before it. */
static __always_inline int take(struct account *account, __u64 now, __u64 bytes,
				__u64 reserve, int forced)
{
	__u64 before, after;
	int i;

	for (i = 0; i < CAS_ATTEMPTS; i++) {
		look(account, now, bytes);
		if (!forced && account->owed > less(account->most, reserve))
			return 0;
		before = account->before;
		after = (now + account->owed + account->cost) << 1 | (before & 1);
		if (__sync_val_compare_and_swap(&account->bucket->time, before, after) == before)
			return 1;
	}
	/* Other cores kept winning: it was within the rate when looked at, so charge it. */
	before = __sync_fetch_and_add(&account->bucket->time, account->cost << 1);
	if ((before ^ account->before) & 1) {
		after = line_time(account->class->shapes[before & 1].byte_cost, bytes);
		__sync_fetch_and_add(&account->bucket->time, (after - account->cost) << 1);
	}
	return 1;
}

/* What of a parent's burst a class may not borrow. */
static __always_inline __u64 reserve_of(struct charge *charge)
{
	return charge->above.burst * charge->own.class->reserve / RESERVE_SHARES;
}

/* Whether it may pass now. The parent is a ceiling; what it has left over is lent. */
static __always_inline int police(struct charge *charge)
{
	struct account *own = &charge->own, *above = &charge->above;
	__u64 mark, reserve;
	int within;

	if (!above->bucket) {
		within = take(own, charge->now, charge->bytes, 0, 0);
		charge->mark = own->owed >= own->class->shapes[own->before & 1].mark;
		return within;
	}
	look(own, charge->now, charge->bytes);
	look(above, charge->now, charge->bytes);
	within = own->owed <= own->most;
	mark = own->class->shapes[own->before & 1].mark;
	reserve = reserve_of(charge);
	if (!take(above, charge->now, charge->bytes, within ? 0 : reserve, 0))
		return 0;
	if (within)
		take(own, charge->now, charge->bytes, 0, 1);
	charge->borrowed = !within;
	/* While its parent has plenty to lend, a class is not congested. */
	charge->mark = own->owed >= mark && above->owed * 2 >= above->burst - reserve;
	return 1;
}

/* Sets when it may leave; 0 where that would be beyond the horizon. */
static __always_inline int pace(struct charge *charge, struct shaper_config *conf)
{
	struct account *own = &charge->own, *above = &charge->above;
	__u64 delay, behind;

	look(own, charge->now, charge->bytes);
	delay = less(own->owed, own->most);
	if (above->bucket) {
		look(above, charge->now, charge->bytes);
		behind = less(above->owed, above->most);
		if (delay > behind &&
		    take(above, charge->now, charge->bytes, reserve_of(charge), 0)) {
			charge->borrowed = 1;
			return 1;
		}
		if (behind > delay)
			delay = behind;
	}
	if (delay > conf->horizon)
		return 0;
	charge->delay = delay;
	charge->mark = delay >= conf->mark;
	take(own, charge->now, charge->bytes, 0, 1);
	if (above->bucket)
		take(above, charge->now, charge->bytes, 0, 1);
	return 1;
}

/* `time` times a number of 32 bits, divided by 2^shift; at most half of MOST_OWED. */
static __always_inline __u64 scaled(__u64 time, __u64 factor, __u64 shift)
{
	__u64 high = (time >> 32) * factor, most = MOST_OWED / 2;
	__u64 low = high + (((time & 0xffffffff) * factor + (1ULL << 31)) >> 32);

	if (shift >= 32)
		return low >> (shift - 32) > most ? most : low >> (shift - 32);
	return low > most >> (32 - shift) ? most : low << (32 - shift);
}

#endif
