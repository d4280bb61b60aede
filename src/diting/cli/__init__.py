# SPDX-License-Identifier: GPL-3.0-or-later
"""Subcommands of ``diting``: one module each, with ``add_parser(subparsers)``."""
