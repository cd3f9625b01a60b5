"""Until when a command may be carried out, by clocks that may be wrong. Pure.

Two clocks count. The boot's own clock counts rightly, suspension included, but begins anew with each boot. The wall
clock goes on over boots, but only while it is trusted. Whoever cannot tell how old a command is does not execute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edged.downlink.api import Command
from edged.errors import PermanentError

LONGEST = 31 * 86_400
"""Seconds. A command whose time is longer than this could not be remembered for so long."""
_MOST = 1e12
"""Seconds beyond which nobody means what he says."""


@dataclass(frozen=True, slots=True)
class Now:
    """One moment by all clocks, microseconds."""

    wall: int
    trusted: bool
    """Whether `wall` can be believed."""
    boottime: int
    boot: str
    """Which boot it is."""


class Due(Enum):
    """What the clocks say of a command."""

    YES = "yes"
    TOO_LATE = "too late"
    UNKNOWN = "unknown"
    """Nobody can tell until the wall clock is set."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a command expires."""

    boottime: int
    boot: str
    wall: int | None
    """None if the wall clock was not trusted when it came."""
    absolute: bool
    """Whether `wall` is what the sender said, and so counts in this boot as well."""

    def due(self, now: Now) -> Due:
        """Whether the command may be carried out now."""
        if now.boot != self.boot and self.wall is not None and not now.trusted:
            return Due.UNKNOWN
        return Due.YES if self.left(now) > 0 else Due.TOO_LATE

    def left(self, now: Now) -> float:
        """Seconds for which it may still be carried out by the clocks that can tell; 0 or less if it may not."""
        here, left = now.boot == self.boot, []
        if here:
            left.append(self.boottime - now.boottime)
        if self.wall is not None and now.trusted and (self.absolute or not here):
            left.append(self.wall - now.wall)
        return min(left, default=0) / 1e6


def deadline_of(command: Command, now: Now) -> Deadline:
    """When a command that comes now expires. Raises PermanentError if it does not say, or that cannot be known."""
    if command.expires is None and command.valid_for is None:
        raise PermanentError(
            "it does not say until when it may be carried out: give `expires`, `time` and `ttl`, or MQTT 5's message "
            "expiry", reason="expiry",
        )  # fmt: skip
    if command.expires is not None and not now.trusted:
        raise PermanentError("the gateway's clock is not set, so it cannot tell how old this is", reason="clock")
    if command.valid_for is not None and not abs(command.valid_for) <= _MOST:  # NaN is not, either
        raise PermanentError(f"{command.valid_for} s is no time that it could wait", reason="expiry")
    left = [] if command.valid_for is None else [round(command.valid_for * 1e6)]
    if command.expires is not None:
        left.append(command.expires - now.wall)
    if min(left) > LONGEST * 1_000_000:
        raise PermanentError(f"it may wait for {LONGEST // 86_400} days at most", reason="expiry")
    wall = now.wall + min(left) if now.trusted else None
    return Deadline(now.boottime + min(left), now.boot, wall, absolute=command.expires is not None)
