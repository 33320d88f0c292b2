"""Plain values as YAML that a person goes on with.

Text stands without quotes where it cannot be taken for anything else, and as a JSON
string, which is YAML too, everywhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["as_comment", "as_yaml"]

# Begins with a letter or a slash: no number, no sign of YAML. The words of YAML are apart.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*(:[0-9]+)?\Z")
_ADDRESS: Final = re.compile(r"[0-9]+(\.[0-9]+){3}:[0-9]+\Z")
_MEASURE: Final = re.compile(r"[0-9]+(ms|s|m|h|d|B|KiB|MiB|GiB|TiB)\Z")
_WORDS: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
_LINE_MAX: Final = 110


def as_yaml(value: dict[str, Any], indent: str = "") -> list[str]:
    """The lines of a mapping in block style; short lists stay on their line."""
    lines = []
    for key, inner in value.items():
        head = f"{indent}{_scalar(key)}:"
        flow = _flow(inner)
        if not isinstance(inner, dict | list) or (len(head) + len(flow) < _LINE_MAX and not _wide(inner)):
            lines.append(f"{head} {flow}")
        elif isinstance(inner, dict):
            lines.append(head)
            lines += as_yaml(inner, indent + "  ")
        else:
            lines.append(head)
            lines += _items(inner, indent + "  ")
    return lines


def as_comment(lines: Iterable[str]) -> list[str]:
    """The same lines behind `# `."""
    return [f"# {line}".rstrip() for line in lines]


def _wide(value: Any) -> bool:
    """Whether a value reads better in lines of its own."""
    if isinstance(value, dict):
        return len(value) > 1
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _items(values: list[Any], indent: str) -> list[str]:
    lines = []
    for item in values:
        flow = _flow(item)
        if not isinstance(item, dict) or (len(indent) + len(flow) < _LINE_MAX and len(item) < 4):
            lines.append(f"{indent}- {flow}")
            continue
        first, *rest = as_yaml(item, indent + "  ")
        lines += [f"{indent}- {first.strip()}", *rest]
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if value == "off":
        return value  # a word of ours; in YAML 1.2 it is no other
    plain = _PLAIN.match(value) or _ADDRESS.match(value) or _MEASURE.match(value)
    if plain and value.lower() not in _WORDS:
        return value
    # `${` would be filled in; it has to be said twice to be itself.
    return json.dumps(value.replace("${", "$${"), ensure_ascii=False)
