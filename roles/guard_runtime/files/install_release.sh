#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# install_release.sh TAR SHA256 RELEASE_DIR: makes RELEASE_DIR a virtual environment with what TAR holds.
# Everything is checked against hashes, from the tar to each wheel, and nothing is asked of any index.
set -euo pipefail
umask 022

tar=$1 sha256=$2 release=$3
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

printf '%s  %s\n' "$sha256" "$tar" | sha256sum --check --quiet -
tar --extract --file "$tar" --directory "$wheels" --no-same-owner
(cd "$wheels" && sha256sum --check --quiet --strict SHA256SUMS)

# A release without its marker is what a run that died has left.
rm -rf "$release"
python3 -m venv "$release"
# --isolated: no pip.conf and no PIP_* of the host may add an index or links of its own.
"$release/bin/python" -m pip --isolated --quiet --disable-pip-version-check --no-cache-dir install \
  --no-index --find-links "$wheels" --require-hashes --no-deps --requirement "$wheels/requirements.txt"
"$release/bin/diting" --version
cp "$wheels/SHA256SUMS" "$release/SHA256SUMS"
sync --file-system "$release"
touch "$release/.complete"
rm -f "$tar"
