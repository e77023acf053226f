/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * shape_ingress, shape_egress: a token bucket for each traffic class.
 *
 * Hook    TC, as TCX links or clsact filters, in both directions; they end with "next", so
 *         that other programs on the hook see every packet that is not dropped.
 * Stages  find the address (source on ingress, destination on egress), find its class (the
 *         longest prefix that holds it, remembered for each address), charge its bucket.
 * Shaping police drops over the rate and marks before; pace sets when fq lets it leave; htb
 *         names the HTB class that will hold it back.
 * Maps    shaper_maps.h. No lock: a bucket is one compare-and-swap.
 * Limits  one parent above a class; two VLAN tags in the packet and one in its metadata.
 */
#include <linux/types.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "shaper_maps.h"

#define NEXT (-1)
#define DROP 2

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_QINQ_OLD 0x9100
#define VLAN_TAGS 2
#define VLAN_BYTES 4

#define NEXT_TCP 6
#define NEXT_ICMPV6 58
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_REDIRECT 137

#define ECN_BITS 3
#define ECN_NOT_CAPABLE 0
#define ECN_CONGESTED 3

/* Ethernet, two tags, IPv6, and the first bytes of TCP up to its header's length. */
#define HEADER_BYTES (sizeof(struct ethhdr) + 2 * VLAN_BYTES + sizeof(struct ipv6hdr) + 14)

#define CAS_ATTEMPTS 4

enum packet_kind { PACKET_OTHER, PACKET_NEIGHBOUR, PACKET_IP };

struct packet {
	struct address address;
	__u32 kind;      /* enum packet_kind */
	__u32 ecn;       /* 0 to 3, RFC 3168 */
	__u32 headers;   /* bytes before the payload, where that is known */
};

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

/* What the verdict is made of, and then what it is. */
struct charge {
	struct traffic_class *class, *parent;
	struct bucket *bucket, *parent_bucket;
	__u64 now;       /* line time */
	__u64 bytes;
	__u64 delay;     /* line time until it may leave */
	__u64 borrowed;
	__u64 mark;
};

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

static __always_inline void parse_ipv4(struct packet *packet, void *at, void *data_end,
				       __u32 direction)
{
	struct iphdr *ip = at;
	__u8 *l4;

	if (at + sizeof(*ip) > data_end || ip->version != 4 || ip->ihl < 5)
		return;
	packet->kind = PACKET_IP;
	packet->ecn = ip->tos & ECN_BITS;
	packet->address.high = 0;
	packet->address.low = (__u64)(direction == EGRESS ? ip->daddr : ip->saddr) << 32 |
			      bpf_htonl(0xffff);
	packet->headers += ip->ihl * 4 + 8;
	l4 = at + sizeof(*ip);
	if (ip->protocol == NEXT_TCP && ip->ihl == 5 && (void *)(l4 + 13) <= data_end)
		packet->headers += (l4[12] >> 4) * 4 - 8;
}

static __always_inline void parse_ipv6(struct packet *packet, void *at, void *data_end,
				       __u32 direction)
{
	struct ipv6hdr *ip = at;
	__u8 *l4 = at + sizeof(*ip);

	if (at + sizeof(*ip) > data_end || ip->version != 6)
		return;
	packet->kind = PACKET_IP;
	packet->ecn = ip->flow_lbl[0] >> 4 & ECN_BITS;
	if (direction == EGRESS)
		__builtin_memcpy(&packet->address, &ip->daddr, sizeof(packet->address));
	else
		__builtin_memcpy(&packet->address, &ip->saddr, sizeof(packet->address));
	packet->headers += sizeof(*ip) + 8;
	if (ip->nexthdr == NEXT_TCP && (void *)(l4 + 13) <= data_end)
		packet->headers += (l4[12] >> 4) * 4 - 8;
	else if (ip->nexthdr == NEXT_ICMPV6 && ip->hop_limit == 255 &&
		 (void *)(l4 + 1) <= data_end && l4[0] >= ICMPV6_ROUTER_SOLICITATION &&
		 l4[0] <= ICMPV6_REDIRECT) /* RFC 4861: others were forwarded, and are forged */
		packet->kind = PACKET_NEIGHBOUR;
}

static __always_inline void parse(struct packet *packet, void *data, void *data_end,
				  __u32 direction)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = data + sizeof(*ethernet);
	__u32 ethertype;
	int i;

	packet->kind = PACKET_OTHER;
	packet->headers = 0;
	if ((void *)(ethernet + 1) > data_end)
		return;
	ethertype = bpf_ntohs(ethernet->h_proto);
	for (i = 0; i < VLAN_TAGS; i++) {
		if (ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ &&
		    ethertype != ETHERTYPE_QINQ_OLD)
			break;
		if ((void *)(tag + 1) > data_end)
			return;
		ethertype = bpf_ntohs(tag->ethertype);
		tag++;
	}
	packet->headers = (void *)tag - data;
	if (ethertype == ETHERTYPE_IPV4)
		parse_ipv4(packet, tag, data_end, direction);
	else if (ethertype == ETHERTYPE_IPV6)
		parse_ipv6(packet, tag, data_end, direction);
	else if (ethertype == ETHERTYPE_ARP)
		packet->kind = PACKET_NEIGHBOUR;
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

