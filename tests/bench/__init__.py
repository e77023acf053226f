# SPDX-License-Identifier: Apache-2.0
"""What ebpftop costs, beside what a user would pick instead: `make bench`."""
