# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration is used, or everything that is wrong with it is said at once."""

from __future__ import annotations

import json

import pytest

from diting.guards.runtime import config
from diting.guards.runtime.settings import Runtime

TEN = {
    "guard": "clock",
    "nmae": "clock",
    "runtime": {
        "interval_seconds": 0,
        "state_dir": "var/lib",
        "log_level": "loud",
        "metrics": {"port": 99999},
        "alertmanager": {"urls": ["http://ann:hush@host/"]},
    },
    "settings": {"limit_seconds": -1, "limt_seconds": 1, "confirm_seconds": "30", "clear_seconds": None},
}
TEN_PATHS = [
    "nmae",
    "runtime.interval_seconds",
    "runtime.state_dir",
    "runtime.log_level",
    "runtime.metrics.port",
    "runtime.alertmanager.urls[0]",
    "settings.limit_seconds",
    "settings.limt_seconds",
    "settings.confirm_seconds",
    "settings.clear_seconds",
]


def problems(data):
    with pytest.raises(config.ConfigError) as caught:
        config.check(data, "f.json")
    return caught.value.problems


def test_ten_errors_are_ten_lines_with_their_paths():
    found = problems(TEN)
    assert sorted(p.path for p in found) == sorted(TEN_PATHS)
    for problem in found:
        assert problem.found, problem
        assert problem.wanted, problem
        assert problem.fix, problem


def test_a_problem_reads_like_this():
    by_path = {problem.path: str(problem) for problem in problems(TEN)}
    assert by_path["settings.limit_seconds"] == (
        "settings.limit_seconds: found -1, wanted greater than 0 (A larger offset, either way, means that the clock "
        "is not to be trusted). Fix: change settings.limit_seconds, or remove it for the default 0.1."
    )
    assert by_path["nmae"].endswith("Fix: write 'name' instead.")
    assert by_path["settings.limt_seconds"].endswith("Fix: write 'limit_seconds' instead.")


def test_a_password_in_an_address_is_refused_and_not_printed():
    assert "hush" not in "\n".join(str(problem) for problem in problems(TEN))


@pytest.mark.parametrize(
    ("data", "path", "words"),
    [
        ([], "", "wanted an object"),
        ({"guard": "clok", "settings": {}}, "guard", "write 'clock'"),
        ({"guard": "zzz", "settings": {}}, "guard", "wanted one of "),
        ({"guard": 7, "settings": {}}, "guard", "found 7"),
        ({"settings": {}}, "guard", "add guard"),
        ({"guard": "clock"}, "settings", "add settings"),
        ({"guard": "clock", "settings": {"limit_seconds": True}}, "settings.limit_seconds", "found true"),
        ({"guard": "clock", "name": "../x", "settings": {}}, "name", "matches"),
    ],
)
def test_each_kind_of_fault(data, path, words):
    found = problems(data)
    assert [problem.path for problem in found] == [path]
    assert words in str(found[0])


def test_settings_that_contradict_each_other_are_told_by_the_guard(monkeypatch):
    def policy(self, settings):
        raise ValueError("confirm_seconds is less than answer_timeout_seconds")

    monkeypatch.setattr("diting.guards.clock.ClockGuard.policy", policy)
    (problem,) = problems({"guard": "clock", "settings": {}})
    assert str(problem).startswith(
        "settings: found (confirm_seconds is less than answer_timeout_seconds), wanted"
    )


def test_the_smallest_configuration_takes_every_default(tmp_path):
    path = tmp_path / "clock.json"
    path.write_text(json.dumps({"guard": "clock", "settings": {}}))
    document = config.load(path).document
    assert document.title == "clock"
    assert document.settings.limit_seconds == 0.1
    assert document.runtime == Runtime()
    assert str(document.state_dir) == "/var/lib/diting/guards/clock"


def test_yaml_is_the_same_thing(tmp_path):
    path = tmp_path / "clock.yml"
    path.write_text("guard: clock\nname: other\nsettings:\n  limit_seconds: 1\n")
    assert config.load(path).document.title == "other"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"guard": "clock", "guard": "clock", "settings": {}}', "'guard' stands there twice"),
        (
            "guard: clock\nsettings:\n  limit_seconds: 1\n  limit_seconds: 2\n",
            "'limit_seconds' stands there twice, in the object of line 3",
        ),
        ('{"guard": ', "line 1 column"),
        ("guard: [clock", "line 1"),
        ("guard: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("", "found null"),
    ],
)
def test_syntax_is_told_with_its_place(tmp_path, text, words):
    path = tmp_path / "f"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match="Fix: ") as caught:
        config.load(path)
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "bytes"):
        with pytest.raises(config.ConfigError):
            config.load(path)


MEMBER = {"address": "10.0.0.1", "witness": "https://pg1:7444"}
TEN_OF_FAILOVER = {
    "armed": "yes",
    "owner": "",
    "members": {
        "pg1": {**MEMBER, "address": "pg1"},
        "pg2": {"address": "10.0.0.2", "witnes": "https://pg2:7444"},
    },
    "etcd": {"prefix": "service/main", "lock_seconds": 1},
    "fencing": {"agent": "axe"},
    "proxies": [{"name": "client1"}],
    "limits": {"confirm_seconds": -1, "fence_max_per_window": -1},
}


def test_ten_errors_of_the_failover_guard_are_ten():
    """The limits included: a negative one must not wait until everything else is mended."""
    found = problems({"guard": "failover", "settings": TEN_OF_FAILOVER})
    assert sorted(problem.path for problem in found) == [
        "settings.armed",
        "settings.etcd.lock_seconds",
        "settings.etcd.prefix",
        "settings.fencing.agent",
        "settings.limits.confirm_seconds",
        "settings.limits.fence_max_per_window",
        "settings.members.pg1.address",
        "settings.members.pg2.witnes",
        "settings.owner",
        "settings.proxies[0]",
    ]
    assert all(problem.found and problem.wanted and problem.fix for problem in found)


def test_what_does_not_go_together_is_told_one_by_one():
    settings = {
        "owner": "pg1",
        "members": {"pg1": MEMBER, "pg2": {"address": "10.0.0.1"}},
        "etcd": {},
        "fencing": {"options": {"url": "https://10.0.0.9", "ca_file": "/x"}},
    }
    found = problems({"guard": "failover", "settings": settings})
    assert [problem.path for problem in found] == ["settings"] * 4
    told = "\n".join(str(problem) for problem in found)
    assert all(
        words in told for words in ("owner pg1", "two have one address", "one endpoint", "on two at least")
    )
