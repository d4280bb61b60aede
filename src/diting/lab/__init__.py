# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: hosts as containers on one machine, and the stand-ins for what cannot run there."""
