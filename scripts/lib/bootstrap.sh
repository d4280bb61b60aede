# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by every script: makes sure that this machine has what the repository needs, says what it
# installs, asks for nothing. With nothing to do it takes some hundredths of a second.
#
# After it: the virtual environment's programs are in PATH, ANSIBLE_CONFIG names this checkout's
# settings, the locale is UTF-8 without surprises. It exits with $DITING_BOOTSTRAP_EXIT (default 1)
# when something is missing that it cannot install.

bootstrap_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bootstrap_log=$bootstrap_repo/.cache/bootstrap.log

# Program -> Debian package that brings it. iptables and netavark are started by podman itself.
bootstrap_programs=(
  podman:podman runc:runc conmon:conmon iptables:iptables nft:nftables ip:iproute2 nsenter:util-linux losetup:mount mkfs.ext4:e2fsprogs
  mmdebstrap:mmdebstrap ssh:openssh-client openssl:openssl tcpdump:tcpdump flock:util-linux gpg:gnupg
  psql:postgresql-client gcc:gcc git:git python3:python3
)
bootstrap_files=( # patterns
  /usr/lib/podman/netavark:netavark
  /usr/include/stdio.h:libc6-dev
  /usr/lib/python3.*/ensurepip/__init__.py:python3-venv
  /etc/ssl/certs/ca-certificates.crt:ca-certificates
  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
)

bootstrap_fail() { # what was found, what is wanted, what to do
  printf 'setup: found: %s\n       wanted: %s\n       fix: %s\n' "$1" "$2" "$3" >&2
  exit "${DITING_BOOTSTRAP_EXIT:-1}"
}

bootstrap_step() { # description, command...: one line with its duration; the output only when it fails
  local what=$1 started=$SECONDS
  shift
  printf 'setup: %s ... ' "$what" >&2
  if "$@" >>"$bootstrap_log" 2>&1 </dev/null; then
    printf 'done (%d s)\n' "$((SECONDS - started))" >&2
  else
    printf 'failed\n' >&2
    tail -n 25 "$bootstrap_log" >&2
    bootstrap_fail "a failed command: $*" "it to succeed" "read $bootstrap_log, mend the cause, run the same script again"
  fi
}

bootstrap_missing_packages() {
  local pair
  for pair in "${bootstrap_programs[@]}"; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || echo "${pair##*:}"
  done
  for pair in "${bootstrap_files[@]}"; do
    compgen -G "${pair%%:*}" >/dev/null || echo "${pair##*:}"
  done
}

bootstrap_machine() {
  [ "$EUID" = 0 ] || bootstrap_fail "uid $EUID" "root: the lab's hosts are containers with networks of their own" "run it with sudo"
  local ID='' ID_LIKE='' PRETTY_NAME=unknown memory_kib free_kib place
  # shellcheck source=/dev/null
  [ ! -r /etc/os-release ] || . /etc/os-release
  case " $ID $ID_LIKE " in
    *' debian '*) ;;
    *) bootstrap_fail "$PRETTY_NAME" "Debian 12 or a relative of it" "use such a machine" ;;
  esac
  while read -r key memory_kib _; do [ "$key" != MemTotal: ] || break; done </proc/meminfo
  [ "$memory_kib" -ge $((3 * 1024 * 1024)) ] ||
    bootstrap_fail "$((memory_kib / 1024)) MiB of memory" "at least 3072 MiB" "use a larger machine"
  place=${DITING_LAB_HOME:-/var/lib/diting-lab}
  # A lab that is up has taken its share already.
  local wanted_gib=10
  [ ! -d "$place/podman" ] || wanted_gib=2
  while [ ! -d "$place" ]; do place=$(dirname "$place"); done
  free_kib=$(df --output=avail -k "$place" | tail -n 1)
  [ "$free_kib" -ge $((wanted_gib * 1024 * 1024)) ] ||
    bootstrap_fail "$((free_kib / 1024 / 1024)) GiB free at $place" "at least $wanted_gib GiB" "free some space, or point DITING_LAB_HOME elsewhere"
}

bootstrap_packages() {
  local -a missing
  mapfile -t missing < <(bootstrap_missing_packages | sort -u)
  [ "${#missing[@]}" -gt 0 ] || return 0
  echo "setup: Debian packages to install: ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  bootstrap_step "reading the package lists" apt-get update -q -o DPkg::Lock::Timeout=300
  bootstrap_step "installing ${#missing[@]} packages" apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
  mapfile -t missing < <(bootstrap_missing_packages | sort -u)
  [ "${#missing[@]}" -eq 0 ] || bootstrap_fail "still missing: ${missing[*]}" "what these packages bring" "read $bootstrap_log"
}

bootstrap_python() {
  local venv=$bootstrap_repo/.venv stamp wanted
  stamp=$venv/.diting-setup
  # The path counts: the editable install and every program in the environment carry it.
  wanted=$({ echo "$bootstrap_repo"; cat "$bootstrap_repo/requirements.txt" "$bootstrap_repo/pyproject.toml"; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || [ ! -x "$venv/bin/python" ] || return 0
  rm -f "$stamp"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    bootstrap_fail "$(python3 --version 2>&1)" "Python 3.11 or newer" "use Debian 12 or newer"
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    bootstrap_step "making the virtual environment .venv" python3 -m venv --clear "$venv"
  fi
  bootstrap_step "installing Python tools into .venv (pinned, hash-checked)" \
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes -r "$bootstrap_repo/requirements.txt"
  bootstrap_step "installing this checkout into .venv" \
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --no-build-isolation --editable "$bootstrap_repo"
  printf '%s' "$wanted" >"$stamp"
}

bootstrap_main() {
  bootstrap_machine
  mkdir -p "$bootstrap_repo/.cache"
  if [ -n "$(bootstrap_missing_packages)" ]; then
    bootstrap_packages
  fi
  # Two scripts started at once must not build one environment twice.
  exec 8>"$bootstrap_repo/.cache/bootstrap.lock"
  flock 8
  bootstrap_python
  exec 8>&-
}

export LC_ALL=C.UTF-8 LANG=C.UTF-8
export PATH=$bootstrap_repo/.venv/bin:$PATH:/usr/sbin:/sbin
export ANSIBLE_CONFIG=$bootstrap_repo/ansible.cfg
bootstrap_main
