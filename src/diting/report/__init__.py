# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a drill: typed input, one canonical report, its HTML and Markdown, and the hash chain."""
