# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options that every module which reads an archive of WAL-G documents."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the archive is, and by whose word."""

    DOCUMENTATION = r"""
options:
  settings_file:
    description:
      - WAL-G's own settings (JSON), so that the archive is looked at by the path that production uses.
      - Read are C(WALG_S3_PREFIX) with C(AWS_ENDPOINT), C(AWS_REGION), C(AWS_S3_FORCE_PATH_STYLE), C(WALG_S3_CA_CERT_FILE),
        C(AWS_ACCESS_KEY_ID), C(AWS_SECRET_ACCESS_KEY) and C(AWS_SESSION_TOKEN); or C(WALG_FILE_PREFIX).
    type: path
    default: /etc/wal-g/wal-g.json
  wal_segment_bytes:
    description: Length of a WAL segment, as C(initdb --wal-segsize) made it.
    type: int
    default: 16777216
requirements:
  - boto3, for an archive in S3
  - the program C(lz4), C(zstd) or C(brotli), by the compression of the archive, once it has a second timeline
"""
