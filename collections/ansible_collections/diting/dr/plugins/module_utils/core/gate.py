# SPDX-License-Identifier: GPL-3.0-or-later
"""The one door: whatever changes a live system asks here first. Pure; decided on data alone."""

from __future__ import annotations

from .gate_policy import DEFAULT_POLICY, Needs, Policy, PolicyError, parse_policy

__all__ = ["DEFAULT_POLICY", "Needs", "Policy", "PolicyError", "parse_policy"]
