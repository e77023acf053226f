# SPDX-License-Identifier: Apache-2.0
"""Tests that need root and the running kernel."""
