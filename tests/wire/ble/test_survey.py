from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import TransientError
from edged.cli.ble import ble
from edged.config.load import load
from edged_ble.codecs.advert import Advertisement, uuid_of
from edged_ble.recording import record, recorded
from tests.support.fakebluez import FakeBluez, Gatt
from tests.wire.ble.rig import TAG, ruuvi, until

SHELLY = "A4:C1:38:00:00:01"
FCD2 = "0000fcd2-0000-1000-8000-00805f9b34fb"


async def run(*arguments: str) -> Result:
    """The command in a thread, with an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, ble, list(arguments), catch_exceptions=True)


async def surroundings(bluez: FakeBluez) -> None:
    """A place with two sensors, a phone and a stranger."""
    await until(bluez.scanning)
    for number in range(3):
        bluez.advertise(TAG, {0x0499: ruuvi(number)}, rssi=-50, name="Ruuvi 884F")
        bluez.advertise(SHELLY, service={FCD2: bytes.fromhex("40025d09034d15")}, rssi=-70)
        bluez.advertise("4A:00:00:00:00:01", {0x004C: b"\x10\x05"}, rssi=-40, kind="random")
        bluez.advertise("A4:C1:38:00:00:02", {0x1234: b"\x01"}, rssi=-80)
        await asyncio.sleep(0.05)


async def test_a_scan_lists_sensors_with_values_and_yaml_that_works(bluez: FakeBluez, tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    scanning = asyncio.create_task(run("scan", "--seconds", "1", "--record", str(path)))
    await surroundings(bluez)
    result = await scanning
    assert result.exit_code == 0, result.output
    assert f"{TAG}   -50 dBm  Ruuvi 884F  RuuviTag" in result.stdout
    assert "temperature 23.97, humidity 54.53" in result.stdout
    assert "2 more that no decoder is for" in result.stdout
    devices = result.stdout[result.stdout.index("devices:") :]
    config = tmp_path / "edged.yaml"
    config.write_text(f"gateway: {{id: test}}\nbuses:\n  radio: {{adapter: ble}}\n{devices}", encoding="utf-8")
    loaded = load(config)
    assert loaded.config is not None, loaded.problems
    assert set(loaded.config.devices) == {"ruuvi-884f", "bthome-0001"}
    lines = [recorded(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) >= 10
    assert [line.seconds for line in lines] == sorted(line.seconds for line in lines)
    heard = [line.advertisement for line in lines]
    assert {adv.manufacturer_data.get(0x0499) for adv in heard if adv.address == TAG} == {ruuvi(n) for n in range(3)}


async def test_a_scan_for_programs(bluez: FakeBluez) -> None:
    scanning = asyncio.create_task(run("scan", "--seconds", "1", "--json", "--all"))
    await surroundings(bluez)
    found: list[dict[str, Any]] = json.loads((await scanning).stdout)
    assert [one["address"] for one in found] == ["4A:00:00:00:00:01", TAG, SHELLY, "A4:C1:38:00:00:02"]
    assert found[0]["private"] is True
    assert found[1]["values"]["temperature"] == 24.3


async def test_a_scan_that_finds_nothing_says_so(bluez: FakeBluez) -> None:
    result = await run("scan", "--seconds", "1")
    assert result.exit_code == 1
    assert "Nothing was heard" in result.stderr


async def test_a_scan_without_bluetoothd_says_what_to_do(bluez: FakeBluez) -> None:
    bluez.stop()
    result = await run("scan", "--seconds", "1")
    assert isinstance(result.exception, TransientError)
    assert "bluetoothd does not run" in str(result.exception)


async def test_a_recording_is_not_overwritten(bluez: FakeBluez, tmp_path: Path) -> None:
    path = tmp_path / "heard.jsonl"
    path.write_text("kept", encoding="utf-8")
    result = await run("scan", "--record", str(path))
    assert result.exit_code == 2
    assert path.read_text(encoding="utf-8") == "kept"


async def test_the_inside_of_a_device_is_shown(bluez: FakeBluez) -> None:
    own = "0000aa00-0000-1000-8000-00805f9b34fb"
    bluez.peripheral(
        SHELLY,
        Gatt("0000180f-0000-1000-8000-00805f9b34fb", "00002a19-0000-1000-8000-00805f9b34fb", ["read"], b"\x55"),
        Gatt(own, "0000aa01-0000-1000-8000-00805f9b34fb", ["read"], b"v1.2"),
        Gatt(own, "0000aa02-0000-1000-8000-00805f9b34fb", ["notify"]),
    )
    looking = asyncio.create_task(run("gatt", SHELLY.lower(), "--timeout", "2"))
    await until(bluez.scanning)
    bluez.advertise(SHELLY, name="Probe")
    result = await looking
    assert result.exit_code == 0, result.exception
    lines = result.stdout.splitlines()
    assert "service 180F  Battery Service" in lines
    assert "  characteristic 2A19  Battery Level  (read)" in lines
    assert "    55  = battery 85 %" in lines
    assert "    76 31 2e 32  = 'v1.2'" in lines
    assert not bluez.connections()


async def test_a_device_that_refuses_a_connection_is_told(bluez: FakeBluez) -> None:
    looking = asyncio.create_task(run("gatt", SHELLY))
    await until(bluez.scanning)
    bluez.advertise(SHELLY, name="Probe")
    assert f"{SHELLY}: the connection failed" in str((await looking).exception)


texts = st.text(max_size=10)
uuids = st.integers(0, 0xFFFF).map(uuid_of) | st.uuids().map(str)
adverts = st.builds(
    Advertisement,
    texts.map(str.upper),
    st.none() | texts,
    st.integers(-127, 20),
    st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=30), max_size=3),
    st.dictionaries(uuids, st.binary(max_size=30), max_size=3),
    st.lists(uuids, max_size=3).map(tuple),
    st.none() | st.integers(-100, 20),
)


@given(adverts, st.floats(0, 1e6))
def test_a_recording_loses_nothing(adv: Advertisement, seconds: float) -> None:
    moment, found, decoder, values = recorded(record(adv, seconds))
    assert (decoder, values) == ("", None)
    assert found == adv
    assert abs(moment - seconds) <= 0.001


@given(st.text() | st.dictionaries(texts, texts).map(json.dumps))
def test_what_is_no_recording_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no line of a recording"):
        recorded(line)
