# SPDX-License-Identifier: Apache-2.0
"""The only importer of pyroute2: what the kernel tells and takes over netlink."""
