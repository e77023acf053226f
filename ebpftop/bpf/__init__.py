# SPDX-License-Identifier: Apache-2.0
"""What runs in the kernel: the C programs, their compiler's child, the layout of their maps."""
