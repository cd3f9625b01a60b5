"""Which messages the broker may forget. Pure.

A message is acknowledged when every device that it concerns has handed its values over, and some time after that: the
buffer writes what it got within a second or so, and a message that was not acknowledged by then comes again after a
power cut. Where many wait, the oldest are acknowledged earlier, so that the broker goes on sending.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

HOLD = 3.0
"""Seconds between handing over and acknowledging."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One message that is to be acknowledged."""

    session: int
    """In which session it came: in a later one its number means nothing."""
    number: int
    left: int = 0
    """So many devices have not handed it over yet."""


class Ledger:
    """The tickets of a bus."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, Ticket]] = deque()
        self.session = 0
        self.room = 10
        """How many may be held back: half of what the broker sends without an acknowledgement."""

        self._tickets: dict[int, Ticket] = {}
        """Those of this session, by number."""
        self._former: dict[int, Ticket] = {}
        """Those of the last one."""

    @property
    def open(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._tickets)

    def begin(self, session: int, *, resumed: bool) -> None:
        """A new session: the broker sends again what it got no acknowledgement for, if it has kept the last one."""
        self._former = self._tickets if resumed else {}
        self._tickets = {}
        self._done.clear()
        self.session = session

    def known(self, number: int, now: float) -> bool:
        """Whether a message that the broker sends again, by the same number, is one that we have already."""
        ticket = self._former.pop(number, None)
        if ticket is None:
            return False
        ticket.session = self.session
        self._tickets[number] = ticket
        if ticket.left == 0:
            self._done.append((now, ticket))
        return True

    def take(self, number: int, devices: int, now: float) -> Ticket:
        """A message came, for so many devices."""
        ticket = self._tickets[number] = Ticket(self.session, number, devices)
        if not devices:
            self._done.append((now, ticket))
        return ticket

    def release(self, ticket: Ticket | None, now: float) -> None:
        """One of its devices is done with it."""
        if ticket is None:
            return
        ticket.left -= 1
        if ticket.left == 0 and ticket.session == self.session:
            self._done.append((now, ticket))

    def due(self, now: float) -> list[int]:
        """The numbers of those that are to be acknowledged now."""
        due = []
        while self._done and (now - self._done[0][0] >= HOLD or self.open > self.room):
            ticket = self._done.popleft()[1]
            del self._tickets[ticket.number]
            due.append(ticket.number)
        return due
