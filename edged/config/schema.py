"""The JSON Schema (2020-12) of the configuration, for editors, and the reference page made from it.

Both come from the classes that validate, of all installed adapters and connectors.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from edged.adapter import Adapter, adapter_names, load_adapter
from edged.config.flows import FlowConfig
from edged.config.model import BackupConfig, BufferConfig, ClockConfig, ControlConfig, GatewayConfig
from edged.config.types import Duration, Name, Secret, Size
from edged.errors import ConfigError
from edged.uplink.connectors import connector_names, load_connector

if TYPE_CHECKING:
    from pydantic_core import core_schema

URL = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: JsonSchemaValue = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-.*)?\}"}
_SINGLE = {
    "gateway": GatewayConfig, "buffer": BufferConfig, "control": ControlConfig, "clock": ClockConfig,
    "backup": BackupConfig,
}  # fmt: skip
_SECTIONS = {
    "buses": "The physical links, by name.",
    "devices": "What is read, by name.",
    "connections": "Where readings go, by name.",
    "flows": "Which readings go where, and what is done to them on the way, by name.",
}
_INCLUDE: JsonSchemaValue = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "Further files, relative to this one: a name, a pattern such as `sites/*.yaml`, or a list of them.",
}


class _Generator(GenerateJsonSchema):
    """Writes defaults as a person would."""

    def encode_default(self, dft: Any) -> Any:
        return written(dft)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """With the defaults that a factory makes, where they say something."""
        result = super().default_schema(schema)
        if "default_factory" in schema:
            result.pop("default", None)
        return result


def written(value: Any) -> Any:
    """A default as one would write it in YAML."""
    if isinstance(value, Duration):
        return str(value)
    if isinstance(value, Size):
        units = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
        return next((f"{value // unit}{name}" for name, unit in units if value and not value % unit), f"{int(value)}B")
    if dataclasses.is_dataclass(value):
        return {one.name: written(getattr(value, one.name)) for one in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def json_schema() -> dict[str, Any]:
    """The schema of the whole configuration."""
    defs: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for name, cls in _SINGLE.items():
        schema = _of(cls, defs)
        optional = schema if "required" in defs[cls.__name__] else {"anyOf": [schema, {"type": "null"}]}
        properties[name] = {**optional, "description": cls.__doc__}
    adapters, connectors = _installed()
    devices = dict.fromkeys(adapter.device_config for adapter in adapters.values())
    entries = {
        "buses": _chosen("adapter", {name: _of(one.bus_config, defs) for name, one in adapters.items()}),
        "devices": _device([_of(cls, defs) for cls in devices], defs),
        "connections": _chosen("connector", {name: _of(cls, defs) for name, cls in connectors.items()}),
        "flows": _of(FlowConfig, defs),
    }
    for section, text in _SECTIONS.items():
        named = {"type": "object", "propertyNames": {"pattern": Name.PATTERN}, "additionalProperties": entries[section]}
        properties[section] = {"anyOf": [named, {"type": "null"}], "description": text}
    return {
        "$schema": URL,
        "title": "edged configuration",
        "type": "object",
        "properties": {"include": _INCLUDE, **properties},
        "additionalProperties": False,
        "$defs": {name: _with_variables(one) for name, one in sorted(defs.items())},
    }


def _installed() -> tuple[dict[str, Adapter], dict[str, type]]:
    """The adapters, and the classes of the connectors; without those that lack a package they need."""
    adapters: dict[str, Adapter] = {}
    connectors: dict[str, type] = {}
    for name in adapter_names():
        with contextlib.suppress(ConfigError):
            adapters[name] = load_adapter(name)
    for name in connector_names():
        with contextlib.suppress(ConfigError):
            connectors[name] = load_connector(name).connection_config
    return adapters, connectors


def _of(cls: type, defs: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a class, which goes to `defs` with all that it refers to."""
    schema = TypeAdapter(cls).json_schema(ref_template="#/$defs/{model}", schema_generator=_Generator)
    defs.update(schema.pop("$defs", {}))
    defs[cls.__name__] = schema
    for one in _dataclasses_in(cls):
        for name, text in _field_texts(one).items():
            if name in defs[one.__name__]["properties"]:  # what is told of the class itself is no setting
                defs[one.__name__]["properties"][name]["description"] = text
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _dataclasses_in(hint: Any) -> Iterator[type]:
    """A class and those of the values it holds."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint is not Secret:
            yield hint
            for one in typing.get_type_hints(hint).values():
                yield from _dataclasses_in(one)
    else:
        for one in typing.get_args(hint):
            yield from _dataclasses_in(one)


def _field_texts(cls: type) -> dict[str, str]:
    """The texts below the fields of a class and of those it is based on; pydantic itself forgets the latter."""
    texts: dict[str, str] = {}
    for base in reversed([one for one in cls.__mro__ if dataclasses.is_dataclass(one)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)  # noqa: S101  # tells the type checker what the source of a class is
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[name] = inspect.cleandoc(words)
                case _:
                    pass
    return texts


def _chosen(key: str, options: dict[str, Any]) -> dict[str, Any]:
    """An entry whose `key` says which of the options it must satisfy: editors then complain about that one only."""
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"enum": list(options)}},
        "allOf": [
            {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": option}
            for name, option in options.items()
        ],
    }


def _device(options: list[dict[str, Any]], defs: dict[str, Any]) -> dict[str, Any]:
    """A device is of any adapter: which, only its bus says. With a profile, its points may be incomplete or null."""
    return {
        "type": "object",
        "required": ["bus"],
        "if": {"required": ["profile"], "properties": {"profile": {"type": "string"}}},
        "then": {"anyOf": [_partial(option, defs) for option in options]},
        "else": {"anyOf": options},
    }


def _partial(option: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    name = option["$ref"].rpartition("/")[2]
    schema = copy.deepcopy(defs[name])
    schema["required"] = ["bus"]
    points = schema["properties"]["points"]
    for branch in (points.get("additionalProperties"), *points.get("patternProperties", {}).values()):
        if isinstance(branch, dict) and "$ref" in branch:
            point = branch["$ref"].rpartition("/")[2]
            defs[f"{point}Override"] = {key: one for key, one in defs[point].items() if key != "required"}
            branch.pop("$ref")
            branch["anyOf"] = [{"$ref": f"#/$defs/{point}Override"}, {"type": "null"}]
    defs[f"{name}WithProfile"] = schema
    return {"$ref": f"#/$defs/{name}WithProfile"}


def _with_variables(schema: dict[str, Any]) -> dict[str, Any]:
    """Where a number, true or false, or one of some words is wanted, `${VARIABLE}` can stand for it."""
    result = copy.deepcopy(schema)
    for name, one in result.get("properties", {}).items():
        words = {key: one.pop(key) for key in ("title", "description", "default") if key in one}
        words.pop("title", None)
        branches = one.get("anyOf", [one])
        if not any(branch.get("type") == "string" and len(branch) == 1 for branch in branches) and any(
            branch.get("type") in {"integer", "number", "boolean"} or "enum" in branch or "pattern" in branch
            for branch in branches
        ):
            one = {"anyOf": [*branches, _VARIABLE]}  # noqa: PLW2901  # the same property, widened
        result["properties"][name] = {**words, **one}
    return result


# -- the reference page ------------------------------------------------------------------------------------------------


def reference() -> str:
    """The reference page of the configuration, in Markdown."""
    schema = json_schema()
    defs = schema["$defs"]
    lines = [*_INTRODUCTION.splitlines(), ""]
    for name, cls in _SINGLE.items():
        lines += [f"## `{name}`", "", cls.__doc__ or "", "", *_table(defs[cls.__name__], defs), ""]
        for part, title in _nested(defs[cls.__name__], defs):
            lines += [f"### {title}", "", defs[part].get("description", ""), "", *_table(defs[part], defs), ""]
    adapters, connectors = _installed()
    lines += ["## `buses`", "", "A bus is one physical link. `adapter` says which protocol is spoken on it.", ""]
    lines += _parts({name: one.bus_config for name, one in adapters.items()}, "adapter", defs)
    lines += ["## `devices`", "", "Which settings a device and its points have depends on the adapter of its bus.", ""]
    lines += _parts({name: one.device_config for name, one in adapters.items()}, "adapter", defs)
    lines += ["## `connections`", "", "A connection is one upstream. `connector` says which dialect is spoken.", ""]
    lines += _parts(connectors, "connector", defs)
    lines += ["## `flows`", "", "See [how to use them](../how-to/flows.md).", ""]
    lines += [*_table(defs["FlowConfig"], defs), ""]
    for part, title in _nested(defs["FlowConfig"], defs):
        lines += [f"### {title}", "", defs[part].get("description", ""), "", *_table(defs[part], defs), ""]
    return "\n".join(lines).rstrip() + "\n"


def _parts(classes: dict[str, type], key: str, defs: dict[str, Any]) -> Iterator[str]:
    by_class: dict[type, list[str]] = {}
    for name, cls in classes.items():
        by_class.setdefault(cls, []).append(name)
    for cls, names in by_class.items():
        schema = defs[cls.__name__]
        yield from (
            f"### `{key}: {'`, `'.join(names)}`",
            "",
            schema.get("description", ""),
            "",
            *_table(schema, defs),
            "",
        )
        for part, title in _nested(schema, defs):
            yield from (f"#### {title}", "", defs[part].get("description", ""), "", *_table(defs[part], defs), "")


def _nested(schema: dict[str, Any], defs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(definition, heading) of the mappings inside a mapping."""
    for key, one in schema.get("properties", {}).items():
        for part in _references(one):
            yield part, f"`{key}`" + (" (each)" if "additionalProperties" in one or "patternProperties" in one else "")
            for below, title in _nested(defs[part], defs):
                yield below, f"{title} of {key}"


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for key, one in schema.items():
            if key != "default":
                yield from _references(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def _table(schema: dict[str, Any], defs: dict[str, Any]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    required = set(schema.get("required", ()))
    for key, one in schema.get("properties", {}).items():
        default = "required" if key in required else _default(one)
        meaning = " ".join(one.get("description", "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_kind(one, defs)} | {default} | {meaning} |"


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(one, defs) for one in schema["anyOf"] if one != _VARIABLE and "const" not in one]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    match schema.get("type"):
        case "string":
            return {Duration.PATTERN: "duration", Size.PATTERN: "size"}.get(schema.get("pattern", ""), "text")
        case "integer":
            return "whole number"
        case "number":
            return "number"
        case "boolean":
            return "`true`, `false`"
        case "array":
            return "list"
        case "object":
            return "mapping"
        case _:
            return "mapping" if "$ref" in schema else ""


_INTRODUCTION = """\
# Configuration reference

<!-- Generated by `edged schema --markdown`. Do not edit. -->

The configuration is one YAML file, `/etc/edged/edged.yaml` unless `$EDGED_CONFIG` or the command line names another.
`edged check` says everything that is wrong with it, with file, line and column.

- **YAML 1.2**: `no`, `on` and `12:30` are texts; true and false are written `true` and `false`. A key given twice is an
  error. A number in quotes is a text.
- **Durations** have a unit: `500ms`, `1s`, `1h30m`. **Sizes** too: `64MB`, `1GiB`.
- **Names** of buses, devices, points and connections have up to 64 letters, digits, `-`, `_` and `.`.
- **More files**: `include:` names further files, relative to the file it stands in (a name, a pattern such as
  `sites/*.yaml`, or a list), and all `*.yaml` in the folder `conf.d` beside the main file are read, in the order of
  their names. Sections are merged; a name may be given in one file only.
- **Secrets**: `password: !secret NAME`, see [Secrets](../how-to/secrets.md).
- **Environment**: `${NAME}`, or `${NAME:-default}`, inside any value; `$${` for the characters themselves. A value that
  is nothing but a variable may be a number or `true`; with quotes around it, it is a text.
- **Profiles**: `profile: NAME` takes a device's settings and points from `profiles/NAME.yaml` beside the main file, or
  from those the adapter brings. What the device itself says comes first, key by key within a point; `NAME: null` under
  `points` removes a point.
"""
