/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that cannot be sent on are answered with an ICMP error: too big for the way behind
 * us, or on their last hop. It is built around the packet as its sender sent it, before
 * anything is rewritten, and comes from the VIP; the stack would quote addresses that the
 * sender does not know, or say nothing where forwarding is off.
 */
#ifndef EBPFTOP_ANSWERS_H
#define EBPFTOP_ANSWERS_H

/* Errors a CPU may send in each NEW_SOURCES_WINDOW_NS: 1024 a second, as the stack's limit. */
#define ANSWERS 128
#define ANSWER_HOPS 64
#define ANSWER_TOS 0xc0         /* internetwork control (RFC 1812, 4.3.2.5) */
#define SUM_AT_ONCE 512         /* what bpf_csum_diff takes in every kernel */

/* As much of a packet as keeps an error within what everyone can receive (RFC 1812, 4.3.2.3;
 * RFC 4443, 2.4), or of a shorter packet, what tells its flow. */
#define IPV4_QUOTE 548
#define IPV6_QUOTE 1232
#define SHORT_QUOTE 8

#define DONT_FRAGMENT 0x4000
#define FRAGMENTATION_NEEDED 4
#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define IPV4_MULTICAST 224
#define IPV6_MULTICAST 0xff

/* Whether a packet is larger than its way takes. Merged packets have no size of their own. */
static __always_inline int is_too_big(struct run *run, __u64 mtu)
{
	return mtu && run->packet->end - run->packet->l3 > mtu &&
	       !(run->conf->flags & FLAG_MERGED);
}

/* Whether a packet that is too big may not be cut. */
static __always_inline int is_whole(struct run *run)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	struct iphdr *ip = data + (run->packet->l3 & L3_OFFSET);

	if (run->packet->kind != PACKET_IPV4 || (void *)(ip + 1) > data_end)
		return 1;
	return ip->frag_off & bpf_htons(DONT_FRAGMENT);
}

/* Have a packet answered from an address, once all is decided. */
static __always_inline void plan_answer(struct run *run, __u32 answer, __u64 mtu,
					struct address *from)
{
	run->choice->answer = answer;
	run->choice->mtu = mtu;
	run->choice->from = *from;
}

/* Whether this CPU may send another error in the present window. */
static __always_inline int may_answer(struct run *run)
{
	struct cpu_stats *cpu = run->cpu;

	if (run->now - cpu->answers_window_ns >= NEW_SOURCES_WINDOW_NS) {
		if (!run->live)
			return 1;
		cpu->answers_window_ns = run->now;
		cpu->answers_used = 0;
	}
	return cpu->answers_used < ANSWERS;
}

/* No error is for many: who asks for that hides behind others (RFC 1122, 3.2.2). */
static __always_inline int is_for_one(struct run *run)
{
	__u8 *link = run->choice->link, *source = (__u8 *)&run->packet->source;

	if (link[0] & 1)
		return 0;
	if (run->packet->kind == PACKET_IPV4)
		return source[12] && source[12] < IPV4_MULTICAST;
	return source[0] != IPV6_MULTICAST && (run->packet->source.high || run->packet->source.low);
}

static __always_inline __u64 sum_of(void *at, int length, __u64 sum)
{
	if (length > 2 * SUM_AT_ONCE) {
		sum = bpf_csum_diff(0, 0, at, SUM_AT_ONCE, sum);
		at += SUM_AT_ONCE;
		length -= SUM_AT_ONCE;
	}
	if (length > SUM_AT_ONCE) {
		sum = bpf_csum_diff(0, 0, at, SUM_AT_ONCE, sum);
		at += SUM_AT_ONCE;
		length -= SUM_AT_ONCE;
	}
	return bpf_csum_diff(0, 0, at, length, sum);
}

/* Keep the link header, swapped, in scratch; 0 where it cannot be read. */
static __always_inline int keep_link(struct run *run)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	__u8 *link = run->choice->link;

	if (data + LINK_BYTES > data_end)
		return 0;
	__builtin_memcpy(link, data, LINK_BYTES);
	return 1;
}

/* Cut a packet behind `quote` bytes of IP, and make room for headers before them. */
static __always_inline int make_room(struct run *run, int headers, int quote)
{
	long length = (long)run->ctx->data_end - (long)run->ctx->data;
	int wanted = (run->packet->l3 & L3_OFFSET) + quote;

	return !bpf_xdp_adjust_tail(run->ctx, wanted - (int)length) &&
	       !bpf_xdp_adjust_head(run->ctx, -headers);
}

