"""Whether everything makes progress. While it does, systemd's watchdog is fed; a gateway that is stuck starts again.

Progress means: **a piece of work that has begun ends within its limit.** Waiting for a deadline, for readings to send
or for the next attempt is no work; a receiver that says "not now" and a disk that takes nothing explain themselves.
Limits lie far above what may legally take long: a slow device, a dead one, a card that thinks for a minute, a broker
that cannot be reached all end by time-outs of their own, long before. Only what those do not catch is left: a driver
that never returns, a lost wake-up, a thread that hangs. That the event loop itself runs is shown by the feeding.

Pure, but for `Watchdog.run`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edged.clock import mono_us
from edged.notify import notify

log = logging.getLogger("edged.watchdog")

LIMIT = 300.0
"""Seconds that one poll since its last request, one commit, one attempt to connect, one message since the last verdict
on any, or one look into the buffer may take, beyond the time-outs that are configured for it."""
REQUEST_LIMIT = 3600.0
"""Seconds for what a person asked the buffer to do, such as rewriting or verifying all of it."""
_TIMEOUTS = 3.0
"""How often one poll or attempt may run into the same time-out: retries, and what is tried in another way."""
_LOOK = 10.0
"""Seconds between two looks, at most."""


@dataclass(frozen=True, slots=True)
class Work:
    """Something that is being done."""

    what: str
    """Such as `bus line-a: polling`."""
    since: float
    """Monotonic seconds: when it began, or last showed a sign of life."""
    limit: float
    """Seconds that it may take from then on."""

    def overdue(self, now: float) -> float:
        """By how many seconds it is late; not above 0 while it is not."""
        return now - self.since - self.limit


def limit_for(*waits: float) -> float:
    """The limit of something that has these time-outs."""
    return LIMIT + _TIMEOUTS * sum(waits)


def stalled(work: Iterable[Work], now: float) -> dict[str, str]:
    """What does not come to its end → how that is told to people."""
    return {
        one.what: f"{one.what} has shown no progress for {now - one.since:.0f} s (limit {one.limit:.0f} s)"
        for one in work
        if one.overdue(now) > 0
    }


def interval(environment: Mapping[str, str], pid: int) -> float:
    """Seconds between two looks: often enough for the watchdog that systemd runs for this process, if it does."""
    period = environment.get("WATCHDOG_USEC", "")
    if not period.isdigit() or environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return _LOOK
    return min(_LOOK, int(period) / 1e6 / 3)


class Watchdog:
    """Looks at all work from time to time, and feeds the watchdog unless some of it is stalled."""

    def __init__(self, work: Callable[[], Iterable[Work]]) -> None:
        """`work`: everything that is being done at the moment."""
        self._work = work
        self._stalled: dict[str, str] = {}

    def stalled(self) -> list[str]:
        """What did not make progress at the last look, for people."""
        return list(self._stalled.values())

    def look(self, now: float) -> bool:
        """Judge; returns whether to feed. Tells of changes."""
        found = stalled(self._work(), now)
        for what in found.keys() - self._stalled.keys():
            log.error("%s; the watchdog is not fed any more, so that systemd starts edged again", found[what])
        for what in self._stalled.keys() - found.keys():
            log.warning("%s goes on", what)
        self._stalled = found
        return not found

    async def run(self) -> None:
        """Look and feed until cancelled."""
        pause = interval(os.environ, os.getpid())
        while True:
            if self.look(mono_us() / 1e6):
                notify("WATCHDOG=1")
            else:
                notify(f"STATUS={'; '.join(self.stalled())}")
            await asyncio.sleep(pause)
