"""docs/reference/ble-sensors.md: every sensor that can be decoded, from the libraries' own lists and our profiles.

`python -m tests.support.ble_models` writes it. That needs the extra `ble-decoders`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from edged_ble.codecs.gatt import FORMATS
from edged_ble.decoders import KNOWN

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/ble-sensors.md"
PROFILES = ROOT / "adapters/edged_ble/profiles"
PACKAGES = sorted({known.package for known in KNOWN.values() if known.package})
_HEAD = """\
# BLE sensors

<!-- Made from the code and the libraries by `python -m tests.support.ble_models`. -->

What the adapter `ble` understands. A device names its `decoder`, or a `profile` that does. Sensors that are not here
can be described in YAML: see [Read a BLE sensor](../how-to/ble-sensor.md).
"""
_LIBRARIES = """\
Decoders marked with * come from the libraries of the extra: `pip install 'edged[ble-decoders]'`. They are imported when
the first device needs one. There is no wheel of pycryptodomex for armv7l: installing xiaomi-ble there needs a compiler.
With habluetooth, on which the libraries are built, comes PyRIC, which is GPL. edged does not load it; a test watches
that.
"""


@dataclass(frozen=True, order=True)
class Model:
    """A row of the table."""

    maker: str
    model: str
    what: str
    decoder: str
    profile: str = ""


def _profiles() -> Iterator[dict[str, Any]]:
    for path in sorted(PROFILES.glob("*.yaml")):
        yield YAML(typ="safe").load(path)


def _own() -> Iterator[Model]:
    for profile in _profiles():
        decoder = profile.get("device", {}).get("decoder", "GATT")
        if decoder in KNOWN and KNOWN[decoder].package:
            continue
        for model in profile.get("models", ()):
            yield Model(profile["vendor"], model, profile["title"], decoder, profile["profile"])


def _described() -> dict[tuple[str, str], str]:
    """(decoder, model) → the profile that is for it."""
    return {
        (profile["device"]["decoder"], model): profile["profile"]
        for profile in _profiles()
        if "decoder" in profile.get("device", {})
        for model in profile.get("models", ())
    }


def _of_libraries() -> Iterator[Model]:
    for entry in import_module("xiaomi_ble.devices").DEVICE_TYPES.values():
        yield Model(entry.manufacturer, entry.model, entry.name, "xiaomi")
    source = inspect.getsource(import_module("govee_ble.parser"))
    for names in re.findall(r'set_device_type\(\s*"([^"]+)"', source):
        for name in names.split("/"):
            yield Model("Govee", name.removesuffix("-REMOTE"), "", "govee")
    for model, info in import_module("inkbird_ble.parser").MODEL_INFO.items():
        if info.parse_adv and "Generic" not in model.value:
            kind = "Thermometer for food" if info.model_type.name == "BBQ" else "Sensor"
            yield Model("Inkbird", model.value, kind, "inkbird")
    for name in import_module("sensorpush_ble.parser").SENSORPUSH_DEVICE_TYPES.values():
        yield Model("SensorPush", name, "", "sensorpush")
    for number, device in import_module("thermobeacon_ble.parser").DEVICE_TYPES.items():
        yield Model("ThermoBeacon", f"type {number}", device.name, "thermobeacon")
    source = inspect.getsource(import_module("thermopro_ble.parser"))
    found = re.search(r"name\.startswith\(\(([^)]*)\)\)", source)
    for name in re.findall(r'"(\w+)"', found[1] if found else ""):
        yield Model("ThermoPro", f"{name}x", "Thermometer", "thermopro")


def models() -> list[Model]:
    """All, sorted, each once. Needs the libraries."""
    described = _described()
    rows = {
        Model(one.maker, one.model, one.what, one.decoder, described.get((one.decoder, one.model), ""))
        for one in _of_libraries()
    }
    return sorted({*rows, *_own()}, key=lambda one: (one.maker.lower(), one.model, one.decoder, one.what))


def page() -> str:
    """The page. Needs the libraries."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    rows = models()
    yield _HEAD
    yield "## Decoders"
    yield ""
    yield "| decoder | for | bind key | points when none are listed |"
    yield "|---|---|---|---|"
    for name, known in KNOWN.items():
        mark = "*" if known.package else ""
        key = " or ".join(f"{2 * length} digits" for length in known.key_lengths) or "none"
        points = ", ".join(f"`{point}`" for point in known.common) or "list yours"
        yield f"| `{name}`{mark} | {known.title} | {key} | {points} |"
    yield "| `bytes` | Described by `data` and `points` in the configuration | none | list yours |"
    yield ""
    yield _LIBRARIES
    listed = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    yield f"This page was made with {listed}."
    yield ""
    yield f"## {len(rows)} models"
    yield ""
    yield "Any other sensor that sends BTHome, iBeacon, Eddystone or standard characteristics is understood too."
    yield ""
    yield "| maker | model | what it is | decoder | profile |"
    yield "|---|---|---|---|---|"
    for row in rows:
        mark = "*" if row.decoder in KNOWN and KNOWN[row.decoder].package else ""
        profile = f"`{row.profile}`" if row.profile else ""
        decoder = "GATT" if row.decoder == "GATT" else f"`{row.decoder}`{mark}"
        yield f"| {row.maker} | {row.model} | {row.what} | {decoder} | {profile} |"
    yield ""
    yield "## Standard characteristics"
    yield ""
    yield "A point with one of these as `characteristic` needs no more; `field` chooses the part."
    yield ""
    yield "| characteristic | name | parts |"
    yield "|---|---|---|"
    for uuid, form in FORMATS.items():
        parts = ", ".join(f"`{name}`" + (f" {kind.unit}" if kind.unit else "") for name, kind in form.points.items())
        yield f"| {uuid[4:8].upper()} | {form.name} | {parts} |"
    yield ""
    yield "Profiles for whole services: " + ", ".join(
        f"`{profile['profile']}`" for profile in _profiles() if profile["profile"].endswith("-service")
    ) + "."  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
