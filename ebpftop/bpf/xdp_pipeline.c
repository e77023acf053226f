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

int xdp_pipeline(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct decision decision = { .action = XDP_PASS, .reason = REASON_NONE };
	__u64 length = data_end - data, now;
	struct packet packet = {};
	struct cpu_stats *cpu;
	struct config *conf;
	__u32 zero = 0;

	cpu = stats.lookup(&zero);
	conf = config.lookup(&zero);
	if (!cpu || !conf)
		return XDP_PASS;
	cpu->received.packets++;
	cpu->received.bytes += length;
	parse_packet(&packet, data, data_end);
	cpu->protocols[packet.protocol & 7]++;
	if (packet.syn)
		cpu->syn++;
	if (packet.unparsed)
		cpu->unparsed[packet.unparsed & 7]++;
	now = coarse_now();
	if (cpu->tick_ns != now)
		watch_flood(cpu, conf, now);
	if (packet.kind == PACKET_IPV4 || packet.kind == PACKET_IPV6)
		protect(&decision, &packet, cpu, conf, now, length);
	else if (packet.unparsed && conf->flags & FLAG_DROP_UNPARSED)
		drop(&decision, REASON_UNPARSED, 0, cpu, conf, length);
	if (decision.action == XDP_DROP) {
		cpu->verdicts[VERDICT_DROPPED].packets++;
		cpu->verdicts[VERDICT_DROPPED].bytes += length;
	} else {
		cpu->verdicts[VERDICT_PASSED].packets++;
		cpu->verdicts[VERDICT_PASSED].bytes += length;
	}
	return decision.action;
}

/* Returns 1 where the request changed something. */
int control(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct control_request *request = data;
	struct address address;
	struct auto_block *block;
	struct rule *rule;
	struct state *shared;
	struct event *event;
	__u64 now = coarse_now(), seq;
	__u32 zero = 0, slot;

	if ((void *)(request + 1) > data_end)
		return 0;
	address = request->event.address;
	if (request->op == CONTROL_END_RULE) {
		slot = request->slot & RULE_SLOT;
		rule = rules.lookup(&slot);
		return rule ? end_rule(rule, now) : 0;
	}
	if (request->op == CONTROL_END_AUTO) {
		block = auto_blocks.lookup(&address);
		if (!block || block->until_ns > now || block->ended)
			return 0;
		end_auto_block(block, &address, request->event.length, now);
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
	event->time_ns = now;
	event->address = address;
	event->length = request->event.length;
	event->kind = request->event.kind;
	event->value[0] = request->event.value[0];
	event->value[1] = request->event.value[1];
	__builtin_memcpy(event->text, request->event.text, sizeof(event->text));
	__sync_lock_test_and_set(&event->seq, seq);
	return 1;
}
