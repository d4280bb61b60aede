#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Usage: build_wheelhouse.sh PYTHON BUILD_REQUIREMENTS REQUIREMENTS TAR
# Runs on the controller. Fetches every pinned file (each checked against its hash), builds the two that exist as source
# only, and packs all wheels with their checksums into TAR. Does nothing when TAR is there.
set -eu

python=$1
build_requirements=$2
requirements=$3
tar=$4

mkdir -p "$(dirname "$tar")"
exec 9>"$tar.lock"
flock 9
[ ! -s "$tar" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$build_requirements"
"$work/venv/bin/pip" wheel --quiet --disable-pip-version-check --require-hashes --no-build-isolation \
  --wheel-dir "$work/wheels" -r "$build_requirements" -r "$requirements"
(cd "$work/wheels" && sha256sum -- *.whl > SHA256SUMS)
tar -C "$work" -cf "$tar.partial" wheels
sha256sum "$tar.partial" | cut -d " " -f 1 > "$tar.sha256"
mv "$tar.partial" "$tar"
echo built
