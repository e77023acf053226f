/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * For a module that works on the maps of an instance: what is declared from here on is opened
 * where it is pinned, in the folder SHARED_PINS, and not made. Included before the maps.
 *
 * bcc takes a path behind the type of a table, as its BPF_TABLE_PINNED does; the macro that all
 * tables are made by is replaced by one that adds it.
 */
#ifndef EBPFTOP_SHARED_MAPS_H
#define EBPFTOP_SHARED_MAPS_H

#undef BPF_TABLE
#undef BPF_F_TABLE
#define BPF_F_TABLE(_table_type, _key_type, _leaf_type, _name, _max_entries, _flags)              \
	struct _name##_table_t {                                                                  \
		_key_type key;                                                                    \
		_leaf_type leaf;                                                                  \
		_leaf_type *(*lookup)(_key_type *);                                               \
		_leaf_type *(*lookup_or_try_init)(_key_type *, _leaf_type *);                     \
		int (*update)(_key_type *, _leaf_type *);                                         \
		int (*insert)(_key_type *, _leaf_type *);                                         \
		int (*delete)(_key_type *);                                                       \
		__u32 max_entries;                                                                \
		int flags;                                                                        \
	};                                                                                        \
	__attribute__((section("maps/" _table_type SHARED_PIN(_name))))                           \
	struct _name##_table_t _name = { .flags = (_flags), .max_entries = (_max_entries) };      \
	BPF_ANNOTATE_KV_PAIR(_name, _key_type, _leaf_type)
#define BPF_TABLE(_table_type, _key_type, _leaf_type, _name, _max_entries)                        \
	BPF_F_TABLE(_table_type, _key_type, _leaf_type, _name, _max_entries, 0)
#define SHARED_PIN(_name) ":" SHARED_PINS "/" #_name

#endif
