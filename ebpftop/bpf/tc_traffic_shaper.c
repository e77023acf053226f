/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * shape_ingress, shape_egress, shape_control: a token bucket for each traffic class.
 *
 * Hook    TC, as TCX links or clsact filters, in both directions; they end with "next", so
 *         that other programs on the hook see every packet that is not dropped.
 * Stages  find the address (source on ingress, destination on egress), find its class (the
 *         longest prefix that holds it, remembered for each address), charge its bucket.
 * Shaping police drops over the rate and marks before; pace sets when fq lets it leave; htb
 *         names the HTB class that will hold it back.
 * Control shape_control is never attached; user space runs it on a request of its own making,
 *         to have a bucket kept at another rate.
 * Maps    shaper_maps.h. No lock: a bucket is one compare-and-swap.
 * Limits  one parent above a class; two VLAN tags in the packet and one in its metadata.
 */
#include <linux/types.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "shaper_maps.h"
#include "shaper_packet.h"
#include "token_bucket.h"

#define NEXT (-1)
#define DROP 2

#define SWITCH_ATTEMPTS 64

static __always_inline __u64 clock_ns(void)
{
#ifdef TEST_CLOCK
	__u32 zero = 0;
	__u64 *now = shaper_clock.lookup(&zero);

	return now ? *now : 0;
#else
	return bpf_ktime_get_ns();
#endif
}

/* A tenth of the cost. It lags by a tick or two, which makes a bucket hand out less, not more. */
static __always_inline __u64 coarse_clock_ns(void)
{
#ifdef TEST_CLOCK
	return clock_ns();
#else
	return bpf_ktime_get_coarse_ns();
#endif
}

/* Slot plus 1 of the class of an address, 0 for none. */
static __always_inline __u64 search(struct packet *packet, __u32 direction)
{
	struct classified key = { .length = 160, .direction = bpf_htonl(direction) };
	__u64 *number;

	__builtin_memcpy(key.word, &packet->address, sizeof(key.word));
	number = ip_classification.lookup(&key);
	return number ? *number : 0;
}

static __always_inline void count(struct count *count, __u64 packets, __u64 bytes)
{
	count->packets += packets;
	count->bytes += bytes;
}

/* Looks the class up and charges it; returns the verdict. */
static __always_inline int shape(struct __sk_buff *skb, struct packet *packet,
				 struct shaper_config *conf, __u64 number, __u64 packets,
				 __u64 bytes, __u32 direction)
{
	struct charge charge = { .bytes = bytes };
	__u32 slot = number - 1, above;
	struct traffic_class *class;
	struct class_stats *count;
	__u64 now, leaves;
	int passes = 1;

	charge.own.class = class = traffic_classes.lookup(&slot);
	charge.own.bucket = buckets.lookup(&slot);
	count = class_stats.lookup(&slot);
	if (!class || !charge.own.bucket || !count)
		return NEXT;
	count->packets += packets;
	count->bytes += bytes;
	if (direction == EGRESS && class->shaping == SHAPING_HTB) {
		skb->priority = class->htb;
		count->queued_bytes += bytes;
		return NEXT;
	}
	if (class->parent) {
		above = class->parent - 1;
		charge.above.class = traffic_classes.lookup(&above);
		if (charge.above.class)
			charge.above.bucket = buckets.lookup(&above);
	}
	now = class->shapes[charge.own.bucket->time & 1].coarse ? coarse_clock_ns() : clock_ns();
	charge.now = now << TIME_SHIFT;
	if (class->shaping == SHAPING_POLICE) {
		passes = police(&charge);
	} else if (direction == EGRESS && class->shaping == SHAPING_PACE) {
		passes = pace(&charge, conf);
		leaves = now + ((charge.delay + (1 << TIME_SHIFT) - 1) >> TIME_SHIFT);
		/* TCP may have asked for later; a time of another clock is no time at all. */
		if (passes && (skb->tstamp < leaves ||
			       skb->tstamp - now > conf->horizon >> TIME_SHIFT))
			skb->tstamp = leaves;
	}
	if (charge.borrowed)
		count->borrowed_bytes += bytes;
	if (!passes) {
		count->dropped_packets += packets;
		count->dropped_bytes += bytes;
		return DROP;
	}
	if (charge.mark && packet->ecn != ECN_NOT_CAPABLE && packet->ecn != ECN_CONGESTED &&
	    bpf_skb_ecn_set_ce(skb))
		count->marked_packets += packets;
	return NEXT;
}

/* Slot plus 1 of the class of an address that is sent to, 0 for none; `row` is its own. */
static __always_inline __u64 sent_class(struct packet *packet, struct shaper_config *conf,
					struct sent **row)
{
	__u64 generation = conf->generation << 32, policy = generation;
	struct sent *known = sent_to.lookup(&packet->address);

