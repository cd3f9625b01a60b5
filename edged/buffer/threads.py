"""The buffer's two threads: one that writes, and one that reads as soon as there is something to read."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from edged.clock import mono_us

log = logging.getLogger("edged.buffer")
T = TypeVar("T")
Doing = Literal["commit", "read", "request"]
"""What a thread may be at; a request is what a person asked for, which may take long."""

STOP_SECONDS = 10.0
"""How long the end of the work waits for a disk that does not answer."""


class Threads:
    """Runs what waits for the disk, in the order of asking."""

    def __init__(self) -> None:
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="buffer-write")
        self._reading: ThreadPoolExecutor | None = None
        self._doing: dict[Doing, float] = {}

    def at_work(self) -> Mapping[Doing, float]:
        """What they are doing now, and since when: monotonic seconds."""
        return self._doing.copy()

    async def write(self, doing: Doing, function: Callable[..., T], *args: object) -> T:
        """What the function returns or raises, in the thread that writes."""
        return await self._run(self._writing, doing, function, *args)

    async def read(self, function: Callable[..., T], *args: object) -> T:
        """What the function returns or raises, in the thread that reads."""
        if self._reading is None:
            self._reading = ThreadPoolExecutor(1, thread_name_prefix="buffer-read")
        return await self._run(self._reading, "read", function, *args)

    async def stop(self, close_reader: Callable[[], None], close_writer: Callable[[], None]) -> None:
        """Close both ends, each within `STOP_SECONDS`."""
        if self._reading:
            await self._finish(self._reading, close_reader)
        await self._finish(self._writing, close_writer)

    def abandon(self) -> None:
        """End without having opened anything."""
        self._writing.shutdown(wait=False)

    async def _finish(self, thread: ThreadPoolExecutor, close: Callable[[], None]) -> None:
        closing = asyncio.get_running_loop().run_in_executor(thread, close)
        await asyncio.wait({closing}, timeout=STOP_SECONDS)
        thread.shutdown(wait=False)
        if closing.done() and isinstance(closing.exception(), sqlite3.Error):
            log.error("the buffer could not be closed properly: %s", closing.exception())

    async def _run(self, thread: ThreadPoolExecutor, doing: Doing, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, self._timed, doing, function, *args)

    def _timed(self, doing: Doing, function: Callable[..., T], *args: object) -> T:
        self._doing[doing] = mono_us() / 1e6
        try:
            return function(*args)
        finally:
            del self._doing[doing]
