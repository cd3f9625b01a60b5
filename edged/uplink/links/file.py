"""The link into files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from edged.errors import ConfigError, TransientError
from edged.uplink.api import DELIVERED, OFFLINE, Message, Outcome, Pacing, Verdict
from edged.uplink.links.file_store import Store, Target, key_of

_TOGETHER = 1024 * 1024
"""Bytes of waiting messages to write at once."""


class FileLink:
    """Implements `edged.uplink.api.Link`. Messages that wait are written together: one synchronisation for all.

    Whatever cannot be written ends the session, so that the next one begins with it: a file has only one order, and
    what stands behind in it would be taken for written.
    """

    def __init__(
        self, name: str, target: Target, pacing: Pacing, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """`pacing` must be strict."""
        self._name = name
        self._store = Store(name, target, now)
        self._target = target
        self._pacing = pacing
        self._waiting: list[tuple[Message, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[str] | None = None

    @property
    def window(self) -> int:
        """How many messages may wait for the disk."""
        return self._target.window

    @property
    def pacing(self) -> Pacing:
        """As configured."""
        return self._pacing

    def fits(self, message: Message) -> bool:  # noqa: ARG002  # a file takes all
        """Always."""
        return True

    async def connect(self, epoch: str) -> str:  # noqa: ARG002  # nothing announces the gateway
        """Open the file, and find out what is there."""
        await self._written()
        line = await asyncio.to_thread(self._store.open)
        self._lost = asyncio.get_running_loop().create_future()
        return line

    async def send(self, message: Message) -> Outcome:
        """Append it, unless it is there already, and wait for the disk."""
        if self._lost is None or self._lost.done():
            return Outcome(Verdict.RETRY, OFFLINE, "not connected")
        if int(message.properties["seq"]) <= self._store.written.get(key_of(message), 0):
            return DELIVERED
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(self._lost), name=f"{self._name} file")
        return await asyncio.shield(done)

    async def _write(self, lost: asyncio.Future[str]) -> None:
        """Write what waits, and say what became of it."""
        while self._waiting:
            some = self._some()
            try:
                await asyncio.to_thread(self._store.append, [message for message, _ in some])
                outcome = DELIVERED
            except (ConfigError, TransientError) as exc:
                outcome = Outcome(Verdict.RETRY, OFFLINE, str(exc))
                some += self._waiting
                self._waiting.clear()
                if not lost.done():
                    lost.set_result(str(exc))
            for _, done in some:
                done.set_result(outcome)

    def _some(self) -> list[tuple[Message, asyncio.Future[Outcome]]]:
        """The first ones that wait, up to a limit; they wait no longer."""
        count = size = 0
        for message, _ in self._waiting:
            size += len(message.payload)
            if count and size > _TOGETHER:
                break
            count += 1
        some, self._waiting = self._waiting[:count], self._waiting[count:]
        return some

    async def announce(self) -> None:
        """There is nothing to announce."""

    async def report(self) -> None:
        """There is nothing to report."""

    async def lost(self) -> str:
        """Wait until the file cannot be written any more; returns why."""
        return await asyncio.shield(self._lost) if self._lost else "not connected"

    async def close(self) -> None:
        """Close the file."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result("closed by us")
        await self._written()
        await asyncio.to_thread(self._store.close)

    async def _written(self) -> None:
        """Wait until nothing is being written."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])
