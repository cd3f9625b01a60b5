"""The example vectors that driver packages carry beside a codec, in the two forms in which they are published.

A list as the LoRa Alliance's codec API has it (`*.examples.json`, or the same in YAML):

    - {type: uplink, description: …, input: {bytes: "0167", fPort: 1}, output: {data: {…}}}

with the types `uplink`, `downlink-encode` and `downlink-decode`; or the codec's description in The Things Network's
device repository (`*-codec.yaml`), with `uplinkDecoder`, `downlinkEncoder` and `downlinkDecoder`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.adapter import ConfigError

from .runner import CodecError, Output, Runner
from .script import Script

_SECTIONS = {
    "uplinkDecoder": "decodeUplink",
    "downlinkEncoder": "encodeDownlink",
    "downlinkDecoder": "decodeDownlink",
}
_TYPES = {"uplink": "decodeUplink", "downlink-encode": "encodeDownlink", "downlink-decode": "decodeDownlink"}
_LARGEST = 4 << 20


@dataclass(frozen=True, slots=True)
class Example:
    """One vector."""

    name: str
    function: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    script: str = ""
    """The file of the codec, where the vector says it."""


def beside(script: Path) -> Path | None:
    """The file with a codec's vectors, if it has one of the usual names."""
    stem = script.with_suffix("")
    for suffix in (".examples.json", ".examples.yaml", "-codec.yaml"):
        if (place := stem.with_name(stem.name + suffix)).is_file():
            return place
    return None


def load(file: Path) -> list[Example]:
    """The vectors of a file. Raises ConfigError."""
    from ruamel.yaml import YAML  # noqa: PLC0415  # only who tests profiles pays for it
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415  # likewise

    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True  # in published files; the last one counts, as there
    try:
        if file.stat().st_size > _LARGEST:
            raise ConfigError(f"{file} is larger than {_LARGEST >> 20} MiB")
        found = yaml.load(file.read_text("utf-8"))
        return list(_examples(_plain(found)))
    except (OSError, UnicodeDecodeError, YAMLError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
    except (ValueError, TypeError, AttributeError, KeyError) as exc:
        raise ConfigError(f"{file} has no examples as a codec's are written: {exc!r}") from exc


def _examples(found: Any) -> Iterator[Example]:
    if isinstance(found, Mapping):
        for section, function in _SECTIONS.items():
            described = found.get(section) or {}
            for one in described.get("examples") or ():
                yield _example(function, one, str(described.get("fileName", "")))
        return
    for one in found or ():
        if one["type"] not in _TYPES:
            raise ValueError(f"there is no type {one['type']!r}")
        yield _example(_TYPES[one["type"]], one, "")


def _example(function: str, one: Mapping[str, Any], script: str) -> Example:
    given = {key: value for key, value in one["input"].items() if value is not None}
    if isinstance(given.get("bytes"), str):
        given["bytes"] = list(bytes.fromhex(given["bytes"]))
    name = str(one.get("description") or one.get("name") or function)
    return Example(name, function, given, one["output"], script)


def _plain(found: Any) -> Any:
    """What YAML takes for a date is a text in JavaScript."""
    match found:
        case dt.datetime():
            moment = found.astimezone(dt.UTC) if found.tzinfo else found
            return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        case dt.date():
            return found.isoformat()
        case Mapping():
            return {str(key): _plain(one) for key, one in found.items()}
        case list() | tuple():
            return [_plain(one) for one in found]
    return found


async def check(runner: Runner, script: Script, example: Example) -> str:
    """What is wrong with a codec by this vector; empty if nothing is. Raises ConfigError."""
    try:
        output = await runner.run(script, example.function, example.input)
    except CodecError as exc:
        return str(exc)
    return difference(example.output, output)


def difference(expected: Mapping[str, Any], output: Output) -> str:
    """Where an output is not as expected; empty if nowhere. Warnings count only where some are expected."""
    if output.errors or expected.get("errors"):
        wanted = [str(one) for one in expected.get("errors") or ()]
        found = list(output.errors)
        return "" if wanted == found else f"errors: {_short(found)}, and the vector expects {_short(wanted)}"
    if wanted := list(expected.get("warnings") or ()):
        found = list(output.warnings)
        if wanted != found:
            return f"warnings: {_short(found)}, and the vector expects {_short(wanted)}"
    if "bytes" in expected:
        frame = expected["bytes"]
        raw = bytes.fromhex(frame) if isinstance(frame, str) else bytes(frame)
        if raw != output.frame:
            return f"bytes: {(output.frame or b'').hex(' ')}, and the vector expects {raw.hex(' ')}"
        if expected.get("fPort") not in {None, output.port}:
            return f"fPort: {output.port}, and the vector expects {expected['fPort']}"
        return ""
    return _differs("data", expected.get("data"), output.data)


def _differs(where: str, wanted: Any, found: Any) -> str:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        # `undefined` is left out of JSON, and null in the vectors that were made with another engine.
        keys = [key for key in dict.fromkeys([*wanted, *found]) if (wanted.get(key), found.get(key)) != (None, None)]
        for key in keys:
            if key not in wanted or key not in found:
                text = "is missing" if key in wanted else f"is {_short(found[key])}, and the vector has no such value"
                return f"{where}.{key} {text}"
            if text := _differs(f"{where}.{key}", wanted[key], found[key]):
                return text
        return ""
    if isinstance(wanted, Sequence) and isinstance(found, list) and not isinstance(wanted, str):
        if len(wanted) != len(found):
            return f"{where} has {len(found)} elements, and the vector expects {len(wanted)}"
        pairs = enumerate(zip(wanted, found, strict=True))
        return next((text for i, (one, two) in pairs if (text := _differs(f"{where}.{i}", one, two))), "")
    same = wanted == found and isinstance(wanted, bool) == isinstance(found, bool)
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (wanted, found))
    if same or (numbers and math.isclose(wanted, found, rel_tol=1e-9, abs_tol=1e-9)):
        return ""
    return f"{where} is {_short(found)}, and the vector expects {_short(wanted)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"  # noqa: PLR2004  # a line of a report
