#!/usr/bin/python
# Copyright: the Diting DR contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a copy of a cluster as it was at one moment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_copy
short_description: Make a copy of a cluster as it was at one moment
version_added: 0.3.0
author: Diting DR contributors (@diting-dr)
description:
  - With O(state=prepared) a backup is restored on this host, beside whatever runs there, with production's own settings and commands,
    recovered to the moment that O(plan) names, looked at, and stopped. The cluster goes on meanwhile.
  - With O(state=promoted) such a copy is promoted and stopped again, on a timeline of its own, and can be taken over as a data directory.
    That is for the time when the cluster has stopped. What has to be archived of it is archived by whoever runs it then.
  - A copy that did not become whole is taken away. One that is whole stays until it is taken over, or O(state=absent).
  - The same plan a second time changes nothing; another plan while a copy is there is refused.
  - Where systemd runs, the work is done by a unit of its own, which goes on when the connection to the host is lost.
extends_documentation_fragment:
  - diting.dr.attributes
options:
  state:
    description: What there is to be.
    type: str
    choices: [prepared, promoted, absent]
    default: prepared
  plan:
    description: What M(diting.dr.restore_plan) returned as RV(diting.dr.restore_plan#module:plan). Required unless O(state=absent).
    type: dict
  size_bytes:
    description: Bytes that the copy takes, without its WAL. Wanted by O(state=prepared).
    type: int
    default: 0
  backup_start_lsn:
    description: Where the backup begins, in bytes from LSN 0. Wanted by O(state=prepared).
    type: int
    default: 0
  asked:
    description: The operator's own words for the moment, kept with the note and not understood here.
    type: dict
    default: {}
  root:
    description: Directory of the copy, created; its parent has to be O(user)'s, and on the file system of the cluster's data directory.
    type: path
    required: true
  note:
    description: File that says what the copy is, in a directory that is there.
    type: path
    default: /var/lib/diting/restore/copy.json
  pg_bin:
    description: Directory of PostgreSQL's programs.
    type: path
    default: /usr/lib/postgresql/15/bin
  restore_command:
    description: The cluster's C(restore_command).
    type: str
    default: /usr/local/bin/diting-wal-restore %f %p
  program:
    description: The program that restores, with its options; role C(diting.dr.walg) installs it.
    type: list
    elements: str
    default: [/usr/local/bin/diting-wal]
  user:
    description: Who runs PostgreSQL.
    type: str
    default: postgres
  fetch_seconds:
    description: Longest that fetching may take.
    type: float
    default: 86400
  stall_seconds:
    description: Longest that fetching may make no progress.
    type: float
    default: 120
  replay_seconds:
    description: Longest that recovery may take.
    type: float
    default: 86400
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Make the copy
  diting.dr.restore_copy:
    plan: "{{ planned.plan }}"
    size_bytes: "{{ planned.size_bytes }}"
    backup_start_lsn: "{{ planned.backup_start_lsn }}"
    root: /var/lib/postgresql/15/diting-restore/copy
"""

RETURN = r"""
facts:
  description: Phases with their seconds, and C(last_commit), the time of the last transaction that came back.
  returned: when there is a copy
  type: dict
data_directory:
  description: Where the copy's data is.
  returned: always
  type: str
lines:
  description: What was done, in words.
  returned: success
  type: list
  elements: str
"""

import contextlib
import json
import os
import shutil
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.diting.dr.plugins.module_utils.core.approval import plan_sha256
from ansible_collections.diting.dr.plugins.module_utils.hostio.restore_run import (
    COPY,
    PROMOTION,
    RunError,
    Runner,
    Work,
)

MARK = "diting-scratch"
_LIMITS = ("fetch_seconds", "stall_seconds", "replay_seconds")
_LEFT = 60.0


class CopyError(Exception):
    """What was asked for was not done; the message says why."""


def note_of(path: Path) -> dict[str, t.Any] | None:
    """What this module wrote down of a copy; None where there is none. Raises CopyError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CopyError(f"{path}: {error}; wanted what this module wrote there") from error
    if not isinstance(found, dict) or {"plan", "plan_sha256", "state", "facts"} - set(found):
        raise CopyError(f"{path}: wanted plan, plan_sha256, state and facts, found something else")
    return found


def keep(params: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any]) -> None:
    """Write it down, whole or not at all. Raises OSError."""
    path, plan = Path(params["note"]), params["plan"]
    note = {"plan": plan, "plan_sha256": plan_sha256(plan), "state": params["state"], "facts": facts}
    note |= {"asked": params["asked"], "size_bytes": params["size_bytes"]}
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(note, sort_keys=True))
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


