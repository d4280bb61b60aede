# SPDX-License-Identifier: GPL-3.0-or-later
"""Diting DR: recovery you can prove.

The package behind the collection ``diting.dr``: the command ``diting``, the ledger that counts
acknowledged writes, the evidence, and the lab's stand-ins. The domain itself (``diting.core``)
lives in the collection's module_utils and is linked here, so that it is written once.
"""

__version__ = "0.1.0"
