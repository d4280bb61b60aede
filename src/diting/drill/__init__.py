# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of a drill: run the playbooks in order, show progress, gather the evidence."""
