"""Whether the machine held us up: only then is a time-out that no test asked for no fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")
_LOOK = 0.01
_LONG = 0.005
"""Seconds late from which on it is more than an ordinary turn of the loop."""
_CHANCES = 20


class Stalls:
    """How often the loop was held up, and for how long altogether."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    async def again(self, attempt: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `attempt` yields; where that is None and we were held up meanwhile, it is tried again."""
        for _ in range(_CHANCES):
            before = self.count
            result = await attempt()
            if result is not None or self.count == before:
                return result
        return None


@asynccontextmanager
async def stalls() -> AsyncIterator[Stalls]:
    """Counted from now on, in this loop."""
    loop, seen = asyncio.get_running_loop(), Stalls()
    due, timer = loop.time() + _LOOK, None

    def look() -> None:
        nonlocal due, timer
        late = loop.time() - due
        if late > _LONG:
            seen.count += 1
            seen.seconds += late
        due = loop.time() + _LOOK
        timer = loop.call_at(due, look)

    timer = loop.call_at(due, look)
    try:
        yield seen
    finally:
        timer.cancel()
