/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What backends answer, back to the clients in the VIP's name. The way to a client is asked of
 * the kernel once a STAMP_NS and flow; until it knows one, it is the way the client came.
 */
#ifndef EBPFTOP_REPLIES_H
#define EBPFTOP_REPLIES_H

#define STATELESS_NS (60 * SECOND_NS)   /* how long after a flow without an entry */

static __always_inline void count_reply(struct run *run, __u32 vip_slot, __u32 slot)
{
	struct balance_count *counted = vip_stats.lookup(&vip_slot);

	if (run->live && counted) {
		counted->reply_packets++;
		counted->reply_bytes += run->length;
	}
	counted = backend_stats.lookup(&slot);
	if (run->live && counted) {
		counted->reply_packets++;
		counted->reply_bytes += run->length;
	}
}

/*
 * A packet from a backend's port that belongs to no flow: dropped, since as it is the client
 * would not know it, unless it is for this machine (health checks, an operator's curl).
 */
static __always_inline void orphan(struct run *run, struct endpoint *endpoint)
{
	struct packet *packet = run->packet;
	__u32 zero = 0, slot = endpoint->vip_slot, vlan = 0;
	__u64 mtu = 0;
	struct state *shared = state.lookup(&zero);
	struct vip_slot *vip;
	struct hop hop = {};
	int found;

	found = find_route(run, &packet->source, &packet->destination, &hop, &vlan, &mtu);
	if (found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return;
	vip = vip_slots.lookup(&slot);
	if (hop.ifindex && shared && vip && endpoint->users == 1 && vip->id == endpoint->vip_id &&
	    packet->hop_limit > 1 && !packet->fragment && !packet->options &&
	    shared->stateless_ns && run->now - shared->stateless_ns < STATELESS_NS) {
		count_reply(run, slot, 0);
		if (rewrite(run, &vip->service, 1, 1))
			send(run, &hop, vlan);
		return;
	}
	refuse(run, REASON_REPLY_NO_FLOW, endpoint->vip_slot, 1);
}

/* Take the flow's state on, and keep its entry young, by a reply. */
static __always_inline void follow_reply(struct run *run, __u32 vip_id)
{
	struct packet *packet = run->packet;
	struct flow key = {
		.client = packet->destination,
		.port = flow_port(vip_id, packet->destination_port),
	};
	struct connection *entry = connections.lookup(&key);
	__u64 hash = flow_hash(&key);

	if (!entry || !is_of(entry->word, hash))
		return;
	run->choice->transitions = after_backend(packet->tcp_flags);
	follow(run, entry, hash);
	if ((__s64)(run->now - entry->last_ns) >= (__s64)STAMP_NS)
		entry->last_ns = run->now;
}

static __always_inline void from_backend(struct run *run, struct endpoint *endpoint)
{
	struct packet *packet = run->packet;
	struct flow key = {
		.client = packet->destination,
		.port = flow_port(endpoint->id, packet->destination_port),
	};
	struct connection *entry = connections.lookup(&key);
	__u64 hash = flow_hash(&key), word = entry ? entry->word : 0;
	__u32 slot = slot_of(word), vlan;
	__u64 mtu;
	struct vip_slot *vip = vip_slots.lookup(&slot);
	struct hop hop;
	int found;

	if (unlikely(!entry || !is_of(word, hash) || !vip || vip->id != entry->vip)) {
		orphan(run, endpoint);
		return;
	}
	run->choice->placement = PLACED_REPLY;
	run->choice->backend = entry->backend;
	if (leave(run, slot, 1))
		return;
	hop = entry->hop;
	vlan = entry->vlan;
	mtu = entry->mtu;
	count_reply(run, slot, entry->backend);
	if (run->live) {
		entry->packets++;
		entry->bytes += run->length;
	}
	if (run->live && unlikely(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) ||
				  (__s64)(run->now - entry->last_ns) >= (__s64)STAMP_NS))
		follow_reply(run, entry->vip);
	if (unlikely((__s64)(run->now - entry->last_ns) >= (__s64)STAMP_NS)) {
		found = find_route(run, &vip->service.address, &packet->destination, &hop, &vlan,
				   &mtu);
		/* A large packet finds no way: the next one asks again. */
		if (run->live && found != BPF_FIB_LKUP_RET_FRAG_NEEDED) {
			entry->hop = hop;
			entry->mtu = mtu;
			entry->vlan = vlan;
			entry->last_ns = run->now;
		}
	}
	if (unlikely(packet->hop_limit <= 1)) {
		plan_answer(run, ANSWER_HOP_LIMIT, 0, &vip->service.address);
		return;
	}
	if (unlikely(is_too_big(run, mtu))) {
		if (is_whole(run)) {
			plan_answer(run, ANSWER_TOO_BIG, mtu, &vip->service.address);
			return;
		}
		/* What fits our link, the router behind it cuts; else that is the stack's work. */
		if (hop.ifindex != run->ctx->ingress_ifindex) {
			rewrite(run, &vip->service, 1, 0);
			hand(run, HANDED_TOO_BIG);
			return;
		}
	}
	if (rewrite(run, &vip->service, 1, 1))
		send(run, &hop, vlan);
}

#endif
