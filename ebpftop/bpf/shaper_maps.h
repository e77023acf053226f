/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the shaper and user space share: every key and value, every map.
 *
 * ebpftop/bpf/shaper_layout.py is the twin of this page in numpy; the two are compared field
 * by field at each load.
 *
 * A bucket is one number: when, in line time of its class, all that has passed will have been
 * sent (the theoretical arrival time of ITU-T I.371). What lies ahead of the clock is owed;
 * the burst less what is owed is in the bucket. Line time is in 1/256 ns (TIME_SHIFT): 60
 * bytes at 100 Gbit/s take 4.8 ns. The number's lowest bit names the shape of the class that it
 * is kept in (token_bucket.h), so it wraps after 417 days, and only differences are ever looked
 * at: up to MOST_OWED ahead of the clock is debt, all else is the past.
 */
#ifndef EBPFTOP_SHAPER_MAPS_H
#define EBPFTOP_SHAPER_MAPS_H

#define TIME_SHIFT 8
#define COST_SHIFT 16
#define MOST_OWED (1ULL << 57)
#define RESERVE_SHARES 16
#define CLASSES 256
#define CLASS_NAME 32
#define HOOKED_INTERFACES 64

struct address {
	__u64 high, low;
};

/* Key of the trie: `length` counts the direction's 32 bits and the address's 128. */
struct classified {
	__u32 length;
	__u32 direction;          /* in network order */
	__u32 word[4];
};

enum direction { INGRESS, EGRESS, DIRECTIONS };

enum shaping { SHAPING_NONE, SHAPING_PACE, SHAPING_HTB, SHAPING_POLICE };

struct count {
	__u64 packets, bytes;
};

#define SHAPER_INGRESS    (1ULL << 0)  /* there are classes for what comes in */
#define SHAPER_EGRESS     (1ULL << 1)  /* there are classes for what goes out */
#define SHAPER_COUNT_SENT (1ULL << 2)  /* count what is sent to each address */

/* Written whole by user space; one lookup a packet. */
struct shaper_config {
	__u64 generation;         /* raised after each change of an assignment */
	__u64 flags;
	__u64 horizon;            /* line time: what would leave later than this is dropped */
	__u64 mark;               /* line time: what is paced to leave later than this is marked */
	__u64 count_sent;         /* for user space: 0 as classes need it, 1 on, 2 off */
	__u64 retired_packets;    /* for readers: counted by classes that are no more */
};

/* What a bucket is at one rate. */
struct bucket_shape {
	__u64 byte_cost;          /* line time a byte, times 2^COST_SHIFT */
	__u64 burst;              /* line time that may be owed */
	__u64 mark;               /* line time owed at which ECN-capable packets are marked */
	__u64 coarse;             /* 1: the coarse clock will do; what it may lag is off the burst */
};

/* What a class is; its bucket lives apart, so that writing one does not touch the other. */
struct traffic_class {
	__u64 shaping;            /* enum shaping at work; 0: the slot is free */
	__u64 direction;          /* enum direction */
	struct bucket_shape shapes[2]; /* the bucket's lowest bit says which one is in force */
	__u64 parent;             /* slot of the ceiling over it plus 1; 0: none */
	__u64 reserve;            /* what of the parent's burst it may not borrow, in RESERVE_SHARES */
	__u64 htb;                /* major:minor of its HTB class */
	__u64 rate_bps, burst_bytes, priority; /* for user space: in the operator's units */
	__u64 wanted;             /* for user space: enum shaping asked for; 0: auto */
	__u64 set_ns;             /* for user space: when it was made */
	__u64 queue_from;         /* for readers: queued_bytes when its HTB class was made */
	__u64 lost_packets, lost_bytes; /* for readers: dropped by HTB classes it had before */
	char name[CLASS_NAME];
};

/* A cache line each: cores that work on two classes must not meet on one. */
struct bucket {
	__u64 time;
	__u64 unused[7];
};

/* Counters of one CPU. Packets and bytes are all of the class, dropped ones included. */
struct class_stats {
	__u64 packets, bytes;
	__u64 dropped_packets, dropped_bytes;
	__u64 marked_packets;
	__u64 borrowed_bytes;     /* passed on the parent's account */
	__u64 queued_bytes;       /* handed to HTB classes */
};

struct shaper_stats {
	struct count classified[DIRECTIONS];
	struct count unclassified[DIRECTIONS];
	struct count exempt[DIRECTIONS]; /* ARP and neighbour discovery */
};

/* An address that we send to: its class, and what went there. */
struct sent {
	__u64 policy;             /* generation << 32 | slot + 1 */
	__u64 packets, bytes;
	__u64 first_ns;
};

/* What control asks of shape_control, as the bytes of its packet. */
struct shape_request {
	__u64 slot;
	__u64 shape;              /* the one that is to be in force */
	__u64 factor, shift;      /* what is owed becomes as much times factor, over 2^shift */
};

/* For user space: what was put on an interface, and so must be taken away again. */
struct shaper_hook {
	__u64 ifindex;            /* 0: none */
	__u64 flags;
};

BPF_ARRAY(shaper_config, struct shaper_config, 1);
BPF_PERCPU_ARRAY(shaper_stats, struct shaper_stats, 1);
BPF_ARRAY(traffic_classes, struct traffic_class, CLASSES);
BPF_ARRAY(buckets, struct bucket, CLASSES);
BPF_PERCPU_ARRAY(class_stats, struct class_stats, CLASSES);
BPF_F_TABLE("lpm_trie", struct classified, __u64, ip_classification, CAPACITY_PREFIXES,
	    BPF_F_NO_PREALLOC);
BPF_TABLE("lru_hash", struct address, struct sent, sent_to, CAPACITY_SENT);
BPF_TABLE("lru_hash", struct address, __u64, ingress_cache, CAPACITY_CACHE);
BPF_ARRAY(shaper_hooks, struct shaper_hook, HOOKED_INTERFACES);
#ifdef TEST_CLOCK
BPF_ARRAY(shaper_clock, __u64, 1);
#endif

#endif
