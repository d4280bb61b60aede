# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy that role gate installs is the one the code calls its default."""

from __future__ import annotations

from pathlib import Path

import yaml

from diting.core.gate_policy import DEFAULT_POLICY, parse_policy

DEFAULTS = Path(__file__).parents[2] / "roles" / "gate" / "defaults" / "main.yml"


def test_role_and_code_agree_on_the_default_policy():
    policy = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))["gate_policy"]
    assert policy == DEFAULT_POLICY


def test_the_default_policy_is_valid():
    parse_policy(yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))["gate_policy"])
