/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which backend a flow gets: when it is new, when its backend no longer serves it, and when no
 * entry may be made for it.
 */
#ifndef EBPFTOP_PLACEMENT_H
#define EBPFTOP_PLACEMENT_H

/*
 * Backends that are compared for one new flow: all of a VIP's up to this many. Of more, a
 * window that moves on by one a flow; the fewest of d of n candidates keep the fullest within
 * ln ln n / ln d + O(1) of the mean (Azar et al., Balanced Allocations, 1994), and an idle
 * backend takes d of n new flows until it is level.
 */
#define LEAST_CANDIDATES 32
#define COLLISIONS 32           /* backends in a row of the ring that may be passed over */

/* How a packet's backend was found; `explain` says it. */
enum placement {
	PLACED_NOT, PLACED_FLOW, PLACED_TURN, PLACED_LEAST, PLACED_HASH, PLACED_MOVED,
	PLACED_REPLY
};

static __always_inline __u32 ring_at(struct vip *vip, __u32 index)
{
	__u32 slot = vip->ring_start + index, word = slot / RING_WORD;
	__u64 *found = rings.lookup(&word);

	return found ? *found >> slot % RING_WORD * 16 & WORD_SLOT : 0;
}

static __always_inline __u32 index_of_hash(struct vip *vip, __u64 hash)
{
	return (hash >> 32) * vip->ring_length >> 32;
}

static __always_inline __u32 next_turn(struct run *run, struct vip *vip)
{
	__u32 slot = vip->slot;
	__u64 *turns = vip_turns.lookup(&slot);

	if (!turns || !vip->ring_length)
		return 0;
	return (run->live ? __sync_fetch_and_add(turns, 1) : *turns) % vip->ring_length;
}

/* Choose the backend with the fewest flows for its weight; the turn decides among equals. */
static __always_inline void choose_by_flows(struct run *run, struct vip *vip, __u32 start)
{
	struct choice *choice = run->choice;
	__u32 index, slot, length = vip->ring_length;
	struct backend *backend;
	__u64 *counted, flows;
	int i;

	for (i = 0; i < LEAST_CANDIDATES; i++) {
		/* Else the compiler makes one bound of both, which the verifier cannot see. */
		asm volatile("" : "+r"(length));
		if (i >= length)
			break;
		index = start + i;
		slot = ring_at(vip, index < length ? index : index - length);
		backend = backends.lookup(&slot);
		counted = backend_flows.lookup(&slot);
		if (!backend || !counted)
			break;
		/* Below 0 for a moment, where an end was counted before its beginning. */
		flows = (*counted + 1) & 0x7fffffff;
		if (!choice->weight || flows * choice->weight < choice->flows * backend->weight) {
			choice->backend = slot;
			choice->flows = flows;
			choice->weight = backend->weight;
		}
	}
}

/*
 * Pass over backends that have a flow of another VIP's from the same client's port: their
 * answers could not be told apart. As many have one as VIPs share them, less this one.
 */
static __always_inline void avoid_collisions(struct run *run, struct vip *vip)
{
	struct choice *choice = run->choice;
	__u32 slot, length = vip->ring_length;
	struct backend *backend;
	int i;

	for (i = 0; i < COLLISIONS; i++) {
		slot = choice->backend;
		backend = backends.lookup(&slot);
		if (!slot || !backend || !is_taken(run, vip, backend))
			return;
		choice->start++;
		if (choice->start >= length)
			choice->start = 0;
		choice->backend = ring_at(vip, choice->start);
	}
	choice->backend = 0;
	choice->reason = REASON_FLOW_COLLISION;
}

/* Choose a backend for a flow; the choice is 0 where none takes it. */
static __always_inline void choose(struct run *run, struct vip *vip, __u64 hash, int new)
{
	struct choice *choice = run->choice;

	choice->backend = 0;
	choice->weight = 0;
	if (!new || vip->algorithm == ALGORITHM_MAGLEV) {
		choice->placement = PLACED_HASH;
		choice->start = index_of_hash(vip, hash);
	} else {
		choice->placement = vip->algorithm == ALGORITHM_LEAST ? PLACED_LEAST : PLACED_TURN;
		choice->start = next_turn(run, vip);
	}
	if (!vip->ring_length)
		return;
	if (choice->placement == PLACED_LEAST)
		choose_by_flows(run, vip, choice->start);
	else
		choice->backend = ring_at(vip, choice->start);
	if (!(vip->flags & VIP_DSR))
		avoid_collisions(run, vip);
}

