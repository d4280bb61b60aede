#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Usage: install_patroni.sh VENV STAMP wheelhouse TAR SHA256
#        install_patroni.sh VENV STAMP index BUILD_REQUIREMENTS REQUIREMENTS [PIP_OPTION...]
# Builds the environment from nothing. STAMP is written last: an install that broke off is started over.
set -eu

venv=$1
stamp=$2
method=$3
shift 3

case $method in
  wheelhouse)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo "$2  $1" | sha256sum --check --quiet
    tar -C "$work" -xf "$1"
    (cd "$work/wheels" && sha256sum --check --quiet SHA256SUMS)
    # pip runs out of its own wheel: half of the time of an environment is spent on installing pip into it.
    python3 -m venv --clear --without-pip "$venv"
    pip=$(echo "$work"/wheels/pip-*.whl)
    "$venv/bin/python" "$pip/pip" install --quiet --disable-pip-version-check --no-index --no-deps \
      "$work"/wheels/*.whl
    ;;
  index)
    build_requirements=$1
    requirements=$2
    shift 2
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes "$@" -r "$build_requirements"
    # Without isolation the source packages are built with what was just installed, and nothing unpinned is fetched.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-build-isolation "$@" -r "$requirements"
    ;;
esac

# Patroni says READY through python-systemd, which pip could only build with a compiler and systemd's headers. Debian's
# build is for the same interpreter and is linked in.
purelib=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -s /usr/lib/python3/dist-packages/systemd "$purelib/systemd"
"$venv/bin/python" -c 'from systemd.daemon import notify'
"$venv/bin/patroni" --version
touch "$stamp"
