/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The oldest kernel the programs are written for; bcc picks its helper declarations by it. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 15, 0)
