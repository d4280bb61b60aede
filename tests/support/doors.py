# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads playbooks as Ansible would run them and finds changes that nobody asked the gate about.

A change is covered once a request to the gate came before it for certain: not behind a condition
that the change does not share, not in a block whose rescue carries on after a refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

READ_ONLY = {
    "assert", "debug", "fail", "getent", "gather_facts", "group_by", "include_vars", "meta",
    "package_facts", "ping", "service_facts", "set_fact", "setup", "slurp", "stat", "find",
    "validate_argument_spec", "wait_for", "wait_for_connection", "add_host", "set_stats",
}  # fmt: skip
"""Modules of ansible.builtin that change nothing on a live system, whatever their arguments."""

OWN_PAPERS = {"diting.dr.drill", "diting.dr.gate"}
"""They write the journal of the drill and of the gate, never a system that is being recovered."""

READ_ONLY_NAME = re.compile(r"([a-z_0-9]+\.){2}[a-z_0-9]+_info|diting\.dr\.[a-z_]+_(info|check|verify|plan)")
READ_ONLY_ENTRY_POINTS = {"verify", "preflight"}
"""Entry points of our roles that are read-only by contract, which ``verify_problems`` holds them to."""

INCLUDES = {"include_tasks", "import_tasks"}
ROLES = {"include_role", "import_role"}
KEYWORDS = {
    "action", "any_errors_fatal", "args", "async", "become", "become_user", "changed_when", "check_mode",
    "collections", "connection", "delay", "delegate_facts", "delegate_to", "diff", "environment",
    "failed_when", "ignore_errors", "ignore_unreachable", "loop", "loop_control", "module_defaults", "name",
    "no_log", "notify", "listen", "poll", "port", "register", "remote_user", "retries", "run_once", "tags",
    "throttle", "timeout", "until", "vars", "when", "with_items", "with_dict", "block", "rescue", "always",
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Also reads !vault and !unsafe, which mean nothing to us."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, node: getattr(node, "value", None))


def _load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader


def _short(name: str) -> str:
    return name.removeprefix("ansible.builtin.")


def _conditions(task: dict[str, Any]) -> frozenset[str]:
    when = task.get("when", [])
    return frozenset(str(item) for item in (when if isinstance(when, list) else [when]))


def module_of(task: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments of the module a task runs."""
    for key, value in task.items():
        if key not in KEYWORDS and not key.startswith("with_"):
            return _short(key), value
    return "", None


def is_read_only(task: dict[str, Any], module: str, args: Any) -> bool:
    """Whether a task cannot change a live system."""
    if module in READ_ONLY or module in OWN_PAPERS or READ_ONLY_NAME.fullmatch(module):
        return True
    if task.get("check_mode") is True:
        return True  # held in check mode whatever the playbook runs in
    if module == "uri" and isinstance(args, dict):
        # A write that must be turned away (4xx and nothing else) proves a lock; it opens none.
        wanted = args.get("status_code", 200)
        refused = all(400 <= int(code) < 500 for code in (wanted if isinstance(wanted, list) else [wanted]))
        return refused or (args.get("method", "GET") in {"GET", "HEAD"} and "dest" not in args)
    # A command that is said to change nothing *and* runs in check mode: its author vouches twice.
    return (
        module in {"command", "shell"}
        and task.get("changed_when") is False
        and task.get("check_mode") is False
    )


@dataclass
class Walk:
    """One playbook being read. ``covers`` are the conditions under which the gate was asked so far."""

    root: Path
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    completions: int = 0
    changes: int = 0
    covers: list[frozenset[str]] = field(default_factory=list)
    seen: tuple[Path, ...] = ()

    def covered(self, conditions: frozenset[str]) -> bool:
        return any(needed <= conditions for needed in self.covers)

    def playbook(self, path: Path) -> None:
        plays = _load(path)
        if not isinstance(plays, list):
            self.problems.append(f"{path}: not a playbook")
            return
        for play in plays:
            name = next((key for key in play if _short(key) == "import_playbook"), None)
            if name is not None:
                self._imported(path, str(play[name]))
                continue
            for role in play.get("roles", []):
                role_name = role if isinstance(role, str) else role.get("role", role.get("name", "?"))
                self._role(path, {"name": role_name}, frozenset(), path)
            for section in ("pre_tasks", "tasks", "post_tasks", "handlers"):
                self.tasks(play.get(section) or [], path, frozenset())

    def _imported(self, path: Path, name: str) -> None:
        if "{{" in name and (choices := re.findall(r"'([^']+\.ya?ml)'", name)):
            # Whichever of them is taken, each has to hold.
            for choice in choices:
                self._imported(path, choice)
            return
        target = path.parent / name
        if name.startswith("diting.dr."):
            target = self.root / "playbooks" / f"{name.removeprefix('diting.dr.').replace('.', '/')}.yml"
        if target.exists():
            self.playbook(target)
        else:
            self.problems.append(f"{path}: imports {name}, which cannot be found")

    def tasks(self, tasks: list[Any], path: Path, outer: frozenset[str]) -> None:
        for task in tasks:
            conditions = outer | _conditions(task)
            if "block" not in task:
                self._task(task, path, conditions)
                continue
            before = list(self.covers)
            self.tasks(task["block"], path, conditions)
            asked_inside = self.covers[len(before) :]
            # A refusal inside the block lands in its rescue and always: those it does not cover.
            self.covers = list(before)
            self.tasks(task.get("rescue") or [], path, conditions)
            self.covers = list(before)
            self.tasks(task.get("always") or [], path, conditions)
            self.covers = before if task.get("rescue") else before + asked_inside

    def _task(self, task: dict[str, Any], path: Path, conditions: frozenset[str]) -> None:
        module, args = module_of(task)
        where = f"{path.relative_to(self.root)}: {task.get('name', module)}"
        if module in INCLUDES:
            self._include(
                task, str(args.get("file") if isinstance(args, dict) else args), path, conditions, where
            )
        elif module in ROLES:
            self._role(path, args, conditions, path)
        elif module == "diting.dr.gate" and isinstance(args, dict) and args.get("action") == "request":
            self._request(task, conditions, where)
        elif not is_read_only(task, module, args):
            self.changes += 1
            if not self.covered(conditions):
                self.problems.append(
                    f"{where}: {module} changes something, and the gate was not asked before"
                )

    def _request(self, task: dict[str, Any], conditions: frozenset[str], where: str) -> None:
        self.requests += 1
        muted = {"ignore_errors", "failed_when", "loop"} & task.keys()
        if muted or task.get("vars", {}).get("gate_fail_on_refusal", True) is not True:
            self.problems.append(f"{where}: a refusal would not end the play")
            return
        self.covers.append(conditions)

    def _include(
        self, task: dict[str, Any], name: str, path: Path, conditions: frozenset[str], where: str
    ) -> None:
        base = Path(name).name
        if base == "gate_request.yml":
            self._request(task, conditions, where)
        elif base == "gate_complete.yml":
            self.completions += 1
        else:
            plain = re.sub(r"\{\{\s*(playbook_dir|role_path)\s*\}\}/?", "", name)
            found = [p for p in (path.parent / plain, self.root / "playbooks" / plain) if p.is_file()]
            if "{{" in plain or not found:
                self.changes += 1
                if not self.covered(conditions):
                    self.problems.append(
                        f"{where}: includes {name}, which cannot be followed, before asking the gate"
                    )
            else:
                self._follow(found[0], conditions)

    def _role(self, path: Path, args: Any, conditions: frozenset[str], where: Path) -> None:
        name = str(args.get("name", args.get("role", "?")) if isinstance(args, dict) else args)
        entry = str(args.get("tasks_from", "main") if isinstance(args, dict) else "main").removesuffix(".yml")
        if entry in READ_ONLY_ENTRY_POINTS:
            return
        target = self.root / "roles" / name.removeprefix("diting.dr.") / "tasks" / f"{entry}.yml"
        if target.is_file():
            self._follow(target, conditions)
            return
        self.changes += 1
        if not self.covered(conditions):
            self.problems.append(
                f"{where.relative_to(self.root)}: role {name} ({entry}) before asking the gate"
            )

    def _follow(self, target: Path, conditions: frozenset[str]) -> None:
        target = target.resolve()
        if target in self.seen:
            return  # a loop (a retry, say) shows nothing that its first round did not
        self.seen = (*self.seen, target)
        self.tasks(_load(target) or [], target, conditions)
        self.seen = self.seen[:-1]


def walk(root: Path, playbook: Path) -> Walk:
    """Everything there is to say about one playbook of the tree ``root``."""
    result = Walk(root.resolve())
    result.playbook(playbook.resolve())
    if result.requests and not result.completions:
        result.problems.append(f"{playbook.name}: asks the gate and never reports back (gate_complete.yml)")
    return result


def verify_problems(path: Path) -> list[str]:
    """Tasks of a ``verify.yml`` that might change something."""
    problems: list[str] = []

    def look(tasks: list[Any]) -> None:
        for task in tasks:
            for section in ("block", "rescue", "always"):
                look(task.get(section) or [])
            if "block" in task:
                continue
            module, args = module_of(task)
            if module in INCLUDES or (
                module in ROLES and args.get("tasks_from", "main") in READ_ONLY_ENTRY_POINTS
            ):
                continue
            # Inside verify.yml one word is enough for a command: check mode has a test of its own there.
            vouched = module in {"command", "shell"} and task.get("changed_when") is False
            if not vouched and not is_read_only(task, module, args):
                problems.append(
                    f"{path.parts[-3]}/verify.yml: {task.get('name', module)}: {module} may change something"
                )

    look(_load(path) or [])
    return problems
