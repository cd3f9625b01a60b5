"""Answers that may still come to requests that were given up, and how never to take one for another.

Pure: time comes in from outside. Neither RTU nor ASCII frames say which request they answer. What can be relied on is
that a device answers in order: once it has answered a request, nothing comes any more that was asked before. So
requests that were given up are remembered in their order. Each frame is taken for the answer to the oldest of them that
it can be an answer to, which then is not owed any more, nor what was asked before it. A request for whose answer an
owed one could be mistaken is not sent before that one is owed no more (`barrier.py` has what brings that about).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import pdu as pdus
from .pdu import READ_FUNCTIONS, Request
from .planner import MAX_BITS, MAX_REGISTERS

MOST = 256
"""How many requests are remembered of each unit."""
_ERROR = 0x80
_REPEATED = {5: 5, 6: 5, pdus.LOOPBACK: 5, 15: 5, 16: 5, 22: 7}
"""Functions whose normal answer repeats so many bytes of the request."""
_TABLES = {function: table for table, function in READ_FUNCTIONS.items()}

Shape = tuple[int, int | None]
"""Function and bytes of the normal answer's PDU; None where only the answer tells."""


class Owed(NamedTuple):
    """An answer that may still come. It may be an exception, and of that only the function is known."""

    function: int
    size: int | None
    exactly: bytes | None
    """What the normal answer is, where that is known."""
    sent: float
    """When its request was over, seconds on the monotonic clock."""
    foreign: bool = False
    """Another master asked, or nobody, and nobody knows when."""
    asked: bytes = b""
    """The request, if it was ours: an echo of it looks so."""

    def may_be(self, reply: bytes) -> bool:
        """Whether this PDU can be the answer."""
        if reply[0] & _ERROR:
            return reply[0] & ~_ERROR == self.function
        return reply[0] == self.function and self.size in {None, len(reply)} and self.exactly in {None, reply}

    def looks_like(self, other: Owed) -> bool:
        """Whether one normal answer can be that to both."""
        return (
            self.function == other.function
            and (self.size == other.size or None in {self.size, other.size})
            and (self.exactly == other.exactly or None in {self.exactly, other.exactly})
        )


class Doubts:
    """What the units of one line owe."""

    def __init__(self) -> None:
        self._units: dict[int, list[Owed]] = {}
        self._token = 0
        self.echoes = True
        """Whether a frame like a request may be its echo, so that it shows nothing."""
        self._asking: tuple[int, bytes] = (0, b"")
        """Unit and PDU of what was asked last."""
        self._claimed: tuple[int, bytes, Owed] | None = None
        """Unit and PDU of the last answer to an old request, since anything was asked, and to which."""

    # -- what happened -----------------------------------------------------------------------------------------------

    def asking(self, unit: int, request: bytes) -> None:
        """The unit is about to be asked this (the PDU); the line has been silent."""
        self._claimed = None
        self._asking = unit, request

    def add(self, unit: int, request: Request[Any], now: float) -> None:
        """A request was given up, or its answer may not be its own."""
        self._units.setdefault(unit, []).append(_owed(request, now))

    def overheard(self, unit: int, request: bytes, now: float) -> None:
        """Another master asked the unit (the PDU)."""
        self._foreign(unit, Owed(request[0], _asked_for(request), None, now, foreign=True))

    def unasked(self, unit: int, reply: bytes, now: float) -> None:
        """The unit answered (the PDU) though it owes nothing like it: it, or somebody between, says things twice."""
        if not reply[0] & _ERROR:  # of which none is a value
            self._foreign(unit, Owed(reply[0], len(reply), None, now, foreign=True))

    def settled(self, unit: int) -> None:
        """The unit answered what was asked last, and that cannot be mistaken."""
        self._units.pop(unit, None)

    def claim(self, unit: int, reply: bytes) -> Owed | None:
        """Whose answer this may be (the PDU), if anybody is owed one like it; older ones are owed no more then.

        The same frame again, before anything else is asked, is taken for a repetition.
        """
        if self._claimed is not None and self._claimed[:2] == (unit, reply):
            return self._claimed[2]
        owed = self._units.get(unit, [])
        found = next((i for i, each in enumerate(owed) if each.may_be(reply)), None)
        if found is None:
            return None
        claimed = owed[found]
        if not claimed.foreign and not self.may_be_echo(unit, reply):
            self._keep(unit, [each for each in owed[:found] if each.foreign] + owed[found + 1 :])
        self._claimed = unit, reply, claimed
        return claimed

    def may_be_echo(self, unit: int, frame: bytes) -> bool:
        """Whether this (the PDU) may be the echo of what was asked last, or of a request that was given up."""
        if not self.echoes:
            return False
        return self._asking == (unit, frame) or any(each.asked == frame for each in self._units.get(unit, ()))

    def forget(self, unit: int, function: int) -> None:
        """It was so long ago that nothing is expected any more."""
        self._keep(unit, [each for each in self._units.get(unit, ()) if each.function != function])

    def full(self, unit: int, before: float) -> bool:
        """Whether there is no room for another request, having forgotten the oldest if it was over before then."""
        owed = self._units.get(unit, [])
        if len(owed) >= MOST and owed[0].sent < before:
            del owed[0]
        return len(owed) >= MOST

    # -- what may be asked -------------------------------------------------------------------------------------------

    def since(self, unit: int, request: Request[Any]) -> float | None:
        """When the last request was over whose late answer could be mistaken for the answer to this one, if any.

        Any answer may be an exception, so it is enough to have the function in common.
        """
        owed = self._units.get(unit)
        if not owed:
            return None
        return max((each.sent for each in owed if each.function == request.function), default=None)

    def to_settle(self, unit: int, request: Request[Any], barrier: Request[Any]) -> int | None:
        """How many old answers like that to `barrier` may come before what could be mistaken for `request`'s.

        With none, one normal answer to `barrier` shows that nothing like the answer to `request` is owed any more.
        None if its answers show nothing at all.
        """
        owed = self._units.get(unit, [])
        last = max((i for i, each in enumerate(owed) if each.function == request.function), default=-1)
        mine = _owed(barrier, 0.0)
        alike = [each for each in owed[: last + 1] if each.looks_like(mine)]
        return None if any(each.foreign for each in alike) else len(alike)

    def token(self) -> int:
        """A number for a loopback, by which its answer is known."""
        self._token = (self._token + 1) % 0x10000
        return self._token

    def _foreign(self, unit: int, owed: Owed) -> None:
        """First of all, since it may have been asked before anything else; and never twice the same."""
        kept = [each for each in self._units.get(unit, ()) if each[:3] != owed[:3] or not each.foreign]
        self._units[unit] = [owed, *kept]

    def _keep(self, unit: int, owed: list[Owed]) -> None:
        if owed:
            self._units[unit] = owed
        else:
            self._units.pop(unit, None)


def shape_of(request: Request[Any]) -> Shape:
    """How its normal answer looks."""
    return request.function, request.reply_size


def _owed(request: Request[Any], now: float) -> Owed:
    repeated = _REPEATED.get(request.function)
    exactly = request.pdu[:repeated] if repeated else None
    return Owed(request.function, request.reply_size, exactly, now, asked=request.pdu)


def _asked_for(request: bytes) -> int | None:
    """The size of the normal answer to another's request, if that can be told."""
    count = int.from_bytes(request[3:5], "big")
    table = _TABLES.get(request[0])
    if table is None or not 1 <= count <= (MAX_BITS if table.is_bits else MAX_REGISTERS):
        return None
    return pdus.read(table, 0, count).reply_size
