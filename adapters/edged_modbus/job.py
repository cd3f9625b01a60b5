"""What is read together, and what was learnt about it on the wire.

Pure: time comes in from outside. A device that refuses a block (exception 1, 2 or 3) gets it in ever smaller pieces,
until the addresses it does not have are known. They are left out, named once, and asked for again from time to time,
because a firmware can change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, cast
from weakref import WeakValueDictionary

from edged.adapter import ConfigError, Quality, Reason, Value, bad

from . import pdu
from .codec import compile_decoder
from .config import ModbusDevice
from .pdu import Request
from .planner import Block, Costs, Limits, Planned, Span, bisect, plan, unread
from .point import ModbusPoint

_AGAIN_FIRST, _AGAIN_LAST = 60.0, 600.0
"""Seconds until an address that does not exist is asked for again: at first, and at most."""
_AGAIN_AT_ONCE = 2
"""How many of them one poll asks for."""
_SILENCES = 3
"""After so many polls in which a device answered everything but one block, that block is held for refused."""
_NAMED = 6
"""How many points a note names."""

NO_ANSWER = 0
"""In place of an exception code: the device keeps silent about these addresses, and answers others."""
_WHY = {
    NO_ANSWER: "is never answered, unlike others",
    1: "cannot be read: the device does not know this function (exception 1)",
    2: "does not exist (exception 2)",
    3: "is refused (exception 3, illegal data value)",
}


_SHARED = 1024
"""How many different requests are kept for all devices to share."""

Decode = Callable[[Sequence[int]], tuple[Sequence[Value], Mapping[int, Quality]]]


_request = lru_cache(_SHARED)(pdu.read)


class _Beginning:
    """What a job begins with, before anything is learnt: the same object for all devices of one profile."""

    __slots__ = ("__weakref__", "known", "planned", "points", "spans")

    def __init__(self, known: Mapping[str, ModbusPoint], points: tuple[str, ...], costs: Costs, limits: Limits) -> None:
        self.known = known  # held, so that its id stays its own
        self.points = points
        self.spans: Mapping[str, Span] = {point: known[point].span for point in points}
        self.planned = plan(self.spans, costs, limits)


_beginnings: WeakValueDictionary[tuple[int, tuple[str, ...], Costs, Limits], _Beginning] = WeakValueDictionary()


def _beginning(known: Mapping[str, ModbusPoint], points: tuple[str, ...], costs: Costs, limits: Limits) -> _Beginning:
    key = id(known), points, costs, limits
    found = _beginnings.get(key)
    if found is None:
        found = _beginnings[key] = _Beginning(known, points, costs, limits)
    return found


class Reader:
    """One block, ready to be read."""

    __slots__ = ("block", "decode", "points", "request", "silences")

    def __init__(
        self, block: Block, points: Mapping[str, ModbusPoint], intern: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> None:
        decoder = compile_decoder(block, points)
        self.block = block
        self.points = intern(block.points)
        self.request: Request[Any] = _request(block.table, block.start, block.count)
        self.decode = cast("Decode", decoder.decode_bits if block.table.is_bits else decoder.decode_registers)
        self.silences = 0
        """Polls in a row in which only this one was not answered."""


@dataclass(slots=True)
class _Dead:
    """Points (one, or several with the same addresses) that the device refuses."""

    reader: Reader
    code: int
    pause: float
    again: float
    """When to ask again, seconds on the monotonic clock."""


class ModbusJob:
    """Some points of one device (see `edged.adapter.Job`). `readers` are what a poll reads, in this order."""

    def __init__(
        self,
        name: str,
        config: ModbusDevice,
        points: Sequence[str],
        costs: Costs,
        intern: Callable[[tuple[str, ...]], tuple[str, ...]],
    ) -> None:
        self.device = name
        self.config = config
        self.points = intern(tuple(points))
        self.readers: list[Reader] = []
        self._notes: list[str] = []
        self._costs = costs
        known = cast("Mapping[str, ModbusPoint]", config.points)
        self._limits = config.limits
        self._beginning = _beginning(known, self.points, costs, self._limits)
        self._spans = self._beginning.spans
        self._reader = partial(Reader, points=known, intern=intern)
        self._dead: dict[tuple[str, ...], _Dead] = {}
        self._refused: list[Span] = []
        """What was refused since learning began."""
        self._ever_refused: list[Span] = []
        self._forget = False
        self._unproven: set[Reader] = set()
        """Pieces of a refused block that were not read yet. While there are any, learning goes on."""
        self._good: set[Span] = set()
        """What was read since learning began."""
        self._named: set[tuple[str, ...]] = set()
        planned = self._beginning.planned
        if planned.unreadable:
            raise ConfigError("; ".join(f"{name}/{point}: {why}" for point, why in planned.unreadable.items()))
        self._adopt(planned.blocks)

    @property
    def learning(self) -> bool:
        """Whether some pieces of a refused block were not tried yet."""
        return bool(self._unproven)

    def dead(self) -> Iterable[tuple[tuple[str, ...], Quality]]:
        """The points that are left out, and the quality they have."""
        for points, dead in self._dead.items():
            yield points, bad(Reason.TIMEOUT if dead.code == NO_ANSWER else Reason.EXCEPTION)

    def due(self, now: float) -> list[Reader]:
        """What was refused long enough ago to be asked for again; a few at once."""
        if not self._dead:
            return []
        due = [dead for dead in self._dead.values() if dead.again <= now]
        return [dead.reader for dead in sorted(due, key=lambda dead: dead.again)[:_AGAIN_AT_ONCE]]

    def smallest(self) -> Reader | None:
        """The cheapest read that shows whether the device is alive: one point of those that can be read."""
        if not self.readers:
            dead = min(self._dead.values(), key=lambda dead: dead.again, default=None)
            return None if dead is None else dead.reader
        block = min((reader.block for reader in self.readers), key=lambda block: block.count)
        point = min(block.points, key=lambda point: self._spans[point].count)
        return self._reader(Block(block.table, self._spans[point].start, self._spans[point].count, (point,)))

    def is_dead(self, reader: Reader) -> bool:
        """Whether it reads points that are left out."""
        return reader.points in self._dead

    # -- what a poll tells ------------------------------------------------------------------------------------------

    def answered(self, reader: Reader) -> None:
        """It was read. Costs nothing unless something is being learnt."""
        reader.silences = 0
        if self._dead and self._dead.pop(reader.points, None) is not None:
            self._named.discard(reader.points)
            self._notes.append(f"{self.device}: {reader.block.span} answers now; reading {_some(reader.points)} again")
            self._forget = True
        elif self._refused:
            self._unproven.discard(reader)
            self._good.add(reader.block.span)

    def refused(self, reader: Reader, code: int, now: float) -> list[Reader]:
        """The device refused it. Returns the pieces to read instead; none when it is known now what does not exist."""
        if known := self._dead.get(reader.points):
            known.pause = min(2 * known.pause, _AGAIN_LAST)
            known.again = now + known.pause
            self._forget = self._forget or (known.code == 1 and code > 1)
            return []
        if reader not in self.readers:
            return []
        pieces = [self._reader(block) for block in bisect(reader.block, self._spans)] if code != 1 else []
        self._refused.append(reader.block.span)
        self._ever_refused.append(reader.block.span)
        self._unproven.discard(reader)
        self._unproven.update(pieces)
        at = self.readers.index(reader)
        self.readers[at : at + 1] = pieces
        if not pieces:
            self._dead[reader.points] = _Dead(reader, code, _AGAIN_FIRST, now + _AGAIN_FIRST)
        return pieces

    def silent(self, reader: Reader, now: float, *, others_answer: bool) -> None:
        """It was not answered. It is read last from now on, so that it cannot keep the others from being read."""
        if reader not in self.readers:
            if self.is_dead(reader) and others_answer:
                self.refused(reader, NO_ANSWER, now)
            return
        self.readers.remove(reader)
        self.readers.append(reader)
        reader.silences = reader.silences + 1 if others_answer else 0
        if reader.silences >= _SILENCES:
            for piece in self.refused(reader, NO_ANSWER, now):
                piece.silences = _SILENCES - 1

    def conclude(self) -> None:
        """End of a poll: plan anew once everything refused is known."""
        if self._forget:
            self._start_over()
        elif self._refused and not self._unproven:
            self._replan()

    def news(self) -> list[str]:
        """What to tell a person, each thing once."""
        notes, self._notes = self._notes, []
        return notes

    # -- learning -----------------------------------------------------------------------------------------------------

    def _plan(self) -> Planned:
        left_out = {point for points in self._dead for point in points}
        spans = {point: span for point, span in self._spans.items() if point not in left_out}
        return plan(spans, self._costs, self._limits)

    def _adopt(self, blocks: Iterable[Block]) -> None:
        self.readers = [self._reader(block) for block in blocks]

    def _replan(self) -> None:
        cells = self._limits.dead.union(*(unread(span, self._good) for span in self._refused))
        self._limits = replace(self._limits, dead=cells)
        planned = self._plan()
        unexplained = [span for span in self._ever_refused for block in planned.blocks if _covers(block.span, span)]
        if not unexplained and not planned.unreadable:
            self._adopt(planned.blocks)
        elif unexplained:
            # The device has limits that addresses do not explain: keep to the pieces that it grants.
            self._notes.append(
                f"{self.device}: {unexplained[0]} is refused in one request, and granted in parts; "
                f"`max_registers` or `max_coils` would say how much the device allows"
            )
        self._refused.clear()
        self._good.clear()
        self._name_dead()

    def _start_over(self) -> None:
        """What did not exist does now, so nothing that was learnt can be relied on."""
        self._forget = False
        self._dead.clear()
        self._refused.clear()
        self._ever_refused.clear()
        self._unproven.clear()
        self._good.clear()
        self._limits = self.config.limits
        self._adopt(self._plan().blocks)

    def _name_dead(self) -> None:
        unnamed = [dead for points, dead in self._dead.items() if points not in self._named]
        self._named.update(self._dead)
        for code in sorted({dead.code for dead in unnamed}):
            readers = [dead.reader for dead in unnamed if dead.code == code]
            where = ", ".join(map(str, merged(reader.block.span for reader in readers)))
            names = [point for reader in readers for point in reader.points]
            self._notes.append(f"{self.device}: {where} {_WHY[code]}; leaving out {_some(names)}")


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same addresses as few spans, sorted."""
    result: list[Span] = []
    for span in sorted(spans):
        last = result[-1] if result else None
        if last is not None and last.table == span.table and span.start <= last.end:
            result[-1] = Span(last.table, last.start, max(last.end, span.end) - last.start)
        else:
            result.append(span)
    return result


def _covers(outer: Span, inner: Span) -> bool:
    return outer.table == inner.table and outer.start <= inner.start and inner.end <= outer.end


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
