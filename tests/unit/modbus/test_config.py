"""Modbus points, devices and buses as a technician writes them, and what the messages say when they make no sense."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from edged_modbus.config import (
    ModbusDevice,
    ModbusPoint,
    ModbusRtuOverTcpBus,
    ModbusTcpBus,
    ModbusTlsBus,
    ModbusUdpBus,
)
from edged_modbus.planner import Limits, Span, Table
from edged_modbus.point import modicon


@pytest.mark.parametrize(
    ("address", "table", "start"),
    [
        (40001, Table.HOLDING, 0),
        (40101, Table.HOLDING, 100),
        ("40101", Table.HOLDING, 100),
        (49999, Table.HOLDING, 9998),
        (400101, Table.HOLDING, 100),
        (465536, Table.HOLDING, 65535),
        (30001, Table.INPUT, 0),
        (300001, Table.INPUT, 0),
        (10001, Table.DISCRETE, 0),
        (100001, Table.DISCRETE, 0),
        ("00001", Table.COIL, 0),
        ("09999", Table.COIL, 9998),
        ("000001", Table.COIL, 0),
        ("065536", Table.COIL, 65535),
    ],
)
def test_modicon_addresses_count_from_one_and_name_their_table(address: int | str, table: Table, start: int) -> None:
    assert modicon(address) == (table, start)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (0, "does not say which table"),
        (1, "does not say which table"),
        (100, "does not say which table"),
        (4001, "does not say which table"),
        (50000, "no table begins with 5"),
        (20001, "no table begins with 2"),
        (40000, "goes from 40001 to 49999"),
        ("00000", "goes from 00001 to 09999"),
        (465537, "goes from 400001 to 465536"),
        (400000, "goes from 400001 to 465536"),
        (4000001, "five or six digits"),
        (-1, "not an address in Modicon notation"),
        ("4x101", "not an address in Modicon notation"),
        ("", "not an address in Modicon notation"),
    ],
)
def test_an_address_that_needs_guessing_is_refused_with_the_way_out(address: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        modicon(address)
    assert "holding: 100" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "say where the point lies"),
        ({"holding": 1, "input": 1}, "only one of `holding`, `input`"),
        ({"coil": 1, "address": 40001}, "only one of `coil`, `address`"),
        ({"holding": 65536}, "addresses go from 0 to 65535"),
        ({"holding": -1}, "addresses go from 0 to 65535"),
        ({"holding": 65535, "type": "float32"}, "takes 2 registers and ends beyond 65535"),
        ({"address": 465534, "type": "int64"}, "takes 4 registers and ends beyond 65535"),
        ({"address": 101}, "does not say which table"),
        ({"coil": 1, "type": "float32"}, "a coil is a single bit"),
        ({"discrete": 1, "bit": 3}, "`bit` has no meaning here"),
        ({"coil": 1, "order": "AB"}, "`order` has no meaning here"),
        ({"coil": 1, "flags": {0: "a"}}, "`flags` has no meaning here"),
        ({"holding": 1, "type": "bit"}, "needs `bit`"),
        ({"holding": 1, "type": "string"}, "a string needs `length`"),
        ({"holding": 1, "type": "string", "length": 126}, "between 1 and 125"),
        ({"holding": 1, "type": "int16", "length": 2}, "`length` is for strings"),
        ({"holding": 1, "encoding": "utf-8"}, "`encoding` is for strings"),
        ({"holding": 1, "trim": "none"}, "`trim` is for strings"),
        ({"holding": 1, "order": "CDAB"}, "does not fit uint16: use AB or BA"),
        ({"holding": 1, "type": "float32", "order": "BA"}, "does not fit float32: use ABCD"),
        ({"holding": 1, "type": "float32", "order": "ABCDEFGH"}, "does not fit float32: use ABCD"),
        ({"holding": 1, "type": "string", "length": 2, "order": "ABCD"}, "does not fit string: use AB or BA"),
        ({"holding": 1, "type": "uint8l", "order": "AB"}, "has no meaning for uint8l"),
        ({"holding": 1, "type": "float32", "bit": 3}, "`bit` needs an integer"),
        ({"holding": 1, "type": "uint8l", "bits": (0, 3)}, "`bits` needs an integer of 16"),
        ({"holding": 1, "bit": 3, "bits": (1, 2)}, "contradict each other"),
        ({"holding": 1, "bit": 3, "flags": {0: "a"}}, "contradict each other"),
        ({"holding": 1, "flags": {0: "a"}, "enum": {0: "a"}}, "contradict each other"),
        ({"holding": 1, "bit": 16}, "go from 0 to 15"),
        ({"holding": 1, "bits": (3, 2)}, "the lowest comes first"),
        ({"holding": 1, "bits": (8, 16)}, "go from 0 to 15"),
        ({"holding": 1, "flags": {16: "a"}}, "only the bits 0 to 15"),
        ({"holding": 1, "flags": {4: "a"}, "bits": (8, 11)}, "only the bits 0 to 3"),
        ({"holding": 1, "flags": {0: "a"}, "type": "int32"}, "use uint32"),
        ({"holding": 1, "flags": {0: "a,b"}}, "comma"),
        ({"holding": 1, "flags": {0: "a", 1: "a"}}, "same word for two bits"),
        ({"holding": 1, "enum": {0: ""}}, "cannot be empty"),
        ({"holding": 1, "enum": {0: "on "}}, "begin or end with a space"),
        ({"holding": 1, "enum": {65536: "on"}}, "can only be 0 to 65535"),
        ({"holding": 1, "enum": {2: "on"}, "bit": 0}, "can only be 0 to 1"),
        ({"coil": 1, "enum": {2: "on"}}, "can only be 0 to 1"),
        ({"holding": 1, "enum": {128: "on"}, "type": "int8l"}, "can only be -128 to 127"),
        ({"holding": 1, "enum": {0: "on"}, "type": "float32"}, "`enum` needs an integer"),
        ({"holding": 1, "enum": {0: "on"}, "type": "string", "length": 2}, "`enum` needs an integer"),
        ({"holding": 1, "enum": {0: "on"}, "scale": 2.0}, "`scale` is for numbers, and this value is text"),
        ({"holding": 1, "type": "string", "length": 2, "decimals": 1}, "`decimals` is for numbers"),
        ({"holding": 1, "bit": 2, "scale": 0.1}, "this value is true or false"),
        ({"coil": 1, "range": (0, 1)}, "this value is true or false"),
        ({"holding": 1, "flags": {0: "a"}, "deadband": 1}, "`deadband` is for numbers"),
        ({"holding": 1, "invalid": [65536]}, "no value of uint16"),
        ({"holding": 1, "invalid": [-1]}, "no value of uint16"),
        ({"holding": 1, "invalid": [0], "type": "float32"}, "`invalid` needs an integer"),
        ({"holding": 1, "invalid": [0xFFFF], "type": "int16", "enum": {-1: "x"}}, "both in `enum` and in `invalid`"),
        ({"input": 1, "writable": True}, "input registers cannot be written.*is it a holding register"),
        ({"discrete": 1, "writable": True}, "is it a coil"),
        ({"holding": 1, "type": "uint32", "bit": 3, "writable": True}, "cannot be written in one step"),
        ({"holding": 1, "enum": {0: "a", 1: "a"}, "writable": True}, "same word twice"),
        ({"holding": 1, "scale": 0}, "`scale: 0`"),
    ],
)
def test_a_contradiction_is_an_error_that_says_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModbusPoint(**settings)


def test_the_type_follows_from_the_table() -> None:
    assert ModbusPoint(holding=1).data_type == "uint16"
    assert ModbusPoint(input=1, bit=3).data_type == "uint16"
    assert ModbusPoint(input=1, bit=3, type="bit").data_type == "uint16"
    assert ModbusPoint(coil=1).data_type == "bit"


def test_the_order_of_a_device_is_that_of_its_long_values() -> None:
    points = {
        "long": ModbusPoint(holding=0, type="float32"),
        "longer": ModbusPoint(holding=2, type="int64"),
        "own": ModbusPoint(holding=6, type="uint32", order="ABCD"),
        "short": ModbusPoint(holding=8),
        "text": ModbusPoint(holding=9, type="string", length=2),
        "coil": ModbusPoint(coil=0),
    }
    device = ModbusDevice(bus="b", order="CDAB", points=points)  # type: ignore[arg-type]  # plain str for Name
    got = {name: point.byte_order for name, point in device.points.items() if not point.table.is_bits}
    assert got == {"long": "CDAB", "longer": "GHEFCDAB", "own": "ABCD", "short": "AB", "text": "AB"}
    assert dataclasses.replace(device) == device


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": 256}, "unit numbers go from 0 to 255"),
        ({"unit": -1}, "unit numbers go from 0 to 255"),
        ({"timeout": 0}, "`timeout` must be longer than 0"),
        ({"retries": -1}, "between 0 and 10"),
        ({"max_registers": 126}, "between 1 and 125"),
        ({"max_registers": 0}, "between 1 and 125"),
        ({"max_coils": 2001}, "between 1 and 2000"),
        ({"avoid": ["holding"]}, "write `holding 40-49`"),
        ({"avoid": ["input 9-4"]}, "the lower one first"),
        ({"every": 0}, "longer than 0"),
        ({"max_registers": 1, "points": {"a": {"holding": 1, "type": "int32"}}}, "'a' takes 2 registers"),
        ({"max_register": 10}, "max_register"),
        ({"points": {"a": {"holding": 1, "register": 2}}}, "register"),
    ],
)
def test_a_device_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(ModbusDevice).validate_python({"bus": "b", **settings})


def test_a_device_tells_the_planner_its_limits() -> None:
    device = TypeAdapter(ModbusDevice).validate_python(
        {"bus": "b", "max_registers": 60, "max_coils": 16, "one_request_per_point": True, "avoid": ["input 4-7"]}
    )
    assert device.limits == Limits(60, 16, one_request_per_point=True, avoid=(Span(Table.INPUT, 4, 4),))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ModbusTcpBus, {"host": ""}, "is not a host"),
        (ModbusTcpBus, {"host": "http://plc"}, "is not a host"),
        (ModbusTcpBus, {"host": "plc", "port": 0}, "ports go from 1"),
        (ModbusTcpBus, {"host": "plc", "connections": 0}, "between 1 and 16"),
        (ModbusTcpBus, {"host": "plc", "timeout": 0}, "`timeout`"),
        (ModbusUdpBus, {"host": "plc", "port": 65536}, "ports go from 1"),
        (ModbusTlsBus, {"host": "plc", "key": "k.pem"}, "without `certificate`"),
        (ModbusRtuOverTcpBus, {"host": "plc"}, "port"),
        (ModbusRtuOverTcpBus, {"host": "plc", "port": 1, "baudrate": 3}, "is not the speed of a serial line"),
    ],
)
def test_a_bus_that_makes_no_sense_is_refused(kind: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(kind).validate_python({"adapter": "a", **settings})


def test_the_usual_ports() -> None:
    assert ModbusTcpBus(adapter="modbus-tcp", host="::1").port == 502
    assert ModbusUdpBus(adapter="modbus-udp", host="plc").port == 502
    tls = ModbusTlsBus(adapter="modbus-tls", host="plc")
    assert (tls.port, tls.verify) == (802, True)


def test_a_point_survives_json() -> None:
    point = ModbusPoint(holding=1, type="int32", bits=(3, 6), enum={-1: "x", 1: "y"}, invalid=(7,), range=None)
    plain = json.loads(json.dumps(dataclasses.asdict(point)))
    assert ModbusPoint(**plain) == point


def test_neither_pydantic_nor_yaml_is_needed_at_run_time() -> None:
    code = (
        "import sys, edged_modbus.config, edged_modbus.codec, edged_modbus.pdu, edged_modbus.frame\n"
        "print(*{'pydantic', 'pydantic_core', 'ruamel', 'pymodbus'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == []
