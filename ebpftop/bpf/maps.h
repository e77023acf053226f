/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs and user space share: every key and value, every map.
 *
 * ebpftop/bpf/layout.py is the twin of this page in numpy; the two are compared field by
 * field at each load. All fields are 64 bits wide or padded by hand, so that no compiler
 * chooses. Addresses are 16 bytes in network order, IPv4 mapped into ::ffff:0:0/96.
 *
 * Times are CLOCK_MONOTONIC nanoseconds; times of limiters are 1/16 ns (LIMITER_SHIFT), so
 * that a 60-byte frame at 100 Gbit/s (4.8 ns) is charged within 2 %, and last for 36 years.
 */
#ifndef EBPFTOP_MAPS_H
#define EBPFTOP_MAPS_H

#define LIMITER_SHIFT 4
#define BYTE_COST_SHIFT 20
#define EVENTS 1024
#define EVENT_TEXT 32
#define RULE_TEXT 40

/* What is rare is laid out apart from what each packet runs through. */
#define unlikely(condition) __builtin_expect(!!(condition), 0)

struct address {
	__u64 high, low;
};

/* Key of the tries: `length` counts all 128 bits. */
struct prefix {
	__u32 length;
	__u32 word[4];
};

enum protocol { PROTO_TCP, PROTO_UDP, PROTO_ICMP, PROTO_ICMPV6, PROTO_OTHER, PROTOCOLS };

enum verdict {
	VERDICT_PASSED, VERDICT_DROPPED, VERDICT_TRANSMITTED, VERDICT_REDIRECTED,
	VERDICT_ABORTED, VERDICTS
};

/* Why a packet was dropped. */
enum reason {
	REASON_NONE, REASON_BLOCKED, REASON_BLOCKED_PREFIX, REASON_BLOCKED_AUTO, REASON_LIMIT_PPS,
	REASON_LIMIT_BPS, REASON_LIMIT_SYN, REASON_NEW_SOURCE,
	REASON_UNPARSED, REASON_VIP_FRAGMENT, REASON_VIP_OPTIONS, REASON_NO_BACKEND,
	REASON_REPLY_NO_FLOW, REASON_NO_NEXT_HOP, REASON_FLOW_COLLISION, REASON_TOO_BIG,
	REASON_HOP_LIMIT, REASONS
};

#define REASON_MASK 31

/* Why a packet could not be parsed to its ports. */
enum unparsed {
	UNPARSED_NONE, UNPARSED_VLAN_TRUNCATED, UNPARSED_VLAN_DEPTH, UNPARSED_IP_TRUNCATED,
	UNPARSED_IP_HEADER, UNPARSED_EXTENSION_DEPTH, UNPARSED_L4_TRUNCATED, UNPARSED_L4_HEADER,
	UNPARSED
};

/* Why a packet of a VIP was left to the stack. */
enum handed {
	HANDED_NONE, HANDED_FRAGMENT, HANDED_OPTIONS, HANDED_NEIGHBOUR, HANDED_TOO_BIG, HANDED
};
#define HANDED_MASK 7

/* Why a packet of a VIP was answered with an ICMP error. */
enum answer { ANSWER_NONE, ANSWER_TOO_BIG, ANSWER_HOP_LIMIT, ANSWERED };
#define ANSWER_MASK 3

struct count {
	__u64 packets, bytes;
};

/* Counters of one CPU. Only that CPU writes them, so plain additions lose nothing. */
struct cpu_stats {
	struct count received;
	struct count verdicts[VERDICTS];
	__u64 protocols[PROTOCOLS];
	__u64 syn;
	__u64 drops[REASONS];
	__u64 would_drop[REASONS];
	__u64 unparsed[UNPARSED];
	__u64 handed[HANDED];
	__u64 answered[ANSWERED];
	__u64 number;            /* of this CPU, from 1 on; 0 before its first packet */
	__u64 tick_ns;           /* the coarse clock when this CPU last did its housekeeping */
	__u64 untracked;         /* packets of sources beyond the budget: they have no row */
	__u64 flood_packets;     /* dropped automatically or untracked, and not yet shared */
	__u64 flood_untracked;   /* those of them that are untracked */
	__u64 budget_window_ns;  /* when the present window for new sources began */
	__u64 budget_used;       /* new sources in it */
	__u64 flows_window_ns;   /* the same for new flows */
	__u64 flows_used;
	__u64 answers_window_ns;  /* the same for ICMP errors of our own */
	__u64 answers_used;
};

#define FLAG_ALLOWED       (1ULL << 0)  /* the allow list has entries */
#define FLAG_BLOCKS        (1ULL << 1)  /* blocked_ips has entries */
#define FLAG_PREFIXES      (1ULL << 2)  /* blocked_nets has entries */
#define FLAG_PROTECTED     (1ULL << 3)  /* protected has entries */
#define FLAG_LIMITS        (1ULL << 4)  /* at least one limit is on */
#define FLAG_AUTO          (1ULL << 5)  /* limits were on once: auto_blocks may have entries */
#define FLAG_DRY_RUN       (1ULL << 6)  /* count what protection would drop, drop none of it */
#define FLAG_DROP_NEW      (1ULL << 7)  /* drop sources over the budget of new ones */
#define FLAG_DROP_UNPARSED (1ULL << 8)  /* drop what cannot be parsed */
#define FLAG_VIPS          (1ULL << 9)  /* vips has entries */
#define FLAG_DROP_FRAGMENTS (1ULL << 10) /* drop fragments of VIPs' traffic */
#define FLAG_DROP_OPTIONS  (1ULL << 11) /* drop VIPs' traffic with options in its IP header */
#define FLAG_MERGED        (1ULL << 12) /* generic mode: packets come merged, larger than they were */

/* Written whole by user space; one lookup a packet. */
struct config {
	__u64 generation;         /* raised after each change of a list: rows look again */
	__u64 flags;
	__u64 pps_cost;           /* 1/16 ns a packet; 0: no limit */
	__u64 byte_cost;          /* 1/16 ns a byte, times 2^BYTE_COST_SHIFT; 0: no limit */
	__u64 syn_cost;           /* 1/16 ns a connection request; 0: no limit */
	__u64 burst;              /* 1/16 ns that a source may run ahead */
	__u64 grace_ns;
	__u64 block_for_ns;       /* 0: never block */
	__u64 new_sources;        /* new rows a CPU may add in each NEW_SOURCES_WINDOW_NS */
	__u64 flood_pps;          /* packets dropped automatically or untracked: a flood begins */
	__u64 pps, bps, syn;      /* for readers: the limits in the operator's units */
	__u64 burst_ns;           /* for readers: as the operator said it; `burst` may be longer */
	__u64 rules_used;         /* for readers: slots of `rules` from this one on are free */
	__u64 new_flows;          /* new flows a CPU may add in each NEW_SOURCES_WINDOW_NS */
	__u64 ids_used;           /* for writers: the last id that a VIP or endpoint was given */
	__u64 tcp_idle_ns;        /* for the sweep: after which silence a flow is over */
	__u64 tcp_opening_ns;     /* the same before it is established, and once it closes */
	__u64 udp_idle_ns;
	__u64 hops_until_ns;      /* the ways to backends are kept: before then they are right */
};

/* Generic cell rate algorithm (ITU-T I.371), one theoretical arrival time a limit. */
struct limiter {
	__u64 pps_time, byte_time;
	__u64 over_since_ns;      /* 0: not over a limit */
	__u64 blocked;            /* 1: auto_blocks may hold it */
	__u64 syn_time;
};

struct traffic {
	__u64 passed_packets, passed_bytes;
	__u64 dropped_packets, dropped_bytes;
};

/*
 * One source. The CPU that met it first owns it and counts by plain additions, all others apart
 * by atomic ones: two of these cost as much as all that finds the row.
 */
struct source {
	__u64 policy;             /* generation << 32 | rule */
	__u64 last_ns;
	__u64 owner;              /* cpu_stats.number of its CPU; never changes */
	struct traffic counted;   /* by the owner */
	struct limiter limiter;   /* of an IPv4 source; IPv6 is limited by /64 in net_limiters */
	struct traffic others;    /* by other CPUs */
	__u64 would_drop_packets;
	__u64 limited_ns;         /* when a limit last dropped one */
	__u64 first_ns;
};

/* A rule as rows cache it: what to do in the upper bits, slot in `rules` in the lower. */
#define RULE_ALLOWED   (1U << 31)
#define RULE_BLOCKED   (1U << 30)
#define RULE_PROTECTED (1U << 29)
#define RULE_PREFIX    (1U << 28)
#define RULE_SLOT      0xffffffU

