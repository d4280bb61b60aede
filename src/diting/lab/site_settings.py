# SPDX-License-Identifier: GPL-3.0-or-later
"""Package settings of this machine, in the form the lab's hosts need them.

A machine behind a proxy or a mirror is set up once; its lab hosts must reach packages in the same
way, and nothing else. Everything is read from files and the environment; nothing is written here.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SUITE = "bookworm"
DEBIAN_SUITES = frozenset(SUITE + pocket for pocket in ("", "-updates", "-security", "-backports"))
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<parts>.+)$")


@dataclass(frozen=True)
class SiteSettings:
    """Texts to place in a host; an empty text means the file is not needed."""

    apt_sources: str
    apt_conf: str
    apt_auth: str
    pip_conf: str
    environment: str
    ca_bundle: str

    def digest(self) -> str:
        """SHA-256 over all settings: two machines with equal settings may share an image."""
        joined = "\0".join(getattr(self, name) for name in self.__dataclass_fields__)
        return hashlib.sha256(joined.encode()).hexdigest()


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Fields of each deb822 stanza, names in lower case, folded lines joined."""
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t" and last:
                fields[last] += "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                last = name.strip().lower()
                fields[last] = value.strip()
        if fields:
            yield fields


def debian_sources(deb822: Iterable[str], one_line: Iterable[str]) -> str:
    """The Debian archives among the machine's sources, as one deb822 text.

    Third-party sources stay behind: roles add in the hosts what they need, and a foreign archive
    that fails would make every update in every host fail.
    """
    kept: list[str] = []
    for text in deb822:
        for fields in _stanzas(text):
            suites = [s for s in fields.get("suites", "").split() if s in DEBIAN_SUITES]
            wanted = suites and "main" in fields.get("components", "").split()
            if "deb" in fields.get("types", "").split() and wanted and fields.get("enabled", "yes") != "no":
                signed = fields.get("signed-by", "/usr/share/keyrings/debian-archive-keyring.gpg")
                kept.append(_stanza(fields["uris"], suites, fields["components"], signed))
    for text in one_line:
        for line in text.splitlines():
            match = _ONE_LINE.match(line.split("#", 1)[0].strip())
            if match and match["suite"].rstrip("/") in DEBIAN_SUITES and "main" in match["parts"].split():
                options = dict(o.split("=", 1) for o in (match["options"] or "").split() if "=" in o)
                signed = options.get("signed-by", "/usr/share/keyrings/debian-archive-keyring.gpg")
                kept.append(_stanza(match["uri"], [match["suite"]], match["parts"], signed))
    if not kept:
        raise ValueError(
            f"/etc/apt: found no source of Debian {SUITE} with component main; wanted one, because the lab's hosts "
            f"install from the mirrors of this machine. Add it under /etc/apt/sources.list.d"
        )
    return "\n\n".join(kept) + "\n"


def _stanza(uris: str, suites: list[str], components: str, signed_by: str) -> str:
    return (
        f"Types: deb\nURIs: {' '.join(uris.split())}\nSuites: {' '.join(suites)}\n"
        f"Components: {' '.join(components.split())}\nSigned-By: {signed_by}"
    )


def pip_conf(base: str, environ: Mapping[str, str]) -> str:
    """The machine's pip.conf with its ``PIP_*`` variables merged in; local paths are left out."""
    parser = configparser.RawConfigParser()
    parser.read_string(base)
    if not parser.has_section("global"):
        parser.add_section("global")
    for name, value in sorted(environ.items()):
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            parser.set("global", name[4:].lower().replace("_", "-"), value)
    for section in parser.sections():
        links = parser.get(section, "find-links", fallback=None)
        if links is not None:  # a directory of this machine means nothing in a host
            remote = [link for link in links.split() if "://" in link and not link.startswith("file:")]
            if remote:
                parser.set(section, "find-links", "\n".join(remote))
            else:
                parser.remove_option(section, "find-links")
        if parser.has_option(section, "cert"):
            parser.set(section, "cert", str(CA_BUNDLE))
    out = io.StringIO()
    parser.write(out)
    return out.getvalue().strip() + "\n"


def certificates(bundle: str) -> dict[str, str]:
    """Certificates of a PEM bundle by the SHA-256 of their DER form."""
    found: dict[str, str] = {}
    for match in _PEM.finditer(bundle):
        der = base64.b64decode("".join(match[1].split()))
        found[hashlib.sha256(der).hexdigest()] = match[0].strip() + "\n"
    return found


def egress_tcp_ports(settings: SiteSettings) -> list[int]:
    """Ports a package download may use: 80, 443 and those that mirrors and proxies name."""
    ports = {80, 443}
    for text in (settings.apt_sources, settings.apt_conf, settings.pip_conf, settings.environment):
        for host in re.findall(r"\w+://(?:[^@/\s\"']*@)?([^/\s\"';]+)", text):
            match = re.search(r":(\d+)$", host)
            if match:
                ports.add(int(match[1]))
    return sorted(ports)


def resolvers(resolv_conf: Path = Path("/etc/resolv.conf")) -> list[str]:
    """IPv4 name servers hosts will use. A stub on loopback stands for those systemd-resolved asks."""
    upstream = Path("/run/systemd/resolve/resolv.conf")
    for path in (resolv_conf, upstream):
        if path.exists():
            servers = re.findall(r"^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", path.read_text(), re.MULTILINE)
            servers = [server for server in servers if not server.startswith("127.")]
            if servers:
                return list(dict.fromkeys(servers))
    return []


def collect(environ: Mapping[str, str] | None = None, root: Path = Path("/")) -> SiteSettings:
    """Read this machine's settings.

    Raises ``OSError`` when ``apt-config`` cannot be run or the CA bundle cannot be read.
    """
    env = os.environ if environ is None else environ
    etc = root / "etc"
    sources = sorted((etc / "apt/sources.list.d").glob("*.sources"))
    lists = [etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*.list"))]
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = re.compile(r"^Acquire::(?:http|https|Retries|Check-|ForceIPv4|ForceIPv6)\S* \"[^\"]+\";$")
    apt_conf = [line for line in dict.fromkeys(dump.splitlines()) if wanted.match(line)]
    pip_file = etc / "pip.conf"
    proxies = {n: env.get(n) or env.get(n.upper()) for n in PROXY_VARIABLES}
    auth = [p.read_text() for p in sorted((etc / "apt/auth.conf.d").glob("*.conf"))]
    return SiteSettings(
        apt_sources=debian_sources(
            (p.read_text() for p in sources), (p.read_text() for p in lists if p.exists())
        ),
        apt_conf="\n".join(apt_conf) + "\n" if apt_conf else "",
        apt_auth="\n".join(auth),
        pip_conf=pip_conf(pip_file.read_text() if pip_file.exists() else "", env),
        environment="".join(f"{name}={value}\n" for name, value in proxies.items() if value),
        ca_bundle=(root / CA_BUNDLE.relative_to("/")).read_text(),
    )
