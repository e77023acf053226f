/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One walk over a packet's headers: Ethernet, up to two VLAN tags, IPv4 with options or IPv6
 * with up to six extension headers, then the first bytes of TCP, UDP, ICMP or ICMPv6.
 *
 * The result holds offsets and values, no pointers: kept on the stack, packet pointers of
 * unknown offset multiply the verifier's states in every stage behind them.
 */
#ifndef EBPFTOP_PACKET_H
#define EBPFTOP_PACKET_H

#define VLAN_TAGS 2
#define IPV6_EXTENSIONS 6

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_QINQ_OLD 0x9100

#define NEXT_HOP_BY_HOP 0
#define NEXT_ICMP 1
#define NEXT_TCP 6
#define NEXT_UDP 17
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_AUTHENTICATION 51
#define NEXT_ICMPV6 58
#define NEXT_NONE 59
#define NEXT_DESTINATION 60
#define NEXT_MOBILITY 135

#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_REDIRECT 137

#define TCP_SYN 0x02
#define TCP_ACK 0x10

enum packet_kind {
	PACKET_OTHER,      /* no IP, or no address could be read */
	PACKET_NEIGHBOUR,  /* ARP and neighbour discovery: never dropped */
	PACKET_IPV4,
	PACKET_IPV6,
};

struct packet {
	struct address source;
	__u32 kind;        /* enum packet_kind */
	__u32 protocol;    /* enum protocol */
	__u32 unparsed;    /* enum unparsed; addresses are right where kind is an IP's */
	__u32 syn;         /* 1: a TCP connection request */
};

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

struct extension_header {
	__u8 next;
	__u8 length;       /* in 8 bytes beyond the first 8; AH: in 4 bytes less 2 */
	__be16 fragment;
};

