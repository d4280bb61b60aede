# SPDX-License-Identifier: GPL-3.0-or-later
"""The domain, pure: standard library only, no I/O, no import of Ansible."""
