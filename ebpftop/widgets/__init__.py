# SPDX-License-Identifier: Apache-2.0
"""What the dashboard is drawn with. Widgets draw what they are handed and ask nobody."""