static __always_inline void parse_l4(struct packet *packet, void *at, void *data_end, __u32 next,
				     __u32 hop_limit, __u32 room)
{
	__u8 *l4 = at;

	if (next == NEXT_TCP) {
		packet->protocol = PROTO_TCP;
		if (room < 20 || at + 20 > data_end) {
			packet->unparsed = UNPARSED_L4_TRUNCATED;
			return;
		}
		if (l4[12] >> 4 < 5 || (l4[12] >> 4) * 4 > room) {
			packet->unparsed = UNPARSED_L4_HEADER;
			return;
		}
		packet->syn = (l4[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	} else if (next == NEXT_UDP) {
		packet->protocol = PROTO_UDP;
		if (room < 8 || at + 8 > data_end)
			packet->unparsed = UNPARSED_L4_TRUNCATED;
	} else if (next == NEXT_ICMP && packet->kind == PACKET_IPV4) {
		packet->protocol = PROTO_ICMP;
		if (room < 8 || at + 8 > data_end)
			packet->unparsed = UNPARSED_L4_TRUNCATED;
	} else if (next == NEXT_ICMPV6 && packet->kind == PACKET_IPV6) {
		packet->protocol = PROTO_ICMPV6;
		if (room < 4 || at + 4 > data_end)
			packet->unparsed = UNPARSED_L4_TRUNCATED;
		else if (l4[0] >= ICMPV6_ROUTER_SOLICITATION && l4[0] <= ICMPV6_REDIRECT &&
			 hop_limit == 255) /* RFC 4861: others were forwarded, and are forged */
			packet->kind = PACKET_NEIGHBOUR;
	}
}

/* A later fragment has no ports: it keeps its protocol, and nothing is read behind its header. */
static __always_inline void parse_later_fragment(struct packet *packet, __u32 next)
{
	if (next == NEXT_TCP)
		packet->protocol = PROTO_TCP;
	else if (next == NEXT_UDP)
		packet->protocol = PROTO_UDP;
	else if (next == NEXT_ICMP && packet->kind == PACKET_IPV4)
		packet->protocol = PROTO_ICMP;
	else if (next == NEXT_ICMPV6 && packet->kind == PACKET_IPV6)
		packet->protocol = PROTO_ICMPV6;
}

static __always_inline void parse_ipv4(struct packet *packet, void *at, void *data_end)
{
	struct iphdr *ip = at;
	__u32 header, total;

	if (at + sizeof(*ip) > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header) {
		packet->unparsed = UNPARSED_IP_HEADER;
		return;
	}
	packet->kind = PACKET_IPV4;
	packet->source.high = 0;
	packet->source.low = (__u64)ip->saddr << 32 | bpf_htonl(0xffff);
	if (at + total > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	if (bpf_ntohs(ip->frag_off) & 0x1fff) {
		parse_later_fragment(packet, ip->protocol);
		return;
	}
	parse_l4(packet, at + header, data_end, ip->protocol, 0, total - header);
}

static __always_inline void parse_ipv6(struct packet *packet, void *at, void *data_end)
{
	struct ipv6hdr *ip = at;
	struct extension_header *extension;
	__u32 next, hop_limit, length, step, used = 0;
	int i;

	if (at + sizeof(*ip) > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	/* A mapped IPv4 source is never on the wire (RFC 6890): it would take on another's row. */
	if (ip->version != 6 || (packet->source.high == 0 &&
				 (__u32)packet->source.low == bpf_htonl(0xffff))) {
		packet->unparsed = UNPARSED_IP_HEADER;
		return;
	}
	packet->kind = PACKET_IPV6;
	next = ip->nexthdr;
	hop_limit = ip->hop_limit;
	length = bpf_ntohs(ip->payload_len);
	at += sizeof(*ip);
	if (length == 0 && next != NEXT_NONE) /* a jumbogram (RFC 2675): its length is elsewhere */
		length = data_end - at;
	else if (at + length > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	for (i = 0; i <= IPV6_EXTENSIONS; i++) {
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
		    next != NEXT_AUTHENTICATION && next != NEXT_DESTINATION &&
		    next != NEXT_MOBILITY) {
			parse_l4(packet, at + used, data_end, next, hop_limit, length - used);
			return;
		}
		if (i == IPV6_EXTENSIONS)
			break;
		extension = at + used;
		if (length - used < 8 || (void *)(extension + 2) > data_end) {
			packet->unparsed = UNPARSED_IP_TRUNCATED;
			return;
		}
		step = next == NEXT_FRAGMENT         ? 8 :
		       next == NEXT_AUTHENTICATION ? (extension->length + 2) * 4 :
						       (extension->length + 1) * 8;
		if (next == NEXT_FRAGMENT && bpf_ntohs(extension->fragment) & 0xfff8) {
			parse_later_fragment(packet, extension->next);
			return;
		}
		if (length - used < step) {
			packet->unparsed = UNPARSED_IP_TRUNCATED;
			return;
		}
		next = extension->next;
		used += step;
	}
	packet->unparsed = UNPARSED_EXTENSION_DEPTH;
}

static __always_inline void parse_packet(struct packet *packet, void *data, void *data_end)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = data + sizeof(*ethernet);
	__u32 ethertype;
	int i;

	packet->kind = PACKET_OTHER;
	packet->protocol = PROTO_OTHER;
	packet->unparsed = UNPARSED_NONE;
	packet->syn = 0;
	if ((void *)(ethernet + 1) > data_end) /* cannot be: a driver delivers whole headers */
		return;
	ethertype = bpf_ntohs(ethernet->h_proto);
	for (i = 0; i <= VLAN_TAGS; i++) {
		if (ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ &&
		    ethertype != ETHERTYPE_QINQ_OLD)
			break;
		if (i == VLAN_TAGS) {
			packet->unparsed = UNPARSED_VLAN_DEPTH;
			return;
		}
		if ((void *)(tag + 1) > data_end) {
			packet->unparsed = UNPARSED_VLAN_TRUNCATED;
			return;
		}
		ethertype = bpf_ntohs(tag->ethertype);
		tag++;
	}
	if (ethertype == ETHERTYPE_IPV4)
		parse_ipv4(packet, tag, data_end);
	else if (ethertype == ETHERTYPE_IPV6)
		parse_ipv6(packet, tag, data_end);
	else if (ethertype == ETHERTYPE_ARP)
		packet->kind = PACKET_NEIGHBOUR;
}

#endif
