# SPDX-License-Identifier: GPL-3.0-or-later
"""Fencing agents: each switches one host off and on by something outside the host, and reads back what is so."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .base import Agent, FencingError

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENTS = ("power", "ec2", "ecs", "ec2_network", "ecs_network")

__all__ = ["AGENTS", "Agent", "FencingError", "make_agent", "option_problems"]


def _kind(name: str) -> type[Any] | None:
    if name == "power":
        from .power import PowerAgent

        return PowerAgent
    if name in ("ec2", "ec2_network"):
        from .ec2 import Ec2Agent, Ec2NetworkAgent

        return Ec2Agent if name == "ec2" else Ec2NetworkAgent
    if name in ("ecs", "ecs_network"):
        from .ecs import EcsAgent, EcsNetworkAgent

        return EcsAgent if name == "ecs" else EcsNetworkAgent
    return None


def make_agent(name: str, options: Mapping[str, Any]) -> Agent:
    """The agent ``name`` for one host. Options that are None count as not given.

    Raises :class:`FencingError` for an option that is missing or unknown, credentials that cannot be read, or a
    library that is not installed. Nothing is asked of anybody yet.
    """
    kind = _kind(name)
    if kind is None:
        raise FencingError(f"agent: want one of {', '.join(AGENTS)}, found {name!r}")
    try:
        made: Agent = kind(**{key: value for key, value in options.items() if value is not None})
    except TypeError as error:
        raise FencingError(f"agent {name}: {str(error).partition('() ')[2] or error}") from error
    return made


def option_problems(name: str, options: Mapping[str, Any]) -> list[str]:
    """Options that the agent ``name`` needs and that are missing, and those that it does not know.

    By their names alone: nothing is opened, so a configuration can be judged before its files are there.
    """
    kind = _kind(name)
    if kind is None:
        return [f"agent: want one of {', '.join(AGENTS)}, found {name!r}"]
    known: dict[str, bool] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            for item in inspect.signature(vars(base)["__init__"]).parameters.values():
                if item.kind is item.KEYWORD_ONLY:
                    known[item.name] = item.default is item.empty
    given = {key for key, value in options.items() if value is not None}
    missing = [f"missing option {key}" for key, needed in known.items() if needed and key not in given]
    return missing + [f"unknown option {key}" for key in sorted(given - known.keys())]
