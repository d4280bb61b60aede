# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of the checkout that the lab's control host runs playbooks from."""

from __future__ import annotations

import json
import subprocess

import pytest

from diting.lab import checkout
from diting.lab.checkout import PARTS, CheckoutError, ensure


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small checkout, and one package instead of the real ones."""
    root = tmp_path / "tree"
    for part in PARTS:
        if "." in part:
            root.mkdir(exist_ok=True)
            (root / part).write_text("[defaults]\n")
        else:
            (root / part / "__pycache__").mkdir(parents=True)
            (root / part / "__pycache__" / "x.pyc").write_text("x")
            (root / part / "file").write_text(part)
    (root / "collections/link").symlink_to("../roles")
    (root / ".git").mkdir()
    monkeypatch.setattr(checkout, "_ROOT_PACKAGE", "pluggy")
    return root


def copied(home):
    current = (home / "checkout/current").resolve()
    return sorted(
        str(path.relative_to(current))
        for path in current.rglob("*")
        if not path.is_dir() or path.is_symlink()
    )


def test_what_playbooks_need_is_copied_and_nothing_else(tree, tmp_path):
    home = tmp_path / "home"
    assert ensure(home, tree)
    found = copied(home)
    assert [name for name in found if not name.startswith("python/")] == sorted(
        ["ansible.cfg", "collections/link", *(f"{part}/file" for part in PARTS if "." not in part)]
    )
    assert "python/pluggy/__init__.py" in found
    assert not [name for name in found if name.endswith(".pyc") or ".." in name]
    # The keys to the hosts lie beside it.
    assert (home / "checkout").stat().st_mode & 0o777 == 0o700


def test_the_same_tree_again_changes_nothing(tree, tmp_path):
    assert ensure(tmp_path / "home", tree)
    assert not ensure(tmp_path / "home", tree)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "roles/file").write_text("other"),
        lambda root: (root / "roles/file").chmod(0o755),
        lambda root: (root / "playbooks/new.yml").write_text(""),
        lambda root: (root / "src/file").unlink(),
        lambda root: ((root / "collections/link").unlink(), (root / "collections/link").symlink_to("../src")),
    ],
    ids=["content", "mode", "more", "less", "link"],
)
def test_whatever_changed_is_copied_anew_and_the_old_one_goes(tree, tmp_path, change):
    home = tmp_path / "home"
    ensure(home, tree)
    old = (home / "checkout/current").resolve()
    change(tree)
    assert ensure(home, tree)
    assert not old.exists()
    assert sorted(path.name for path in (home / "checkout").iterdir()) == sorted(
        ["current", (home / "checkout/current").resolve().name]
    )


def test_what_a_broken_off_copy_left_is_replaced(tree, tmp_path):
    home = tmp_path / "home"
    (home / "checkout/part/roles").mkdir(parents=True)
    (home / "checkout/link").write_text("x")
    assert ensure(home, tree)
    assert "roles/file" in copied(home)


def test_a_place_that_is_no_checkout_is_named(tmp_path):
    (tmp_path / "roles").mkdir()
    with pytest.raises(
        CheckoutError, match=r"found no ansible\.cfg, collections, inventories, playbooks, src"
    ):
        ensure(tmp_path / "home", tmp_path)


def test_a_package_that_is_not_installed_is_named(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "_ROOT_PACKAGE", "no-such-package-here")
    with pytest.raises(CheckoutError, match="no-such-package-here: not installed"):
        ensure(tmp_path / "home", tree)


def test_the_command_says_whether_it_changed_anything(tree, tmp_path, capsys):
    words = ["ensure", "--lab-home", str(tmp_path / "home"), "--root", str(tree)]
    assert checkout.main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": True}
    subprocess.run(["rm", "-r", tree / "roles"], check=True)
    assert checkout.main(words) == 1
    assert "found no roles" in capsys.readouterr().err
