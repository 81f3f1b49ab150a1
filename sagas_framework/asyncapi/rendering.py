"""A document as text, byte-identical from build to build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as YAML, its keys in the order in which they were made, without anchors."""
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)


def to_json(document: Mapping[str, Any]) -> str:
    """The document as JSON, indented by two spaces."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


class _Plain(yaml.SafeDumper):
    """Writes each part where it stands, also if it is the same object as another."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None  # CommonMark stays readable
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Plain.add_representer(str, _text)
