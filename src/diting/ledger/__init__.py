# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: what a client was promised, and what the database still has.

The prober writes on an open-loop schedule and keeps a durable record of every attempt, the watcher
confirms the effect of a fault independently, the reader lists what a server holds, and the judge
subtracts one from the other. ``docs/measuring.md`` holds definitions, formats and commands.
"""