	*row = known;
	if (known) {
		policy = *(volatile __u64 *)&known->policy;
		if (!((policy ^ generation) >> 32))
			return (__u32)policy;
		policy = generation;
	}
	if (conf->flags & SHAPER_EGRESS)
		policy |= search(packet, EGRESS);
	if (known)
		*(volatile __u64 *)&known->policy = policy;
	return (__u32)policy;
}

/* What was dropped was not sent; what is neither counted nor classified needs no row. */
static __always_inline void count_sent(struct packet *packet, struct shaper_config *conf,
				       struct sent *row, __u64 number, __u64 packets,
				       __u64 bytes, int passes)
{
	struct sent fresh = {};

	passes = passes && conf->flags & SHAPER_COUNT_SENT;
	if (row && passes) {
		__sync_fetch_and_add(&row->packets, packets);
		__sync_fetch_and_add(&row->bytes, bytes);
	} else if (!row && (passes || number)) {
		fresh.policy = conf->generation << 32 | number;
		if (passes) {
			fresh.packets = packets;
			fresh.bytes = bytes;
		}
		fresh.first_ns = clock_ns();
		sent_to.update(&packet->address, &fresh);
	}
}

/* What matches no class is not remembered: a flood of forged sources must not wipe the rest. */
static __always_inline __u64 cached_class(struct packet *packet, struct shaper_config *conf)
{
	__u64 *known = ingress_cache.lookup(&packet->address), policy, number;

	if (known) {
		policy = *(volatile __u64 *)known;
		if (policy >> 32 == (__u32)conf->generation)
			return (__u32)policy;
	}
	number = search(packet, INGRESS);
	policy = conf->generation << 32 | number;
	if (number)
		ingress_cache.update(&packet->address, &policy);
	else if (known)
		ingress_cache.delete(&packet->address);
	return number;
}

/* What both directions have in common: whom it is about, what it weighs, what becomes of it. */
static __always_inline int run(struct __sk_buff *skb, __u32 direction)
{
	__u64 wanted = direction == EGRESS ? SHAPER_EGRESS | SHAPER_COUNT_SENT : SHAPER_INGRESS;
	__u64 bytes, packets, number = 0;
	struct packet packet = {};
	struct shaper_config *conf;
	struct sent *row = 0;
	struct shaper_stats *cpu;
	int verdict = NEXT;
	__u32 zero = 0;

	conf = shaper_config.lookup(&zero);
	cpu = shaper_stats.lookup(&zero);
	if (!conf || !cpu || !(conf->flags & wanted))
		return NEXT;
	read_headers(skb, &packet, direction);
	packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
	bytes = wire_bytes(skb, &packet, packets, direction);
	if (packet.kind == PACKET_NEIGHBOUR) {
		count(&cpu->exempt[direction], packets, bytes);
		return NEXT;
	}
	if (packet.kind == PACKET_IP)
		number = direction == EGRESS ? sent_class(&packet, conf, &row) :
					       cached_class(&packet, conf);
	if (number)
		verdict = shape(skb, &packet, conf, number, packets, bytes, direction);
	if (direction == EGRESS && packet.kind == PACKET_IP)
		count_sent(&packet, conf, row, number, packets, bytes, verdict == NEXT);
	count(number ? &cpu->classified[direction] : &cpu->unclassified[direction], packets, bytes);
	return verdict;
}

int shape_ingress(struct __sk_buff *skb)
{
	return run(skb, INGRESS);
}

int shape_egress(struct __sk_buff *skb)
{
	return run(skb, EGRESS);
}

/* Have a bucket kept in the other shape of its class; returns whether it is. */
int shape_control(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct shape_request *request = data;
	__u64 before, now, after, owed;
	struct bucket *bucket;
	__u32 slot;
	int i;

	if ((void *)(request + 1) > data_end)
		return 0;
	slot = request->slot;
	bucket = buckets.lookup(&slot);
	if (!bucket)
		return 0;
	for (i = 0; i < SWITCH_ATTEMPTS; i++) {
		before = *(volatile __u64 *)&bucket->time;
		if ((before & 1) == request->shape)
			return 1;
		now = clock_ns() << TIME_SHIFT;
		owed = owed_by(before, now);
		after = before ^ 1;  /* a full bucket stays as it is */
		if (owed)
			after = (now + scaled(owed, request->factor, request->shift & 63)) << 1 |
				(after & 1);
		if (__sync_val_compare_and_swap(&bucket->time, before, after) == before)
			return 1;
	}
	return 0;
}
