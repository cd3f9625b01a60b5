from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import LinearMap, Value
from edged_ble.config import BlePoint
from edged_ble.encode import encode


def point(**settings: Any) -> BlePoint:
    return BlePoint(characteristic="AA01", **({"at": 0} | settings))


@pytest.mark.parametrize(
    ("settings", "value", "data"),
    [
        ({}, 100, "64"),
        ({}, True, "01"),
        ({"type": "int16"}, -2, "feff"),
        ({"type": "int16", "order": "big"}, -2, "fffe"),
        ({"type": "int16", "scale": 0.01}, 21.5, "6608"),
        ({"type": "uint8", "scale": 2.0, "offset": -40.0}, 20, "1e"),
        ({"type": "uint16", "map": LinearMap(raw=(0, 1000), to=(0, 10))}, 2.5, "fa00"),
        ({"enum": {0: "off", 1: "on"}}, "on", "01"),
        ({"type": "float32"}, 1.0, "0000803f"),
        ({"type": "text"}, "abc", "616263"),
        ({"type": "text", "length": 4}, "abc", "61626300"),
        ({"type": "hex"}, "0aff", "0aff"),
    ],
)
def test_a_value_becomes_the_bytes_that_mean_it(settings: dict[str, Any], value: Value, data: str) -> None:
    assert encode(point(**settings), value).hex() == data


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({}, 256),
        ({}, -1),
        ({}, 1.5),
        ({}, "on"),
        ({}, None),
        ({}, float("nan")),
        ({"type": "float32"}, 1e300),
        ({"type": "float32"}, "1"),
        ({"enum": {0: "off"}}, "on"),
        ({"range": (0, 10)}, 11),
        ({"type": "text", "length": 2}, "abc"),
        ({"type": "hex"}, "xx"),
        ({"type": "sfloat"}, 1.0),
        ({"bit": 1}, True),
    ],
)
def test_a_value_that_does_not_fit_is_refused(settings: dict[str, Any], value: Value) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode(point(**settings), value)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), st.sampled_from(["uint8", "int16",
       "uint64", "float32", "float64", "text", "hex"]))  # fmt: skip
def test_nothing_but_a_refusal_is_raised(value: Value, kind: Any) -> None:
    with suppress(ValueError):
        encode(point(type=kind), value)
