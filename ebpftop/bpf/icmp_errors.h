/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about balanced flows: fragmentation needed, unreachable, time exceeded and their
 * like of ICMPv6 quote the packet they are about. A router between us and a client quotes the
 * VIP, and the error is for the backend; a backend, or a router before it, quotes the backend,
 * and the error is for the client. Each gets it with the addresses that it knows.
 *
 * Checksums of the quoted packet are kept right too, where the quotation reaches to them.
 */
#ifndef EBPFTOP_ICMP_ERRORS_H
#define EBPFTOP_ICMP_ERRORS_H

#define ICMP_BYTES 8            /* before the quoted packet, in both versions */
#define QUOTED_PORTS 8          /* bytes that are always quoted behind the IP header */

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_PARAMETER 4

struct icmp_header {
	__u8 type, code;
	__u16 check;
	__u32 rest;
};

/* Read what is quoted into the packet's scratch; 0 where it is no TCP or UDP packet. */
static __always_inline int read_quoted(struct run *run, struct quoted *quoted)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	void *l3 = data + (run->packet->l3 & L3_OFFSET);
	struct iphdr *ipv4 = l3 + IPV4_BYTES + ICMP_BYTES;
	struct ipv6hdr *ipv6 = l3 + IPV6_BYTES + ICMP_BYTES;
	struct ports *ports;
	__u32 next;

	if (run->packet->kind == PACKET_IPV4) {
		ports = (void *)(ipv4 + 1);
		if ((void *)ports + QUOTED_PORTS > data_end)
			return 0;
		if (ipv4->version != 4 || ipv4->ihl != 5 ||
		    bpf_ntohs(ipv4->frag_off) & IPV4_OFFSET)
			return 0;
		next = ipv4->protocol;
		address_of_ipv4(&quoted->source, ipv4->saddr);
		address_of_ipv4(&quoted->destination, ipv4->daddr);
	} else {
		ports = (void *)(ipv6 + 1);
		if ((void *)ports + QUOTED_PORTS > data_end || ipv6->version != 6)
			return 0;
		next = ipv6->nexthdr;
		quoted->source = *(struct address *)&ipv6->saddr;
		quoted->destination = *(struct address *)&ipv6->daddr;
	}
	quoted->protocol = next == NEXT_TCP ? PROTO_TCP : PROTO_UDP;
	quoted->source_port = ports->source;
	quoted->destination_port = ports->destination;
	return next == NEXT_TCP || next == NEXT_UDP;
}

/*
 * Exchange one end of the quoted packet, its source or destination; and the error's own
 * destination or source, whichever is the same end, where `outer` says so.
 */
static __always_inline int rewrite_error(struct run *run, struct quoted *quoted,
					 struct service *service, int source, int outer)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	void *l3 = data + (run->packet->l3 & L3_OFFSET), *l4;
	struct address *address = &service->address;
	struct iphdr *ipv4 = l3, *inner4;
	struct ipv6hdr *ipv6 = l3, *inner6;
	__u64 change, outer_change = 0, icmp_change = 0;
	__be16 port = service_port(service), *own_port;
	struct icmp_header *icmp;
	__u16 *check, old;
	struct ports *ports;
	__u32 *own;

	if (run->packet->kind == PACKET_IPV4) {
		icmp = l3 + IPV4_BYTES;
		inner4 = (void *)(icmp + 1);
		l4 = inner4 + 1;
		if (l4 + QUOTED_PORTS > data_end)
			return 0;
		own = source ? &inner4->saddr : &inner4->daddr;
		change = change32(*own, ipv4_of(address));
		*own = ipv4_of(address);
		old = inner4->check;
		inner4->check = updated(old, change);
		icmp_change = change16(old, inner4->check);
		if (outer) {
			own = source ? &ipv4->daddr : &ipv4->saddr;
			outer_change = change32(*own, ipv4_of(address));
			*own = ipv4_of(address);
		}
		ipv4->check = updated(ipv4->check, outer_change + 0xffffU - bpf_htons(0x0100));
		ipv4->ttl--;
	} else {
		icmp = l3 + IPV6_BYTES;
		inner6 = (void *)(icmp + 1);
		l4 = inner6 + 1;
		if (l4 + QUOTED_PORTS > data_end)
			return 0;
		own = source ? (__u32 *)&inner6->saddr : (__u32 *)&inner6->daddr;
		change = change_address(own, address);
		__builtin_memcpy(own, address, sizeof(*address));
		if (outer) {
			own = source ? (__u32 *)&ipv6->daddr : (__u32 *)&ipv6->saddr;
			icmp_change = change_address(own, address);
			__builtin_memcpy(own, address, sizeof(*address));
		}
		ipv6->hop_limit--;
	}
	ports = l4;
	own_port = source ? &ports->source : &ports->destination;
	icmp_change += change + change16(*own_port, port);
	change += change16(*own_port, port);
	*own_port = port;
	check = l4 + (quoted->protocol == PROTO_TCP ? TCP_CHECK : UDP_CHECK);
	if ((void *)(check + 1) <= data_end &&
	    (void *)(check + 1) <= l3 + ((run->packet->end - run->packet->l3) & 0xffff)) {
		old = *check;
		update_l4(l4, quoted->protocol, change);
		icmp_change += change16(old, *check);
	}
	icmp->check = updated(icmp->check, icmp_change);
	return 1;
}