static __always_inline __u64 owed(struct bucket *bucket, __u64 now)
{
	__u64 ahead = *(volatile __u64 *)&bucket->time - now;

	return ahead > MOST_OWED ? 0 : ahead;
}

static __always_inline __u64 line_time(struct traffic_class *class, __u64 bytes)
{
	return (bytes * class->byte_cost + (1ULL << (COST_SHIFT - 1))) >> COST_SHIFT;
}

/* A packet larger than the whole burst may go where the bucket is full, and leaves a debt. */
static __always_inline __u64 room(__u64 burst, __u64 cost)
{
	return cost < burst ? burst - cost : 0;
}

/* Put `cost` on the bucket if no more than `most` is owed before it, and say what was. */
static __always_inline int take(struct bucket *bucket, __u64 now, __u64 cost, __u64 most,
				__u64 *was)
{
	__u64 before, ahead;
	int i;

	for (i = 0; i < CAS_ATTEMPTS; i++) {
		before = *(volatile __u64 *)&bucket->time;
		ahead = before - now;
		if (ahead > MOST_OWED)
			ahead = 0;
		*was = ahead;
		if (ahead > most)
			return 0;
		if (__sync_val_compare_and_swap(&bucket->time, before, now + ahead + cost) == before)
			return 1;
	}
	/* Other cores kept winning: it was within the rate when looked at, so charge it. */
	__sync_fetch_and_add(&bucket->time, cost);
	return 1;
}

/* Whether it may pass now. The parent is a ceiling; what it has left over is lent. */
static __always_inline int police(struct charge *charge)
{
	struct traffic_class *class = charge->class, *parent = charge->parent;
	__u64 cost = line_time(class, charge->bytes), most = room(class->burst, cost);
	__u64 above, owes, parent_owes, within;

	if (!parent || !charge->parent_bucket) {
		within = take(charge->bucket, charge->now, cost, most, &owes);
		charge->mark = owes >= class->mark;
		return within;
	}
	owes = owed(charge->bucket, charge->now);
	within = owes <= most;
	above = line_time(parent, charge->bytes);
	most = room(parent->burst, above);
	if (!within)
		most = most > class->reserve ? most - class->reserve : 0;
	if (!take(charge->parent_bucket, charge->now, above, most, &parent_owes))
		return 0;
	if (within)
		take(charge->bucket, charge->now, cost, MOST_OWED, &owes);
	charge->borrowed = !within;
	/* While its parent has plenty to lend, a class is not congested. */
	charge->mark = owes >= class->mark && parent_owes * 2 >= parent->burst - class->reserve;
	return 1;
}

/* How long until a bucket has room for `cost`. */
static __always_inline __u64 wait(struct bucket *bucket, __u64 now, __u64 burst, __u64 cost)
{
	__u64 ahead = owed(bucket, now), most = room(burst, cost);

	return ahead > most ? ahead - most : 0;
}

