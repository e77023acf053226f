/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the load balancer and user space share; layout.py is the twin, as of maps.h.
 *
 * User space alone writes vips, vip_slots, checks, checker, endpoints, balanced, ports, backends
 * and rings; the program alone writes the rest. A VIP's value is replaced whole, and with it which
 * half of its ring is in force. Ids are never used twice, so that what is left of a VIP or a
 * backend that was taken out cannot be mistaken for another's.
 */
#ifndef EBPFTOP_BALANCER_MAPS_H
#define EBPFTOP_BALANCER_MAPS_H

#define VIPS 256
#define BACKENDS 1024       /* slot 0 is none */
#define RING_SLOTS 4096     /* of one half of one VIP's ring */
#define RING_WORD 4         /* slots in an entry of `rings` */
#define PORTS 64

/* Keys are made of 64-bit numbers: what is written in smaller parts and read in larger ones,
 * as hashing does, waits for the processor to put it together. */
struct service {
	struct address address;
	__u64 port;               /* enum protocol << SERVICE_PROTOCOL_SHIFT | port number */
};
#define SERVICE_PROTOCOL_SHIFT 16

enum algorithm { ALGORITHM_RR, ALGORITHM_WRR, ALGORITHM_LEAST, ALGORITHM_MAGLEV };

#define VIP_DSR (1U << 0)       /* rewrite MAC addresses only; backends own the address */
#define VIP_RESET (1U << 1)     /* no backend lives: the ring holds all of them */
#define VIP_ALL (1U << 2)       /* of a slot: where no backend lives, use all of them */
#define VIP_POLICY (1U << 3)    /* of a slot: the policy file has it */

struct vip {
	__u32 id;
	__u32 slot;               /* in vip_slots, vip_turns and vip_stats */
	__u32 algorithm;          /* enum algorithm */
	__u32 flags;
	__u32 ring_start;         /* its first slot in `rings` */
	__u32 ring_length;        /* 0: no backend takes new flows */
};

/* A VIP by its slot. */
struct vip_slot {
	struct service service;
	__u32 id;                 /* 0: the slot is free */
	__u32 flags;              /* VIP_DSR, VIP_ALL, VIP_POLICY: for writers */
};

/* How a VIP's backends are asked whether they live, by the VIP's slot. For user space alone. */
enum check_kind { CHECK_NONE, CHECK_TCP, CHECK_HTTP };
#define CHECK_PATH 128
#define CHECK_HOST 64

struct check {
	__u64 interval_ns, timeout_ns;
	__u32 kind;               /* enum check_kind */
	__u32 port;               /* 0: the backend's own */
	__u32 rise, fall;         /* checks in a row */
	__u32 status;             /* of HTTP: the right one */
	__u32 _pad;
	char path[CHECK_PATH];
	char host[CHECK_HOST];    /* empty: the backend's address */
};

/* Where packets leave to: tags << VLAN_TAGS_SHIFT | id of the outer VLAN. */
#define VLAN_TAGS_SHIFT 12

struct hop {
	__u32 ifindex;            /* 0: not known */
	__u8 destination[6];
	__u8 source[6];
};

#define BACKEND_SERVES (1U << 0) /* flows that it has may stay */
#define BACKEND_POLICY (1U << 1) /* for writers: the policy file has it */

enum backend_state { BACKEND_UP, BACKEND_DRAIN, BACKEND_DOWN };
enum health { HEALTH_UNKNOWN, HEALTH_GOOD, HEALTH_BAD };

struct backend {
	struct service service;
	__u32 id;                 /* of its endpoint; 0: the slot is free */
	__u32 flags;
	__u32 vip_slot, vip_id;
	__u32 weight;
	__u32 first_weight;       /* the one it was added with */
	__u32 state;              /* enum backend_state: the operator's */
	__u32 health;             /* enum health: the checks' */
	struct hop hop;           /* kept by user space; good until config.hops_until_ns */
	__u32 vlan;
	__u32 mtu;                /* of its way; 0: not known */
};

