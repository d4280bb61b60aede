# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs against a converged host: a prediction of nothing, and the roles' own eyes."""

from __future__ import annotations

from support.lab_host import changes, playbook


def test_check_mode_predicts_no_change():
    done = playbook("converge.yml", "--check")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert changes(done) == []


def test_roles_find_nothing_wrong_and_change_nothing():
    done = playbook("verify_roles.yml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert changes(done) == []
