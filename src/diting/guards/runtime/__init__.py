# SPDX-License-Identifier: GPL-3.0-or-later
"""What every guard runs on: configuration, the cycle, its journal, metrics, alerts, word to systemd."""
