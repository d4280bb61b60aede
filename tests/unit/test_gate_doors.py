# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's two handles, command and module: thin, honest about exit codes and check mode."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.diting.dr.plugins.modules import gate as module
from diting.cli import main as cli
from diting.core import approval
from diting.core.gate_policy import DEFAULT_POLICY


@pytest.fixture
def place(tmp_path):
    (tmp_path / "gate").mkdir()
    (tmp_path / "policy.json").write_text(json.dumps(DEFAULT_POLICY))
    return tmp_path


@pytest.fixture
def diting(place, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        place_options = ["--gate-dir", str(place / "gate"), "--policy-file", str(place / "policy.json")]
        status = cli.main(["gate", *place_options, *words])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def ansible(place):
    def run(action: str, *, check: bool = False, **options):
        args = {
            "action": action,
            "gate_dir": str(place / "gate"),
            "policy_file": str(place / "policy.json"),
            "_ansible_check_mode": check,
            **options,
        }
        out = io.StringIO()
        with patch_module_args(args), redirect_stdout(out), pytest.raises(SystemExit):
            module.main()
        return json.loads(out.getvalue())

    return run


REQUEST = {
    "scenario": "l4.failover",
    "kind": "recover",
    "target": "diting",
    "trigger": "automated",
    "actor": "me",
}


# --- the command --------------------------------------------------------------------------------


def test_stop_and_resume_on_the_command_line(diting, place):
    status, out, _ = diting("stop", "--reason", "exchange fault", "--by", "alice")
    assert (status, (place / "gate" / "STOP").exists()) == (0, True)
    assert "lever is pulled" in out
    assert "PULLED" in diting("status")[1]
    assert diting("resume", "--reason", "back")[0] == 0
    assert "not pulled" in diting("status")[1]


def test_stop_needs_no_reason_but_resume_does(diting, place):
    assert diting("stop")[0] == 0
    with pytest.raises(SystemExit) as caught:
        diting("resume")
    assert caught.value.code == 64
    assert diting("resume", "--reason", " ")[0] == 1
    assert (place / "gate" / "STOP").exists()


def test_the_status_is_a_problem_when_something_cannot_be_read(diting, place):
    assert diting("status")[0] == 0
    (place / "policy.json").write_text("{}")
    status, out, _ = diting("status")
    assert status == 1
    assert out.startswith("PROBLEM")
    status, out, _ = diting("status", "--json")
    assert status == 1
    assert json.loads(out)["problems"]


def test_a_window_and_its_limits(diting):
    assert diting("pause", "--minutes", "9999", "--reason", "kernel")[0] == 1
    assert diting("pause", "--minutes", "5", "--reason", "kernel", "--by", "bob")[0] == 0
    assert "PAUSED until" in diting("status")[1]
    assert diting("unpause", "--reason", "done")[0] == 0
    assert "nothing to change" in diting("unpause", "--reason", "done")[1]


def test_journal_and_its_verification(diting, ansible, place):
    incident = ansible("request", **REQUEST)["incident_id"]
    diting("stop", "--reason", "fault", "--by", "alice")
    assert diting("verify-journal")[0] == 0
    everything = diting("journal")[1].splitlines()
    assert len(everything) == 2
    assert "Allowed" in everything[0]
    assert diting("journal", "--incident", incident)[1].splitlines() == everything[:1]
    assert diting("journal", "--tail", "1")[1].splitlines() == everything[1:]
    assert json.loads(diting("journal", "--json", "--tail", "1")[1])["by"] == "alice"
    path = place / "gate" / "journal.jsonl"
    path.write_text(path.read_text().replace('"by":"alice"', '"by":"mallo"'))
    status, _, err = diting("verify-journal")
    assert status == 1
    assert "line 2" in err
    assert diting("journal")[0] == 1
    assert diting("new-journal", "--reason", "it was edited")[0] == 0
    assert diting("verify-journal")[0] == 0


def test_check_policy_names_every_problem(diting, tmp_path):
    assert diting("check-policy")[0] == 0
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({**DEFAULT_POLICY, "blacklst": [], "environment": 7}))
    status, _, err = diting("check-policy", str(bad))
    assert status == 1
    assert "/blacklst: unknown key" in err
    assert "/environment" in err
    bad.write_text("{")
    assert diting("check-policy", str(bad))[0] == 1
    assert diting("check-policy", str(tmp_path / "none.json"))[0] == 1


