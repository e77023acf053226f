/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The load balancer: packets to a VIP go to one of its backends, a backend's answers come
 * from the VIP.
 *
 * Maps    to a VIP: one hash lookup for the VIP, one for the flow. From a backend: one more,
 *         for the VIP that it is not. Without a VIP, none.
 * Flows   keep their backend. A new one is placed by turns, by the fewest flows, or by its
 *         hash; over the budget of new ones, and in the middle of a flow that is not known,
 *         by its hash. Rings are user space's work: only backends that take flows are in them.
 * Limits  headers without options, no fragments: others are left to the stack, or dropped.
 *         What is too large for its way or on its last hop is answered (answers.h).
 */
#ifndef EBPFTOP_LOAD_BALANCER_H
#define EBPFTOP_LOAD_BALANCER_H

/* Drop a packet to a VIP or, as a `reply`, of one of its backends. */
static __always_inline void refuse(struct run *run, __u32 reason, __u32 vip_slot, int reply)
{
	struct balance_count *counted = vip_stats.lookup(&vip_slot);

	run->reason = reason;
	run->action = XDP_DROP;
	if (!run->live)
		return;
	run->cpu->drops[reason & REASON_MASK]++;
	if (counted && reply)
		counted->reply_dropped++;
	else if (counted)
		counted->dropped++;
}

/* Leave a packet to the stack, rewritten or, with a VIP's slot, as it came. */
static __always_inline void hand(struct run *run, __u32 why)
{
	run->action = XDP_PASS;
	if (run->live)
		run->cpu->handed[why & HANDED_MASK]++;
}

static __always_inline void hand_untouched(struct run *run, __u32 why, __u32 vip_slot, int reply)
{
	struct balance_count *counted = vip_stats.lookup(&vip_slot);

	hand(run, why);
	if (run->live && counted && reply)
		counted->reply_handed++;
	else if (run->live && counted)
		counted->handed++;
}

/* Answer a packet with an error, in the VIP's name. */
static __always_inline void reject(struct run *run, __u32 answer, __u64 mtu, __u32 vip_slot)
{
	struct balance_count *counted = vip_stats.lookup(&vip_slot);

	plan_answer(run, answer, mtu, &run->packet->destination);
	if (run->live && counted)
		counted->dropped++;
}

/* Fragments and options are for the stack, or for nobody; 1 where this packet is such. */
static __always_inline int leave(struct run *run, __u32 vip_slot, int reply)
{
	struct packet *packet = run->packet;

	if (unlikely(packet->fragment)) {
		if (run->conf->flags & FLAG_DROP_FRAGMENTS)
			refuse(run, REASON_VIP_FRAGMENT, vip_slot, reply);
		else
			hand_untouched(run, HANDED_FRAGMENT, vip_slot, reply);
		return 1;
	}
	if (unlikely(packet->options)) {
		if (run->conf->flags & FLAG_DROP_OPTIONS)
			refuse(run, REASON_VIP_OPTIONS, vip_slot, reply);
		else
			hand_untouched(run, HANDED_OPTIONS, vip_slot, reply);
		return 1;
	}
	return 0;
}

/* Choose the backend of a packet to a VIP: its flow's, or a new flow's. */
static __always_inline void find_backend(struct run *run, struct vip *vip)
{
	struct packet *packet = run->packet;
	struct flow key = {
		.client = packet->source, .port = flow_port(vip->id, packet->source_port),
	};
	struct connection *entry = connections.lookup(&key);
	__u64 hash = flow_hash(&key), word = entry ? entry->word : 0;
	struct choice *choice = run->choice;
	struct backend *backend;
	__u32 slot;

	if (unlikely(!entry || !is_of(word, hash))) {
		entry = 0;
		word = CONNECTION_NONE;
	}
	if (unlikely(!entry || ((word & WORD_STATE) == CONNECTION_CLOSED && packet->syn))) {
		open_flow(run, vip, &key, hash, entry, word);
		return;
	}
	if (unlikely((word & WORD_STATE) == CONNECTION_ENDED)) {
		place_stateless(run, vip, hash);
		return;
	}
	slot = slot_of(word);
	choice->placement = PLACED_FLOW;
	choice->backend = slot;
	if (run->live) {
		entry->packets++;
		entry->bytes += run->length;
		choice->transitions = after_client(packet->tcp_flags, vip->flags & VIP_DSR);
		follow(run, entry, hash);
	}
	backend = backends.lookup(&slot);
	if (unlikely(!backend || !(backend->flags & BACKEND_SERVES))) {
		move_flow(run, vip, hash, entry);
		return;
	}
	if (run->live && unlikely((__s64)(run->now - entry->last_ns) >= (__s64)STAMP_NS)) {
		entry->last_ns = run->now;
		if (!(vip->flags & VIP_DSR))
			add_reply(run, vip, backend, slot);
	}
}

/* Send a packet of a VIP's to a backend. */
static __always_inline void forward(struct run *run, struct vip *vip)
{
	__u32 slot = run->choice->backend;
	struct balance_count *counted = backend_stats.lookup(&slot);
	struct backend *backend = backends.lookup(&slot);
	struct packet *packet = run->packet;
	int dsr = vip->flags & VIP_DSR, too_big;
	struct hop hop;
	__u32 vlan;
	__u64 mtu;

	if (unlikely(!backend || !counted || !backend->id)) {
		refuse(run, REASON_NO_BACKEND, vip->slot, 0);
		return;
	}
	find_hop(run, backend, &hop, &vlan, &mtu);
	too_big = is_too_big(run, mtu);
	if (unlikely(too_big && is_whole(run))) {
		reject(run, ANSWER_TOO_BIG, mtu, vip->slot);
		return;
	}
	if (unlikely(!dsr && packet->hop_limit <= 1)) {
		reject(run, ANSWER_HOP_LIMIT, 0, vip->slot);
		return;
	}
	if (unlikely(dsr && (too_big || !hop.ifindex))) {
		refuse(run, too_big ? REASON_TOO_BIG : REASON_NO_NEXT_HOP, vip->slot, 0);
		return;
	}
	if (run->live) {
		counted->packets++;
		counted->bytes += run->length;
	}
	if (unlikely(dsr)) {
		send(run, &hop, vlan);
		return;
	}
	/* What the stack forwards, it lowers the hop limit of, and cuts. */
	if (unlikely(!hop.ifindex || too_big)) {
		rewrite(run, &backend->service, 0, 0);
		hand(run, too_big ? HANDED_TOO_BIG : HANDED_NEIGHBOUR);
		return;
	}
	if (rewrite(run, &backend->service, 0, 1))
		send(run, &hop, vlan);
}

static __always_inline void to_vip(struct run *run, struct vip *vip)
{
	__u32 vip_slot = vip->slot;
	struct balance_count *counted = vip_stats.lookup(&vip_slot);

	if (run->live && counted) {
		counted->packets++;
		counted->bytes += run->length;
		if (!vip->ring_length || vip->flags & VIP_RESET)
			counted->stranded++;
	}
	if (leave(run, vip_slot, 0))
		return;
	find_backend(run, vip);
	if (unlikely(!run->choice->backend))
		refuse(run, run->choice->reason, vip_slot, 0);
	else
		forward(run, vip);
}

#endif
