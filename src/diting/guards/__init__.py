# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemons that watch and act within seconds: one module each, on one shared runtime.

A module here that holds ``GUARD``, its class, is a guard; the others are helpers.
"""
