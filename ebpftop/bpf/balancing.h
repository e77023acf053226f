/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a packet is for a VIP, from a backend, or neither.
 */
#ifndef EBPFTOP_BALANCING_H
#define EBPFTOP_BALANCING_H

/* Find a packet's part in balancing, and change it where it has one. */
static __always_inline void place(struct run *run)
{
	struct packet *packet = run->packet;
	struct service service;
	struct endpoint *endpoint;
	struct vip *vip;
	__u64 *listed;

	if (unlikely(packet->unparsed))
		return;
	/* An IPv6 packet to a mapped IPv4 address is for no VIP. */
	if (unlikely(packet->kind == PACKET_IPV6 && packet->destination.high == 0 &&
		     (__u32)packet->destination.low == bpf_htonl(0xffff)))
		return;
	if (unlikely(packet->protocol != PROTO_TCP && packet->protocol != PROTO_UDP)) {
		balance_error(run);
		return;
	}
	if (unlikely(packet->fragment == FRAGMENT_LATER)) {
		listed = balanced.lookup(&packet->destination);
		if (!listed || !(*listed & BALANCED_VIP))
			listed = balanced.lookup(&packet->source);
		if (listed)
			leave(run, VIPS, 0);
		return;
	}
	service.address = packet->destination;
	service.port = service_key(packet->protocol, packet->destination_port);
	vip = vips.lookup(&service);
	if (vip) {
		to_vip(run, vip);
		return;
	}
	service.address = packet->source;
	service.port = service_key(packet->protocol, packet->source_port);
	endpoint = endpoints.lookup(&service);
	if (endpoint)
		from_backend(run, endpoint);
}

/* Balance a packet that protection let pass. */
static __always_inline void balance(struct run *run)
{
	struct choice *choice = run->choice;

	choice->backend = 0;
	choice->placement = PLACED_NOT;
	choice->reason = REASON_NO_BACKEND;
	choice->answer = ANSWER_NONE;
	place(run);
	if (unlikely(choice->answer))
		answer(run);
}

#endif
