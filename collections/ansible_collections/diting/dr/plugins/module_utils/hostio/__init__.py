# SPDX-License-Identifier: GPL-3.0-or-later
"""The I/O that modules and the command ``diting`` share: journal files, the store of the gate."""
