/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flows of VIPs: an entry for each direction, TCP's states, and how many flows each
 * backend has. Who takes a flow's word from an open state to CLOSED, or from CLOSED to an
 * open one, moves the count; compare-and-swap makes that one CPU.
 */
#ifndef EBPFTOP_CONNECTIONS_H
#define EBPFTOP_CONNECTIONS_H

#define STAMP_NS SECOND_NS
#define WORD_TRIES 4

static __always_inline __u64 flow_port(__u32 id, __be16 port)
{
	return (__u64)id << FLOW_ID_SHIFT | bpf_ntohs(port);
}

static __always_inline __u64 with_id(__u64 port, __u32 id)
{
	return (__u64)id << FLOW_ID_SHIFT | (port & 0xffff);
}

static __always_inline __u64 flow_hash(struct flow *flow)
{
	__u64 hash = flow->client.high * 0x9e3779b97f4a7c15ULL;

	hash = (hash ^ hash >> 32 ^ flow->client.low) * 0xbf58476d1ce4e5b9ULL;
	hash ^= hash >> 29 ^ flow->port;
	hash *= 0x94d049bb133111ebULL;
	return hash ^ hash >> 31;
}

static __always_inline __u64 word_of(__u64 hash, __u32 slot, __u32 state)
{
	return hash << WORD_TAG_SHIFT | (__u64)slot << WORD_SLOT_SHIFT | state;
}

static __always_inline int is_of(__u64 word, __u64 hash)
{
	return !((word ^ hash << WORD_TAG_SHIFT) >> WORD_TAG_SHIFT);
}

static __always_inline __u32 slot_of(__u64 word)
{
	return word >> WORD_SLOT_SHIFT & WORD_SLOT;
}

static __always_inline void count_flow(__u32 slot, int opened)
{
	struct balance_count *counted = backend_stats.lookup(&slot);
	__u64 *flows = backend_flows.lookup(&slot);

	if (!counted || !flows)
		return;
	if (opened) {
		__sync_fetch_and_add(flows, 1);
		counted->opened++;
	} else {
		__sync_fetch_and_add(flows, -1);
		counted->closed++;
	}
}

/* What becomes of each state: 4 bits a state, closed flows stay closed. */
#define TO(state, next) ((__u64)CONNECTION_##next << 4 * CONNECTION_##state)
#define ALL_TO(sent, received, established, fin_client, fin_backend)                               \
	(TO(SYN_SENT, sent) | TO(SYN_RECEIVED, received) | TO(ESTABLISHED, established) |          \
	 TO(FIN_CLIENT, fin_client) | TO(FIN_BACKEND, fin_backend) | TO(CLOSED, CLOSED))
#define ON_RST ALL_TO(CLOSED, CLOSED, CLOSED, CLOSED, CLOSED)
#define ON_CLIENT_FIN ALL_TO(FIN_CLIENT, FIN_CLIENT, FIN_CLIENT, FIN_CLIENT, CLOSED)
#define ON_BACKEND_FIN ALL_TO(FIN_BACKEND, FIN_BACKEND, FIN_BACKEND, CLOSED, FIN_BACKEND)
#define ON_BACKEND_SYN ALL_TO(SYN_RECEIVED, SYN_RECEIVED, ESTABLISHED, FIN_CLIENT, FIN_BACKEND)
#define ON_CLIENT_ACK ALL_TO(SYN_SENT, ESTABLISHED, ESTABLISHED, FIN_CLIENT, FIN_BACKEND)
/* With DSR the client's packets alone are seen, and its FIN is as far as a flow is followed. */
#define ON_DSR_ACK ALL_TO(ESTABLISHED, ESTABLISHED, ESTABLISHED, FIN_CLIENT, FIN_BACKEND)

static __always_inline __u64 after_client(__u32 flags, int dsr)
{
	if (flags & TCP_RST || (dsr && flags & TCP_FIN))
		return ON_RST;
	if (flags & TCP_FIN)
		return ON_CLIENT_FIN;
	if ((flags & (TCP_ACK | TCP_SYN)) == TCP_ACK)
		return dsr ? ON_DSR_ACK : ON_CLIENT_ACK;
	return 0;
}

static __always_inline __u64 after_backend(__u32 flags)
{
	return flags & TCP_RST                                      ? ON_RST :
	       flags & TCP_FIN                                      ? ON_BACKEND_FIN :
	       (flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK) ? ON_BACKEND_SYN :
								      0;
}

