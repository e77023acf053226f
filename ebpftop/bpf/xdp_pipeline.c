/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp_pipeline: what becomes of each packet that an interface receives.
 *
 * Hook    XDP, native or generic; one program for all interfaces of an instance.
 * Stages  parse (packet.h), DDoS protection (ddos_protection.h), load balancing
 *         (balancing.h: load_balancer.h, replies.h, icmp_errors.h).
 * Maps    one array lookup for the configuration and one for this CPU's counters; one hash
 *         lookup for the source's row. Lists are searched when they changed, not each packet.
 * Cost    see the performance page; the program takes no lock and reads the coarse clock.
 * Limits  packets in one buffer (no XDP fragments); two VLAN tags; six IPv6 extension headers.
 *
 * xdp_trace: the same with a trace (trace.h) in it; compiled apart, over the maps of an instance,
 * when somebody asks for it.
 *
 * explain, control: never attached; user space runs it on a request of its own making
 * (BPF_PROG_TEST_RUN): to ask what would become of a packet, and where it must change a value
 * that the pipeline changes too.
 */
#include <linux/types.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"
#include "balancer_maps.h"
#include "scratch.h"
#include "packet.h"
#include "events.h"
#include "lists.h"
#include "limits.h"
#include "ddos_protection.h"
#include "rewrite.h"
#include "connections.h"
#include "placement.h"
#include "icmp_errors.h"
#include "answers.h"
#include "load_balancer.h"
#include "replies.h"
#include "balancing.h"
#ifdef TRACE
#include "trace.h"
#endif

static __always_inline __u64 coarse_now(void)
{
#ifdef TEST_CLOCK
	__u32 zero = 0;
	__u64 *now = test_clock.lookup(&zero);

	return now ? *now : 0;
#else
	return bpf_ktime_get_coarse_ns();
#endif
}

static __always_inline void count(struct count *counted, __u64 length)
{
	counted->packets++;
	counted->bytes += length;
}

static __always_inline __u32 verdict_of(__u32 action)
{
	return action == XDP_PASS     ? VERDICT_PASSED :
	       action == XDP_DROP     ? VERDICT_DROPPED :
	       action == XDP_TX       ? VERDICT_TRANSMITTED :
	       action == XDP_REDIRECT ? VERDICT_REDIRECTED :
					VERDICT_ABORTED;
}

/* Everything that becomes of a packet; `live` is a constant, 0 writes to no map. */
static __always_inline __u32 process(struct xdp_md *ctx, int live)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct run run = { .ctx = ctx, .action = XDP_PASS, .reason = REASON_NONE, .live = live };
	struct scratch *working;
	struct packet *packet;
	__u32 zero = 0, verdict;

	run.cpu = stats.lookup(&zero);
	run.conf = config.lookup(&zero);
	working = scratch.lookup(&zero);
	if (!run.cpu || !run.conf || !working)
		return XDP_PASS;
	run.packet = packet = &working->packet;
	run.choice = &working->choice;
	run.quoted = &working->quoted;
	run.length = data_end - data;
	parse_packet(packet, data, data_end);
	run.now = coarse_now();
	if (live) {
		count(&run.cpu->received, run.length);
		run.cpu->protocols[packet->protocol & 7]++;
		if (packet->syn)
			run.cpu->syn++;
		if (packet->unparsed)
			run.cpu->unparsed[packet->unparsed & 7]++;
		if (run.cpu->tick_ns != run.now)
			watch_flood(&run);
	}
#ifdef TRACE
	trace_arrival(&run);
#endif
	if (packet->kind == PACKET_IPV4 || packet->kind == PACKET_IPV6)
		protect(&run);
	else if (packet->unparsed && run.conf->flags & FLAG_DROP_UNPARSED)
		drop(&run, REASON_UNPARSED);
	if (!live)
		run.choice->backend = run.choice->placement = 0;
	if (run.conf->flags & FLAG_VIPS && run.action != XDP_DROP)
		balance(&run);
	if (!live)
		return run.action | run.choice->placement << EXPLAIN_PLACEMENT_SHIFT |
		       run.reason << EXPLAIN_REASON_SHIFT |
		       run.choice->backend << EXPLAIN_BACKEND_SHIFT;
	if (run.row)
		count_row(&run, run.row);
	verdict = verdict_of(run.action);
	count(&run.cpu->verdicts[verdict], run.length);
#ifdef TRACE
	trace_verdict(&run, verdict);
#endif
	return run.action;
}

#ifdef TRACE
int xdp_trace(struct xdp_md *ctx)
{
	return process(ctx, 1);
}
#else
int xdp_pipeline(struct xdp_md *ctx)
{
	return process(ctx, 1);
}

/* Never attached: says what xdp_pipeline would do with a packet, and changes nothing. */
int explain(struct xdp_md *ctx)
{
	return process(ctx, 0);
}

/* Do what a request of the sweep's asks; returns how many flows that were. */
static __always_inline int control_flows(struct flows_request *request)
{
	__u32 slot = request->number;
	struct balance_count *counted;
	int i, ended = 0;
	struct flow key;
	__u64 *flows;

	if (request->op == CONTROL_CORRECT_FLOWS) {
		counted = backend_stats.lookup(&slot);
		flows = backend_flows.lookup(&slot);
		if (!flows || !counted)
			return 0;
		__sync_fetch_and_add(flows, -request->value);
		counted->closed += request->value;
		return 1;
	}
	for (i = 0; i < FLOWS_AT_ONCE; i++) {
		if (i >= request->number)
			break;
		key = request->flows[i];
		ended += end_flow(&key, request->value);
	}
	return ended;
}

/* Returns what the request changed: 0 for nothing. */
int control(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct control_request *request = data;
	struct flows_request *flows;
	struct address address;
	struct auto_block *block;
	struct run run = { .live = 1 };
	struct rule *rule;
	struct state *shared;
	struct event *event;
	__u64 seq;
	__u32 zero = 0, slot;

	run.now = coarse_now();
	if ((void *)(request + 1) > data_end)
		return 0;
	if (request->op == CONTROL_END_FLOWS || request->op == CONTROL_CORRECT_FLOWS) {
		flows = data;
		return (void *)(flows + 1) > data_end ? 0 : control_flows(flows);
	}
	address = request->event.address;
	if (request->op == CONTROL_END_RULE) {
		slot = request->slot & RULE_SLOT;
		rule = rules.lookup(&slot);
		return rule ? end_rule(&run, rule) : 0;
	}
	if (request->op == CONTROL_END_AUTO) {
		block = auto_blocks.lookup(&address);
		if (!block || block->until_ns > run.now || block->ended)
			return 0;
		end_auto_block(&run, block, &address, request->event.length);
		return 1;
	}
	shared = state.lookup(&zero);
	if (request->op != CONTROL_EVENT || !shared)
		return 0;
	seq = __sync_fetch_and_add(&shared->event_seq, 1) + 1;
	slot = seq % EVENTS;
	event = events.lookup(&slot);
	if (!event)
		return 0;
	__sync_lock_test_and_set(&event->seq, 0);
	event->time_ns = run.now;
	event->address = address;
	event->length = request->event.length;
	event->kind = request->event.kind;
	event->value[0] = request->event.value[0];
	event->value[1] = request->event.value[1];
	__builtin_memcpy(event->text, request->event.text, sizeof(event->text));
	__sync_lock_test_and_set(&event->seq, seq);
	return 1;
}
#endif