def test_an_approval_from_the_command_line_opens_the_door(diting, ansible, tmp_path):
    plan = {"scenario": "l4.restore", "target": "diting", "to": "noon"}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    asked = {**REQUEST, "scenario": "l4.restore", "plan": plan}
    assert ansible("request", **asked)["failed"] is True
    status, out, _ = diting("approve", "--plan", str(file), "--by", "carol", "--minutes", "5")
    assert status == 0
    made = json.loads(out)
    assert made["plan_sha256"] == approval.plan_sha256(plan)
    assert ansible("request", **asked, approvals=[made])["decision"]["code"] == "approved"
    assert diting("approve", "--plan", str(file), "--minutes", "61")[0] == 64
    file.write_text("{}")
    assert diting("approve", "--plan", str(file))[0] == 1


def test_reset_closes_a_breaker(diting, ansible):
    for _ in range(3):
        incident = ansible("request", **REQUEST)["incident_id"]
        common = {key: REQUEST[key] for key in ("scenario", "target", "actor")}
        ansible("complete", incident_id=incident, outcome="failed", **common)
    assert ansible("request", **REQUEST)["decision"]["code"] == "breaker_open"
    assert "1 open" in diting("status")[1]
    assert diting("reset", "--scenario", "l4.failover", "--target", "diting", "--reason", "new disk")[0] == 0
    assert ansible("request", **REQUEST)["decision"]["allowed"]


# --- the module ---------------------------------------------------------------------------------


def test_a_refusal_fails_with_what_an_operator_understands(ansible):
    ansible("stop", actor="alice", reason="exchange fault")
    result = ansible("request", **REQUEST)
    assert result["failed"] is True
    assert result["msg"].startswith("Refused: the stop-all lever is pulled since")
    assert "by alice (exchange fault); put it back with: diting gate resume" in result["msg"]
    assert result["recorded"] is True


def test_a_refusal_can_be_a_result(ansible):
    result = ansible("request", **{**REQUEST, "scenario": "l4.unknown"}, fail_on_refusal=False)
    assert not result.get("failed", False)
    assert result["decision"]["code"] == "scenario_unknown"


def test_an_incident_goes_on_under_its_name(ansible):
    assert ansible("request", **REQUEST, incident_id="inc-7")["incident_id"] == "inc-7"
    common = {key: REQUEST[key] for key in ("scenario", "target", "actor")}
    done = ansible("complete", incident_id="inc-7", outcome="success", detail="pg2 leads", **common)
    assert (done["known"], done["breaker_open"], done["recorded"]) == (True, False, True)
    assert ansible("complete", incident_id="inc-7", outcome="success", **common)["known"] is False


def test_check_mode_predicts_and_writes_nothing(ansible, place):
    assert ansible("request", check=True, **REQUEST)["decision"]["allowed"]
    refused = ansible("request", check=True, **{**REQUEST, "scenario": "l4.restore"})
    assert (refused["failed"], refused["recorded"]) == (True, False)
    common = {key: REQUEST[key] for key in ("scenario", "target", "actor")}
    assert ansible("complete", check=True, incident_id="i", outcome="failed", **common)["recorded"] is False
    for action, options in (
        ("stop", {}),
        ("pause", {"reason": "kernel", "minutes": 5}),
    ):
        assert ansible(action, check=True, actor="me", **options)["changed"] is True
    assert list((place / "gate").iterdir()) == []


def test_check_run_again_check_of_the_lever(ansible):
    lever = {"actor": "alice", "reason": "exchange fault"}
    checks = [ansible("stop", check=True, **lever), ansible("stop", **lever), ansible("stop", **lever)]
    checks.append(ansible("stop", check=True, **lever))
    assert [result["changed"] for result in checks] == [True, True, False, False]
    assert ansible("resume", **lever)["changed"] is True
    assert ansible("resume", **lever)["changed"] is False


@pytest.mark.parametrize(
    "options",
    [
        {"action": "request"},
        {"action": "complete", "scenario": "l4.failover"},
        {"action": "pause", "actor": "me", "reason": "kernel"},
        {"action": "resume", "actor": "me", "reason": ""},
        {"action": "pause", "actor": "me", "reason": "kernel", "minutes": 0},
    ],
)
def test_a_call_that_lacks_something_fails(ansible, options):
    assert ansible(options.pop("action"), **options)["failed"] is True


def test_status_is_always_a_result(ansible, place):
    (place / "policy.json").unlink()
    result = ansible("status")
    assert result["changed"] is False
    assert "policy.json" in result["status"]["problems"][0]


def test_the_documentation_lists_the_options_of_the_module():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert documented.keys() == module.ARGUMENT_SPEC.keys()
    for name, spec in module.ARGUMENT_SPEC.items():
        for key in ("type", "choices", "default", "required", "elements"):
            assert documented[name].get(key) == spec.get(key), f"{name}.{key}"
