/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One walk over a packet's headers: Ethernet, up to two VLAN tags, IPv4 with options or IPv6
 * with up to six extension headers, then the first bytes of TCP, UDP, ICMP or ICMPv6.
 *
 * The result (scratch.h) holds offsets and values, no pointers.
 */
#ifndef EBPFTOP_PACKET_H
#define EBPFTOP_PACKET_H

#define VLAN_TAGS 2
#define VLAN_ID 0x0fff
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

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_OFFSET 0xfff8

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

struct extension_header {
	__u8 next;
	__u8 length;       /* in 8 bytes beyond the first 8; AH: in 4 bytes less 2 */
	__be16 fragment;
};

struct ports {
	__be16 source, destination;
};

static __always_inline void parse_l4(struct packet *packet, void *at, void *data_end, __u32 next,
				     __u32 room)
{
	struct ports *ports = at;
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
		packet->tcp_flags = l4[13];
		packet->syn = (l4[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
		packet->source_port = ports->source;
		packet->destination_port = ports->destination;
	} else if (next == NEXT_UDP) {
		packet->protocol = PROTO_UDP;
		if (room < 8 || at + 8 > data_end) {
			packet->unparsed = UNPARSED_L4_TRUNCATED;
			return;
		}
		packet->source_port = ports->source;
		packet->destination_port = ports->destination;
	} else if (next == NEXT_ICMP && packet->kind == PACKET_IPV4) {
		packet->protocol = PROTO_ICMP;
		if (room < 8 || at + 8 > data_end) {
			packet->unparsed = UNPARSED_L4_TRUNCATED;
			return;
		}
		packet->icmp_type = l4[0];
	} else if (next == NEXT_ICMPV6 && packet->kind == PACKET_IPV6) {
		packet->protocol = PROTO_ICMPV6;
		if (room < 4 || at + 4 > data_end) {
			packet->unparsed = UNPARSED_L4_TRUNCATED;
			return;
		}
		packet->icmp_type = l4[0];
		if (l4[0] >= ICMPV6_ROUTER_SOLICITATION && l4[0] <= ICMPV6_REDIRECT &&
		    packet->hop_limit == 255) /* RFC 4861: others were forwarded, and are forged */
			packet->kind = PACKET_NEIGHBOUR;
	}
}

/* A later fragment has no ports: it keeps its protocol, and nothing is read behind its header. */
static __always_inline void parse_later_fragment(struct packet *packet, __u32 next)
{
	packet->fragment = FRAGMENT_LATER;
	if (next == NEXT_TCP)
		packet->protocol = PROTO_TCP;
	else if (next == NEXT_UDP)
		packet->protocol = PROTO_UDP;
	else if (next == NEXT_ICMP && packet->kind == PACKET_IPV4)
		packet->protocol = PROTO_ICMP;
	else if (next == NEXT_ICMPV6 && packet->kind == PACKET_IPV6)
		packet->protocol = PROTO_ICMPV6;
}

static __always_inline void address_of_ipv4(struct address *address, __be32 ipv4)
{
	address->high = 0;
	address->low = (__u64)ipv4 << 32 | bpf_htonl(0xffff);
}

static __always_inline void parse_ipv4(struct packet *packet, void *at, void *data_end)
{
	struct iphdr *ip = at;
	__u32 header, total, fragment;

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
	address_of_ipv4(&packet->source, ip->saddr);
	address_of_ipv4(&packet->destination, ip->daddr);
	packet->hop_limit = ip->ttl;
	packet->options = header > sizeof(*ip);
	packet->l4 = packet->l3 + header;
	packet->end = packet->l3 + total;
	if (at + total > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_OFFSET) {
		parse_later_fragment(packet, ip->protocol);
		return;
	}
	if (fragment & IPV4_MORE_FRAGMENTS)
		packet->fragment = FRAGMENT_FIRST;
	parse_l4(packet, at + header, data_end, ip->protocol, total - header);
}

static __always_inline void parse_ipv6(struct packet *packet, void *at, void *data_end)
{
	struct ipv6hdr *ip = at;
	struct extension_header *extension;
	__u32 next, length, step, used = 0;
	int i;

	if (at + sizeof(*ip) > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	packet->source = *(struct address *)&ip->saddr;
	/* A mapped IPv4 source is never on the wire (RFC 6890): it would take on another's row. */
	if (ip->version != 6 || (packet->source.high == 0 &&
				 (__u32)packet->source.low == bpf_htonl(0xffff))) {
		packet->unparsed = UNPARSED_IP_HEADER;
		return;
	}
	packet->kind = PACKET_IPV6;
	packet->destination = *(struct address *)&ip->daddr;
	packet->hop_limit = ip->hop_limit;
	next = ip->nexthdr;
	length = bpf_ntohs(ip->payload_len);
	at += sizeof(*ip);
	if (length == 0 && next == NEXT_HOP_BY_HOP) /* a jumbogram (RFC 2675): its length is there */
		length = data_end - at;
	else if (at + length > data_end) {
		packet->unparsed = UNPARSED_IP_TRUNCATED;
		return;
	}
	packet->end = packet->l3 + sizeof(*ip) + length;
	for (i = 0; i <= IPV6_EXTENSIONS; i++) {
		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
		    next != NEXT_AUTHENTICATION && next != NEXT_DESTINATION &&
		    next != NEXT_MOBILITY) {
			packet->l4 = packet->l3 + sizeof(*ip) + used;
			parse_l4(packet, at + used, data_end, next, length - used);
			return;
		}
		packet->options = 1;
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
		if (next == NEXT_FRAGMENT && bpf_ntohs(extension->fragment) & IPV6_OFFSET) {
			parse_later_fragment(packet, extension->next);
			return;
		}
		if (next == NEXT_FRAGMENT)
			packet->fragment = FRAGMENT_FIRST;
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

	/* Addresses stay: they are read where kind is an IP's, which writes them. */
	__builtin_memset((void *)packet + 2 * sizeof(struct address), 0,
			 sizeof(*packet) - 2 * sizeof(struct address));
	packet->kind = PACKET_OTHER;
	packet->protocol = PROTO_OTHER;
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
		if (i == 0)
			packet->vlan = tag->tci & bpf_htons(VLAN_ID);
		packet->tags = i + 1;
		tag++;
	}
	packet->l3 = (void *)tag - data;
	if (ethertype == ETHERTYPE_IPV4)
		parse_ipv4(packet, tag, data_end);
	else if (ethertype == ETHERTYPE_IPV6)
		parse_ipv6(packet, tag, data_end);
	else if (ethertype == ETHERTYPE_ARP)
		packet->kind = PACKET_NEIGHBOUR;
}

#endif
