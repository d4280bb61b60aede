# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML for configuration files, without its traps: no key twice, no types of its own."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _value in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise ValueError(f"key {key!r} stands there twice, in the object of line {line}")
        return dict(super().construct_mapping(node, deep))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError naming the place of a fault."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
