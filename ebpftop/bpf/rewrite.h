/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Change a packet's addresses and ports with its checksums, and send it on its way.
 *
 * Checksums are updated by RFC 1624, equation 3: sums are kept in 64 bits and folded at the
 * end, ~old stands for -old. That never yields 0xffff for what a sender can compute, as a
 * full computation never does. Of UDP, 0 is no checksum and stays; a 0 computed is sent 0xffff.
 */
#ifndef EBPFTOP_REWRITE_H
#define EBPFTOP_REWRITE_H

#define L3_OFFSET 31            /* mask of packet.l3: 14, 18 or 22 */
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_CHECK 16
#define UDP_CHECK 6
#define AF_INET 2
#define AF_INET6 10

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u16 updated(__u16 check, __u64 change)
{
	return ~folded((__u16)~check + change);
}

static __always_inline __u32 ipv4_of(struct address *address)
{
	return address->low >> 32;
}

static __always_inline __u64 change16(__u16 old, __u16 new)
{
	return (__u64)(__u16)~old + new;
}

static __always_inline __u64 change32(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

static __always_inline __u64 change_address(__u32 *old, struct address *address)
{
	__u32 *new = (__u32 *)address;

	return change32(old[0], new[0]) + change32(old[1], new[1]) +
	       change32(old[2], new[2]) + change32(old[3], new[3]);
}

static __always_inline __u64 service_key(__u32 protocol, __be16 port)
{
	return (__u64)protocol << SERVICE_PROTOCOL_SHIFT | bpf_ntohs(port);
}

static __always_inline __be16 service_port(struct service *service)
{
	return bpf_htons(service->port & 0xffff);
}

/* Apply a change of what a TCP or UDP checksum covers. */
static __always_inline void update_l4(void *l4, __u32 protocol, __u64 change)
{
	__u16 *check = l4 + (protocol == PROTO_TCP ? TCP_CHECK : UDP_CHECK);
	__u16 new;

	if (protocol == PROTO_UDP && *check == 0)
		return;
	new = updated(*check, change);
	*check = protocol == PROTO_UDP && new == 0 ? 0xffff : new;
}

/*
 * Make a packet go to, or with `source` come from, a service's address and port. Its hop limit is
 * lowered by `hops`. Only for headers without options; 0 where the packet ends too early.
 */
static __always_inline int rewrite(struct run *run, struct service *service, int source, int hops)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	void *l3 = data + (run->packet->l3 & L3_OFFSET), *l4;
	struct address *address = &service->address;
	__u32 protocol = run->packet->protocol;
	__be16 port = service_port(service);
	struct ipv6hdr *ipv6 = l3;
	struct iphdr *ipv4 = l3;
	struct ports *ports;
	__be16 *own_port;
	__u32 *own;
	__u64 change;

	if (run->packet->kind == PACKET_IPV4) {
		l4 = l3 + IPV4_BYTES;
		if (l4 + (protocol == PROTO_TCP ? TCP_CHECK + 2 : UDP_CHECK + 2) > data_end)
			return 0;
		own = source ? &ipv4->saddr : &ipv4->daddr;
		change = change32(*own, ipv4_of(address));
		*own = ipv4_of(address);
		/* The hop limit is the upper byte of its word. */
		ipv4->check = updated(ipv4->check, change + (hops ? 0xffffU - bpf_htons(0x0100) : 0));
		ipv4->ttl -= hops;
	} else {
		l4 = l3 + IPV6_BYTES;
		if (l4 + (protocol == PROTO_TCP ? TCP_CHECK + 2 : UDP_CHECK + 2) > data_end)
			return 0;
		own = source ? (__u32 *)&ipv6->saddr : (__u32 *)&ipv6->daddr;
		change = change_address(own, address);
		__builtin_memcpy(own, address, sizeof(*address));
		ipv6->hop_limit -= hops;
	}
	ports = l4;
	own_port = source ? &ports->source : &ports->destination;
	change += change16(*own_port, port);
	*own_port = port;
	update_l4(l4, protocol, change);
	return 1;
}