#define RULE_ENDED 1ULL

/* One entry of the block and allow lists. The list maps hold the slot. */
struct rule {
	__u64 until_ns;           /* 0: for ever; RULE_ENDED: over, and told */
	__u64 set_ns;
	struct address address;
	__u32 length;
	__u32 kind;               /* RULE_ALLOWED or RULE_BLOCKED; 0: the slot is free */
	char text[RULE_TEXT];     /* the operator's reason */
};

struct auto_block {
	__u64 until_ns;
	__u64 set_ns;
	__u64 strikes;            /* how often, this time included */
	__u64 reason;             /* enum reason: the limit it was over */
	__u64 packets, bytes;     /* stopped by it */
	__u64 ended;              /* 1: its end was told */
};

enum event_kind {
	EVENT_NONE, EVENT_BLOCK, EVENT_BLOCK_AUTO, EVENT_BLOCK_END, EVENT_UNBLOCK, EVENT_FLOOD,
	EVENT_FLOOD_END, EVENT_TABLE_FULL,
	/* Of the backend at `address`: value[0] is its port, the text its VIP. */
	EVENT_BACKEND_UP, EVENT_BACKEND_DOWN, /* the checks' word */
	EVENT_BACKEND_STATE       /* the operator's: value[1] is enum backend_state */
};

struct event {
	__u64 seq;                /* 0 while it is being written */
	__u64 time_ns;
	struct address address;
	__u32 length;
	__u32 kind;
	__u64 value[2];
	char text[EVENT_TEXT];
};

/* State that all CPUs share; touched on state changes and once a tick, not each packet. */
struct state {
	__u64 event_seq;
	__u64 flood_since_ns;     /* 0: no flood */
	__u64 flood_last_ns;
	__u64 flood_window_ns;
	__u64 flood_packets;      /* dropped automatically or untracked, in the present window */
	__u64 flood_untracked;    /* those of them that are untracked */
	__u64 sources_added;
	__u64 table_full_ns;      /* when rows first had to make room; 0: never */
	__u64 stateless_ns;       /* when a flow was last placed without an entry */
};

/* What control asks of the `control` program, as the bytes of its packet. */
enum control_op {
	CONTROL_EVENT = 1, CONTROL_END_RULE, CONTROL_END_AUTO, CONTROL_END_FLOWS,
	CONTROL_CORRECT_FLOWS
};

struct control_request {
	__u64 op;
	__u64 slot;
	struct event event;
};

/* What explain returns: the action in the lowest bits, and above it. */
#define EXPLAIN_PLACEMENT_SHIFT 4  /* enum placement */
#define EXPLAIN_REASON_SHIFT 8     /* enum reason */
#define EXPLAIN_BACKEND_SHIFT 16   /* its slot */

/* Who made the instance and what it is made of: JSON, so that a reader needs nothing else. */
#define META_BYTES 8176
struct meta {
	__u64 length;
	__u64 crc32;
	char json[META_BYTES];
};

BPF_ARRAY(config, struct config, 1);
BPF_PERCPU_ARRAY(stats, struct cpu_stats, 1);
BPF_ARRAY(state, struct state, 1);
BPF_ARRAY(events, struct event, EVENTS);
BPF_TABLE("lru_hash", struct address, struct source, ip_tracker, CAPACITY_SOURCES);
BPF_TABLE("lru_hash", __u64, struct limiter, net_limiters, CAPACITY_SOURCES);
BPF_TABLE("lru_hash", struct address, struct auto_block, auto_blocks, CAPACITY_BLOCKS);
BPF_TABLE("hash", struct address, __u64, blocked_ips, CAPACITY_BLOCKS);
BPF_F_TABLE("lpm_trie", struct prefix, __u64, blocked_nets, CAPACITY_PREFIXES, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct prefix, __u64, allowed, CAPACITY_PREFIXES, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct prefix, __u64, protected, CAPACITY_PREFIXES, BPF_F_NO_PREALLOC);
BPF_ARRAY(rules, struct rule, CAPACITY_RULES);
BPF_PERCPU_ARRAY(rule_hits, struct count, CAPACITY_RULES);
BPF_ARRAY(meta, struct meta, 1);
#ifdef TEST_CLOCK
BPF_ARRAY(test_clock, __u64, 1);
#endif

#endif
