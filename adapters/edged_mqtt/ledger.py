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
        self.open = 0
        """How many messages are not acknowledged."""
        self.room = 10
        """How many may be held back: half of what the broker sends without an acknowledgement."""

    def take(self, ticket: Ticket, devices: int, now: float) -> None:
        """A message came, for so many devices."""
        self.open += 1
        ticket.left = devices
        if not devices:
            self._done.append((now, ticket))

    def release(self, ticket: Ticket | None, now: float) -> None:
        """One of its devices is done with it."""
        if ticket is None:
            return
        ticket.left -= 1
        if ticket.left == 0:
            self._done.append((now, ticket))

    def due(self, now: float) -> list[Ticket]:
        """Those that are to be acknowledged now."""
        due = []
        while self._done and (now - self._done[0][0] >= HOLD or self.open > self.room):
            due.append(self._done.popleft()[1])
            self.open -= 1
        return due

    def forget(self) -> None:
        """A new session: the broker sends again what it got no acknowledgement for."""
        self._done.clear()
        self.open = 0
