"""Checks a Modbus profile: its test vectors, and what is suspicious about its points. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

from edged.adapter import Value

from . import fingerprint
from .codec import compile_decoder
from .config import ModbusDevice
from .planner import Block, Span, Table, network_costs, plan
from .point import ModbusPoint, integer_range

Cell = tuple[Table, int]
Memory = Mapping[Cell, int | bool]
Problem = tuple[str, tuple[str | int, ...], str]
"""`error` or `warning`, the keys that lead to it, and what it is."""

_TOLERANCE = 1e-6
_NUMBER = (int, float)


def problems(document: Mapping[str, Any], device: ModbusDevice) -> Iterator[Problem]:
    """What is wrong with a profile that loads.

    Vectors that do not come out and points that cannot be right are errors.
    """
    points = cast("Mapping[str, ModbusPoint]", device.points)
    tested: set[str] = set()
    for number, vector in enumerate(document.get("tests") or ()):
        where = ("tests", number)
        try:
            memory = memory_of(vector)
            expected = dict(vector["expect"])
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            yield "error", where, f"a vector has `registers` and `expect`: {exc!r}"
            continue
        tested |= expected.keys()
        for name, value in expected.items():
            for text in _compared(points.get(name), value, memory):
                yield "error", (*where, "expect", name), text
    for name in [name for name in points if name not in tested]:
        yield "warning", ("points", name), "no vector tests it"
    yield from _places(points)
    yield from _ranges(points)
    planned = plan({name: point.span for name, point in points.items()}, network_costs(), device.limits)
    for name, why in planned.unreadable.items():
        yield "error", ("points", name), f"cannot be read: {why}"
    yield from _fingerprint(document, device)


def memory_of(vector: Mapping[str, Any]) -> Memory:
    """The registers of a test vector by place. Raises ValueError, KeyError, AttributeError or TypeError."""
    memory: dict[Cell, int | bool] = {}
    for where, words in vector["registers"].items():
        start = Span.parse(where)
        memory |= {(start.table, start.start + i): word for i, word in enumerate(words)}
    return memory


def value_of(point: ModbusPoint, memory: Memory) -> Value:
    """The value of a point in engineering units; None where the registers hold none. Raises KeyError."""
    words = [memory[point.table, point.start + i] for i in range(point.count)]
    decoder = compile_decoder(Block(point.table, point.start, point.count, ("p",)), {"p": point})
    ((value,), _) = (
        decoder.decode_bits([bool(word) for word in words]) if point.table.is_bits else decoder.decode_registers(words)
    )
    if value is None or isinstance(value, bool | str):
        return value
    if point.map is not None:
        (low, high), (to_low, to_high) = point.map.raw, point.map.to
        return (value - low) * (to_high - to_low) / (high - low) + to_low
    return value * point.scale + point.offset


def _compared(point: ModbusPoint | None, expected: Value, memory: Memory) -> Iterator[str]:
    if point is None:
        yield "there is no such point"
        return
    try:
        value = value_of(point, memory)
    except KeyError:
        yield f"the vector lacks a register of {point.span}"
        return
    except ValueError as exc:
        yield str(exc)
        return
    if not _same(value, expected):
        yield f"is {value}, and the vector expects {expected}"


def _same(value: Value, expected: Value) -> bool:
    if isinstance(value, _NUMBER) and isinstance(expected, _NUMBER) and bool not in {type(value), type(expected)}:
        return math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=1e-9)
    return type(value) is type(expected) and value == expected


def _places(points: Mapping[str, ModbusPoint]) -> Iterator[Problem]:
    """Points that lie in each other's registers."""
    ordered = sorted(points.items(), key=lambda item: (item[1].table, item[1].start))
    for (one, a), (other, b) in combinations(ordered, 2):
        if not a.span.overlaps(b.span) or _parts(a, b):
            continue
        if a.span == b.span and a.data_type == b.data_type:
            yield "warning", ("points", other), f"is the same as {one}: both are {a.data_type} at {a.span}"
        else:
            text = f"{b.span} overlaps {one} ({a.span}): is a type too wide, or an address wrong?"
            yield "error", ("points", other), text


def _parts(a: ModbusPoint, b: ModbusPoint) -> bool:
    """Whether both take different parts of the same registers, as flags and bits do."""
    return a.span == b.span and (a.partial or b.partial or bool(a.enum) != bool(b.enum))


def _ranges(points: Mapping[str, ModbusPoint]) -> Iterator[Problem]:
    """Ranges that no raw value reaches."""
    for name, point in points.items():
        if (
            point.range is None
            or point.data_type not in {"int16", "uint16", "int32", "uint32"}
            or point.map is not None
        ):
            continue
        ends = [raw * point.scale + point.offset for raw in integer_range(point)]
        low, high = point.range
        if high < min(ends) or low > max(ends):
            text = f"is impossible: {point.data_type} gives {min(ends):g} to {max(ends):g}"
            yield "error", ("points", name, "range"), text


def _fingerprint(document: Mapping[str, Any], device: ModbusDevice) -> Iterator[Problem]:
    if "fingerprint" not in document:
        return
    try:
        clauses = fingerprint.parse(document["fingerprint"], device.order).clauses
    except ValueError as exc:
        yield "error", ("fingerprint",), str(exc)
        return
    memories = [memory_of(vector) for vector in document.get("tests") or ()]
    for clause in clauses:
        cells = [(clause.span.table, clause.span.start + i) for i in range(clause.span.count)]
        told: list[Sequence[int]] = [
            [memory[cell] for cell in cells] for memory in memories if cells[0] in memory and cells[-1] in memory
        ]
        if not any(clause.holds(words) for words in told):
            yield "error", ("fingerprint",), f"no vector has what is asked for at {clause.span}"


def example(name: str) -> str:
    """A profile to begin with, with its format explained in comments."""
    return _EXAMPLE.format(name=name)


_EXAMPLE = """\
profile: {name}
title: Maker and model, and what it is
vendor: Maker
models: [Model]
# Where the registers are from: title and revision of the document. Whoever doubts a value will look there.
source: "Maker, document title, revision, page"
# Settings of the device that the user need not know. All of them can be left out.
device:
  # order: CDAB            # the low word of 32 bits comes first
  # max_registers: 60      # most registers in one request
  # pause: 20ms            # how long to leave it alone between requests
  # unit: 1                # its usual unit number
  timeout: 1s
# By which registers `edged scan modbus` knows this type: something constant and rare. All of them must hold.
# fingerprint:
#   - {{holding: 11, equals: 1648}}
points:
  # Addresses count from 0, as on the wire. Many manuals count from 1: their 40001 or 30001 is 0.
  voltage: {{input: 0, type: uint16, scale: 0.1, unit: V, range: [0, 500], description: Voltage}}
  energy:  {{holding: 10, type: uint32, scale: 0.01, invalid: [0xFFFFFFFF], unit: kWh, description: "Energy, total"}}
  state:   {{holding: 20, enum: {{0: standby, 1: running, 2: fault}}, description: State}}
  alarm:   {{holding: 21, bit: 3, description: "Alarm, bit 3 of register 21"}}
  relay:   {{coil: 0, writable: true, description: Relay}}
# Registers as the device sends them, and the values that they mean: best from an example in the manual, or from the
# display of a real device. `edged profiles test {name}` runs them.
tests:
  - registers:
      input 0: [0x08FE]
      holding 10: [0x0001, 0xE240]
      holding 20: [1, 0x0008]
      coil 0: [true]
    expect:
      voltage: 230.2
      energy: 1234.56
      state: running
      alarm: true
      relay: true
"""
