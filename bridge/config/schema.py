"""The JSON Schema of the configuration, for editors.

`config/edgespool.schema.json` is the output of `python -m bridge.config.schema`; a
test keeps it current. An editor with a YAML language server follows the first line
of the samples to it, and then completes keys and underlines mistakes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bridge.config.model import Config

__all__ = ["json_schema"]


def json_schema() -> dict[str, Any]:
    """Return the schema of a whole document."""
    schema = Config.model_json_schema(by_alias=True)
    properties = schema["properties"]
    for section in ("web", "sys"):
        properties[section]["anyOf"] = [{"$ref": f"#/$defs/{section.title()}"}, {"const": "off"}]
    for section in ("SinkEntry", "CommandSource"):
        schema["$defs"][section].update(minProperties=1, maxProperties=1)
    stack: list[Any] = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            _no_null(node)
            stack += node.values()
        elif isinstance(node, list):
            stack += node
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "edgespool configuration",
    }


def _no_null(node: dict[str, Any]) -> None:
    """Absent is written by leaving the key out: null is None on our side only."""
    if isinstance(kinds := node.get("anyOf"), list):
        node["anyOf"] = [kind for kind in kinds if kind != {"type": "null"}]
        if len(node["anyOf"]) == 1:
            node.update(node.pop("anyOf")[0])
    if "default" in node and node["default"] is None:
        del node["default"]


if __name__ == "__main__":
    json.dump(json_schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
