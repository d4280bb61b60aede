# SPDX-License-Identifier: GPL-3.0-or-later
"""What reading the objects of an archive found, which objects to read, and how to judge it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .verdict import Health, Reason

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from .backup_catalog import Catalog, StoredObject


@dataclass
class Content:
    """Names of objects by what became of them; those that are in none were not read for want of time.

    ``unproven`` are those of the good ones that carry no checksum: a wrong byte in them would not have been found.
    """

    wanted: int = 0
    good: list[tuple[str, int]] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for evidence. ``bytes`` are those of good objects, as they are stored."""
        size = sum(size for _name, size in self.good)
        return {
            "objects_wanted": self.wanted,
            "objects_good": len(self.good),
            "objects_damaged": len(self.damaged),
            "objects_unproven": len(self.unproven),
            "objects_unread": self.wanted - len(self.good) - len(self.damaged),
            "bytes": size,
            "seconds": round(self.seconds, 3),
        }


def findings(content: Content) -> list[tuple[Health, Reason]]:
    """Each damaged object by its name; what was not read is UNKNOWN, whatever the others were."""
    found = [
        (Health.UNHEALTHY, Reason("object_damaged", words, name))
        for name, words in sorted(content.damaged.items())
    ]
    found += [
        (Health.UNKNOWN, Reason("object_unread", words, name))
        for name, words in sorted(content.unread.items())
    ]
    if content.unproven:
        words = (
            f"{len(content.unproven)} objects carry no checksum, so that a wrong byte in them is not found by reading; "
            "lz4 and encryption have one"
        )
        found.append((Health.UNKNOWN, Reason("content_unproven", words, len(content.unproven), 0)))
    left = content.wanted - len(content.good) - len(content.damaged) - len(content.unread)
    if left > 0:
        words = f"{left} of {content.wanted} objects were not read: the time was up"
        found.append(
            (Health.UNKNOWN, Reason("content_not_finished", words, content.wanted - left, content.wanted))
        )
    return found


def to_read(
    found: Catalog, objects: Sequence[StoredObject], sample: int | None, chance: random.Random
) -> list[StoredObject]:
    """All of ``objects``, or those of the newest backup and ``sample`` more, drawn from the rest."""
    if sample is None:
        return list(objects)
    newest = {item.name for item in found.backups[-1].objects} if found.backups else set()
    first = [item for item in objects if item.name in newest]
    rest = [item for item in objects if item.name not in newest]
    return [*first, *chance.sample(rest, min(sample, len(rest)))]
