/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * xdp_pipeline: what becomes of each packet that an interface receives.
 *
 * Hook    XDP, native or generic; one program for all interfaces of an instance.
 * Stages  parse (packet.h), then DDoS protection (ddos_protection.h).
 * Maps    one array lookup for the configuration and one for this CPU's counters; one hash
 *         lookup for the source's row. Lists are searched when they changed, not each packet.
 * Cost    see the performance page; the program takes no lock and reads the coarse clock.
 * Limits  packets in one buffer (no XDP fragments); two VLAN tags; six IPv6 extension headers.
 *
 * control: never attached; user space runs it on a request of its own making
 * (BPF_PROG_TEST_RUN) where it must change a value that the pipeline changes too.
 */
#include <linux/types.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"
#include "packet.h"
#include "ddos_protection.h"

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

/* Everything that becomes of a packet; `live` is a constant, 0 writes to no map. */
static __always_inline int process(struct xdp_md *ctx, int live)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct run run = { .ctx = ctx, .action = XDP_PASS, .reason = REASON_NONE, .live = live };
	struct packet *packet;
	__u32 zero = 0;

	run.cpu = stats.lookup(&zero);
	run.conf = config.lookup(&zero);
	run.packet = packet = scratch.lookup(&zero);
	if (!run.cpu || !run.conf || !packet)
		return XDP_PASS;
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
	if (packet->kind == PACKET_IPV4 || packet->kind == PACKET_IPV6)
		protect(&run);
	else if (packet->unparsed && run.conf->flags & FLAG_DROP_UNPARSED)
		drop(&run, REASON_UNPARSED, 0);
	if (live) {
		if (run.action == XDP_DROP)
			count(&run.cpu->verdicts[VERDICT_DROPPED], run.length);
		else
			count(&run.cpu->verdicts[VERDICT_PASSED], run.length);
	}
	return run.action;
}

int xdp_pipeline(struct xdp_md *ctx)
{
	return process(ctx, 1);
}

/* Returns 1 where the request changed something. */
int control(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct control_request *request = data;
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
