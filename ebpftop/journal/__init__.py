# SPDX-License-Identifier: Apache-2.0
"""The audit log: a line of JSON for each act, written by who acts and read by who watches."""

from ebpftop.journal.log import DEFAULT_PATH, Acts, Line, Log, Reader, default_path

__all__ = ["DEFAULT_PATH", "Acts", "Line", "Log", "Reader", "default_path"]
