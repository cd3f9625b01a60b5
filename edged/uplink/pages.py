"""The log, page by page, for one lane; where much waits, the next page is read while this one is being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from edged.buffer.batch import Batch
from edged.uplink.lanes import Route

_READINGS = 5000
"""Readings to fetch from the buffer at a time."""


class Read(Protocol):
    """How a forwarder reads the log: as `Buffer.read`."""

    async def __call__(
        self, after: int, *, through: int | None = None, max_readings: int = ..., target: str = ""
    ) -> list[Batch]:
        """Batches beyond `after`, in order; none only where nothing is left up to the head."""
        ...


class Pages:
    """What a lane has before it. Whoever takes a page moves the route to its end before taking the next."""

    def __init__(self, read: Read, route: Route, head: Callable[[], int]) -> None:
        self._read_log = read
        self._route = route
        self._head = head
        self._ahead: asyncio.Task[tuple[int, list[Batch]]] | None = None

    async def next(self) -> tuple[int, list[Batch]]:
        """(The head before reading, what comes beyond the point that the route has reached). Raises TransientError."""
        route, ahead, self._ahead = self._route, self._ahead, None
        head, batches = await (ahead or self._page(route.reached))
        if route.through is not None and batches and batches[-1].last < route.through:
            self._ahead = asyncio.create_task(self._page(batches[-1].last), name=f"{route.lane} page")
        return head, batches

    async def _page(self, after: int) -> tuple[int, list[Batch]]:
        head, route = self._head(), self._route
        return head, await self._read_log(after, through=route.through, max_readings=_READINGS, target=route.target)

    def close(self) -> None:
        """Read no more."""
        if self._ahead is not None and not self._ahead.cancel() and not self._ahead.cancelled():
            self._ahead.exception()  # has been looked at
