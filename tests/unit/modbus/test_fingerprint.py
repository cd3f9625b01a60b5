"""Fingerprints: what a profile may write, and what fits it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from edged_modbus.fingerprint import parse


def words_of(layout: str, value: object) -> list[int]:
    data = struct.pack(f">{layout}", value)
    return list(struct.unpack(f">{len(data) // 2}H", data))


def holds(clause: dict[str, Any], words: Sequence[int], order: str | None = None) -> bool:
    (only,) = parse([clause], order).clauses
    return only.holds(words)


@pytest.mark.parametrize(
    ("clause", "words", "fits"),
    [
        ({"holding": 0, "equals": 70}, [70], True),
        ({"holding": 0, "equals": 70}, [71], False),
        ({"holding": 0, "equals": [12, 70]}, [70], True),
        ({"holding": 0, "type": "int16", "equals": -2}, [0xFFFE], True),
        ({"holding": 0, "scale": 0.01, "range": [45, 65]}, [4999], True),
        ({"holding": 0, "scale": 0.01, "range": [45, 65]}, [50], False),
        ({"input": 70, "type": "float32", "range": [45, 65]}, words_of("f", 65.0), True),
        ({"input": 70, "type": "float32", "range": [45, 65]}, words_of("f", float("nan")), False),
        ({"input": 70, "type": "float32", "order": "CDAB", "range": [45, 65]}, words_of("f", 50)[::-1], True),
        ({"holding": 0, "type": "string", "length": 2, "regex": "SunS"}, [0x5375, 0x6E53], True),
        ({"holding": 0, "type": "string", "length": 2, "regex": "Sun"}, [0x5375, 0x6E53], False),
        ({"holding": 0, "type": "string", "length": 2, "equals": "SunS"}, [0x5375, 0x6E53], True),
        ({"holding": 0, "type": "bcd16", "equals": 12}, [0x00FF], False),
        ({"coil": 0, "equals": True}, [1], True),
        ({"address": 40001, "equals": 5}, [5], True),
    ],
)
def test_a_clause_holds_for_what_it_describes_and_nothing_else(clause: Any, words: list[int], *, fits: bool) -> None:
    assert holds(clause, words) is fits


def test_the_order_of_the_profiles_device_holds_where_a_clause_has_none_of_its_own() -> None:
    clause = {"holding": 0, "type": "uint32", "equals": 5}
    assert holds(clause, [5, 0], "CDAB")
    assert holds({**clause, "order": "ABCD"}, [0, 5], "CDAB")
    assert holds({"holding": 0, "equals": 5}, [5], "CDAB")


def test_a_sharper_fingerprint_tells_more() -> None:
    def bits(**clause: Any) -> float:
        return parse([{"holding": 0, **clause}]).bits

    assert bits(equals=5) == 16
    assert bits(equals=[5, 6]) == 15
    assert bits(range=[0, 255]) == 8
    assert bits(range=[0, 65535]) == 0
    assert bits(type="string", length=2, regex="SunS") == 32
    assert bits(type="uint32", equals=5) > bits(type="float32", range=[45, 65]) > bits(range=[0, 255])
    assert parse([{"holding": 0, "equals": 5}, {"holding": 1, "equals": 5}]).bits == 32
    assert parse([{"coil": 0, "equals": True}]).bits == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("holding 5", "must be a list"),
        ([], "must be a list"),
        ([7], "clause 1 .* must be a mapping"),
        ([{"holding": 5}], "exactly one of"),
        ([{"holding": 5, "equals": 1, "range": [1, 2]}], "exactly one of"),
        ([{"holding": 5, "equals": 1}, {"equals": 1}], "clause 2 .* where the point lies"),
        ([{"holding": 5, "equals": 1, "unit": "V"}], "unknown key `unit`"),
        ([{"holding": 5, "equals": "x"}], "`equals` needs"),
        ([{"holding": 5, "equals": []}], "`equals` needs"),
        ([{"holding": 5, "type": "flaot32", "equals": 1}], "`type: flaot32`: it is one of"),
        ([{"holding": 5, "range": [2, 1]}], "lowest and the highest"),
        ([{"holding": 5, "range": [1]}], "lowest and the highest"),
        ([{"holding": 5, "range": ["a", "b"]}], "lowest and the highest"),
        ([{"holding": 5, "range": 4}], "lowest and the highest"),
        ([{"holding": "x", "equals": 4}], "clause 1"),
        ([{"holding": 5, "regex": "a"}], "`regex` is"),
        ([{"holding": 5, "type": "string", "length": 1, "regex": "("}], "not a regular expression"),
    ],
)
def test_a_mistake_is_named_with_its_clause(written: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(written)
