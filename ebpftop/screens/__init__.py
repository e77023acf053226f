# SPDX-License-Identifier: Apache-2.0
"""The panes of the dashboard and the dialogs over them."""
