# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds on every converged host, in every scenario: nothing has failed, leaks or is still to do."""

from __future__ import annotations

from support.lab_host import changes, failed_units, playbook, world_readable_secrets


def test_nothing_has_failed(host):
    assert not {name for name in failed_units(host) if not name.startswith("systemd-ask-password")}


def test_no_secret_is_readable_by_everybody(host):
    assert not world_readable_secrets(host, "/etc", "/opt", "/usr/local", "/var/lib", "/home", "/tmp")


def test_check_mode_predicts_no_change():
    done = playbook("converge.yml", "--check")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert changes(done) == []


def test_roles_find_nothing_wrong_and_change_nothing():
    done = playbook("verify_roles.yml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert changes(done) == []
