# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories, description and SSH identities of a lab: what must exist before its hosts do.

``python -m diting.lab.prepare --lab-home DIR --run-dir DIR`` reads the lab's description as JSON from standard
input and prints ``{"changed": bool, "done": [...]}``. Keys are made once; the hosts' keys are made here,
so that they are pinned before anybody connects.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diting.hostio.files import write_atomic
from diting.lab import instance as lab

if TYPE_CHECKING:
    from diting.lab.instance import Instance


def directory(path: Path, mode: int, done: list[str]) -> None:
    """Have a directory with exactly this mode."""
    if not path.is_dir():
        path.mkdir(parents=True)
        done.append(f"created {path}")
    if path.stat().st_mode & 0o7777 != mode:
        path.chmod(mode)


def text_file(path: Path, text: str, mode: int, done: list[str]) -> None:
    """Have a file with exactly this text and mode; readers see the old text or the new one."""
    if path.exists() and path.read_text() == text:
        if path.stat().st_mode & 0o7777 != mode:
            path.chmod(mode)
            done.append(f"set the mode of {path}")
        return
    write_atomic(path, text, mode=mode)
    done.append(f"wrote {path}")


def ssh_key(path: Path, comment: str, done: list[str]) -> str:
    """Have an ed25519 key pair and return its public half (type and key, without the comment).

    A half that is missing or empty, as a crash leaves it, means a new pair.
    """
    public = path.with_name(path.name + ".pub")
    if not (path.exists() and path.stat().st_size and public.exists() and public.stat().st_size):
        path.unlink(missing_ok=True)
        public.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        done.append(f"made {path}")
    return " ".join(public.read_text().split()[:2])


def certificate(instance: Instance, done: list[str]) -> None:
    """Have power control's self-signed certificate, for the gateway's address and nothing else."""
    key, cert = instance.power_dir / "key.pem", instance.power_dir / "cert.pem"
    if key.exists() and cert.exists() and cert.stat().st_size:
        return
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    command += ["-days", "3650", "-subj", f"/CN=diting power control {instance.name}"]
    command += ["-addext", f"subjectAltName=IP:{instance.gateway}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    done.append(f"made {cert}")


def prepare(instance: Instance, description: dict[str, Any], run_dir: Path) -> list[str]:
    """Bring files and keys of the lab to what they must be."""
    done: list[str] = []
    home = instance.home
    directory(home.parent, 0o755, done)
    # With lab.json a lab has a part in what all share: another one that goes now must see it, or be gone already.
    with lab.shared(instance):
        for path in (instance.podman_home, run_dir, home, home / "ssh", home / "hosts", instance.power_dir):
            directory(path, 0o700, done)
        directory(instance.podman_home / "networks", 0o755, done)
        text_file(home / "lab.json", json.dumps(description, indent=2) + "\n", 0o644, done)
    ours = ssh_key(home / "ssh" / "id_ed25519", f"diting lab {instance.name}", done)
    pinned = []
    for host, address in instance.hosts.items():
        place = home / "hosts" / host
        directory(place, 0o700, done)
        directory(place / "ssh", 0o700, done)
        # Kept here because podman lays a tmpfs over the journal of a systemd container: a loss of
        # power would take the evidence with it. The mode is systemd's own.
        directory(place / "journal", 0o2755, done)
        pinned.append(f"{host},{address} {ssh_key(place / 'ssh' / 'ssh_host_ed25519_key', host, done)}\n")
        text_file(place / "ssh" / "authorized_keys", f"{ours}\n", 0o600, done)
    text_file(home / "ssh" / "known_hosts", "".join(pinned), 0o644, done)
    certificate(instance, done)
    return done


def main(argv: list[str] | None = None) -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m diting.lab.prepare", description="Prepare a lab's files."
    )
    parser.add_argument("--lab-home", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True, help="podman's state under /run")
    args = parser.parse_args(argv)
    try:
        description = json.load(sys.stdin)
        done = prepare(lab.parse(description, args.lab_home), description, args.run_dir)
    except (lab.InstanceError, OSError, ValueError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"the lab cannot be prepared: {error}\n")
    sys.stdout.write(json.dumps({"changed": bool(done), "done": done}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
