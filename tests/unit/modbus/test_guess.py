"""What registers could mean."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_modbus.fingerprint import decoded
from edged_modbus.guess import KINDS, Kind, guesses, plausible, raw_value, text
from edged_modbus.point import ModbusPoint

WORDS = st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4)


@given(WORDS)
def test_every_reading_is_what_the_daemon_would_read(words: list[int]) -> None:
    for kind in KINDS:
        place: dict[str, Any] = {"type": kind.type, "order": kind.order}
        mine = words[: kind.registers]
        assert raw_value(kind, mine) == decoded(ModbusPoint(holding=0, **place), mine)


@given(WORDS)
def test_readings_take_only_registers_that_are_there_and_the_plausible_ones_come_first(words: list[int]) -> None:
    found = guesses(dict(enumerate(words[:3], 10)), 11)
    assert {guess.kind.registers for guess in found} <= {1, 2}
    assert [guess.plausible for guess in found] == sorted((guess.plausible for guess in found), reverse=True)


def packed(layout: str, value: float) -> Sequence[int]:
    data = struct.pack(f">{layout}", value)
    return struct.unpack(f">{len(data) // 2}H", data)


@pytest.mark.parametrize(
    ("type_", "words", "expected"),
    [
        ("float32", packed("f", 230.4), True),
        ("float32", packed("f", -0.02), True),
        ("float32", packed("f", 1e-20), False),
        ("float32", packed("f", 3e9), False),
        ("float64", packed("d", 49.98), True),
        ("uint16", [2304], True),
        ("uint16", [0], True),
        ("uint16", [0xFFFF], False),
        ("uint16", [0xFFC0], False),
        ("int16", [0xFFC0], True),
        ("int16", [0x8000], False),
        ("uint32", [0, 2304], True),
        ("uint32", [2304, 2310], False),
        ("uint32", [0, 0], False),
        ("int32", [0xFFFF, 0xFF00], True),
        ("int32", [0x8000, 0], False),
        ("uint64", [0, 0, 7, 9], True),
        ("uint64", [7, 0, 0, 9], False),
        ("bcd16", [0x1234], True),
        ("bcd16", [0x0004], False),
    ],
)
def test_plausible_is_what_a_measuring_device_would_have(type_: str, words: Sequence[int], *, expected: bool) -> None:
    kind = Kind(type_, "AB" if len(words) == 1 else "ABCD")
    value = raw_value(kind, words)
    assert value is not None
    assert plausible(kind, words, value) is expected


def test_not_a_number_and_digits_beyond_nine_are_no_reading() -> None:
    assert raw_value(Kind("float32", "ABCD"), packed("f", math.nan)) is None
    assert raw_value(Kind("bcd16", "AB"), [0x12FA]) is None


def test_text_shows_what_can_be_printed() -> None:
    assert text([0x5375, 0x6E53, 0x0107]) == "SunS.."
