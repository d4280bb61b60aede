# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 - fixtures are imported by name
"""Watcher, final read and judge beside a real primary with a real replica."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from support.ledger_fixtures import programs, server  # noqa: F401
from support.ledger_server import Programs, Server
from support.servers import wait_until

pytestmark = [pytest.mark.process, pytest.mark.alone]


@pytest.fixture(scope="module")
def standby(server: Server) -> Iterator[Server]:
    standby = server.standby()
    yield standby
    standby.destroy()


def insert(server: Server, *rows: tuple[str, int]) -> None:
    with server.admin() as conn:
        for path, seq in rows:
            conn.execute(
                "INSERT INTO diting_ledger.ops (run_id, path, seq, due_ns) VALUES ('test-run', %s, %s, 0)",
                (path, seq),
            )


def read(programs: Programs, endpoint: str, *more: object, status: int = 0) -> dict:
    config = programs.directory / "prober-read.json"
    done = programs.diting(
        *("ledger", "read", "--config", config, "--run-id", "test-run", "--host", endpoint, *more),
        status=status,
    )
    return json.loads(done.stdout) if status == 0 else {"error": done.stderr}


def test_prepare_twice_changes_nothing_and_old_rows_go(server, programs):
    insert(server, ("dsn", 1))
    config = programs.config()
    programs.diting("ledger", "prepare", "--config", config)
    assert programs.found() == {1}
    with server.admin() as conn:
        conn.execute("UPDATE diting_ledger.ops SET written_at = now() - interval '8 days'")
    programs.diting("ledger", "prepare", "--config", config)
    assert programs.found() == set()


def test_the_read_counts_rows_in_numerical_order_with_duplicates(server, programs):
    insert(server, *(("dsn", seq) for seq in (0, 1, 2, 9, 10, 11, 100, 100)), ("haproxy", 5))
    programs.config("read")
    found = read(programs, "localhost")
    assert found["found"] == {
        "dsn": {"ranges": [[0, 2], [9, 11], [100, 100]], "duplicates": {"100": 2}},
        "haproxy": {"ranges": [[5, 5]], "duplicates": {}},
    }
    assert (found["in_recovery"], found["timeline"]) == (False, 1)
    assert found["system_identifier"] == str(
        server.value("SELECT system_identifier FROM pg_control_system()")
    )


def test_a_replica_is_read_once_it_has_replayed_far_enough(server, standby, programs):
    programs.config("read", ports=(server.port, standby.port))
    insert(server, ("dsn", 7))
    server.value("SELECT pg_switch_wal()")  # the end of a segment is a position of its own
    first = programs.directory / "first.json"
    first.write_text(json.dumps(read(programs, f"localhost:{server.port}")), encoding="utf-8")
    found = read(programs, f"localhost:{standby.port}", "--after", first)
    assert found["in_recovery"]
    assert found["found"]["dsn"]["ranges"] == [[7, 7]]


def test_a_replica_that_does_not_get_there_is_an_error_and_no_empty_list(server, standby, programs):
    programs.config("read", ports=(server.port, standby.port))
    arguments = ("--wait-lsn", "F/0", "--timeout-seconds", "0.5", "--out", programs.directory / "f.json")
    failed = read(programs, f"localhost:{standby.port}", *arguments, status=1)
    assert "wanted F/0" in failed["error"]
    assert not (programs.directory / "f.json").exists()


def test_a_dead_server_is_an_error_and_no_empty_list(server, programs):
    programs.config("read", ports=(1,))
    assert "refused" in read(programs, "localhost", status=1)["error"]


def test_an_unknown_host_names_the_known_ones(server, programs):
    programs.config("read")
    assert "wanted one of localhost" in read(programs, "pg9", status=1)["error"]


def start_watch(programs: Programs, *targets: dict, seconds: float = 30) -> None:
    document = {
        "run_id": "test-run",
        "output": str(programs.directory / "watch.jsonl"),
        "max_duration_seconds": seconds,
        "targets": list(targets),
    }
    file = programs.directory / "watch.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    programs.start("ledger", "watch", "--config", file)


def lines(programs: Programs, kind: str = "transition") -> list[dict]:
    text = (programs.directory / "watch.jsonl").read_text(encoding="utf-8")
    return [record for record in map(json.loads, text.splitlines()) if record["k"] == kind]


def states(programs: Programs, target: str) -> list[str]:
    return [record["to"] for record in lines(programs) if record["target"] == target]


def targets_of(programs: Programs) -> tuple[dict, dict]:
    return (
        {"name": "tcp", "kind": "tcp", "host": "127.0.0.1", "port": programs.server.port},
        {"name": "pg", "kind": "postgres", "connection": programs.connection()},
    )


def test_the_watcher_sees_a_kill_and_the_return_with_a_bracket(server, programs):
    start_watch(programs, *targets_of(programs))
    before = time.monotonic_ns()
    server.kill()
    wait_until("both are down", lambda: states(programs, "tcp")[-1] == states(programs, "pg")[-1] == "down")
    server.start()
    wait_until("both are up", lambda: states(programs, "tcp")[-1] == states(programs, "pg")[-1] == "up")
    down = next(r for r in lines(programs) if r["target"] == "tcp" and r["to"] == "down")
    assert down["detail"] == "refused"
    assert down["last_seen_ns"] <= down["probe_start_ns"] < down["confirmed_ns"]
    assert before < down["confirmed_ns"] < before + 1e9


def test_only_a_question_to_the_server_sees_that_it_hangs(server, programs):
    start_watch(programs, *targets_of(programs))
    server.freeze()
    try:
        wait_until("the session times out", lambda: states(programs, "pg")[-1] == "down")
        assert states(programs, "tcp") == ["up"]
    finally:
        server.thaw()
    wait_until("it answers again", lambda: states(programs, "pg")[-1] == "up")


def test_a_refusal_proves_that_the_host_lives(server, programs):
    start_watch(programs, {"name": "host", "kind": "host", "host": "127.0.0.1", "port": 1})
    assert states(programs, "host") == ["up"]


def test_the_watcher_tells_a_readonly_server(server, standby, programs):
    target = {"name": "standby", "kind": "postgres", "connection": programs.connection(standby.port)}
    start_watch(programs, target)
    # On a busy machine the first look may miss its deadline of 0.2 s, which is "down".
    wait_until("it is seen", lambda: states(programs, "standby")[-1:] == ["readonly"])
    assert "up" not in states(programs, "standby")


def test_the_watcher_stops_by_itself_and_says_that_it_lived(server, programs):
    start_watch(programs, targets_of(programs)[0], seconds=2.5)
    assert programs.started[-1].wait(timeout=20) == 0
    assert len(lines(programs, "heartbeat")) >= 3
    assert lines(programs, "watch_stop")[0]["stop_reason"] == "deadline"


def test_a_whole_run_is_judged(server, standby, programs):
    """Kill the server under both paths, bring it back, and follow every row."""
    # Two slots late is "missed": at this rate that takes a machine which holds everything up for a tenth of a second.
    probers = {path: programs.probe(path, interval_seconds=0.05) for path in ("dsn", "haproxy")}
    start_watch(programs, targets_of(programs)[0], seconds=60)
    programs.mark("control_start")
    start = programs.acked("haproxy")
    wait_until("two seconds of control", lambda: programs.acked("haproxy") > start + 40)
    programs.mark("control_end")
    programs.mark("inject_sent")
    sent = time.monotonic()
    server.kill()
    wait_until("the effect is seen", lambda: "down" in states(programs, "tcp"))
    server.start()
    back = time.monotonic() - sent
    time.sleep(4.5)  # the stability window
    for process in probers.values():
        programs.finish(process)
    programs.config("read", ports=(server.port, standby.port))
    lsn = None
    for role, port in (("primary", server.port), ("replica", standby.port)):
        more = ("--wait-lsn", lsn) if lsn else ()
        found = read(programs, f"localhost:{port}", *more)
        lsn = found["lsn"]
        found["host"] = role
        (programs.directory / f"found-{role}.json").write_text(json.dumps(found), encoding="utf-8")
    settings = {
        "run_id": "test-run",
        "paths": ["dsn", "haproxy"],
        "effect": {"target": "tcp"},
        "replicas": ["replica"],
        "stability_seconds": 3,
        "control_min_seconds": 1,
        "rto_target_seconds": 30,
        # At so few slots, two tenths of a second of a busy machine are more than the hundredth part that a drill may miss.
        "max_missed_ratio": 0.2,
    }
    (programs.directory / "judge-input.json").write_text(json.dumps(settings), encoding="utf-8")
    programs.diting("ledger", "judge", "--run-dir", programs.directory)
    result = json.loads((programs.directory / "judge.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "PASS", result["reasons"]
    assert result["headline"]["lost"] == 0
    assert 0.1 < result["headline"]["rto_client_seconds"] < back + 1.5
    assert result["effect"]["source"].startswith("watch tcp down")
    # The same run with one acknowledged row gone from the primary.
    primary = json.loads((programs.directory / "found-primary.json").read_text(encoding="utf-8"))
    primary["found"]["dsn"]["ranges"][0][0] += 1
    (programs.directory / "found-primary.json").write_text(json.dumps(primary), encoding="utf-8")
    programs.diting("ledger", "judge", "--run-dir", programs.directory)
    result = json.loads((programs.directory / "judge.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "FAIL"
    assert result["paths"]["dsn"]["sets"]["lost"] == [[0, 0]]
