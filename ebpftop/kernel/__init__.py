# SPDX-License-Identifier: Apache-2.0
"""How user space reaches the kernel."""
