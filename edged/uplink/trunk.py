"""One link for all flows of a connection: each flow has its own forwarder, cursor and chain, and they share a session.

The first forwarder that wants a session opens it, the last that leaves it closes it. While one session comes to its
end, nobody begins the next.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edged.uplink.api import OFFLINE, Link, Message, Outcome, Pacing, Verdict


class Trunk:
    """A link that several share."""

    def __init__(self, link: Link, branches: int) -> None:
        self.link = link
        self.branches = branches
        self._line = ""
        self._inside = 0
        self._over = False
        self._lock = asyncio.Lock()
        self._empty = asyncio.Condition()
        self._slots = asyncio.Semaphore(1)

    async def join(self, epoch: str) -> str:
        """Open a session, or take part in the one that is open. Raises what `Link.connect` raises."""
        async with self._lock:
            async with self._empty:
                await self._empty.wait_for(lambda: not (self._inside and self._over))
            if not self._inside:
                self._line = await self.link.connect(epoch)
                self._over = False
                self._slots = asyncio.Semaphore(max(1, self.link.window))
            self._inside += 1
            return self._line

    async def leave(self) -> None:
        """End the session, if nobody else takes part in it."""
        self._inside -= 1
        if self._inside == 0:
            try:
                await self.link.close()
            finally:
                async with self._empty:
                    self._empty.notify_all()

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        why = await self.link.lost()
        self._over = True
        return why

    async def send(self, message: Message) -> Outcome:
        """As `Link.send`, never more at once than the link's window."""
        async with self._slots:
            return await self.link.send(message)


class Branch:
    """What one flow sees of the link: satisfies `Link`."""

    def __init__(self, trunk: Trunk, *, first: bool, strict: bool) -> None:
        """The `first` of them speaks for the gateway; `strict`: everything in one order, whatever the link says."""
        self._trunk = trunk
        self._first = first
        self._strict = strict
        self._inside = False

    @property
    def window(self) -> int:
        """Its share of the link's."""
        return max(1, self._trunk.link.window // self._trunk.branches)

    @property
    def pacing(self) -> Pacing:
        """That of the link."""
        pacing = self._trunk.link.pacing
        return replace(pacing, strict=True) if self._strict else pacing

    async def connect(self, epoch: str) -> str:
        """Take part in a session."""
        line = await self._trunk.join(epoch)
        self._inside = True
        return line

    def fits(self, message: Message) -> bool:
        """As the link says."""
        return self._trunk.link.fits(message)

    async def send(self, message: Message) -> Outcome:
        """As the link does."""
        if not self._inside:
            return Outcome(Verdict.RETRY, OFFLINE, "not connected")
        return await self._trunk.send(message)

    async def announce(self) -> None:
        """Once, not for each flow."""
        if self._first:
            await self._trunk.link.announce()

    async def report(self) -> None:
        """Once, not for each flow."""
        if self._first:
            await self._trunk.link.report()

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        return await self._trunk.lost()

    async def close(self) -> None:
        """Take part no longer."""
        if self._inside:
            self._inside = False
            await self._trunk.leave()
