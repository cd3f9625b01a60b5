"""Harmless requests whose answers show that no older answer can follow (see `doubt.py`).

Pure. Best is a read that the unit has answered before. Then comes a shorter read of the same addresses, then the
loopback of the specification (function 8/0), whose answer carries a number, a neighbour, the identification and the
exception status (functions 43/14 and 7). Where the unit knows none of these, it may still refuse them, which is an
answer, too. What a unit has turned out not to answer is tried last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import pdu
from .config import ModbusDevice
from .doubt import Doubts, Shape, shape_of
from .pdu import READ_FUNCTIONS, Request
from .planner import ADDRESSES, Limits, Span, Table

_KNOWN = 8
"""How many reads are remembered of each unit."""
_SHORTER = (1, 2, 3, 8)
_BYTE = 8
_WRITES = {
    5: Table.COIL, 6: Table.HOLDING, 15: Table.COIL, 16: Table.HOLDING, 22: Table.HOLDING, 23: Table.HOLDING,
}  # fmt: skip
"""What these functions write can be read."""
_TABLES = {function: table for table, function in READ_FUNCTIONS.items()}


class Habits:
    """What one unit answers."""

    __slots__ = ("answered", "in_vain", "misses")

    def __init__(self) -> None:
        self.answered: dict[Shape, Request[Any]] = {}
        """Reads that it answered."""
        self.misses: Counter[Shape] = Counter()
        """How often it did not, in a row."""
        self.in_vain: set[Shape] = set()
        """What was asked in vain since it answered anything."""


class Barriers:
    """What to ask the units of one line. `limits` says for each unit what must not be read."""

    def __init__(self, limits: Mapping[int, Limits]) -> None:
        self._limits = limits
        self._habits: dict[int, Habits] = {}

    def answered(self, unit: int, request: Request[Any], *, granted: bool) -> None:
        """The unit answered, and that cannot be mistaken."""
        habits = self._habits.get(unit) or self._habits.setdefault(unit, Habits())
        if habits.in_vain:
            habits.in_vain.clear()
        shape = shape_of(request)
        if habits.answered.get(shape) is request:
            return
        habits.misses.pop(shape, None)
        if granted and request.function in _TABLES:
            habits.answered[shape] = request
            while len(habits.answered) > _KNOWN:
                del habits.answered[next(iter(habits.answered))]

    def missed(self, unit: int, request: Request[Any]) -> None:
        """It was asked this, and no answer came that shows anything."""
        habits = self._habits.setdefault(unit, Habits())
        habits.misses[shape_of(request)] += 1
        habits.in_vain.add(shape_of(request))

    def tried(self, unit: int, request: Request[Any]) -> bool:
        """Whether it was asked in vain since the unit answered anything."""
        habits = self._habits.get(unit)
        return habits is not None and shape_of(request) in habits.in_vain

    def choose(self, unit: int, request: Request[Any], doubts: Doubts, *, loopback: bool) -> Request[Any] | None:
        """What to ask before `request`; None if everything was tried that has any prospect.

        `loopback` says whether an answer that repeats its question can be told from an echo. What has the function of
        `request` is only tried once, since it is one more answer to wait for.
        """
        habits = self._habits.setdefault(unit, Habits())
        prospects: list[tuple[int, int, Request[Any]]] = []
        for place, each in enumerate(self._candidates(unit, request, habits, doubts)):
            rounds = doubts.to_settle(unit, request, each)
            if rounds is None or (each.function == pdu.LOOPBACK and not loopback):
                continue
            if each.function != request.function or shape_of(each) not in habits.in_vain:
                prospects.append((rounds + habits.misses[shape_of(each)], place, each))
        return min(prospects)[2] if prospects else None

    def _candidates(self, unit: int, request: Request[Any], habits: Habits, doubts: Doubts) -> Iterator[Request[Any]]:
        """Best first."""
        known = sorted(habits.answered.values(), key=lambda each: (each.function == request.function, each.reply_size))
        yield from known
        limits = self._limits.get(unit, Limits())
        place = None if limits.one_request_per_point else _place(request)
        if place is not None:
            if request.function in _WRITES:
                yield pdu.read(place.table, place.start, place.count)
            yield from _shorter(place)
        yield pdu.loopback(doubts.token())
        if place is not None:
            yield from _longer(place, limits)
        yield pdu.read_identification()
        yield pdu.read_exception_status()


def _place(request: Request[Any]) -> Span | None:
    """What may be read without any harm, since the request reads or writes it."""
    start, count = int.from_bytes(request.pdu[1:3], "big"), int.from_bytes(request.pdu[3:5], "big")
    if table := _TABLES.get(request.function):
        return Span(table, start, count)
    if request.function in _WRITES:
        return Span(_WRITES[request.function], start, 1)
    return None


def _shorter(span: Span) -> Iterator[Request[Any]]:
    step = _BYTE if span.table.is_bits else 1
    for number in _SHORTER:
        if (count := 1 + (number - 1) * step) < span.count:
            yield pdu.read(span.table, span.start, count)


def _longer(span: Span, limits: Limits) -> Iterator[Request[Any]]:
    """A read of a neighbour as well, where nothing forbids it."""
    more = _BYTE if span.table.is_bits else 1
    most = limits.max_coils if span.table.is_bits else limits.max_registers
    for start in (span.start, span.start - more):
        wide = Span(span.table, start, span.count + more)
        if start >= 0 and wide.end <= ADDRESSES and wide.count <= most and not any(map(wide.overlaps, limits.avoid)):
            yield pdu.read(wide.table, wide.start, wide.count)
            return


def limits_of(devices: Mapping[str, ModbusDevice]) -> dict[int, Limits]:
    """What must not be read of each unit. Several entries may describe one: then what any of them says."""
    units: dict[int, list[Limits]] = {}
    for device in devices.values():
        units.setdefault(device.unit, []).append(device.limits)
    return {unit: _narrowest(limits) for unit, limits in units.items()}


def _narrowest(limits: Iterable[Limits]) -> Limits:
    each = tuple(limits)
    return Limits(
        max_registers=min(one.max_registers for one in each),
        max_coils=min(one.max_coils for one in each),
        one_request_per_point=any(one.one_request_per_point for one in each),
        avoid=tuple(dict.fromkeys(span for one in each for span in one.avoid)),
    )
