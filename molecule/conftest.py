# SPDX-License-Identifier: GPL-3.0-or-later
"""The host under test, in every scenario."""

from support.lab_host import host

__all__ = ["host"]