/* Put the link header before the new ones, back to where it came from. */
static __always_inline int put_link(struct run *run)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	__u8 *link = run->choice->link;
	struct ethhdr *ethernet = data;

	if (data + LINK_BYTES > data_end)
		return 0;
	__builtin_memcpy(data, link, LINK_BYTES);
	__builtin_memcpy(ethernet->h_dest, link + 6, 6);
	__builtin_memcpy(ethernet->h_source, link, 6);
	return 1;
}

static __always_inline int answer_ipv4(struct run *run, int quote)
{
	struct choice *choice = run->choice;
	struct icmp_header *icmp;
	void *data, *data_end;
	struct iphdr *ip;

	if (!make_room(run, IPV4_BYTES + ICMP_BYTES, quote) || !put_link(run))
		return 0;
	data = (void *)(long)run->ctx->data;
	data_end = (void *)(long)run->ctx->data_end;
	ip = data + (run->packet->l3 & L3_OFFSET);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) + quote > data_end)
		return 0;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = ANSWER_TOS;
	ip->tot_len = bpf_htons(IPV4_BYTES + ICMP_BYTES + quote);
	ip->frag_off = bpf_htons(DONT_FRAGMENT);
	ip->ttl = ANSWER_HOPS;
	ip->protocol = NEXT_ICMP;
	ip->saddr = ipv4_of(&choice->from);
	ip->daddr = ipv4_of(&run->packet->source);
	ip->check = ~folded(sum_of(ip, IPV4_BYTES, 0));
	icmp->type = choice->answer == ANSWER_TOO_BIG ? ICMP_UNREACHABLE : ICMP_TIME_EXCEEDED;
	icmp->code = choice->answer == ANSWER_TOO_BIG ? FRAGMENTATION_NEEDED : 0;
	icmp->check = 0;
	icmp->rest = bpf_htonl((__u32)choice->mtu & 0xffff);
	icmp->check = ~folded(sum_of(icmp, ICMP_BYTES + quote, 0));
	return 1;
}

static __always_inline int answer_ipv6(struct run *run, int quote)
{
	struct choice *choice = run->choice;
	struct icmp_header *icmp;
	void *data, *data_end;
	struct ipv6hdr *ip;
	__u64 sum;

	if (!make_room(run, IPV6_BYTES + ICMP_BYTES, quote) || !put_link(run))
		return 0;
	data = (void *)(long)run->ctx->data;
	data_end = (void *)(long)run->ctx->data_end;
	ip = data + (run->packet->l3 & L3_OFFSET);
	icmp = (void *)(ip + 1);
	if ((void *)(icmp + 1) + quote > data_end)
		return 0;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(ICMP_BYTES + quote);
	ip->nexthdr = NEXT_ICMPV6;
	ip->hop_limit = ANSWER_HOPS;
	__builtin_memcpy(&ip->saddr, &choice->from, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &run->packet->source, sizeof(ip->daddr));
	icmp->type = choice->answer == ANSWER_TOO_BIG ? ICMPV6_TOO_BIG : ICMPV6_TIME_EXCEEDED;
	icmp->code = 0;
	icmp->check = 0;
	icmp->rest = bpf_htonl((__u32)choice->mtu);
	sum = sum_of(&ip->saddr, 2 * sizeof(ip->saddr), 0);
	sum = sum_of(icmp, ICMP_BYTES + quote, sum);
	icmp->check = ~folded(sum + bpf_htonl(ICMP_BYTES + quote) + bpf_htonl(NEXT_ICMPV6));
	return 1;
}

/* Send the answer that was planned, or drop the packet where it may not be sent. */
static __always_inline void answer(struct run *run)
{
	__u32 size = run->packet->end - run->packet->l3;
	int built;

	if (!keep_link(run) || !is_for_one(run) || !may_answer(run)) {
		run->action = XDP_DROP;
		run->reason = run->choice->answer == ANSWER_TOO_BIG ? REASON_TOO_BIG :
								      REASON_HOP_LIMIT;
		if (run->live)
			run->cpu->drops[run->reason & REASON_MASK]++;
		return;
	}
	run->action = XDP_TX;
	if (!run->live)
		return;
	run->cpu->answers_used++;
	run->cpu->answered[run->choice->answer & ANSWER_MASK]++;
	if (run->packet->kind == PACKET_IPV4)
		built = size >= IPV4_QUOTE ? answer_ipv4(run, IPV4_QUOTE) :
					     answer_ipv4(run, IPV4_BYTES + SHORT_QUOTE);
	else
		built = size >= IPV6_QUOTE ? answer_ipv6(run, IPV6_QUOTE) :
					     answer_ipv6(run, IPV6_BYTES + SHORT_QUOTE);
	if (!built)
		run->action = XDP_ABORTED;
}

#endif
