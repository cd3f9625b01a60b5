"""The JSON Schema (2020-12) of profile files, for editors.

Made from the classes that validate, as that of the configuration is.
"""

from __future__ import annotations

from typing import Any

from edged.config.schema import URL, json_schema

_NOT_ITS_OWN = frozenset({"bus", "profile", "points", "enabled"})
"""What belongs to a device, and not to its type."""
_TEXTS = {
    "title": "Maker, model, and what it is.",
    "vendor": "The maker.",
    "description": "More about it.",
    "source": "Where its registers or formats are from: title and revision of the document.",
}
_VALUE = {"type": ["boolean", "number", "string", "null"]}
_VECTOR = {
    "type": "object",
    "description": "What the device sends, and what it means.",
    "properties": {
        "registers": {
            "type": "object",
            "description": "First address (`holding 40`) → the registers from there.",
            "propertyNames": {"pattern": "^(holding|input|coil|discrete) [0-9]+$"},
            "additionalProperties": {"type": "array", "items": {"type": ["integer", "boolean"]}},
        },
        "expect": {"type": "object", "description": "Point → its value.", "additionalProperties": _VALUE},
    },
}


def profile_schema() -> dict[str, Any]:
    """The schema of one profile."""
    whole = json_schema()
    defs: dict[str, Any] = whole["$defs"]
    branches = whole["properties"]["devices"]["anyOf"][0]["additionalProperties"]["else"]["anyOf"]
    classes = [defs[branch["$ref"].rpartition("/")[2]] for branch in branches]
    return {
        "$schema": URL,
        "title": "edged profile",
        "description": "A device type as data: its points, its settings, its test vectors.",
        "type": "object",
        "required": ["profile", "title", "source"],
        "properties": {
            "profile": {"type": "string", "description": "Its name, that of its file."},
            **{key: {"type": "string", "description": text} for key, text in _TEXTS.items()},
            "models": {"type": "array", "items": {"type": "string"}, "description": "The models it is for."},
            "device": {
                "description": "Settings of the device that come with its type.",
                "anyOf": [_settings(schema) for schema in classes] + [{"type": "null"}],
            },
            "fingerprint": {
                "type": "array",
                "description": "By which registers `edged scan modbus` knows it: all of them must hold.",
                "items": {"type": "object"},
            },
            "points": {"anyOf": [schema["properties"]["points"] for schema in classes] + [{"type": "null"}]},
            "tests": {
                "type": "array",
                "description": "Test vectors; `edged profiles test` runs those of Modbus profiles.",
                "items": {"anyOf": [_VECTOR, {"type": "object"}]},
            },
        },
        "$defs": defs,
    }


def _settings(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {key: one for key, one in schema["properties"].items() if key not in _NOT_ITS_OWN}
    return {"type": "object", "properties": properties, "additionalProperties": False}
