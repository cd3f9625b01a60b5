"""Simulated advertisements say what they were made to say: through the decoders, and in the end as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edged.adapter import ConfigError, FileName, Value
from edged_ble.codecs import made
from edged_ble.codecs.advert import Advertisement
from edged_ble.config import BleBus, BleDevice, Replay
from edged_ble.decoders import decoder_for, new_decoder
from edged_ble.recording import record, recorded
from edged_ble.simulator import sensor
from tests.unit.ble.conftest import Make

TAG = "CB:B8:33:4C:88:4F"


def said(decoder: str, adv: Advertisement) -> Mapping[str, Value]:
    decoded = new_decoder(decoder).decode(adv)
    assert decoded is not None
    assert not decoded.problem
    return decoded.values


@given(
    st.floats(-40, 85), st.floats(0, 100), st.floats(500, 1155), st.floats(1.6, 3.6), st.integers(0, 254),
    st.integers(0, 65534),
)  # fmt: skip
def test_a_ruuvi_tag_says_what_it_was_given(
    celsius: float, percent: float, pressure: float, volts: float, moves: int, packet: int
) -> None:
    given_ = {
        "temperature": celsius, "humidity": percent, "pressure": pressure, "battery_voltage": volts,
        "movement_counter": moves, "acceleration_z": 1.0,
    }  # fmt: skip
    adv = made.ruuvi_tag(TAG, given_, packet)
    found = said("ruuvi", adv)
    assert found["temperature"] == pytest.approx(celsius, abs=0.0026)
    assert found["humidity"] == pytest.approx(percent, abs=0.0013)
    assert found["pressure"] == pytest.approx(pressure, abs=0.0051)
    assert found["battery_voltage"] == pytest.approx(volts, abs=0.00051)
    assert (found["movement_counter"], found["acceleration_x"], found["tx_power"]) == (moves, None, None)


def test_the_vector_of_ruuvis_specification_is_made() -> None:
    values = {
        "temperature": 24.3, "humidity": 53.49, "pressure": 1000.44, "acceleration_x": 0.004, "acceleration_y": -0.004,
        "acceleration_z": 1.036, "battery_voltage": 2.977, "tx_power": 4, "movement_counter": 66,
    }  # fmt: skip
    (data,) = made.ruuvi_tag(TAG, values, 205).manufacturer_data.values()
    assert data.hex().upper() == "0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F"


def test_the_vector_of_pvvx_is_made() -> None:
    values = {"temperature": 17.05, "humidity": 44.57, "battery_voltage": 2.998, "battery": 88}
    (data,) = made.atc_custom("A4:C1:38:02:83:F4", values, 0xF7).service_data.values()
    assert data.hex() == "f4830238c1a4a9066911b60b58f700"


@given(st.floats(-50, 80), st.floats(0, 100), st.integers(0, 100), st.booleans())
def test_bthome_says_what_it_was_given(celsius: float, percent: float, battery: int, opened: bool) -> None:
    given_ = {
        "temperature": celsius,
        "temperature_2": -celsius,
        "humidity": percent,
        "battery": battery,
        "window": opened,
    }
    found = said("bthome", made.bthome_plain(TAG, given_, 9))
    assert found["temperature"] == pytest.approx(celsius, abs=0.0051)
    assert found["temperature_2"] == pytest.approx(-celsius, abs=0.0051)
    assert found["humidity"] == pytest.approx(percent, abs=0.0051)
    assert (found["battery"], found["window"]) == (battery, opened)


def test_bthome_cannot_say_everything() -> None:
    with pytest.raises(ValueError, match="no object for firmware"):
        made.bthome_plain(TAG, {"firmware": "1.2"}, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"address": TAG, "decoder": "ruuvi"},
        {"name": "Tag", "decoder": "ruuvi", "points": {"celsius": {"field": "temperature"}, "rssi": {}}},
        {"address": TAG, "decoder": "atc"},
        {"address": TAG, "decoder": "bthome", "points": {"temperature": {}, "door": {}, "rssi": {}}},
        {
            "address": TAG,
            "decoder": "bytes",
            "data": {"company": 0x0133, "length": 9, "match": [{"at": 0, "hex": "1."}], "packet": {"at": 1}},
            "points": {
                "temperature": {
                    "at": 2,
                    "type": "int16",
                    "order": "big",
                    "scale": 0.1,
                    "unit": "°C",
                    "range": [-40, 10],
                },
                "open": {"at": 4, "bit": 3},
                "level": {"at": 4, "bits": [4, 6]},
                "humidity": {"at": -4, "type": "float32", "unit": "%"},
                "mode": {"at": 0, "bits": [0, 3], "enum": {5: "on", 7: "off"}, "type": "uint8"},
            },
        },
    ],
    ids=lambda settings: str(settings["decoder"]),
)
def test_a_simulated_sensor_is_understood_as_it_is_configured(settings: dict[str, Any], device_of: Make) -> None:
    spec: BleDevice = device_of(settings)
    decoder = decoder_for(spec)
    assert decoder is not None
    one = sensor("radio", "thing", spec, 7)
    numbers = set()
    for second in range(40):
        adv = recorded(record(one.advertisement(second), 0)).advertisement
        found = decoder.decode(adv)
        assert found is not None
        assert not found.problem
        numbers.add(found.packet_id)
        for name in spec.advertised:
            field = spec.points[name].field or name
            if name not in spec.radio_points and field not in {"reed_switch", "output"}:
                assert found.values[field] is not None, name
        if "level" in found.values:
            raw = found.values["temperature"]
            assert isinstance(raw, int)
            assert -400 <= raw <= 100
            assert found.values["mode"] == "on"
    assert len(numbers) == 40


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"decoder": "eddystone", "points": {"temperature": {}}}, "eddystone"),
        ({"points": {"battery": {"characteristic": "2A19"}}, "every": "5m"}, "connections"),
        ({"decoder": "bthome", "bind_key": "00" * 16, "points": {"temperature": {}}}, "encryption"),
        ({"decoder": "bthome", "points": {"button": {}}}, "no object for button"),
    ],
)
def test_what_cannot_be_simulated_is_told(settings: dict[str, Any], why: str, device_of: Make) -> None:
    with pytest.raises(ConfigError, match=f"thing cannot be simulated.*{why}"):
        sensor("radio", "thing", device_of({"address": TAG, **settings}), 0)


def test_the_bus_takes_a_recording_or_a_radio() -> None:
    adapter = TypeAdapter(BleBus)
    recording = adapter.validate_python({"adapter": "ble", "replay": {"file": "a.jsonl"}})
    assert recording.replay == Replay(file=FileName("a.jsonl"))
    socket = adapter.validate_python({"adapter": "ble", "replay": {"file": "socket://[::1]:15022"}})
    assert socket.replay is not None
    assert socket.replay.endpoint == ("::1", 15022)
    for wrong in ({"file": "socket://nowhere"}, {"file": ""}, {"file": "a", "speed": 0}, {"file": "socket://a:99999"}):
        with pytest.raises(ValueError, match=r"file|speed"):
            adapter.validate_python({"adapter": "ble", "replay": wrong})
    with pytest.raises(ValueError, match="uses no radio"):
        adapter.validate_python({"adapter": "ble", "radio": "hci0", "replay": {"file": "a"}})
