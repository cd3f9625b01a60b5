"""A loop whose clock hardly moves while anything happens, and leaps to the next deadline when nothing does.

For tests of what is timed by the loop alone and waits for nothing outside of it: seconds cost nothing, and a machine
that is held up cannot be told from an idle one. Mark such a test `virtual_time`.
"""

from __future__ import annotations

import asyncio
import selectors

_TURN = 1e-6
"""Seconds that a turn of the loop costs, so that nobody who looks at the clock sees it stand still for ever."""


class _Leaping(selectors.DefaultSelector):
    """Never waits for a deadline: says instead that it has come."""

    moment = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; without a deadline it is waited for, as by other threads."""
        ready = super().select(None if timeout is None else 0)
        self.moment += _TURN + (0 if ready else timeout or 0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Seconds that were waited for."""
        return self._leaping.moment