/* Sets when it may leave; 0 where that would be beyond the horizon. */
static __always_inline int pace(struct charge *charge, struct shaper_config *conf)
{
	struct traffic_class *class = charge->class, *parent = charge->parent;
	__u64 cost = line_time(class, charge->bytes), now = charge->now, above = 0;
	__u64 delay = wait(charge->bucket, now, class->burst, cost), behind = 0, owes;

	if (parent && charge->parent_bucket) {
		above = line_time(parent, charge->bytes);
		behind = wait(charge->parent_bucket, now, parent->burst, above);
		if (delay > behind &&
		    take(charge->parent_bucket, now, above,
			 room(parent->burst, above) > class->reserve ?
			 room(parent->burst, above) - class->reserve : 0, &owes)) {
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
	take(charge->bucket, now, cost, MOST_OWED, &owes);
	if (parent && charge->parent_bucket)
		take(charge->parent_bucket, now, above, MOST_OWED, &owes);
	return 1;
}

/* Looks the class up and charges it; returns the verdict. */
static __always_inline int shape(struct __sk_buff *skb, struct packet *packet,
				 struct shaper_config *conf, __u64 number, __u64 packets,
				 __u64 bytes, __u32 direction)
{
	struct charge charge = { .bytes = bytes };
	__u32 slot = number - 1, above;
	struct class_stats *count;
	__u64 now, leaves;
	int passes = 1;

	charge.class = traffic_classes.lookup(&slot);
	charge.bucket = buckets.lookup(&slot);
	count = class_stats.lookup(&slot);
	if (!charge.class || !charge.bucket || !count)
		return NEXT;
	count->packets += packets;
	count->bytes += bytes;
	if (direction == EGRESS && charge.class->shaping == SHAPING_HTB) {
		skb->priority = charge.class->htb;
		count->queued_packets += packets;
		count->queued_bytes += bytes;
		return NEXT;
	}
	if (charge.class->parent) {
		above = charge.class->parent - 1;
		charge.parent = traffic_classes.lookup(&above);
		charge.parent_bucket = buckets.lookup(&above);
	}
	now = charge.class->coarse ? coarse_clock_ns() : clock_ns();
	charge.now = now << TIME_SHIFT;
	if (charge.class->shaping == SHAPING_POLICE) {
		passes = police(&charge);
	} else if (direction == EGRESS && charge.class->shaping == SHAPING_PACE) {
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

/* Make the headers readable, which may lie in fragments, and parse them. */
static __always_inline void read_headers(struct __sk_buff *skb, struct packet *packet,
					 __u32 direction)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;

	if (data + HEADER_BYTES > data_end && skb->len > data_end - data) {
		bpf_skb_pull_data(skb, skb->len < HEADER_BYTES ? skb->len : HEADER_BYTES);
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
	}
	parse(packet, data, data_end, direction);
}

/* Bytes on the wire, those of the headers that segmentation will add included. */
static __always_inline __u64 wire_bytes(struct __sk_buff *skb, struct packet *packet,
					__u64 segments, __u32 direction)
{
	__u64 bytes = skb->len, whole = skb->wire_len;

	if (segments > 1)
		bytes += (segments - 1) * packet->headers;
	if (direction == EGRESS && whole > skb->len)
		bytes = whole;
	if (skb->vlan_present)
		bytes += segments * VLAN_BYTES;
	return bytes;
}

static __always_inline __u64 count_sent(struct packet *packet, struct shaper_config *conf,
					__u64 packets, __u64 bytes)
{
	struct sent *row = sent_to.lookup(&packet->address), fresh = {};
	__u64 generation = conf->generation << 32, policy;

	policy = row ? *(volatile __u64 *)&row->policy : 0;
	if (!row || (policy ^ generation) >> 32) {
		policy = generation;
		if (conf->flags & SHAPER_EGRESS)
			policy |= search(packet, EGRESS);
		if (row)
			*(volatile __u64 *)&row->policy = policy;
	}
	if (row && conf->flags & SHAPER_COUNT_SENT) {
		__sync_fetch_and_add(&row->packets, packets);
		__sync_fetch_and_add(&row->bytes, bytes);
	} else if (!row && (conf->flags & SHAPER_COUNT_SENT || (__u32)policy)) {
		fresh.policy = policy;
		if (conf->flags & SHAPER_COUNT_SENT) {
			fresh.packets = packets;
			fresh.bytes = bytes;
		}
		fresh.first_ns = clock_ns();
		sent_to.update(&packet->address, &fresh);
	}
	return (__u32)policy;
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

int shape_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct shaper_config *conf;
	struct shaper_stats *cpu;
	__u64 bytes, packets, number;
	__u32 zero = 0;

	conf = shaper_config.lookup(&zero);
	cpu = shaper_stats.lookup(&zero);
	if (!conf || !cpu || !(conf->flags & SHAPER_INGRESS))
		return NEXT;
	read_headers(skb, &packet, INGRESS);
	packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
	bytes = wire_bytes(skb, &packet, packets, INGRESS);
	if (packet.kind == PACKET_NEIGHBOUR) {
		cpu->exempt[INGRESS].packets += packets;
		cpu->exempt[INGRESS].bytes += bytes;
		return NEXT;
	}
	number = packet.kind == PACKET_IP ? cached_class(&packet, conf) : 0;
	if (!number) {
		cpu->unclassified[INGRESS].packets += packets;
		cpu->unclassified[INGRESS].bytes += bytes;
		return NEXT;
	}
	cpu->classified[INGRESS].packets += packets;
	cpu->classified[INGRESS].bytes += bytes;
	return shape(skb, &packet, conf, number, packets, bytes, INGRESS);
}

int shape_egress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct shaper_config *conf;
	struct shaper_stats *cpu;
	__u64 bytes, packets, number;
	__u32 zero = 0;

	conf = shaper_config.lookup(&zero);
	cpu = shaper_stats.lookup(&zero);
	if (!conf || !cpu || !(conf->flags & (SHAPER_EGRESS | SHAPER_COUNT_SENT)))
		return NEXT;
	read_headers(skb, &packet, EGRESS);
	packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
	bytes = wire_bytes(skb, &packet, packets, EGRESS);
	if (packet.kind == PACKET_NEIGHBOUR) {
		cpu->exempt[EGRESS].packets += packets;
		cpu->exempt[EGRESS].bytes += bytes;
		return NEXT;
	}
	number = packet.kind == PACKET_IP ? count_sent(&packet, conf, packets, bytes) : 0;
	if (!number) {
		cpu->unclassified[EGRESS].packets += packets;
		cpu->unclassified[EGRESS].bytes += bytes;
		return NEXT;
	}
	cpu->classified[EGRESS].packets += packets;
	cpu->classified[EGRESS].bytes += bytes;
	return shape(skb, &packet, conf, number, packets, bytes, EGRESS);
}