/* A flow without an entry: its replies are matched by their endpoint alone for a while. */
static __always_inline void place_stateless(struct run *run, struct vip *vip, __u64 hash)
{
	__u32 zero = 0;
	struct state *shared = state.lookup(&zero);

	if (run->live && shared && shared->stateless_ns != run->now)
		shared->stateless_ns = run->now;
	run->choice->placement = PLACED_HASH;
	run->choice->backend = ring_at(vip, index_of_hash(vip, hash));
}

/* Take over what another CPU made of the same flow meanwhile. */
static __always_inline void join(struct run *run, __u64 word, __u64 hash)
{
	if (is_of(word, hash))
		run->choice->backend = slot_of(word);
}

/* Write the entries of a new flow, in place of its predecessor's where there is an entry. */
static __always_inline void add_flow(struct run *run, struct vip *vip, struct flow *key,
				     __u64 hash, struct connection *entry, __u64 word)
{
	struct packet *packet = run->packet;
	__u32 slot = run->choice->backend, vip_slot = vip->slot;
	struct balance_count *counted;
	struct connection fresh = {};
	__u64 found;

	fresh.word = word_of(hash, slot, packet->protocol == PROTO_UDP ? CONNECTION_UDP :
					 packet->syn                   ? CONNECTION_SYN_SENT :
									 CONNECTION_ESTABLISHED);
	if (entry) {
		found = __sync_val_compare_and_swap(&entry->word, word, fresh.word);
		if (found != word) {
			join(run, found, hash);
			return;
		}
		entry->first_ns = run->now;
		entry->packets = 1;
		entry->bytes = run->length;
	} else {
		fresh.first_ns = run->now;
		fresh.last_ns = run->now;
		fresh.packets = 1;
		fresh.bytes = run->length;
		fresh.vip = vip->id;
		if (connections.insert(key, &fresh)) {
			entry = connections.lookup(key);
			if (entry)
				join(run, entry->word, hash);
			return;
		}
	}
	count_flow(slot, 1);
	counted = vip_stats.lookup(&vip_slot);
	if (counted)
		counted->opened++;
}

/* Give a flow a backend that it has none of yet. */
static __always_inline void open_flow(struct run *run, struct vip *vip, struct flow *key,
				      __u64 hash, struct connection *entry, __u64 word)
{
	struct packet *packet = run->packet;
	struct backend *backend;
	__u32 slot;

	if (packet->tcp_flags & (TCP_RST | TCP_FIN) || !may_add_flow(run)) {
		place_stateless(run, vip, hash);
		return;
	}
	choose(run, vip, hash, packet->syn || packet->protocol == PROTO_UDP);
	slot = run->choice->backend;
	backend = backends.lookup(&slot);
	if (!slot || !backend || !run->live)
		return;
	run->cpu->flows_used++;
	if (!(vip->flags & VIP_DSR) && !add_reply(run, vip, backend, slot)) {
		run->choice->reason = REASON_FLOW_COLLISION;
		run->choice->backend = 0;
		return;
	}
	add_flow(run, vip, key, hash, entry, word);
}

/* Take a flow from a backend that no longer serves it. */
static __always_inline void move_flow(struct run *run, struct vip *vip, __u64 hash,
				      struct connection *entry)
{
	__u64 word = entry->word, found;
	__u32 slot, old = slot_of(word);
	struct backend *backend;

	choose(run, vip, hash, 1);
	run->choice->placement = PLACED_MOVED;
	slot = run->choice->backend;
	backend = backends.lookup(&slot);
	if (!slot || !backend || !run->live || !is_of(word, hash) ||
	    (word & WORD_STATE) == CONNECTION_CLOSED)
		return;
	found = __sync_val_compare_and_swap(&entry->word, word,
					    word_of(hash, slot, word & WORD_STATE));
	if (found != word) {
		join(run, found, hash);
		return;
	}
	count_flow(old, 0);
	count_flow(slot, 1);
	if (!(vip->flags & VIP_DSR)) {
		remove_reply(run, old);
		add_reply(run, vip, backend, slot);
	}
}

#endif
