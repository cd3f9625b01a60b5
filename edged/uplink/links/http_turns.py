"""Whose turn it is: requests of one lane go one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from edged.uplink.api import Message


class Turns:
    """Who of each lane goes next: one at a time, in the order of asking."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Message]] = {}
        self._changed = asyncio.Event()

    async def take(self, lane: str, message: Message) -> None:
        """Wait for the turn, or go on with one that was kept."""
        queue = self._queues.setdefault(lane, deque())
        if not any(one is message for one in queue):
            queue.append(message)
        try:
            while queue[0] is not message:
                self._changed.clear()
                await self._changed.wait()
        except asyncio.CancelledError:
            self.end(lane, message)
            raise

    def end(self, lane: str, message: Message) -> None:
        """It is the next one's turn."""
        queue = self._queues.get(lane, deque())
        for at, one in enumerate(queue):
            if one is message:
                del queue[at]
                break
        if not queue:
            self._queues.pop(lane, None)
        self._changed.set()


async def unless(lost: asyncio.Future[str], waiting: Coroutine[Any, Any, None]) -> None:
    """Wait for something, or for the end of the session."""
    task = asyncio.create_task(waiting, name="http turn")
    try:
        both: list[asyncio.Future[Any]] = [task, lost]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        await asyncio.wait([task])
