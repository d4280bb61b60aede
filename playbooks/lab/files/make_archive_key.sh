#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# make_archive_key.sh KEY COPY: an OpenPGP key that WAL-G encrypts by, as an armoured secret key in two files.
set -eu
umask 077
home=$(mktemp -d)
trap 'gpgconf --homedir "$home" --kill gpg-agent; rm -rf "$home"' EXIT
gpg --homedir "$home" --batch --quiet --generate-key <<'KEY'
%no-protection
Key-Type: RSA
Key-Length: 3072
Subkey-Type: RSA
Subkey-Length: 3072
Name-Email: archive@lab.invalid
Expire-Date: 0
%commit
KEY
for path in "$1" "$2"; do
  mkdir -p "$(dirname "$path")"
  gpg --homedir "$home" --batch --quiet --armor --export-secret-keys >"$path.part"
  mv "$path.part" "$path"
done
