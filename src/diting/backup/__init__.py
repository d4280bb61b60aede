# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by timer: one member of the cluster takes them, never two at once."""
