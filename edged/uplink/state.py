"""What a forwarder knows and says of its connection: the state for people and machines, and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edged.clock import mono_us, wall_us

log = logging.getLogger("edged.uplink")

_REMIND = 3_600_000_000
"""Microseconds after which something that still holds is said again."""
_TOLD = 100


@dataclass(frozen=True, slots=True)
class LaneState:
    """One lane, for people."""

    seq: int
    """The last message sent."""
    through: int | None
    """Where the lane ends; None if it has no end."""


@dataclass(frozen=True, slots=True)
class ForwarderState:
    """A connection as it is now, for people and machines. All but the first eight count messages since the start."""

    connected: bool
    since: str
    """When that began: ISO 8601, UTC."""
    detail: str
    """What the receiver said when connecting, or why there is no session."""
    attempts: int
    """Attempts to connect since the last stable session."""
    window: int
    in_flight: int
    unsaved: int
    """Confirmed messages of which the disk does not know yet."""
    pending: int
    """Readings that wait in the buffer."""
    delivered: int
    delivered_readings: int
    retried: int
    rejected: int
    """Those that went to the dead letters."""
    unheard: int
    """Delivered ones of which the receiver said that nobody subscribes."""
    last_rejection: str
    lanes: Mapping[str, LaneState]


@dataclass(slots=True)
class Counters:
    """Messages since the start, and `readings`."""

    delivered: int = 0
    readings: int = 0
    retried: int = 0
    rejected: int = 0
    unheard: int = 0
    refused_in_a_row: int = 0
    last_rejection: str = ""


class Story:
    """Whether there is a session and since when; says each change once, however often it happens.

    An outage ends with a session that lasts. Until then nothing is said a second time.
    """

    def __init__(self, name: str, pending: Callable[[], int], retry_max: float) -> None:
        """`pending` tells how many readings wait."""
        self._name = name
        self._pending = pending
        self._retry_max = retry_max
        self.connected = False
        self.since = wall_us()
        self.detail = "not tried yet"
        self.attempts = 0
        self._outage_began = mono_us()
        self._told: dict[str, int] = {}
        self._outage_told: set[str] = set()
        self._flapping = False

    def on(self, line: str) -> None:
        """A session is open."""
        self.connected, self.since, self.detail = True, wall_us(), line
        if "" in self._outage_told:
            self._flapping = True
        else:
            self._outage_told.add("")
            self._say_connected()

    def _say_connected(self) -> None:
        seconds = (mono_us() - self._outage_began) / 1e6
        waiting = f"{self._pending():,}"
        log.info("%s: connected after %.0f s, %s readings waiting (%s)", self._name, seconds, waiting, self.detail)

    def stable(self) -> None:
        """The session has lasted: whatever comes is news again."""
        if self._flapping:
            self._say_connected()
        self.attempts = 0
        self._flapping = False
        self._outage_told.clear()

    def off(self, why: str) -> None:
        """There is no session, or none any more."""
        if self.connected:
            self.connected, self.since = False, wall_us()
            if not self._outage_told:
                self._outage_began = mono_us()
        self.detail = why
        if why not in self._outage_told:
            self._outage_told.add(why)
            log.warning("%s: not connected (%s); trying again, up to every %g s", self._name, why, self._retry_max)

    def warn_once(self, text: str) -> None:
        """Log what would otherwise be said for each message; a reminder comes after an hour."""
        now = mono_us()
        if now - self._told.get(text, -_REMIND) < _REMIND:
            return
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told[text] = now
        log.warning("%s: %s", self._name, text)
