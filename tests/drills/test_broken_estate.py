# SPDX-License-Identifier: GPL-3.0-or-later
"""Something is broken on purpose: verify says so in its table and leaves non-zero, and nothing is drilled on it.

Wants a lab that is up and converged (``./scripts/drill``).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diting.lab import instance as lab
from diting.lab.power_client import PowerClient
from support.playbook import run_playbook

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]
ROOT = Path(__file__).parents[2]
# The host's own key asks; the authority signs for no day at all.
EXPIRE = """set -e
cp -a {pki}/host.crt {pki}/host.crt.kept
openssl req -new -key {pki}/host.key -subj /CN=client1 > {pki}/expired.csr"""


def on(host: str, script: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["./scripts/lab", "ssh", host, script],
        cwd=ROOT,
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{host}: {script}: {done.stdout}{done.stderr}"
    return done.stdout


def verify() -> tuple[int, str]:
    done = run_playbook("playbooks/operate/verify.yml", "-i", "inventories/lab")
    return done.returncode, done.stdout


def wait_until_healthy(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := verify())[0] != 0:
        assert time.monotonic() < deadline, unhealthy(found[1])


def unhealthy(output: str) -> str:
    """Rows of the table that are not healthy."""
    return "\n".join(line for line in output.splitlines() if " UNHEALTHY " in line or " UNKNOWN " in line)


def rows(output: str, host: str) -> str:
    """What the table says about a host that is not healthy."""
    return "\n".join(
        line
        for line in output.splitlines()
        if line.lstrip("- '\"").startswith(f"{host} ") and " HEALTHY" not in line
    )


@pytest.fixture
def whole() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Takes what mends the lab again, and shows that it did."""
    mend: list[Callable[[], None]] = []
    assert verify()[0] == 0
    yield mend.append
    for step in mend:
        step()
    wait_until_healthy(180)


def test_a_stopped_proxy(whole):
    whole(lambda: on("client1", "systemctl start haproxy") and None)
    on("client1", "systemctl stop haproxy")
    status, output = verify()
    assert status != 0
    assert "haproxy" in rows(output, "client1")


def test_a_wrong_key_for_the_store(whole):
    path = "/etc/wal-g/wal-g.json"
    whole(lambda: on("pg1", f"cp -a {path}.kept {path} && rm {path}.kept") and None)
    on(
        "pg1",
        f'cp -a {path} {path}.kept && sed -i -E \'s/(AWS_SECRET_ACCESS_KEY": ")[^"]+/\\1wrong/\' {path}',
    )
    status, output = verify()
    assert status != 0
    assert "SignatureDoesNotMatch" in rows(output, "pg1"), rows(output, "pg1")


def test_an_expired_certificate(whole):
    pki = "/etc/diting/pki"
    whole(lambda: on("client1", f"mv {pki}/host.crt.kept {pki}/host.crt; rm -f {pki}/expired.csr") and None)
    on("client1", EXPIRE.format(pki=pki))
    sign = f"openssl x509 -req -CA {pki}/ca.crt -CAkey {pki}/ca/ca.key -days 0 2>/dev/null"
    expired = on("ops1", sign, on("client1", f"cat {pki}/expired.csr"))
    on("client1", f"cat > {pki}/host.crt", expired)
    status, output = verify()
    assert status != 0
    assert "EXPIRED" in rows(output, "client1")


def a_replica() -> str:
    """A member that does not lead: a primary that is powered off would be fenced and brought back by the failover guard."""
    members = json.loads(on("pg1", "patronictl list --format json"))
    return min(member["Member"] for member in members if member["Role"] != "Leader")


def test_a_host_that_is_gone(whole):
    gone = a_replica()
    home = Path(os.environ.get("DITING_LAB_HOME") or "/var/lib/diting-lab") / "diting"
    power = PowerClient.for_instance(lab.load(home), timeout_seconds=30)
    answer = power.off(gone, "test", revert_after_seconds=600)
    whole(lambda: power.on(gone, "test") and None)
    # A timer that stays would power hosts on in later drills.
    whole(lambda: power.remove_timer(gone, answer["timer_id"]))
    status, output = verify()
    assert status != 0
    assert rows(output, gone), output[-3000:]
    drill = subprocess.run(
        ["./scripts/drill", "l4", "--no-converge", "-e", "drill_fault=postgres_kill"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert drill.returncode == 2, drill.stdout
    assert "not_steady" in drill.stdout
    assert gone in drill.stdout