/* An address and port that backends answer from. */
struct endpoint {
	__u32 id;
	__u32 vip_slot, vip_id;   /* the VIP it is a backend of, where that is one */
	__u32 users;              /* backends with this address and port */
};

#define BALANCED_VIP (1ULL << 0)
#define BALANCED_BACKEND (1ULL << 1)

/* An interface that packets may leave by, by the number that routes call it. */
struct port {
	__u32 ifindex;            /* the one that the program is attached to */
	__u32 vlan;
};

/*
 * One direction of a flow, by its client and who that talks to: the VIP's id or, from a
 * backend, the endpoint's.
 */
struct flow {
	struct address client;
	__u64 port;               /* id << FLOW_ID_SHIFT | the client's port number */
};
#define FLOW_ID_SHIFT 16

enum connection_state {
	CONNECTION_NONE, CONNECTION_SYN_SENT, CONNECTION_SYN_RECEIVED, CONNECTION_ESTABLISHED,
	CONNECTION_FIN_CLIENT, CONNECTION_FIN_BACKEND, CONNECTION_CLOSED, CONNECTION_UDP,
	CONNECTION_REPLY, CONNECTION_ENDED
};

/*
 * The word of a connection changes by 64-bit compare-and-swap alone: who flow it is (an LRU
 * entry may become another flow's under a reader's hands), its backend and its state are one.
 */
#define WORD_TAG_SHIFT 24       /* bits of the flow's hash, from here up */
#define WORD_SLOT_SHIFT 8       /* of the backend; of a reply, of the VIP */
#define WORD_SLOT 0xffffU
#define WORD_STATE 0xffU

struct connection {
	__u64 word;
	__u64 last_ns;            /* exact to STAMP_NS */
	__u64 first_ns;
	__u64 packets, bytes;     /* in this direction */
	__u32 vip;                /* its id */
	__u16 backend;            /* its slot: of a reply; to a VIP it is in the word */
	__u16 vlan;
	struct hop hop;           /* of a reply: the way to the client */
	__u64 mtu;                /* of that way; 0: not known */
};

struct balance_count {
	__u64 packets, bytes;     /* to the VIP or backend */
	__u64 reply_packets, reply_bytes;
	__u64 opened, closed;     /* flows; of a VIP, opened alone */
	__u64 dropped, handed;    /* of a VIP's: dropped or answered, left to the stack as they came */
	__u64 reply_dropped, reply_handed; /* the same of what its backends sent */
	__u64 stranded;           /* packets to a VIP none of whose backends lives */
};

/* What the sweep asks of `control`: flows that are silent since a time, or by how much the
 * count of a backend's flows is too high. */
#define FLOWS_AT_ONCE 64
struct flows_request {
	__u64 op;                 /* CONTROL_END_FLOWS or CONTROL_CORRECT_FLOWS */
	__u64 number;             /* how many of `flows`; or the backend's slot */
	__u64 value;              /* CLOCK_MONOTONIC; or by how much */
	struct flow flows[FLOWS_AT_ONCE];
};

BPF_TABLE("hash", struct service, struct vip, vips, VIPS);
BPF_ARRAY(vip_slots, struct vip_slot, VIPS);
BPF_ARRAY(checks, struct check, VIPS);
BPF_ARRAY(checker, __u64, 1);   /* when a process last saw to the checks; 0: none does */
BPF_ARRAY(vip_turns, __u64, VIPS);
BPF_PERCPU_ARRAY(vip_stats, struct balance_count, VIPS);
BPF_ARRAY(backends, struct backend, BACKENDS);
BPF_ARRAY(backend_flows, __u64, BACKENDS);
BPF_PERCPU_ARRAY(backend_stats, struct balance_count, BACKENDS);
BPF_TABLE("hash", struct service, struct endpoint, endpoints, BACKENDS);
BPF_TABLE("hash", struct address, __u64, balanced, VIPS + BACKENDS);
BPF_TABLE("hash", __u32, struct port, ports, PORTS);
BPF_ARRAY(rings, __u64, VIPS * 2 * RING_SLOTS / RING_WORD);
BPF_TABLE("lru_hash", struct flow, struct connection, connections, CAPACITY_CONNECTIONS);

#endif
