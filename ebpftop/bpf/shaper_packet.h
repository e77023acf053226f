/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a packet on a TC hook: the address that counts, its ECN bits, its bytes on the wire.
 */
#ifndef EBPFTOP_SHAPER_PACKET_H
#define EBPFTOP_SHAPER_PACKET_H

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

#endif
