/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the stages tell each other about one packet. It lives in a map of one entry a CPU: what
 * the verifier knows of values on the stack would multiply its states in every later stage.
 */
#ifndef EBPFTOP_SCRATCH_H
#define EBPFTOP_SCRATCH_H

enum packet_kind {
	PACKET_OTHER,      /* no IP, or no address could be read */
	PACKET_NEIGHBOUR,  /* ARP and neighbour discovery: never dropped */
	PACKET_IPV4,
	PACKET_IPV6,
};

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	struct address source, destination;
	__u32 kind;               /* enum packet_kind */
	__u32 protocol;           /* enum protocol */
	__u32 unparsed;           /* enum unparsed; addresses are right where kind is an IP's */
	__u32 syn;                /* 1: a TCP connection request */
	__be16 source_port;       /* 0 where there are no ports */
	__be16 destination_port;
	__u16 l3;                 /* offset of the IP header */
	__u16 l4;                 /* offset of what it carries */
	__u16 end;                /* offset of the IP packet's end */
	__u8 tcp_flags;
	__u8 hop_limit;           /* or the time to live */
	__u8 fragment;            /* enum fragment */
	__u8 options;             /* 1: IPv4 options or IPv6 extension headers */
	__u8 icmp_type;
	__u8 tags;                /* VLAN tags */
	__be16 vlan;              /* the first one's */
};

#define LINK_BYTES 22           /* Ethernet with two VLAN tags */

/* What the balancer chooses. */
struct choice {
	__u64 flows;              /* the fewest seen, of a backend of that weight */
	__u64 transitions;        /* of a TCP flow, by its state */
	__u32 weight;
	__u32 backend;            /* its slot; 0: none */
	__u32 reason;             /* enum reason: why there is none */
	__u32 placement;          /* enum placement: how it was found */
	__u32 answer;             /* enum answer: the error that it is answered with */
	__u32 start;              /* where in the ring it was looked for */
	__u64 mtu;                /* what the answer says */
	struct address from;      /* who it is from */
	__u8 link[LINK_BYTES];    /* the packet's link header, and some more of it */
	__u8 _pad[2];
};

/* The packet that an ICMP error is about. */
struct quoted {
	struct address source, destination;
	__u32 protocol;           /* enum protocol: TCP or UDP */
	__be16 source_port;
	__be16 destination_port;
};

struct scratch {
	struct packet packet;
	struct choice choice;
	struct quoted quoted;
};

BPF_PERCPU_ARRAY(scratch, struct scratch, 1);

/* One packet's way through the pipeline. */
struct run {
	struct xdp_md *ctx;
	struct packet *packet;
	struct choice *choice;
	struct quoted *quoted;
	struct cpu_stats *cpu;
	struct source *row;       /* of the packet's source; 0: none */
	struct config *conf;
	__u64 now, length;
	__u32 action;             /* XDP_* */
	__u32 reason;             /* enum reason, also of a drop that the dry run only counts */
	int live;                 /* a constant; 0: explain only, write to no map */
};

#endif
