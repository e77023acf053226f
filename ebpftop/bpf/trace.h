/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The trace: packets that match a filter, as they came, with what became of them.
 *
 * Compiled into xdp_trace alone, which stands in for xdp_pipeline while somebody watches and
 * shares its maps. Of what matches, each CPU hands over `rate` packets a second and counts the
 * rest; ebpftop/bpf/trace_layout.py is the twin, as of maps.h.
 *
 * Cost    one array lookup and one of this CPU's record a packet; a copy and the exact clock
 *         for those that may be handed over.
 */
#ifndef EBPFTOP_TRACE_H
#define EBPFTOP_TRACE_H

#define TRACE_BYTES 128
#define TRACE_WINDOW_NS 1000000000ULL
#define TRACE_PAGES 64          /* 256 KiB, about 1,400 packets */
#ifndef PAGE_SIZE               /* bcc's macro counts in it */
#define PAGE_SIZE 4096
#endif

/* What to hand over; written before the program is attached. */
struct trace_filter {
	struct address source;    /* sources that are this one under `mask` */
	struct address mask;      /* 0: all packets, also those without a source */
	__u64 protocols;          /* a bit for each enum protocol */
	__u64 verdicts;           /* for each enum verdict */
	__u64 reasons;            /* for each enum reason */
	__u64 interface;          /* its number; 0: all */
	__u64 rate;               /* packets that a CPU hands over in TRACE_WINDOW_NS */
};

struct traced {
	__u64 time_ns;
	__u64 length;             /* of the packet, also of what is not in `data` */
	__u32 interface;
	__u32 captured;           /* bytes of `data` that are the packet's */
	__u32 verdict;            /* enum verdict */
	__u32 reason;             /* enum reason, also of a drop that the dry run only counts */
	__u32 protocol;           /* enum protocol */
	__u32 backend;            /* its slot; 0: none */
	__u8 data[TRACE_BYTES];   /* before anything was rewritten */
};

/* Of one CPU, and its room for the packet at hand. */
struct tracing {
	__u64 window_ns;          /* when the present window began */
	__u64 handed;             /* packets handed over in it */
	__u64 left_out;           /* matched and not handed over, in all */
	__u64 matches;            /* 1: source and protocol of this packet match */
	struct traced packet;
};

BPF_ARRAY(trace_filter, struct trace_filter, 1);
BPF_PERCPU_ARRAY(tracing, struct tracing, 1);
BPF_RINGBUF_OUTPUT(traces, TRACE_PAGES);

static __always_inline int trace_source(struct trace_filter *filter, struct packet *packet)
{
	if (!filter->mask.high && !filter->mask.low)
		return 1;
	if (packet->kind == PACKET_OTHER ||
	    (packet->kind == PACKET_NEIGHBOUR && packet->protocol != PROTO_ICMPV6))
		return 0;
	return (packet->source.high & filter->mask.high) == filter->source.high &&
	       (packet->source.low & filter->mask.low) == filter->source.low;
}

/* Keep the packet at hand, which the balancer may rewrite, if it may be handed over. */
static __always_inline void trace_arrival(struct run *run)
{
	__u32 zero = 0, length = run->length;
	struct trace_filter *filter = trace_filter.lookup(&zero);
	struct tracing *cpu = tracing.lookup(&zero);

	run->choice->backend = 0;
	if (!filter || !cpu)
		return;
	cpu->matches = (!filter->interface || filter->interface == run->ctx->ingress_ifindex) &&
		       (filter->protocols >> (run->packet->protocol & 7) & 1) &&
		       trace_source(filter, run->packet);
	if (!cpu->matches)
		return;
	if (run->now - cpu->window_ns >= TRACE_WINDOW_NS) {
		cpu->window_ns = run->now;
		cpu->handed = 0;
	}
	cpu->packet.captured = 0;
	if (cpu->handed >= filter->rate)
		return;
	if (length > TRACE_BYTES)
		length = TRACE_BYTES;
	/* For the verifier, which forgets a bound when the compiler moves a length about. */
	asm volatile("" : "+r"(length));
	length = ((length - 1) & (TRACE_BYTES - 1)) + 1;
	if (!bpf_xdp_load_bytes(run->ctx, 0, cpu->packet.data, length))
		cpu->packet.captured = length;
	cpu->packet.time_ns = bpf_ktime_get_ns();
	cpu->packet.length = run->length;
}

/* Hand over the packet, now that it is known what becomes of it. */
static __always_inline void trace_verdict(struct run *run, __u32 verdict)
{
	__u32 zero = 0;
	struct trace_filter *filter = trace_filter.lookup(&zero);
	struct tracing *cpu = tracing.lookup(&zero);

	if (!filter || !cpu || !cpu->matches || !(filter->verdicts >> verdict & 1) ||
	    !(filter->reasons >> (run->reason & REASON_MASK) & 1))
		return;
	if (!cpu->packet.captured) {
		cpu->left_out++;
		return;
	}
	cpu->packet.interface = run->ctx->ingress_ifindex;
	cpu->packet.verdict = verdict;
	cpu->packet.reason = run->reason;
	cpu->packet.protocol = run->packet->protocol;
	cpu->packet.backend = run->choice->backend;
	if (traces.ringbuf_output(&cpu->packet, sizeof(cpu->packet), 0))
		cpu->left_out++;
	else
		cpu->handed++;
}

#endif
