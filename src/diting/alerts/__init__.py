# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling people: what chat rooms and pagers are sent, and the dead man's switch of the alerting itself."""
