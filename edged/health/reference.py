"""The published description of the health document, for `make docs`. The daemon never imports this."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from edged.health.document import Health

_HEAD = """\
# The health document

<!-- Made from the code by `make docs`. Change edged/health/document.py instead. -->

How the gateway and its machine do: `edged status --json` has it as `health`. For machines:
[health.schema.json](health.schema.json). How to use it: [Watch over the health of a gateway](../how-to/health.md)."""


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12)."""
    made: dict[str, Any] = TypeAdapter(Health).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def page() -> Iterator[str]:
    """The page, by lines."""
    made = schema()
    yield _HEAD
    for name, model in [("Health", made), *made["$defs"].items()]:
        yield f"\n## {name}\n\n{' '.join(model['description'].split())}\n\n| key | |\n|---|---|"
        for key, one in model["properties"].items():
            yield f"| `{key}` | {_words(one)} |"


def _words(one: dict[str, Any]) -> str:
    ref = one.get("$ref") or one.get("items", {}).get("$ref", "")
    more = f" See [{ref.rpartition('/')[2]}](#{ref.rpartition('/')[2].lower()})." if ref else ""
    return " ".join(str(one.get("description", "")).split()) + more


def files() -> dict[str, str]:
    """The documents by file name."""
    return {
        "health.md": "\n".join(page()) + "\n",
        "health.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }
