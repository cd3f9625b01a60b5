"""The standard formats of characteristics."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_ble.codecs.advert import uuid_of
from edged_ble.codecs.gatt import FORMATS, ieee_float, sfloat


def parse(short: str, data: str) -> Any:
    return dict(FORMATS[uuid_of(short)].parse(bytes.fromhex(data)))


@pytest.mark.parametrize(
    ("short", "data", "values"),
    [
        ("2A19", "64", {"battery": 100}),
        ("2A1F", "ebff", {"temperature": -2.1}),
        ("2A24", "4d31323300", {"model": "M123"}),
        ("2A6C", "18fcff", {"elevation": -10}),
        ("2A6D", "12760f00", {"pressure": 1013.266}),
        ("2A6E", "2b09", {"temperature": 23.47}),
        ("2A6E", "0080", {"temperature": None}),
        ("2A6F", "ffff", {"humidity": None}),
        ("2A76", "05", {"uv_index": 5}),
        ("2A7B", "f6", {"dew_point": -10}),
        ("2AFB", "a08601", {"illuminance": 1000}),
        ("2AFB", "ffffff", {"illuminance": None}),
        ("2AF2", "feffff", {"energy": 16_777_214}),
        ("2B05", "fdffff", {"power": 1_677_721.3}),
        ("2B05", "feffff", {"power": None}),
        ("2B05", "ffffff", {"power": None}),
        ("2B18", "c000", {"voltage": 3}),
        ("2B8C", "9001", {"co2": 400}),
        ("2BD6", "0ce0", {"pm2_5": 0.12}),
        ("2A1C", "00 6e0100ff", {"temperature": 36.6}),
        (
            "2A1C", "06 6e0100ff e607 0b 15 0c 22 38 02",
            {"temperature": 36.6, "time": "2022-11-21T12:34:56", "location": "body"},
        ),
        ("2A1C", "01 da0300ff", {"temperature": 37.0}),
        ("2A1C", "02 ffff7f00 0000 00 00 00 00 00", {"temperature": None, "time": None}),
        ("2A35", "00 7800 5000 5d00", {"systolic": 120, "diastolic": 80, "mean": 93}),
        ("2A35", "01 1000 ff07 0c00", {"systolic": 120, "diastolic": None, "mean": 90}),
        ("2A37", "00 48", {"heart_rate": 72}),
        ("2A37", "16 48 0003 0004", {"heart_rate": 72, "contact": True, "rr_interval": 1}),
        ("2A37", "0d 2c01 1000", {"heart_rate": 300, "contact": False, "energy_expended": 16}),
        ("2A53", "07 0003 5a 6400 e8030000",
         {"speed": 3, "cadence": 90, "stride_length": 1, "total_distance": 100, "running": True}),
        ("2A5B", "00", {}),
        ("2A63", "0100 9cff 64", {"power": -100, "balance": 50}),
    ],
)  # fmt: skip
def test_values(short: str, data: str, values: dict[str, Any]) -> None:
    assert parse(short, data) == pytest.approx(values)


@pytest.mark.parametrize(
    ("short", "data"),
    [
        ("2A19", ""), ("2A19", "6464"), ("2A6E", "2b"), ("2A24", "ff"), ("2AFB", "a086"), ("2A6C", "18fc"),
        ("2A1C", "00 6e0100"), ("2A1C", "00 6e0100ff 06"), ("2A37", ""), ("2A37", "10 48 00"), ("2A5B", "01 e8030000"),
        ("2A5B", "00 00"), ("2A63", "0000"), ("2BD6", "0c"), ("2A53", "01 0003 5a"),
    ],
)  # fmt: skip
def test_bytes_that_are_not_of_the_format(short: str, data: str) -> None:
    with pytest.raises(ValueError, match="byte"):
        parse(short, data)


@pytest.mark.parametrize(
    ("raw", "value"), [(0x0072, 114), (0xF072, 11.4), (0x1072, 1140), (0xFF8E, -11.4), (0x07FF, None), (0x0802, None)]
)
def test_sfloat(raw: int, value: float | None) -> None:
    assert sfloat(raw) == value


@pytest.mark.parametrize(
    ("raw", "value"), [(0xFF00016E, 36.6), (0xFE000E4C, 36.6), (0x00FFFFFF, -1), (0x007FFFFF, None), (0x00800000, None)]
)
def test_ieee_float(raw: int, value: float | None) -> None:
    assert ieee_float(raw) == value


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=40))
def test_no_bytes_make_a_format_fail_otherwise(uuid: str, data: bytes) -> None:
    form = FORMATS[uuid]
    try:
        values = form.parse(data)
    except ValueError:
        return
    assert values.keys() <= form.points.keys()


def test_every_format_has_its_main_point_and_names() -> None:
    assert len(FORMATS) >= 38
    for form in FORMATS.values():
        assert form.main in form.points