def request_of(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """For the program that restores. Raises CopyError."""
    try:
        to = params["plan"]["recover_to"]
        return {
            "id": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
            "root": params["root"],
            "pg_bin": params["pg_bin"],
            "restore_command": params["restore_command"],
            "backup": params["plan"]["backup"],
            "backup_bytes": params["size_bytes"],
            "backup_start_lsn": params["backup_start_lsn"],
            # How far the WAL goes is not known of every target; that it was reached is.
            "point_lsn": 0,
            "timeline": int(params["plan"]["timeline"]),
            "target_type": to["type"],
            "target": to["value"],
            "inclusive": bool(to["inclusive"]),
            "check_seconds": _LEFT,
            **{limit: params[limit] for limit in _LIMITS},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CopyError(
            f"plan: wanted what restore_plan returns, found {params['plan']!r} ({error!r})"
        ) from error


def carried_out(params: t.Mapping[str, t.Any], work: Work) -> dict[str, t.Any]:
    """Have it done; what was found. Raises CopyError."""
    runner = Runner(tuple(params["program"]), params["user"], params["root"], work)
    try:
        facts = runner.run(request_of(params), params["fetch_seconds"] + 2 * params["replay_seconds"])
    except RunError as error:
        raise CopyError(str(error)) from error
    for phase in facts.get("phases", ()):
        if phase.get("status") != "ok":
            raise CopyError(f"{phase.get('name')}: {phase.get('code')}: {phase.get('words')}")
    if not facts.get("complete"):
        raise CopyError("it did not come to its end, and nothing says why")
    return facts


def said(facts: t.Mapping[str, t.Any]) -> list[str]:
    """What was done, in words."""
    took = ", ".join(f"{phase['name']} {phase['seconds']:.1f} s" for phase in facts["phases"])
    reached = [str(phase["words"]) for phase in facts["phases"] if phase["name"] == "replay"]
    last = facts.get("last_commit")
    return [*reached, f"took {took}", *([f"last transaction that came back: {last}"] if last else [])]


def present(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Prepare or promote, unless that is so already. Raises CopyError, OSError."""
    root, path = Path(params["root"]), Path(params["note"])
    sha256 = plan_sha256(params["plan"])
    note = note_of(path)
    if note is not None and note["plan_sha256"] != sha256:
        raise CopyError(
            f"{root} holds a copy for another plan ({note['plan_sha256'][:16]}, wanted {sha256[:16]}): go on with that one, or "
            "discard it (state absent)"
        )
    data = str(root / "data")
    if note is not None and (params["state"] == "prepared" or note["state"] == "promoted"):
        return {
            "changed": False,
            "facts": note["facts"],
            "data_directory": data,
            "lines": ["it is there already"],
        }
    if params["state"] == "promoted" and note is None:
        raise CopyError(f"{root} holds no copy that is whole; prepare it first")
    if check_mode:
        return {"changed": True, "data_directory": data, "lines": [f"would be {params['state']}"]}
    if note is None:
        facts = carried_out(params, COPY)
    else:
        facts = {**note["facts"], "promotion": carried_out(params, PROMOTION)}
    keep(params, facts)
    return {
        "changed": True,
        "facts": facts,
        "data_directory": data,
        "lines": said(facts.get("promotion", facts)),
    }


def absent(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Take the copy and the note away. Raises CopyError, OSError."""
    root, note = Path(params["root"]), Path(params["note"])
    there = root.is_dir() or note.exists()
    # After a take-over the root holds nothing but what belongs to the copy.
    if root.is_dir() and any(root.iterdir()) and not (root / MARK).exists():
        raise CopyError(f"{root} holds no {MARK}: not made by this module, so it stays")
    if there and not check_mode:
        if root.is_dir():
            # The mark last: what a removal that was broken off leaves can still be told from anything else.
            for path in root.iterdir():
                if path.name != MARK:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            (root / MARK).unlink(missing_ok=True)
            root.rmdir()
        with contextlib.suppress(FileNotFoundError):
            note.unlink()
    return {
        "changed": there,
        "data_directory": str(root / "data"),
        "lines": ["taken away" if there else "there was none"],
    }


def main() -> t.NoReturn:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["prepared", "promoted", "absent"], "default": "prepared"},
            "plan": {"type": "dict"},
            "size_bytes": {"type": "int", "default": 0},
            "backup_start_lsn": {"type": "int", "default": 0},
            "asked": {"type": "dict", "default": {}},
            "root": {"type": "path", "required": True},
            "note": {"type": "path", "default": "/var/lib/diting/restore/copy.json"},
            "pg_bin": {"type": "path", "default": "/usr/lib/postgresql/15/bin"},
            "restore_command": {"type": "str", "default": "/usr/local/bin/diting-wal-restore %f %p"},
            "program": {"type": "list", "elements": "str", "default": ["/usr/local/bin/diting-wal"]},
            "user": {"type": "str", "default": "postgres"},
            "fetch_seconds": {"type": "float", "default": 86400},
            "stall_seconds": {"type": "float", "default": 120},
            "replay_seconds": {"type": "float", "default": 86400},
        },
        required_if=[("state", "prepared", ("plan",)), ("state", "promoted", ("plan",))],
        supports_check_mode=True,
    )
    params = module.params
    for name in _LIMITS:
        if params[name] <= 0:
            module.fail_json(msg=f"{name} is {params[name]}, wanted more than 0 seconds")
    try:
        done = (
            absent(params, module.check_mode)
            if params["state"] == "absent"
            else present(params, module.check_mode)
        )
    except (CopyError, OSError) as error:
        module.fail_json(msg=f"restore_copy: {error}", data_directory=f"{params['root']}/data")
    module.exit_json(**done)


if __name__ == "__main__":
    main()
