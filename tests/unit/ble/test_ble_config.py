"""What a technician writes about BLE, and what he is told about mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from edged.adapter import ConfigError, Name
from edged.config.plain import build, dump
from edged_ble.config import BleBus, BleDevice
from edged_ble.decoders import decoder_for

Make = Callable[[Mapping[str, Any]], BleDevice]


def with_point(**point: Any) -> dict[str, Any]:
    return {"decoder": "bytes", "data": {"company": 1}, "points": {"level": point}}


def test_a_known_decoder_brings_its_points(device_of: Make) -> None:
    device = device_of({"address": "a4:c1:38:01:23:45", "decoder": "ruuvi"})
    assert device.address == "A4:C1:38:01:23:45"
    assert device.points[Name("temperature")].unit == "°C"
    assert device.points[Name("pressure")].unit == "hPa"
    assert set(device.radio_points) == {"rssi", "last_seen"}
    assert len(device.advertised) == 11


def test_points_can_be_chosen_and_renamed(device_of: Make) -> None:
    device = device_of(
        {
            "name": "SBHT-003C",
            "decoder": "bthome",
            "points": {"cellar": {"field": "temperature_2"}, "signal": {"field": "rssi"}},
        }
    )
    assert {str(name): point.unit for name, point in device.points.items()} == {"cellar": "°C", "signal": "dBm"}
    assert device.radio_points == {"signal"}
    assert decoder_for(device) is not None


def test_a_value_can_be_converted_into_another_unit(device_of: Make) -> None:
    device = device_of(
        {"address": "A4:C1:38:01:23:45", "decoder": "ruuvi",
         "points": {"temperature": {"unit": "°F", "scale": 1.8, "offset": 32}}}
    )  # fmt: skip
    assert device.points[Name("temperature")].unit == "°F"


def test_a_device_that_is_only_connected_to_has_no_decoder(device_of: Make) -> None:
    device = device_of(
        {"address": "A4:C1:38:01:23:45", "every": "1m",
         "points": {"battery": {"characteristic": "2A19"}, "raw": {"characteristic": "FFF1", "at": 2, "type": "int16"}}}
    )  # fmt: skip
    assert decoder_for(device) is None
    assert device.connected == ("battery", "raw")
    assert device.points[Name("battery")].unit == "%"
    assert device.points[Name("raw")].layout.read(b"\0\0\x18\xfc") == -1000


def test_a_checked_device_goes_through_the_compiled_form_unchanged(device_of: Make) -> None:
    device = device_of(
        {"address": "A4:C1:38:01:23:45", "decoder": "bytes",
         "data": {"service": "FCD2", "length": [4, 8], "match": [{"hex": "0."}], "packet": {"at": 3, "type": "uint16"}},
         "points": {"state": {"at": 0, "enum": {0: "off"}}, "level": {"at": 1, "bits": [0, 3], "invalid": [255]},
                    "alarms": {"at": 2, "flags": {0: "low", 1: "high"}}, "rssi": {}}}
    )  # fmt: skip
    assert build(BleDevice, dump(device)) == device


def test_a_secret_that_nobody_looked_up_is_not_taken_for_a_key(device_of: Make) -> None:
    settings = {"address": "A4:C1:38:01:23:45", "decoder": "bthome", "points": {"battery": {}}}
    with pytest.raises(ConfigError, match="'door' was not looked up"):
        decoder_for(device_of({**settings, "bind_key": {"name": "door"}}))


def test_a_bind_key_must_be_one(device_of: Make) -> None:
    secret = {"name": "door", "text": "12"}
    device = device_of(
        {"address": "A4:C1:38:01:23:45", "decoder": "bthome", "bind_key": secret, "points": {"battery": {}}}
    )
    with pytest.raises(ConfigError, match="needs 32"):
        decoder_for(device)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"decoder": "ruuvi"}, "either its `address` or the `name`"),
        ({"address": "A4:C1:38:01:23:45", "name": "x", "decoder": "ruuvi"}, "either its `address` or the `name`"),
        ({"address": "A4:C1:38:01:23", "decoder": "ruuvi"}, "no Bluetooth address"),
        ({"name": "x"}, "has no points"),
        ({"name": "x", "decoder": "RUVI"}, "there is no decoder 'RUVI'; did you mean ruuvi"),
        ({"name": "x", "decoder": "mopeka"}, "there is no decoder 'mopeka'; there are atc, bthome"),
        (
            {"name": "x", "decoder": "bthome", "bind_key": "12", "points": {"battery": {}}},
            "has 2 hexadecimal digits, and bthome needs 32",
        ),
        ({"name": "x", "decoder": "bthome", "bind_key": "x" * 32, "points": {"battery": {}}}, "not written in hex"),
        ({"name": "x", "decoder": "bthome"}, "list those of yours under `points`"),
        ({"name": "x", "decoder": "ruuvi", "bind_key": "00"}, "nothing is encrypted"),
        ({"name": "x", "decoder": "ruuvi", "points": {"temprature": {}}}, "did you mean temperature"),
        ({"name": "x", "decoder": "bthome", "points": {"temperature_3": {}}}, ""),
        ({"name": "x", "decoder": "bthome", "points": {"temperature_probe": {}}}, "has no value 'temperature_probe'"),
        ({"name": "x", "decoder": "govee", "points": {"temperature_probe_1": {}}}, ""),
        ({"name": "x", "decoder": "govee", "points": {"temprature": {}}}, "did you mean temperature"),
        ({"name": "x", "decoder": "bthome", "points": {"xyz": {}}}, "has no value 'xyz'; it has"),
        ({"name": "x", "points": {"wind": {}}}, "nor known without a `decoder`"),
        ({"name": "x", "decoder": "ruuvi", "points": {"temperature": {"unit": "°F"}}}, "gives it in °C, not °F"),
        ({"name": "x", "decoder": "ruuvi", "points": {"temperature": {"at": 1}}}, "`at` and `type` are for"),
        ({"name": "x", "decoder": "bthome", "points": {"door": {"scale": 2}}}, "door is boolean"),
        ({"name": "x", "decoder": "ruuvi", "data": {"company": 1}}, "belong together"),
        ({"name": "x", "decoder": "bytes", "points": {"a": {"at": 0}}}, "belong together"),
        ({"name": "x", "decoder": "bytes", "data": {}, "points": {"a": {"at": 0}}}, "either `company`"),
        ({"name": "x", "decoder": "bytes", "data": {"company": 1, "service": "FCD2"}}, "either `company`"),
        ({"name": "x", "decoder": "bytes", "data": {"company": 70000}}, "from 0 to 0xFFFF"),
        ({"name": "x", "decoder": "bytes", "data": {"service": "FCD"}}, "is not a UUID"),
        ({"name": "x", "decoder": "bytes", "data": {"company": 1, "length": 0}}, "from 1 to 255"),
        ({"name": "x", "decoder": "bytes", "data": {"company": 1, "length": [9, 4]}}, "from 1 to 255"),
        ({"name": "x", "decoder": "bytes", "data": {"company": 1, "match": [{"hex": "0"}]}}, "are no bytes"),
        (
            {"name": "x", "decoder": "bytes", "data": {"company": 1, "packet": {"at": 0, "type": "hex"}}},
            "is an integer",
        ),
        ({"name": "x", **with_point()}, "needs `at`"),
        ({"name": "x", **with_point(at=0, field="a")}, "`field` has no meaning"),
        ({"name": "x", **with_point(at=0, bit=8)}, "the bits of uint8 go from 0 to 7"),
        ({"name": "x", **with_point(at=0, bits=[4, 2])}, "lowest and the highest"),
        ({"name": "x", **with_point(at=0, bit=1, flags={0: "a"})}, "contradict"),
        ({"name": "x", **with_point(at=0, enum={0: "a"}, flags={0: "a"})}, "contradict"),
        ({"name": "x", **with_point(at=0, type="float32", bit=1)}, "needs an integer"),
        ({"name": "x", **with_point(at=0, type="uint16", length=2)}, "for text and hex"),
        ({"name": "x", **with_point(at=0, type="text", length=0)}, "between 1 and 255"),
        ({"name": "x", **with_point(at=0, type="text", scale=2)}, "`scale` is for numbers"),
        ({"name": "x", **with_point(at=0, writable=True)}, "advertisements cannot be written"),
        ({"name": "x", **with_point(at=0, notify=True)}, "belongs to a `characteristic`"),
        ({"name": "x", "every": "1m", "points": {"a": {"characteristic": "FFF1"}}}, "no standard format"),
        ({"name": "x", "every": "1m", "points": {"a": {"characteristic": "fff"}}}, "is not a UUID"),
        ({"name": "x", "every": "1m", "points": {"a": {"characteristic": "2A37", "field": "b"}}}, "has heart_rate"),
        (
            {"name": "x", "every": "1m", "points": {"a": {"characteristic": "2A37", "field": "b", "at": 1}}},
            "`field` is",
        ),
        ({"name": "x", "points": {"a": {"characteristic": "2A19"}}}, "to connect every 1s is too often"),
        ({"name": "x", "decoder": "ruuvi", "stay": True}, "no point has a `characteristic`"),
        (
            {"name": "x", "every": "1m", "passkey": "1", "points": {"a": {"characteristic": "2A19"}}},
            "needs `pair: true`",
        ),
        ({"name": "x", "decoder": "ruuvi", "expect": 0}, "longer than 0"),
    ],
)
def test_mistakes_in_a_device(settings: dict[str, Any], problem: str, device_of: Make) -> None:
    if not problem:
        device_of(settings)
        return
    with pytest.raises(ValidationError) as caught:
        device_of(settings)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"radio": "hci0"}, ""),
        ({"radio": "00:1a:7d:da:71:13", "scan": "passive", "connections": 3}, ""),
        ({"allow": {"addresses": ["A4:C1:38"], "names": ["ATC_*"], "services": ["FCD2"], "companies": [0x0499]}}, ""),
        ({"radio": "wlan0"}, "such as hci0"),
        ({"scan": "loud"}, "passive"),
        ({"connections": 0}, "between 1 and 8"),
        ({"silence": "1s"}, "at least 10s"),
        ({"allow": {"addresses": ["ATC"]}}, "no address nor the beginning"),
        ({"allow": {"services": ["FCD"]}}, "is not a UUID"),
        ({"allow": {"companies": [-1]}}, "from 0 to 0xFFFF"),
    ],
)
def test_buses(settings: dict[str, Any], problem: str) -> None:
    adapter = TypeAdapter(BleBus)
    if not problem:
        assert build(BleBus, dump(adapter.validate_python({"adapter": "ble", **settings}))).adapter == "ble"
        return
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python({"adapter": "ble", **settings})
    assert problem in str(caught.value)


def test_the_pure_half_does_not_load_what_does_io(tmp_path: Path) -> None:
    program = (
        "import sys, edged_ble.decoders\n"
        "heavy = {'bleak', 'habluetooth', 'pydantic', 'cryptography', 'dbus_fast'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
