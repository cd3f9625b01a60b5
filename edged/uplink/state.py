"""What a forwarder knows and says of its connection: the state for people and machines, and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from edged.clock import mono_us, wall_us
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError

log = logging.getLogger("edged.uplink")

_REMIND = 3_600_000_000
"""Microseconds after which something that still holds is said again."""
_TOLD = 100


class State(StrEnum):
    """How far a connection has come."""

    OPENING = "opening"
    """An attempt to connect is under way."""
    OPENED = "opened"
    """There is a session."""
    CLOSED = "closed"
    """The receiver, or the way to it, ended the session or refused one for now; the next attempt is waited for."""
    UNREACHABLE = "unreachable"
    """Nothing answers at its address; the next attempt is waited for."""
    AUTHENTICATION_FAILED = "authentication_failed"
    """It refused us, or we it: user name, password, certificate. A person must act; it is tried again all the same."""
    MISCONFIGURED = "misconfigured"
    """It cannot work as configured. A person must act; it is tried again all the same."""


_UNREACHABLE = {"timeout", "refused", "unreachable", "dns"}
"""The reasons of a TransientError that say so."""
_REFUSED = {"refused", "tls"}
"""The reasons of a PermanentError that say that somebody did not believe somebody."""


def _state_after(error: EdgedError, *, connected: bool) -> State:
    if isinstance(error, PermanentError):
        return State.AUTHENTICATION_FAILED if error.reason in _REFUSED else State.MISCONFIGURED
    if isinstance(error, ConfigError):
        return State.MISCONFIGURED
    unreachable = isinstance(error, TransientError) and error.reason in _UNREACHABLE and not connected
    return State.UNREACHABLE if unreachable else State.CLOSED


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
    state: State
    next_try: str
    """When the next attempt to connect begins: ISO 8601, UTC; empty unless one is being waited for."""
    last_error: str
    """Why the last session ended, or could not begin. Kept while all is well, for whoever asks what happened."""


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


@runtime_checkable
class Shares(Protocol):
    """What a link says of itself if it is one of several in one session."""

    @property
    def title(self) -> str:
        """What the session is called in the log."""
        ...

    @property
    def label(self) -> str:
        """What it is called itself there."""
        ...

    @property
    def tells(self) -> bool:
        """Whether the session's changes of state are to be told here, and not by one of the others."""
        ...

    def waiting(self) -> int:
        """Readings that wait for all of them together."""
        ...


class Story:
    """Whether there is a session and since when; says each change once, however often it happens.

    An outage ends with a session that lasts. Until then nothing is said a second time.
    """

    def __init__(self, name: str, pending: Callable[[], int], retry_max: float, shares: Shares | None = None) -> None:
        """`pending` tells how many readings wait."""
        self._name = shares.label if shares else name
        self._shares = shares
        self._title = shares.title if shares else name
        self._pending = shares.waiting if shares else pending
        self._retry_max = retry_max
        self.connected = False
        self.since = wall_us()
        self.detail = "not tried yet"
        self.attempts = self.tries = 0
        self.state = State.CLOSED
        self.next_try = 0
        """Microseconds since the Unix epoch; 0 unless it is waited for."""
        self.last_error = ""
        self._outage_began = mono_us()
        self._told: dict[str, int] = {}
        self._outage_told: set[str] = set()
        self._flapping = False

    @property
    def outage(self) -> float:
        """Seconds since the last session ended that lasted, or since the start."""
        return (mono_us() - self._outage_began) / 1e6

    def opening(self) -> None:
        """An attempt to connect begins."""
        self.attempts += 1
        self.tries += 1
        self.state, self.next_try = State.OPENING, 0

    def wait(self, seconds: float) -> None:
        """The next attempt comes after so many seconds."""
        self.next_try = wall_us() + round(seconds * 1e6)

    def on(self, line: str) -> None:
        """A session is open."""
        self.state = State.OPENED
        self.connected, self.since, self.detail = True, wall_us(), line
        if "" in self._outage_told:
            self._flapping = True
        else:
            self._outage_told.add("")
            self._say_connected()

    def _say_connected(self) -> None:
        if self._shares is None or self._shares.tells:
            waiting = f"{self._pending():,}"
            log.info(
                "%s: connected after %.0f s, %s readings waiting (%s)", self._title, self.outage, waiting, self.detail
            )

    def stable(self) -> None:
        """The session has lasted: whatever comes is news again."""
        if self._flapping:
            self._say_connected()
        self.attempts = 0
        self._flapping = False
        self._outage_told.clear()

    def off(self, error: EdgedError) -> None:
        """There is no session, or none any more."""
        why = self.last_error = str(error)
        self.state = _state_after(error, connected=self.connected)
        if self.connected:
            self.connected, self.since = False, wall_us()
            if not self._outage_told:
                self._outage_began = mono_us()
        self.detail = why
        if why not in self._outage_told:
            self._outage_told.add(why)
            if self._shares is None or self._shares.tells:
                log.warning("%s: not connected (%s); trying again, up to every %g s", self._title, why, self._retry_max)

    def warn_once(self, text: str) -> None:
        """Log what would otherwise be said for each message; a reminder comes after an hour."""
        now = mono_us()
        if now - self._told.get(text, -_REMIND) < _REMIND:
            return
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told[text] = now
        log.warning("%s: %s", self._name, text)
