# SPDX-License-Identifier: GPL-3.0-or-later
"""Lose hosts of the lab with all that is on them, as a fire or a deleted instance does: ``lab up`` then makes new, empty ones."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from diting.lab.podman import Podman, PodmanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diting.lab.instance import Instance


class LoseError(Exception):
    """A host could not be lost; the message names it."""


def lose(instance: Instance, hosts: Sequence[str]) -> list[str]:
    """All of them at once, without a chance to write anything more. Returns those that were there. Raises LoseError."""
    unknown = sorted(set(hosts) - set(instance.hosts))
    if unknown:
        raise LoseError(
            f"found {', '.join(unknown)}, wanted hosts of this lab: {', '.join(sorted(instance.hosts))}"
        )
    podman = Podman(instance.podman_home)
    there = [host for host in hosts if podman.identity(instance.container(host)) is not None]
    containers = [instance.container(host) for host in there]
    for container in containers:
        # All end before the first is taken away: no host is to see the others go. One that is off already cannot be killed.
        with contextlib.suppress(PodmanError):
            podman.run("kill", "--signal", "KILL", container)
    try:
        if containers:
            podman.run("rm", "--force", "--time", "0", *containers)
    except PodmanError as error:
        raise LoseError(str(error)) from error
    return there
