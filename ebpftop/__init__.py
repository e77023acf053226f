# SPDX-License-Identifier: Apache-2.0
"""See who is sending what to a Linux interface, and act on it, in one terminal."""

__version__ = "0.1.0"
