"""What a Modbus server shows reads back as it was, and what it cannot show is never a number that looks right."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import ConfigError, Value
from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged_modbus.codec import compile_decoder
from edged_modbus.exposed import NOBODY, ServedPoint, ServedRule, show
from edged_modbus.pdu import unpack_bits
from edged_modbus.planner import Block, Table
from edged_modbus.point import DataType, ModbusPoint
from edged_modbus.served import (
    ADDRESS,
    FUNCTION,
    NO_ANSWER,
    VALUE,
    Reading,
    RefusedError,
    Shown,
    Unit,
    Writing,
    answer,
    parse,
    written,
)
from edged_modbus.server import ModbusServerConnection

WHOLE = {"int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64}


def shown(name: str = "p", **place: Any) -> Shown:
    return Shown("d", name, ServedPoint(**place).place)


def read(unit: Unit, request: bytes, values: dict[str, Value], *, sentinel: bool = False) -> bytes:
    asked = parse(request)
    assert isinstance(asked, Reading)
    ones = unit.within(asked.table, asked.start, asked.count)
    return answer(asked, ones, {one: values[one.point] for one in ones if one.point in values}, sentinel=sentinel)


def refused(call: Any, *arguments: Any) -> int:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.code


@given(
    st.sampled_from(sorted(WHOLE)).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.sampled_from(["AB", "BA"] if WHOLE[kind] == 16 else ["ABCD", "CDAB", "BADC", "DCBA"]),
            st.integers(-(2 ** (WHOLE[kind] - 1)), 2 ** WHOLE[kind] - 1),
        )
    ),
    st.integers(0, 65_000),
)
def test_what_is_shown_reads_back_or_is_refused(case: tuple[str, Any, int], start: int) -> None:
    kind, order, value = case
    place = ServedPoint(input=start, type=cast("DataType", kind), order=order).place
    unit = Unit([Shown("d", "p", place)])
    low, high = (
        (0, 2 ** WHOLE[kind] - 1) if kind.startswith("u") else (-(2 ** (WHOLE[kind] - 1)), 2 ** (WHOLE[kind] - 1) - 1)
    )
    request = struct.pack(">BHH", 4, start, place.count)
    if not low <= value <= high:
        assert refused(read, unit, request, {"p": value}) == NO_ANSWER
        return
    reply = read(unit, request, {"p": value})
    registers = struct.unpack(f">{place.count}H", reply[2:])
    decoder = compile_decoder(Block(place.table, start, place.count, ("p",)), {"p": place})
    assert decoder.decode_registers(registers)[0][0] == value


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.001, 0.1, 1.0, 10.0]))
def test_a_measured_value_is_rounded_to_the_nearest_step_of_an_integer_or_refused(value: float, scale: float) -> None:
    unit = Unit([shown(holding=7, type="int16", scale=scale)])
    request = struct.pack(">BHH", 3, 7, 1)
    try:
        reply = read(unit, request, {"p": value})
    except RefusedError:
        assert not -32768.5 < value / scale < 32767.5
    else:
        (register,) = struct.unpack(">h", reply[2:])
        assert abs(register - value / scale) <= 0.5 + 1e-9 * abs(register)


def test_a_block_shows_several_points_with_zeros_between_them() -> None:
    unit = Unit(
        [shown("a", input=10, type="int16"), shown("b", input=13, type="float32"), shown("c", input=12, type="uint16")]
    )
    reply = read(unit, struct.pack(">BHH", 4, 10, 5), {"a": -2, "b": 1.5, "c": True})
    assert struct.unpack(">hHHf", reply[2:]) == (-2, 0, 1, 1.5)


def test_a_read_may_begin_and_end_inside_a_value() -> None:
    unit = Unit([shown(input=0, type="uint64")])
    reply = read(unit, struct.pack(">BHH", 4, 1, 2), {"p": 0x0011_2233_4455_6677})
    assert reply[2:] == bytes.fromhex("22334455")


@pytest.mark.parametrize("request_", [(4, 9, 1), (4, 9, 3), (4, 11, 2), (3, 10, 1), (1, 10, 1)])
def test_addresses_that_nothing_is_shown_at_do_not_exist(request_: tuple[int, int, int]) -> None:
    assert (
        refused(
            read,
            Unit([shown(input=10, type="int16"), shown("q", input=11, type="int16")]),
            struct.pack(">BHH", *request_),
            {},
        )
        == ADDRESS
    )


def test_a_value_that_may_not_be_shown_is_an_exception_or_the_number_that_means_none() -> None:
    kinds = {
        "int16": "8000", "uint16": "ffff", "int32": "80000000", "uint64": "ffffffffffffffff", "bcd16": "ffff",
        "float32": struct.pack(">f", math.nan).hex(), "float64": struct.pack(">d", math.nan).hex(),
    }  # fmt: skip
    for kind, expected in kinds.items():
        place: Any = {"holding": 4, "type": kind}
        one = shown(**place)
        unit, request = Unit([one]), struct.pack(">BHH", 3, 4, one.place.count)
        assert refused(read, unit, request, {}) == NO_ANSWER
        assert read(unit, request, {}, sentinel=True)[2:].hex() == expected
    swapped = Unit([shown(holding=4, type="int32", order="CDAB")])
    assert read(swapped, struct.pack(">BHH", 3, 4, 2), {}, sentinel=True)[2:].hex() == "00008000"


def test_a_coil_has_no_third_state() -> None:
    unit = Unit([shown(discrete=3), shown("q", discrete=5)])
    request = struct.pack(">BHH", 2, 3, 3)
    with pytest.raises(RefusedError) as caught:
        read(unit, request, {"p": True}, sentinel=True)
    assert caught.value.code == NO_ANSWER
    reply = read(unit, request, {"p": True, "q": 1})
    assert unpack_bits(reply[2:], 3) == (True, False, True)
    assert refused(read, unit, request, {"p": 2, "q": 1}) == NO_ANSWER


def test_words_are_shown_by_their_numbers() -> None:
    unit = Unit([shown(holding=0, enum={0: "off", 3: "heat"})])
    assert read(unit, struct.pack(">BHH", 3, 0, 1), {"p": "heat"})[2:] == b"\0\3"
    assert refused(read, unit, struct.pack(">BHH", 3, 0, 1), {"p": "cool"}) == NO_ANSWER


@given(st.binary(min_size=1, max_size=260))
def test_any_bytes_are_a_request_or_are_refused(request: bytes) -> None:
    try:
        asked = parse(request)
    except RefusedError as exc:
        code = exc.code
    else:
        assert asked.count >= 1
        if isinstance(asked, Writing):
            assert len(asked.data) == asked.count * (1 if asked.table.is_bits else 2)
        return
    assert code in {FUNCTION, VALUE}


def write(unit: Unit, request: str) -> list[tuple[str, Value]]:
    asked = parse(bytes.fromhex(request))
    assert isinstance(asked, Writing)
    return [(one.point, value) for one, value in written(asked, unit.within(asked.table, asked.start, asked.count))]


def test_a_write_names_the_points_it_means() -> None:
    unit = Unit([
        shown("t", holding=2, type="int16", scale=0.5), shown("f", holding=3, type="float32"),
        shown("x", holding=9, type="uint16"), shown("c", coil=1), shown("d", coil=2),
    ])  # fmt: skip
    assert write(unit, "06 0002 fffe") == [("t", -1.0)]
    assert write(unit, "10 0002 0003 06 000a 3fc00000") == [("t", 5.0), ("f", 1.5)]
    assert write(unit, "05 0001 ff00") == [("c", True)]
    assert write(unit, "0f 0001 0002 01 02") == [("c", False), ("d", True)]
    assert refused(write, unit, "06 0003 0001") == VALUE  # half of a float
    assert refused(write, unit, "10 0004 0001 02 0001") == VALUE  # its other half
    assert refused(write, unit, "10 0003 0003 06 3fc00000 0001") == ADDRESS  # beyond it is nothing
    assert refused(write, unit, "06 0007 0001") == ADDRESS
    assert refused(write, unit, "05 0001 0001") == VALUE
    assert refused(write, unit, "10 0003 0002 04 7fc00000") == VALUE  # not a number
    assert refused(write, unit, "10 0002 0001 04 00010002") == VALUE


def test_points_cannot_overlap() -> None:
    points = {"d/a": ServedPoint(holding=1, type="float32"), "d/b": ServedPoint(holding=2, type="uint16")}
    with pytest.raises(ValueError, match=r"d/a .* and d/b .* overlap"):
        ModbusServerConnection(connector="modbus-server", listen="127.0.0.1:1502", points=points)
    apart = points | {"d/b": ServedPoint(holding=2, type="uint16", unit=2)}
    ModbusServerConnection(connector="modbus-server", listen="127.0.0.1:1502", points=apart)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listen": "127.0.0.1"}, "must be an address and a port"),
        ({"listen": "plc:502"}, "is no IP address"),
        ({"listen": "0.0.0.0:0"}, "must be an address and a port"),
        ({"points": {}}, "`points` is empty"),
        ({"points": {"d": ServedPoint(input=1)}}, "write `device/point`"),
        ({"allow": ["192.0.2.1/24"]}, "write a network such as"),
        ({"max_clients": 0}, "must lie between 1 and 100"),
        ({"idle_timeout": 0}, "must be longer than 0"),
    ],
)
def test_what_cannot_work_is_said(settings: dict[str, Any], message: str) -> None:
    whole: dict[str, Any] = {"listen": "127.0.0.1:1502", "points": {"d/p": ServedPoint(input=1)}} | settings
    with pytest.raises(ValueError, match=message):
        ModbusServerConnection(connector="modbus-server", **whole)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"input": 1, "unit": 256}, "`unit` must lie"),
        ({"input": 1, "type": "uint8l"}, "is a part of a register"),
        ({}, "say where"),
    ],
)
def test_a_place_that_cannot_be_is_said(place: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServedPoint(**place)


def test_a_place_is_a_plain_modbus_point() -> None:
    assert ServedPoint(input=3).place == ModbusPoint(input=3, type="float32")
    assert ServedPoint(coil=3).place == ModbusPoint(coil=3)


@pytest.mark.parametrize(("raw", "value"), [(70, 7.0), (3, 0.3), (-7, -0.7), (1234, 123.4)])
def test_a_scaled_write_is_the_number_that_was_meant(raw: int, value: float) -> None:
    unit = Unit([shown(holding=0, type="int16", scale=0.1)])
    asked = parse(struct.pack(">BHh", 6, 0, raw))
    assert isinstance(asked, Writing)
    assert [found for _, found in written(asked, unit.within(Table.HOLDING, 0, 1))] == [value]


# -- rules -------------------------------------------------------------------------------------------------------------


def meter(slot: str, *points: str, **labels: str) -> DeviceConfig:
    own = {Name(point): PointConfig() for point in points or ("power", "energy")}
    return DeviceConfig(bus=Name("b"), labels={"kind": "meter", "slot": slot, **labels}, points=own)


def rule(**settings: Any) -> ServedRule:
    points = {"power": ServedPoint(input=100), "energy": ServedPoint(input=102, type="uint32", scale=0.1)}
    return ServedRule(**{"labels": {"Kind": "METER"}, "stride": 10, "points": points, **settings})


def places(rules: dict[str, ServedRule], devices: dict[str, DeviceConfig]) -> set[tuple[int, str, str, int]]:
    """(Unit, device, point, address) of input registers."""
    units = show({}, rules, devices)
    found = [(number, one) for number, unit in units.items() for at in range(100, 130) for one in there(unit, at)]
    return {(number, one.device, one.point, one.place.start) for number, one in found}


def there(unit: Unit, address: int) -> Sequence[Shown]:
    try:
        return unit.within(Table.INPUT, address, 1)
    except RefusedError:
        return []


def test_a_rule_shows_each_device_at_its_own_number_whatever_their_order() -> None:
    devices = {"b": meter("2"), "a": meter("0"), "other": DeviceConfig(bus=Name("b"))}
    expected = {
        (1, "a", "power", 100), (1, "a", "energy", 102), (1, NOBODY, "power", 110), (1, NOBODY, "energy", 112),
        (1, "b", "power", 120), (1, "b", "energy", 122),
    }  # fmt: skip
    assert places({"meters": rule()}, devices) == expected
    assert places({"meters": rule()}, dict(reversed(devices.items()))) == expected
    assert places({"meters": rule(stride=0, unit_stride=1, device="[ab]", labels={})}, devices) == {
        (unit + 1, device, point, address)
        for unit, device in enumerate(["a", NOBODY, "b"])
        for point, address in (("power", 100), ("energy", 102))
    }


def test_what_a_device_of_a_rule_does_not_have_is_never_zero() -> None:
    unit = show({}, {"meters": rule()}, {"a": meter("0", "power"), "b": meter("2", "energy")})[1]
    values: dict[str, Value] = {"power": 1.5}
    assert read(unit, struct.pack(">BHH", 4, 100, 2), values) == b"\x04\x04" + struct.pack(">f", 1.5)
    ones = unit.within(Table.INPUT, 100, 24)
    assert [str(one) for one in ones] == [
        "a/power", "(kept free)/energy", "(kept free)/power", "(kept free)/energy", "(kept free)/power", "b/energy",
    ]  # fmt: skip
    known: dict[Shown, Value] = {one: 7 for one in ones if one.device}
    asked = parse(struct.pack(">BHH", 4, 100, 14))
    assert isinstance(asked, Reading)
    shown_there = unit.within(asked.table, 100, 14)
    assert refused(lambda: answer(asked, shown_there, known, sentinel=False)) == NO_ANSWER
    reply = answer(asked, shown_there, known, sentinel=True)[2:]
    assert (reply[4:8], reply[20:24]) == (b"\xff" * 4, struct.pack(">f", math.nan))


@pytest.mark.parametrize(
    ("rules", "devices", "said"),
    [
        ({"m": rule()}, {"x": DeviceConfig(bus=Name("b"))}, "`rules: m` is for no device: none fits"),
        ({"m": rule()}, {"a": meter("0"), "b": meter("0")}, "a and b have the same number, `slot: 0`"),
        ({"m": rule()}, {"a": meter("first")}, "a needs a number from 0 to 999, .* `slot: first` is none"),
        ({"m": rule()}, {"a": meter("-1")}, "`slot: -1` is none"),
        ({"m": rule()}, {"a": meter("1000")}, "`slot: 1000` is none"),
        ({"m": rule()}, {"a": meter("0000000000001")}, "is none"),
        ({"m": rule(number="place")}, {"a": meter("0")},
         'the label `place` is missing; write `labels: {place: "0"}`'),
        ({"m": rule()}, {"a": meter("0", "energy")}, "none of its devices has a point 'power'; a has energy"),
        ({"m": rule(stride=3)}, {"a": meter("0"), "b": meter("1")},
         r"a/energy \(input 102-103\) and b/power .* overlap"),
        ({"m": rule(stride=700)}, {"a": meter("99")}, "number 94: `input: 65900`: addresses go from 0"),
        ({"m": rule(stride=0, unit_stride=100)}, {"a": meter("3")},
         r"power of a \(number 3\): `unit` must lie between"),
        ({"m": rule(), "n": rule(device="b")}, {"a": meter("0"), "b": meter("1")}, "overlap"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_said(
    rules: dict[str, ServedRule], devices: dict[str, DeviceConfig], said: str
) -> None:
    with pytest.raises((ConfigError, ValueError), match=said):
        show({}, rules, devices)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": {}}, "which devices"),
        ({"stride": 0}, "must be 1 or more"),
        ({"stride": -1, "unit_stride": 1}, "must be 1 or more"),
        ({"points": {}}, "empty"),
        ({"points": {"a": ServedPoint(input=0), "b": ServedPoint(input=1)}}, "overlap"),
    ],
)
def test_a_rule_that_can_never_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rule(**settings)
