"""Replies that may still come to requests that were given up, and how never to take one for another.

Pure: time comes in from outside. Neither RTU nor ASCII frames say which request they answer. But a device answers in
order: once it has answered something that looks like none of the replies it owes, it owes nothing any more. So a
request whose reply could be mistaken is preceded by one whose reply cannot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import pdu
from .pdu import READ_FUNCTIONS, Request
from .planner import Table

_FORGET = 30.0
"""Seconds after which a device is not expected to answer any more, whatever it is."""
_MOST = 16
"""How many replies of one unit are remembered."""
_EXACT = frozenset({5, 6, 22})
"""Functions whose reply repeats the whole request, so that only an identical one can be mistaken for it."""
_TABLES = {function: table for table, function in READ_FUNCTIONS.items()}
_EIGHT = 8


class Owed(NamedTuple):
    """A reply that may still come."""

    function: int
    size: int | None
    sent: float
    """When its request was over, seconds on the monotonic clock."""
    foreign: bool = False
    """Another master asked."""


class Doubts:
    """What the units of one line owe."""

    def __init__(self) -> None:
        self._owed: dict[int, list[Owed]] = {}

    def add(self, unit: int, request: Request[Any], now: float) -> None:
        """A request was given up."""
        self._append(unit, Owed(request.function, request.reply_size, now), now)

    def overheard(self, unit: int, request: bytes, now: float) -> None:
        """Another master asked the unit (the PDU)."""
        count = int.from_bytes(request[3:5], "big")
        table = _TABLES.get(request[0])
        size = None if table is None else 2 + ((count + 7) // 8 if table.is_bits else 2 * count)
        self._append(unit, Owed(request[0], size, now, foreign=True), now)

    def settled(self, unit: int) -> None:
        """The unit answered a request whose reply cannot be mistaken."""
        self._owed.pop(unit, None)

    def claim(self, unit: int, function: int, size: int) -> Owed | None:
        """The owed reply that this frame is, if any; then neither it nor what was asked before it is owed any more."""
        owed = self._owed.get(unit, [])
        for i, each in enumerate(owed):
            if function & 0x7F == each.function and (function > 0x7F or each.size in {size, None}):  # noqa: PLR2004  # the error bit
                self._owed[unit] = owed[i + 1 :]
                return each
        return None

    def since(self, unit: int, request: Request[Any], now: float) -> float | None:
        """When the last request was over whose late reply could be mistaken for the reply to this one; None if none."""
        owed = self._owed.get(unit)
        if not owed or request.function in _EXACT:
            return None
        alike = [
            each.sent
            for each in owed
            if each.sent > now - _FORGET
            and each.function == request.function
            and (each.size == request.reply_size or None in {each.size, request.reply_size})
        ]
        return max(alike, default=None)

    def barrier(self, unit: int, request: Request[Any]) -> Request[Any] | None:
        """A harmless read, at addresses of this request, whose reply cannot be mistaken; None if there is none."""
        taken = {(each.function, each.size) for each in self._owed.get(unit, ())}
        for candidate in _harmless(request):
            if (candidate.function, candidate.reply_size) not in taken:
                return candidate
        return None

    def _append(self, unit: int, owed: Owed, now: float) -> None:
        kept = [each for each in self._owed.get(unit, ()) if each.sent > now - _FORGET]
        self._owed[unit] = [*kept[1 - _MOST :], owed]


def _harmless(request: Request[Any]) -> list[Request[Any]]:
    start, count = int.from_bytes(request.pdu[1:3], "big"), int.from_bytes(request.pdu[3:5], "big")
    table = _TABLES.get(request.function)
    if request.function in {16, 23}:
        table, count = Table.HOLDING, 4
    elif request.function == 15:  # noqa: PLR2004  # write multiple coils
        table, count = Table.COIL, 9
    if table is None:
        return []
    step = _EIGHT if table.is_bits else 1
    counts = list(range(1, count, step))[:_MOST]
    if request.function > 4:  # noqa: PLR2004  # a write: reading one item where it writes is all that is harmless
        counts = counts[:1]
    return [pdu.read(table, start, number) for number in counts]
