# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by scripts/test after bootstrap.sh: what only tests need. A package that cannot be installed is
# no failure here; the tests that need it are counted as skipped, with the reason.

test_packages() { # stages asked for, none for all
  local stages=" $* "
  command -v shellcheck >/dev/null || echo shellcheck
  case "$stages" in "  " | *" process "*) ;; *) return 0 ;; esac
  command -v chromium >/dev/null || echo chromium
  [ -x /usr/lib/postgresql/15/bin/initdb ] || echo postgresql-15
  # What reads an archive of WAL-G by ordinary programs.
  command -v lz4 >/dev/null || echo lz4
  [ -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ] || echo faketime
}

test_install() {
  # Tests start servers of their own; the package would make and start one that nobody asked for.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
  apt-get update -q -o DPkg::Lock::Timeout=300 &&
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
}

test_bootstrap() {
  local -a missing
  mapfile -t missing < <(test_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  echo "setup: Debian packages to install for tests: ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  # In a subshell: bootstrap_step leaves the shell when it fails.
  (bootstrap_step "installing ${#missing[@]} packages for tests" test_install "${missing[@]}") ||
    echo "setup: going on without ${missing[*]}; what needs them is skipped and named" >&2
}

test_unpack() { # folder, packages: unpacked and not installed, since installing them starts servers that nobody asked for
  mkdir -p "$1" && cd "$1" && rm -f ./*.deb && apt-get download -q "${@:2}" &&
    for package in ./*.deb; do dpkg -x "$package" . && rm -f "$package" || return 1; done
}

test_bootstrap_etcd() {
  local stages=" $* " folder="${DITING_CACHE:-/var/cache/diting}/etcd-server"
  case "$stages" in "  " | *" process "*) ;; *) return 0 ;; esac
  if command -v etcd >/dev/null || [ -n "${DITING_TEST_ETCD:-}" ]; then return 0; fi
  [ -x "$folder/usr/bin/etcdctl" ] || (bootstrap_step "unpacking etcd for tests" test_unpack "$folder" etcd-server etcd-client) ||
    echo "setup: going on without etcd; what needs it is skipped and named" >&2
  if [ -x "$folder/usr/bin/etcd" ]; then export DITING_TEST_ETCD="$folder/usr/bin/etcd"; fi
}

test_bootstrap_prometheus() {
  local stages=" $* " folder="${DITING_CACHE:-/var/cache/diting}/prometheus"
  case "$stages" in "  " | *" process "*) ;; *) return 0 ;; esac
  if [ -n "${DITING_TEST_PROMETHEUS:-}" ]; then return 0; fi
  [ -x "$folder/usr/bin/prometheus-alertmanager" ] ||
    (bootstrap_step "unpacking Prometheus for tests" test_unpack "$folder" prometheus prometheus-alertmanager) ||
    echo "setup: going on without Prometheus; what needs it is skipped and named" >&2
  if [ -x "$folder/usr/bin/prometheus-alertmanager" ]; then export DITING_TEST_PROMETHEUS="$folder/usr/bin"; fi
}

test_bootstrap "$@"
test_bootstrap_etcd "$@"
test_bootstrap_prometheus "$@"
