# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that stand between PostgreSQL and WAL-G, and the questions they ask a store.

Standard library only: these files run on database hosts, some of them once per WAL segment and
one of them inside a promotion, so they may neither wait for a heavy import nor for a dead store. That is why paths are strings and imports are late here.
"""
