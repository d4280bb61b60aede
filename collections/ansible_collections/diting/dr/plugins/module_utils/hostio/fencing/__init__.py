# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing agents: each switches one host off and on by something outside the host, and reads back what is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Agent, FencingError

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENTS = ("power", "ec2", "ecs", "ec2_network", "ecs_network")

__all__ = ["AGENTS", "Agent", "FencingError", "make_agent"]


def make_agent(name: str, options: Mapping[str, Any]) -> Agent:
    """The agent ``name`` for one host. Options that are None count as not given.

    Raises :class:`FencingError` for an option that is missing or unknown, credentials that cannot be read, or a
    library that is not installed. Nothing is asked of anybody yet.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        if name == "power":
            from .power import PowerAgent

            return PowerAgent(**given)
        if name in ("ec2", "ec2_network"):
            from .ec2 import Ec2Agent, Ec2NetworkAgent

            return Ec2Agent(**given) if name == "ec2" else Ec2NetworkAgent(**given)
        if name in ("ecs", "ecs_network"):
            from .ecs import EcsAgent, EcsNetworkAgent

            return EcsAgent(**given) if name == "ecs" else EcsNetworkAgent(**given)
    except TypeError as error:
        raise FencingError(f"agent {name}: {str(error).partition('() ')[2] or error}") from error
    raise FencingError(f"agent: want one of {', '.join(AGENTS)}, found {name!r}")
