"""docs/reference/serial-profiles.md lists the profiles that there are. Run this file to write it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from edged_serial import SERIAL

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "serial-profiles.md"


def _profiles() -> Iterator[dict[str, Any]]:
    for path in sorted((SERIAL.profiles() or Path()).glob("*.yaml")):
        yield YAML(typ="safe").load(path)


def _talks(device: dict[str, Any]) -> str:
    if "dialogue" in device:
        return {"mbus": "M-Bus", "iec62056-21": "IEC 62056-21, mode C"}[device["dialogue"]]
    asked = "send" in device or any("send" in one for one in device.get("messages", {}).values())
    return "is asked" if asked else "sends by itself"


def _lines() -> Iterator[str]:
    yield "# Serial device types"
    yield ""
    yield "<!-- Made from adapters/edged_serial/profiles by tests/unit/serial/test_reference.py: change those. -->"
    yield ""
    yield "Write `profile: NAME` at a device whose bus has `adapter: serial`. How to describe another device:"
    yield "[Read a serial device](../how-to/serial-device.md)."
    yield ""
    yield "| profile | device | line | talks | vectors |"
    yield "|---|---|---|---|---|"
    profiles = list(_profiles())
    for one in profiles:
        row = [f"[`{one['profile']}`](#{one['profile']})", one["title"], one["device"]["line"], _talks(one["device"])]
        yield f"| {' | '.join(row)} | {len(one['tests'])} |"
    yield ""
    yield "Profiles with NMEA 0183 or M-Bus need the extra `meters`: `pip install 'edged[meters]'`."
    for one in profiles:
        yield ""
        yield f"## {one['profile']}"
        yield ""
        yield f"{one['title']}. {one.get('description', '').strip()}".strip()
        yield ""
        yield f"From: {one['source']}."
        yield ""
        yield "| point | unit | |"
        yield "|---|---|---|"
        for name, point in one["points"].items():
            notes = [point.get("description", ""), "writable" if point.get("writable") else ""]
            yield f"| `{name}` | {point.get('unit', '')} | {'; '.join(note for note in notes if note)} |"


def page() -> str:
    return "\n".join(_lines()) + "\n"


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), f"run python {Path(__file__).name} to write {PAGE.name} anew"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
