# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done regularly, without being asked: one table of jobs, each run by a timer of systemd or by hand."""
