# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL that a recorded point and the proof of a restore share: one text on both sides, or their digests mean nothing. Pure.

Used by the module that records, and by the program that restores; the latter has no other part of the project beside it.
"""

from __future__ import annotations

SCHEMA = "diting_proof"
SETTINGS = (
    "SET timezone TO 'UTC'",
    "SET datestyle TO 'ISO, YMD'",
    "SET intervalstyle TO 'postgres'",
    "SET extra_float_digits TO 1",
    "SET bytea_output TO 'hex'",
    "SET xmloption TO 'content'",
    "SET lc_monetary TO 'C'",
    # Names in the text of a regclass are then always whole.
    "SET search_path TO pg_catalog",
)
"""A row's text follows these; a database or a role may have its own."""
SENTINEL = f"{SCHEMA}.sentinel"


def quoted(table: str) -> str:
    """``schema.table`` as two SQL identifiers. Raises ValueError for anything that is not two words with one dot."""
    parts = table.split(".")
    if len(parts) != 2 or not all(parts) or "\0" in table:
        raise ValueError(f"{table!r}: wanted schema.table")
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def digest(table: str) -> str:
    """A query for rows and digest of ``schema.table``, as one text with a space between.

    The digest is the sum of a 64-bit hash of each row's text, so that the order of rows is of no matter. It finds what damage and
    lost writes do; it is no proof against somebody who makes rows up on purpose.
    """
    return (
        "SELECT count(*)::text || ' ' || coalesce(sum(hashtextextended(diting_row::text, 0)::numeric), 0)::text"  # noqa: S608 - both names are quoted below
        f" FROM {quoted(table)} AS diting_row"
    )
