# SPDX-License-Identifier: GPL-3.0-or-later
"""The base image of lab hosts: a minimal Debian with systemd, sshd and python3, built locally.

``python -m diting.lab.image --cache DIR`` prints one JSON line
``{"changed": bool, "tar": path, "image_id": str, "recipe": str}``. The tar is cached by the hash of its
recipe and of this machine's package settings, so a second lab or a second clone builds nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from diting.lab import site_settings
from diting.lab.site_settings import SUITE, SiteSettings

RECIPE_VERSION = 2
PACKAGES_FILE = Path(__file__).with_name("base_packages.txt")
# Units that would act on the machine's kernel, or that wait for hardware no container has.
MASKED_UNITS = (
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-binfmt.service",
    "systemd-pstore.service",
    "systemd-firstboot.service",
    "systemd-network-generator.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
    "console-getty.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
SSHD_CONFIG = """\
# The lab's keys are bind-mounted read-only: one host key per host, made and pinned by lab/up.yml.
HostKey /etc/ssh/lab/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/lab/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
X11Forwarding no
MaxStartups 100
MaxSessions 100
"""
# A container has no right over the clock, and the distribution's unit will not start without it;
# chronyd with -x, as the role base runs it, needs none.
CHRONY_UNIT = """\
[Unit]
ConditionCapability=
"""
JOURNALD_CONFIG = """\
[Journal]
SystemMaxUse=256M
RateLimitBurst=0
"""
# Documentation nobody reads in a lab is half of some packages; copyright files stay, by Debian policy.
DPKG_CONFIG = """\
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
force-unsafe-io
"""
APT_CONFIG = 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\nAPT::Install-Suggests "false";\n'


def packages() -> list[str]:
    """Names in ``base_packages.txt``, the only packages asked for beyond the minimal base."""
    lines = PACKAGES_FILE.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def recipe_digest() -> str:
    """SHA-256 of all that defines the image apart from this machine's settings."""
    parts = (
        str(RECIPE_VERSION),
        SUITE,
        *packages(),
        "--",
        *MASKED_UNITS,
        SSHD_CONFIG,
        DPKG_CONFIG,
        APT_CONFIG,
    )
    parts += (CHRONY_UNIT, JOURNALD_CONFIG)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def customise(root: Path, settings: SiteSettings) -> None:
    """Finish the unpacked root file system: settings, units, no identity of its own."""
    _write(root / "etc/apt/sources.list.d/debian.sources", settings.apt_sources)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    for stray in (root / "etc/apt/sources.list.d").iterdir():
        if stray.name != "debian.sources":
            stray.unlink()
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    _write(root / "etc/apt/apt.conf.d/90lab", APT_CONFIG + settings.apt_conf)
    if settings.apt_auth:
        _write(root / "etc/apt/auth.conf.d/90lab.conf", settings.apt_auth, 0o600)
    _write(root / "etc/pip.conf", settings.pip_conf)
    _write(root / "etc/environment", settings.environment)
    _write(root / "etc/ssh/sshd_config.d/10-lab.conf", SSHD_CONFIG)
    _write(root / "etc/systemd/system/chrony.service.d/10-lab.conf", CHRONY_UNIT)
    _write(root / "etc/systemd/journald.conf.d/10-lab.conf", JOURNALD_CONFIG)
    _write(root / "etc/default/locale", "LANG=C.UTF-8\n")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    _write(root / "etc/hosts", "127.0.0.1 localhost\n")
    (root / "etc/hostname").unlink(missing_ok=True)
    _write(root / "etc/machine-id", "")
    (root / "var/log/journal").mkdir(exist_ok=True)
    for unit in MASKED_UNITS:
        link = root / "etc/systemd/system" / unit
        if not link.is_symlink():
            link.symlink_to("/dev/null")
    shipped = "".join(p.read_text() for p in (root / "usr/share/ca-certificates").rglob("*.crt"))
    known = site_settings.certificates(shipped)
    extra = {k: pem for k, pem in site_settings.certificates(settings.ca_bundle).items() if k not in known}
    for digest, pem in extra.items():
        _write(root / f"usr/local/share/ca-certificates/controller-{digest[:12]}.crt", pem)
    if extra:
        subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, stdout=sys.stderr)


def build(target: Path, settings: SiteSettings) -> None:
    """Build the root file system into ``target``.

    Raises ``subprocess.CalledProcessError`` when a step fails; its output is on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="diting-image-") as name:
        work = Path(name)
        _write(work / "debian.sources", settings.apt_sources)
        _write(work / "apt.conf", APT_CONFIG + settings.apt_conf)
        _write(work / "dpkg.cfg", DPKG_CONFIG)
        partial = target.with_suffix(".partial")
        hook = f'{sys.executable} -m diting.lab.image --customise "$1"'
        command = [
            "mmdebstrap",
            "--quiet",
            "--format=tar",
            "--variant=minbase",
            f"--include={','.join(packages())}",
            f"--aptopt={work / 'apt.conf'}",
            f"--dpkgopt={work / 'dpkg.cfg'}",
            # Fresh package lists stay in the image: hosts made today need no update of their own.
            "--skip=cleanup/apt/lists",
            f"--customize-hook={hook}",
            SUITE,
            str(partial),
            str(work / "debian.sources"),
        ]
        if settings.apt_auth:
            auth = 'install -Dm600 -t "$1/etc/apt/auth.conf.d" /etc/apt/auth.conf.d/*.conf'
            command.insert(1, f"--setup-hook={auth}")
        source = str(Path(__file__).resolve().parents[2])
        env = {**os.environ, "PYTHONPATH": source, "LC_ALL": "C.UTF-8", "TMPDIR": str(target.parent)}
        subprocess.run(command, check=True, env=env, stdout=sys.stderr)
        partial.chmod(0o600)  # it may hold the credentials of a mirror
        partial.replace(target)


def ensure(cache: Path) -> dict[str, object]:
    """Return the image's tar, building it when the cache has none for this recipe and settings."""
    settings = site_settings.collect()
    recipe = recipe_digest()
    image_id = hashlib.sha256(f"{recipe}\0{settings.digest()}".encode()).hexdigest()[:16]
    directory = cache / "image"
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    tar = directory / f"base-{image_id}.tar"
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two labs coming up at once build one image
        changed = not tar.exists()
        if changed:
            build(tar, settings)
    return {"changed": changed, "tar": str(tar), "image_id": image_id, "recipe": recipe}


def main(argv: list[str] | None = None) -> int:
    """Command line of this module; the hook form is for mmdebstrap alone."""
    parser = argparse.ArgumentParser(
        prog="python -m diting.lab.image", description="Build the lab's base image."
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--cache", type=Path, help="directory that keeps built images")
    group.add_argument("--customise", type=Path, metavar="ROOT", help="finish an unpacked root (build hook)")
    args = parser.parse_args(argv)
    if args.customise:
        customise(args.customise, site_settings.collect())
        return 0
    sys.stdout.write(json.dumps(ensure(args.cache)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
