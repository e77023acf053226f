/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include_next <linux/if_packet.h>