/* An error about what a VIP sent to a client: it is for the backend that wrote it. */
static __always_inline void error_to_backend(struct run *run, struct vip *vip)
{
	struct quoted *quoted = run->quoted;
	struct flow key = {
		.client = quoted->destination,
		.port = flow_port(vip->id, quoted->destination_port),
	};
	struct connection *entry = connections.lookup(&key);
	__u64 hash = flow_hash(&key), word = entry ? entry->word : 0;
	__u32 slot = slot_of(word), vlan;
	struct backend *backend = backends.lookup(&slot);
	struct hop hop;
	__u64 mtu;

	if (!entry || !is_of(word, hash) || !backend || !backend->id)
		return;
	run->choice->backend = slot;
	run->choice->placement = PLACED_FLOW;
	find_hop(run, backend, &hop, &vlan, &mtu);
	if (!hop.ifindex || run->packet->hop_limit <= 1)
		return;
	if (vip->flags & VIP_DSR || rewrite_error(run, quoted, &backend->service, 1, 1))
		send(run, &hop, vlan);
}

/* An error about what a client sent to a backend, from there or from a router on the way. */
static __always_inline void error_to_client(struct run *run, struct endpoint *endpoint)
{
	struct quoted *quoted = run->quoted;
	struct packet *packet = run->packet;
	struct flow key = {
		.client = quoted->source,
		.port = flow_port(endpoint->id, quoted->source_port),
	};
	struct connection *entry = connections.lookup(&key);
	__u64 hash = flow_hash(&key), word = entry ? entry->word : 0;
	__u32 slot = slot_of(word), vlan;
	struct vip_slot *vip = vip_slots.lookup(&slot);
	struct hop hop;
	int outer;

	if (!entry || !is_of(word, hash) || !vip || vip->id != entry->vip ||
	    packet->hop_limit <= 1)
		return;
	run->choice->backend = entry->backend;
	run->choice->placement = PLACED_REPLY;
	hop = entry->hop;
	vlan = entry->vlan;
	outer = packet->source.high == quoted->destination.high &&
		packet->source.low == quoted->destination.low;
	if (rewrite_error(run, quoted, &vip->service, 0, outer))
		send(run, &hop, vlan);
}

static __always_inline int is_error(struct packet *packet)
{
	__u32 type = packet->icmp_type;

	if (packet->options || packet->fragment)
		return 0;
	if (packet->protocol == PROTO_ICMP)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER;
	return packet->protocol == PROTO_ICMPV6 && type >= ICMPV6_UNREACHABLE &&
	       type <= ICMPV6_PARAMETER;
}

/* Balance an ICMP error: it goes to where what it quotes came from. */
static __always_inline void balance_error(struct run *run)
{
	struct quoted *quoted = run->quoted;
	struct packet *packet = run->packet;
	struct endpoint *endpoint;
	struct service service;
	struct vip *vip;

	if (!is_error(packet) || !read_quoted(run, quoted) ||
	    packet->destination.high != quoted->source.high ||
	    packet->destination.low != quoted->source.low)
		return;
	service.address = quoted->source;
	service.port = service_key(quoted->protocol, quoted->source_port);
	vip = vips.lookup(&service);
	if (vip) {
		error_to_backend(run, vip);
		return;
	}
	service.address = quoted->destination;
	service.port = service_key(quoted->protocol, quoted->destination_port);
	endpoint = endpoints.lookup(&service);
	if (endpoint)
		error_to_client(run, endpoint);
}

#endif