/* Whether a hop's VLAN fits a packet's tags: tags are changed, never pushed or popped. */
static __always_inline int fits(struct packet *packet, __u32 vlan)
{
	return vlan >> VLAN_TAGS_SHIFT == packet->tags;
}

static __always_inline __u32 vlan_of(struct packet *packet)
{
	return (__u32)packet->tags << VLAN_TAGS_SHIFT | bpf_ntohs(packet->vlan);
}

/* Put a hop's addresses on a packet, and choose how it leaves. */
static __always_inline void send(struct run *run, struct hop *hop, __u32 vlan)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = data + sizeof(*ethernet);

	if ((void *)(tag + 1) > data_end) {
		run->action = XDP_ABORTED;
		return;
	}
	__builtin_memcpy(ethernet->h_dest, hop->destination, sizeof(ethernet->h_dest));
	__builtin_memcpy(ethernet->h_source, hop->source, sizeof(ethernet->h_source));
	if (run->packet->tags)
		tag->tci = (tag->tci & ~bpf_htons(VLAN_ID)) | bpf_htons(vlan & VLAN_ID);
	if (hop->ifindex == run->ctx->ingress_ifindex)
		run->action = XDP_TX;
	else
		run->action = run->live ? bpf_redirect(hop->ifindex, 0) : XDP_REDIRECT;
}

/*
 * Ask the kernel for the way from one address to another. Returns BPF_FIB_LKUP_RET_*; the hop
 * is set for BPF_FIB_LKUP_RET_SUCCESS alone.
 */
static __always_inline int find_route(struct run *run, struct address *source,
				      struct address *destination, struct hop *hop, __u32 *vlan,
				      __u64 *mtu)
{
	struct packet *packet = run->packet;
	struct bpf_fib_lookup fib = {};
	struct port *port;
	__u32 ifindex;
	int found;

	fib.ifindex = run->ctx->ingress_ifindex;
	fib.l4_protocol = packet->protocol == PROTO_TCP ? NEXT_TCP : NEXT_UDP;
	/* Of merged packets, each was as long as its link took. */
	fib.tot_len = run->conf->flags & FLAG_MERGED ? 0 : packet->end - packet->l3;
	if (packet->kind == PACKET_IPV4) {
		fib.family = AF_INET;
		fib.ipv4_src = ipv4_of(source);
		fib.ipv4_dst = ipv4_of(destination);
	} else {
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, source, sizeof(*source));
		__builtin_memcpy(fib.ipv6_dst, destination, sizeof(*destination));
	}
	found = bpf_fib_lookup(run->ctx, &fib, sizeof(fib), 0);
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		*mtu = fib.mtu_result;
	if (found != BPF_FIB_LKUP_RET_SUCCESS)
		return found;
	*vlan = 0;
	ifindex = fib.ifindex;
	port = ports.lookup(&ifindex);
	if (port) {
		ifindex = port->ifindex;
		*vlan = port->vlan;
	} else if (ifindex != run->ctx->ingress_ifindex) {
		return BPF_FIB_LKUP_RET_NOT_FWDED;
	}
	if (!fits(packet, *vlan))
		return BPF_FIB_LKUP_RET_NOT_FWDED;
	hop->ifindex = ifindex;
	__builtin_memcpy(hop->destination, fib.dmac, sizeof(hop->destination));
	__builtin_memcpy(hop->source, fib.smac, sizeof(hop->source));
	return found;
}

/*
 * The way to a backend: what user space found, as long as it sees to that, or what the kernel
 * knows; ifindex 0: neither.
 */
static __always_inline void find_hop(struct run *run, struct backend *backend, struct hop *hop,
				     __u32 *vlan, __u64 *mtu)
{
	struct address address;

	*hop = backend->hop;
	*vlan = backend->vlan;
	*mtu = backend->mtu;
	if (unlikely(!hop->ifindex || run->now >= run->conf->hops_until_ns ||
		     !fits(run->packet, *vlan))) {
		hop->ifindex = 0;
		address = backend->service.address;
		find_route(run, &run->packet->source, &address, hop, vlan, mtu);
	}
}

#endif