/* Take a TCP flow's state on by one packet. */
static __always_inline void follow(struct run *run, struct connection *entry, __u64 hash)
{
	__u64 transitions = run->choice->transitions, word = entry->word, found;
	__u32 state, next;
	int i;

	if (!transitions)
		return;
	for (i = 0; i < WORD_TRIES; i++) {
		state = word & WORD_STATE;
		next = transitions >> 4 * (state & 15) & 15;
		if (!next || next == state || !is_of(word, hash))
			return;
		found = __sync_val_compare_and_swap(&entry->word, word,
						    word_of(hash, slot_of(word), next));
		if (found == word) {
			if (next == CONNECTION_CLOSED)
				count_flow(slot_of(word), 0);
			return;
		}
		word = found;
	}
}

/*
 * End a flow that was silent since `before_ns`, and remove its entries; 1 where that was done.
 * ENDED cannot be opened again: a packet that comes between is placed without an entry.
 */
static __always_inline int end_flow(struct flow *key, __u64 before_ns)
{
	struct connection *entry = connections.lookup(key);
	__u64 hash = flow_hash(key), word = entry ? entry->word : 0;
	__u32 slot = slot_of(word), state = word & WORD_STATE;
	struct backend *backend = backends.lookup(&slot);
	struct flow reply = *key;

	if (!entry || !is_of(word, hash) || entry->last_ns > before_ns ||
	    state == CONNECTION_REPLY ||
	    __sync_val_compare_and_swap(&entry->word, word,
					word_of(hash, slot, CONNECTION_ENDED)) != word)
		return 0;
	if (state != CONNECTION_CLOSED && state != CONNECTION_ENDED)
		count_flow(slot, 0);
	connections.delete(key);
	if (backend) {
		reply.port = with_id(reply.port, backend->id);
		connections.delete(&reply);
	}
	return 1;
}

static __always_inline void learn_hop(struct run *run, struct hop *hop)
{
	void *data = (void *)(long)run->ctx->data, *data_end = (void *)(long)run->ctx->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > data_end)
		return;
	hop->ifindex = run->ctx->ingress_ifindex;
	__builtin_memcpy(hop->destination, ethernet->h_source, sizeof(hop->destination));
	__builtin_memcpy(hop->source, ethernet->h_dest, sizeof(hop->source));
}

/* Whether a backend answers a flow of another VIP's at the same port of the same client. */
static __always_inline int is_taken(struct run *run, struct vip *vip, struct backend *backend)
{
	struct flow key = {
		.client = run->packet->source,
		.port = flow_port(backend->id, run->packet->source_port),
	};
	struct connection *entry = connections.lookup(&key), *other;
	__u32 slot;

	if (!entry || entry->vip == vip->id)
		return 0;
	slot = entry->backend;
	key.port = with_id(key.port, entry->vip);
	other = connections.lookup(&key);
	return other && (other->word & WORD_STATE) != CONNECTION_CLOSED &&
	       slot_of(other->word) == slot;
}

/*
 * Make sure that a flow's replies find their VIP. The way to the client is the one it came,
 * until its first reply asks for a route. Returns 0 where the backend would answer two
 * flows, of two VIPs, that it cannot tell apart.
 */
static __always_inline int add_reply(struct run *run, struct vip *vip, struct backend *backend,
				     __u32 slot)
{
	struct flow key = {
		.client = run->packet->source,
		.port = flow_port(backend->id, run->packet->source_port),
	};
	struct connection fresh = {}, *entry;
	__u64 hash = flow_hash(&key);

	entry = connections.lookup(&key);
	if (entry && entry->vip == vip->id && entry->backend == slot &&
	    entry->word == word_of(hash, vip->slot, CONNECTION_REPLY))
		return 1;
	if (entry && entry->vip != vip->id && is_taken(run, vip, backend))
		return 0;
	fresh.word = word_of(hash, vip->slot, CONNECTION_REPLY);
	fresh.first_ns = run->now;
	fresh.vip = vip->id;
	fresh.backend = slot;
	fresh.vlan = vlan_of(run->packet);
	learn_hop(run, &fresh.hop);
	connections.update(&key, &fresh);
	return 1;
}

static __always_inline void remove_reply(struct run *run, __u32 slot)
{
	struct backend *backend = backends.lookup(&slot);
	struct flow key = { .client = run->packet->source };

	if (!backend)
		return;
	key.port = flow_port(backend->id, run->packet->source_port);
	connections.delete(&key);
}

/* Whether this CPU may add another flow in the present window. */
static __always_inline int may_add_flow(struct run *run)
{
	struct cpu_stats *cpu = run->cpu;

	if (run->now - cpu->flows_window_ns >= NEW_SOURCES_WINDOW_NS) {
		if (!run->live)
			return run->conf->new_flows != 0;
		cpu->flows_window_ns = run->now;
		cpu->flows_used = 0;
	}
	return cpu->flows_used < run->conf->new_flows;
}

#endif
