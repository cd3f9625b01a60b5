"""The codec against a slow, obvious reference, and back again."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edged.adapter import ALL_GOOD, Reason, Value, bad
from edged_modbus.codec import compile_decoder, encode_value, mask_for
from edged_modbus.planner import Block, Costs, Limits, Span, Table, plan
from edged_modbus.point import INTEGERS, WIDTHS, ModbusPoint, Order

NOT_A_VALUE = bad(Reason.DECODE)
CODES = {"float16": ">e", "float32": ">f", "float64": ">d"}
LONG = {"ABCD": "ABCDEFGH", "CDAB": "GHEFCDAB", "BADC": "BADCFEHG", "DCBA": "HGFEDCBA"}
REGISTER_TYPES = [kind for kind in WIDTHS if kind != "bit"]


def decode(points: dict[str, ModbusPoint], memory: Sequence[int]) -> dict[str, Value]:
    """All points from a device with these registers, block by block."""
    planned = plan({name: point.span for name, point in points.items()}, Costs(1, 0.01, 0.001), Limits())
    assert not planned.unreadable
    values: dict[str, Value] = {}
    for block in planned.blocks:
        decoder = compile_decoder(block, points)
        part = memory[block.start : block.start + block.count]
        got, quality = (
            decoder.decode_bits(list(map(bool, part))) if block.table.is_bits else decoder.decode_registers(part)
        )
        assert decoder.points == block.points
        assert all((value is None) == (quality.get(i) is NOT_A_VALUE) for i, value in enumerate(got))
        assert len(got) == len(block.points)
        values |= dict(zip(block.points, got, strict=True))
    return values


def one(point: ModbusPoint, *registers: int) -> Value:
    block = Block(point.table, point.start, point.count, ("p",))
    return compile_decoder(block, {"p": point}).decode_registers(registers)[0][0]


def orders(kind: str) -> list[str]:
    """What `order` may be for a type."""
    width = 16 if kind == "string" else WIDTHS[kind]
    return [order for order in get_args(Order) if len(order) * 8 == width or (width == 64 and len(order) == 4)]


def reference(point: ModbusPoint, memory: Sequence[int]) -> Value:
    """The value of a numeric point, read off the letters of its order."""
    data = b"".join(word.to_bytes(2, "big") for word in memory[point.start : point.start + point.count])
    kind = point.data_type
    if kind.endswith(("8l", "8h")):
        data = data[1:] if kind.endswith("l") else data[:1]
    elif point.order:
        order = LONG.get(point.order, point.order) if len(data) == 8 else point.order
        data = bytes(data[order.index(letter)] for letter in sorted(order))
    if kind.startswith("float"):
        number = struct.unpack(CODES[kind], data)[0]
        return number if math.isfinite(number) else None
    if kind.startswith("bcd"):
        return int(data.hex()) if data.hex().isdecimal() else None
    return int.from_bytes(data, "big", signed=kind.startswith("int"))


@st.composite
def numeric_points(draw: st.DrawFn) -> ModbusPoint:
    kind: Any = draw(st.sampled_from(REGISTER_TYPES))
    order: Any = draw(st.sampled_from([None, *orders(kind)]))
    return ModbusPoint(holding=draw(st.integers(0, 20)), type=kind, order=order)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), numeric_points(), min_size=1),
    st.lists(st.integers(0, 0xFFFF), min_size=24, max_size=24),
)
def test_any_mix_of_types_orders_gaps_and_overlaps_decodes_as_its_letters_say(
    points: dict[str, ModbusPoint], memory: list[int]
) -> None:
    assert decode(points, memory) == {name: reference(point, memory) for name, point in points.items()}


@pytest.mark.parametrize(
    ("order", "registers"),
    [
        ("ABCD", (0x4366, 0x3333)),
        ("CDAB", (0x3333, 0x4366)),
        ("BADC", (0x6643, 0x3333)),
        ("DCBA", (0x3333, 0x6643)),
    ],
)
def test_the_four_orders_of_32_bits(order: Any, registers: tuple[int, int]) -> None:
    value = one(ModbusPoint(input=0, type="float32", order=order), *registers)
    assert value == struct.unpack(">f", b"\x43\x66\x33\x33")[0] == pytest.approx(230.2)


@pytest.mark.parametrize(
    ("orders", "registers"),
    [
        (("ABCD", "ABCDEFGH", None), (0x0102, 0x0304, 0x0506, 0x0708)),
        (("CDAB", "GHEFCDAB"), (0x0708, 0x0506, 0x0304, 0x0102)),
        (("BADC", "BADCFEHG"), (0x0201, 0x0403, 0x0605, 0x0807)),
        (("DCBA", "HGFEDCBA"), (0x0807, 0x0605, 0x0403, 0x0201)),
        (("CDABGHEF",), (0x0304, 0x0102, 0x0708, 0x0506)),
        (("EFGHABCD",), (0x0506, 0x0708, 0x0102, 0x0304)),
        (("DCBAHGFE",), (0x0403, 0x0201, 0x0807, 0x0605)),
        (("FEHGBADC",), (0x0605, 0x0807, 0x0201, 0x0403)),
    ],
)
def test_the_orders_of_64_bits(orders: Sequence[Any], registers: tuple[int, ...]) -> None:
    for order in orders:
        assert one(ModbusPoint(input=0, type="uint64", order=order), *registers) == 0x0102030405060708


@pytest.mark.parametrize(
    ("settings", "registers", "value"),
    [
        ({}, (0xFFFE,), 65534),
        ({"type": "int16"}, (0xFFFE,), -2),
        ({"type": "int16", "order": "BA"}, (0xFEFF,), -2),
        ({"type": "int8h"}, (0xFE01,), -2),
        ({"type": "uint8l"}, (0x01FE,), 254),
        ({"type": "float16"}, (0x3C00,), 1.0),
        ({"type": "bcd16"}, (0x1234,), 1234),
        ({"type": "bcd16"}, (0x123A,), None),
        ({"type": "bcd32"}, (0x1234, 0x5678), 12345678),
        ({"bit": 0}, (1,), True),
        ({"bit": 15}, (0x7FFF,), False),
        ({"bit": 8, "order": "BA"}, (0x0001,), True),
        ({"bit": 31, "type": "uint32"}, (0x8000, 0), True),
        ({"bit": 2, "enum": {0: "closed", 1: "open"}}, (4,), "open"),
        ({"bits": (4, 7)}, (0x0A50,), 5),
        ({"bits": (4, 7), "type": "int16"}, (0x0AF0,), -1),
        ({"bits": (12, 19), "type": "uint32"}, (0x000A, 0xB000), 0xAB),
        ({"enum": {0: "off", 1: "on"}}, (1,), "on"),
        ({"enum": {0: "off", 1: "on"}}, (2,), None),
        ({"enum": {-1: "fault"}, "type": "int16"}, (0xFFFF,), "fault"),
        ({"enum": {3: "heat"}, "bits": (8, 9)}, (0x0300,), "heat"),
        ({"flags": {3: "door", 0: "overheat"}}, (0x0009,), "overheat,door"),
        ({"flags": {3: "door", 0: "overheat"}}, (0x00F6,), ""),
        ({"flags": {31: "top"}, "type": "uint32", "order": "CDAB"}, (0, 0x8000), "top"),
        ({"invalid": [0x7FFF]}, (0x7FFF,), None),
        ({"invalid": [0x7FFF]}, (0x7FFE,), 32766),
        ({"invalid": [0x8000], "type": "int16"}, (0x8000,), None),
        ({"invalid": [-1], "type": "int32"}, (0xFFFF, 0xFFFF), None),
        ({"invalid": [0xFFFF], "bit": 3}, (0xFFFF,), None),
        ({"invalid": [0xFFFF], "enum": {0: "off"}}, (0xFFFF,), None),
        ({"type": "float32"}, (0x7FC0, 0), None),
        ({"type": "float32"}, (0xFF80, 0), None),
        ({"type": "float64"}, (0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF), 1.7976931348623157e308),
    ],
)
def test_what_a_point_makes_of_its_registers(
    settings: dict[str, Any], registers: tuple[int, ...], value: Value
) -> None:
    got = one(ModbusPoint(input=0, **settings), *registers)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("settings", "data", "value"),
    [
        ({}, b"AB-1\0\0", "AB-1"),
        ({}, b" AB1  ", "AB1"),
        ({}, b"AB\0xyz", "AB"),
        ({}, b"AB\0\xff\xff\xff", "AB"),
        ({}, b"\xff\xff\xff\xff\xff\xff", None),
        ({"trim": "right"}, b" AB1 \0", " AB1"),
        ({"trim": "nul"}, b"AB1  \0", "AB1  "),
        ({"trim": "none"}, b"AB1 \0\0", "AB1 \0\0"),
        ({"order": "BA"}, b"BA1-\0\0", "AB-1"),
        ({"encoding": "latin-1"}, b"\xb0C\0\0\0\0", "°C"),
        ({"encoding": "utf-8"}, "µ°C".encode() + b"\0", "µ°C"),
        ({"encoding": "utf-8"}, b"\xb0C\0\0\0\0", None),
        ({"encoding": "utf-16"}, "°C".encode("utf-16-be") + b"\0\0", "°C"),
        ({"encoding": "utf-16", "order": "BA"}, "°C".encode("utf-16-le") + b"\0\0", "°C"),
    ],
)
def test_texts(settings: dict[str, Any], data: bytes, value: str | None) -> None:
    point = ModbusPoint(input=0, type="string", length=3, **settings)
    assert one(point, *struct.unpack(">3H", data)) == value


def test_floats_that_only_add_up_to_infinity_are_all_good() -> None:
    points = {f"p{i}": ModbusPoint(input=4 * i, type="float64") for i in range(3)}
    block = Block(Table.INPUT, 0, 12, tuple(points))
    values, quality = compile_decoder(block, points).decode_registers([0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF] * 3)
    assert list(values) == [1.7976931348623157e308] * 3
    assert quality is ALL_GOOD


def test_a_value_that_is_not_one_spoils_no_other() -> None:
    points = {
        "a": ModbusPoint(holding=0, type="float32"),
        "b": ModbusPoint(holding=2, type="float32"),
        "n": ModbusPoint(holding=4, type="string", length=2),
        "c": ModbusPoint(holding=6, enum={1: "on"}),
        "d": ModbusPoint(holding=7),
    }
    decoder = compile_decoder(Block(Table.HOLDING, 0, 8, tuple(points)), points)
    values, quality = decoder.decode_registers([0x3F80, 0, 0x7F80, 0, 0x4142, 0x4300, 5, 7])
    assert list(values) == [1.0, None, "ABC", None, 7]
    assert quality == {1: NOT_A_VALUE, 3: NOT_A_VALUE}


@pytest.mark.parametrize("registers", [[], [1], [1, 2, 3], [1, 65536], [1, -1]])
def test_registers_that_are_not_those_of_the_block_are_refused(registers: list[int]) -> None:
    for points in (
        {"p": ModbusPoint(input=0, type="uint32")},
        {"p": ModbusPoint(input=0, type="uint32", order="CDAB")},
    ):
        decoder = compile_decoder(Block(Table.INPUT, 0, 2, ("p",)), points)
        with pytest.raises(ValueError, match=r"instead of 2|not a number from 0 to 65535"):
            decoder.decode_registers(registers)


def test_bits_come_by_address() -> None:
    points = {"a": ModbusPoint(coil=10), "c": ModbusPoint(coil=12, enum={0: "off", 1: "on"})}
    decoder = compile_decoder(Block(Table.COIL, 10, 3, ("a", "c")), points)
    assert list(decoder.decode_bits([True, False, True])[0]) == [True, "on"]
    assert list(decoder.decode_bits([False, True, False])[0]) == [False, "off"]
    with pytest.raises(ValueError, match="4 bits came instead of 3"):
        decoder.decode_bits([True] * 4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_adjacent_bits_come_as_a_tuple_of_their_own(count: int) -> None:
    points = {f"p{i}": ModbusPoint(discrete=i) for i in range(count)}
    got = [True, False, True, True, False][:count]
    values, _ = compile_decoder(Block(Table.DISCRETE, 0, count, tuple(points)), points).decode_bits(got)
    assert values == tuple(got)


def test_a_point_outside_its_block_is_refused() -> None:
    points = {"p": ModbusPoint(input=1, type="uint32")}
    for block in (
        Block(Table.INPUT, 0, 2, ("p",)),
        Block(Table.HOLDING, 0, 9, ("p",)),
        Block(Table.INPUT, 2, 9, ("p",)),
    ):
        with pytest.raises(ValueError, match="is not in the block"):
            compile_decoder(block, points)


# --- the way back -----------------------------------------------------------------------------------------------------


@given(numeric_points(), st.data())
def test_registers_come_back_from_the_value_they_mean(point: ModbusPoint, data: st.DataObject) -> None:
    memory = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=24, max_size=24))
    value = reference(point, memory)
    assume(value is not None)
    registers = encode_value(point, value, current=memory[point.start : point.start + point.count])
    assert registers == memory[point.start : point.start + point.count]


@st.composite
def worded_points(draw: st.DrawFn) -> tuple[ModbusPoint, Value]:
    """A point of words, bits or text, and a value of it."""
    kind: Any = draw(st.sampled_from(sorted(INTEGERS)))
    order: Any = draw(st.sampled_from([None, *orders(kind)]))
    at: dict[str, Any] = {"holding": 3, "type": kind, "order": order}
    low = draw(st.integers(0, WIDTHS[kind] - 1))
    high = draw(st.integers(low, WIDTHS[kind] - 1))
    size = high - low + 1
    signed = kind.startswith("int")
    match draw(st.sampled_from(["bit", "bits", "enum", "flags", "string", "coil"])):
        case "bit":
            return ModbusPoint(**at, bit=low), draw(st.booleans())
        case "bits":
            bottom = -(1 << size - 1) if signed else 0
            return ModbusPoint(**at, bits=(low, high)), draw(st.integers(bottom, bottom + (1 << size) - 1))
        case "enum":
            return ModbusPoint(**at, enum={0: "off", 1: "on", 7: "auto"}), draw(st.sampled_from(["off", "on", "auto"]))
        case "flags":
            at["type"] = kind if not signed else "u" + kind
            flags = dict.fromkeys(draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)), "")
            flags = {bit: f"flag {bit}" for bit in flags}
            chosen = draw(st.lists(st.sampled_from(sorted(flags)), unique=True))
            return ModbusPoint(**at, flags=flags, bits=(low, high)), ",".join(flags[bit] for bit in sorted(chosen))
        case "string":
            text = draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6))
            return ModbusPoint(holding=3, type="string", length=3, order=draw(st.sampled_from([None, "BA"]))), text
        case _:
            return ModbusPoint(coil=3), draw(st.booleans())


@given(worded_points(), st.lists(st.integers(0, 0xFFFF), min_size=8, max_size=8))
def test_what_is_written_reads_back_and_leaves_other_bits_alone(
    case: tuple[ModbusPoint, Value], memory: list[int]
) -> None:
    point, value = case
    cells = slice(point.start, point.start + point.count)
    before = list(memory)
    memory[cells] = encode_value(point, value, current=None if point.table.is_bits else memory[cells])
    assert decode({"p": point}, memory) == {"p": value}
    if point.partial and point.count == 1:
        keep, put = mask_for(point, value)
        assert before[3] & keep | put & ~keep == memory[3]
        assert put & keep == 0


@pytest.mark.parametrize(
    ("settings", "value", "message"),
    [
        ({}, 65536, "between 0 and 65535"),
        ({}, -1, "between 0 and 65535"),
        ({}, 1.5, "not a whole number"),
        ({}, "7", "not a whole number"),
        ({}, True, "not a whole number"),
        ({}, None, "not a whole number"),
        ({"type": "int8l"}, 128, "between -128 and 127"),
        ({"type": "bcd16"}, 10_000, "between 0 and 9999"),
        ({"type": "float32"}, 1e39, "too large for float32"),
        ({"type": "float16"}, 70_000, "too large for float16"),
        ({"type": "float64"}, 10**400, "too large for float64"),
        ({"type": "float32"}, math.nan, "not a finite number"),
        ({"type": "float32"}, "1", "not a number"),
        ({"bit": 3}, 2, "neither true nor false"),
        ({"bit": 3}, "1", "neither true nor false"),
        ({"bits": (0, 3)}, 16, "between 0 and 15"),
        ({"enum": {0: "off"}}, "on", "is none of off"),
        ({"enum": {0: "off"}}, 0, "is none of off"),
        ({"flags": {0: "a", 1: "b"}}, "a,c", "'c' is none of the flags a, b"),
        ({"flags": {0: "a", 1: "b"}}, 3, "not a list of flags"),
        ({"invalid": [0x7FFF]}, 0x7FFF, "no value"),
        ({"invalid": [0x8000], "type": "int16"}, -32768, "no value"),
        ({"type": "string", "length": 1}, "abc", "longer than the 2 bytes"),
        ({"type": "string", "length": 1}, "é", "cannot be written in ascii"),
        ({"type": "string", "length": 2}, " a", "would not read back"),
        ({"type": "string", "length": 2, "trim": "nul"}, "a\0b", "would not read back"),
        ({"type": "string", "length": 1}, 5, "not a text"),
    ],
)
def test_a_value_that_the_point_cannot_have_is_refused(settings: dict[str, Any], value: Value, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_value(ModbusPoint(holding=0, **settings), value)


def test_whole_numbers_may_come_as_floats_and_floats_as_whole_numbers() -> None:
    assert encode_value(ModbusPoint(holding=0), 7.0) == [7]
    assert encode_value(ModbusPoint(holding=0, type="float32"), 1) == [0x3F80, 0]
    assert encode_value(ModbusPoint(coil=0), 1) == [True]


def test_only_a_part_of_one_register_has_a_mask() -> None:
    assert mask_for(ModbusPoint(holding=0, bit=4), value=True) == (0xFFEF, 0x0010)
    assert mask_for(ModbusPoint(holding=0, type="uint8h"), 0xAB) == (0x00FF, 0xAB00)
    for point in (ModbusPoint(holding=0), ModbusPoint(coil=0), ModbusPoint(holding=0, type="uint32", bits=(3, 4))):
        with pytest.raises(ValueError, match="not a part of one register"):
            mask_for(point, 1)


def test_span_covers_the_type() -> None:
    assert ModbusPoint(holding=9, type="float64").span == Span(Table.HOLDING, 9, 4)
    assert ModbusPoint(holding=9, type="string", length=7).span == Span(Table.HOLDING, 9, 7)
    assert ModbusPoint(discrete=9).span == Span(Table.DISCRETE, 9, 1)
