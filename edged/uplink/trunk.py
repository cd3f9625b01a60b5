"""One link for all flows of a connection: each flow has its own forwarder, cursor and chain, and they share a session.

Flows come and go while the session lasts. The oldest of them leads: it dials, and its pauses are those of the
connection; the others wait for its session. Among those that take part in a session the first one speaks for the
gateway: it announces, reports, and serves commands. Where it leaves, the next one takes over.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from enum import Enum, auto

from edged.clock import wall_us
from edged.errors import EdgedError, TransientError
from edged.uplink.api import OFFLINE, Link, Message, Outcome, Pacing, Serves, Verdict

_PATIENCE = 60.0
"""Seconds that one that does not lead waits for a session before it says that there is none."""
_SOON = 0.5
"""Seconds until it waits again."""
_EVER = 1e12
"""Seconds."""


class _Phase(Enum):
    CLOSED = auto()
    DIALLING = auto()
    OPEN = auto()
    ENDING = auto()
    """It is over, or being closed; some still take part."""


class Trunk:
    """A link that several share."""

    def __init__(self, name: str, link: Link, waiting: Callable[[], int]) -> None:
        """`name`: the connection's; `waiting` tells how many readings wait for all flows together."""
        self.name = name
        self.link = link
        self.waiting = waiting
        self.branches: list[Branch] = []
        """All there are, the oldest first."""
        self._inside: list[Branch] = []
        self._phase = _Phase.CLOSED
        self._line = ""
        self._over = ""
        """Why the session has ended."""
        self._failed: EdgedError | None = None
        """What the last attempt to connect came to."""
        self._news = asyncio.Event()
        self._slots = asyncio.Semaphore(1)
        self.opened = 0
        """When the session began that is open, microseconds since 1970; 0 if none is."""

    def add(self, branch: Branch) -> None:
        """There is one more."""
        self.branches.append(branch)

    def remove(self, branch: Branch) -> None:
        """It is there no more: somebody else may have to lead."""
        if branch in self.branches:
            self.branches.remove(branch)
            self._tell()

    def leads(self, branch: Branch) -> bool:
        """Whether it is the one that dials."""
        return bool(self.branches) and self.branches[0] is branch

    def speaks(self, branch: Branch) -> bool:
        """Whether it is the one that speaks for the gateway in this session."""
        return bool(self._inside) and self._inside[0] is branch

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def join(self, branch: Branch, epoch: str) -> str:
        """Open a session, or take part in the one that is open. Raises what `Link.connect` raises."""
        failed = self._failed
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._phase is not _Phase.OPEN and not (self._phase is _Phase.CLOSED and self.leads(branch)):
                    if self._failed is not None and self._failed is not failed:
                        raise TransientError(str(self._failed), reason="shared")
                    await self._news.wait()
        except TimeoutError:
            why = str(self._failed) if self._failed else f"{self.name} has no session"
            raise TransientError(why, reason="shared") from None
        if self._phase is not _Phase.OPEN:
            await self._dial(epoch)
        self._inside.append(branch)
        return self._line

    async def _dial(self, epoch: str) -> None:
        self._phase = _Phase.DIALLING
        try:
            self._line = await self.link.connect(epoch)
            self._phase, self._over, self._failed = _Phase.OPEN, "", None
            self.opened = wall_us()
            self._slots = asyncio.Semaphore(max(1, self.link.window))
        except EdgedError as exc:
            self._failed = exc
            raise
        finally:
            if self._phase is not _Phase.OPEN:
                self._phase = _Phase.CLOSED
            self._tell()

    async def leave(self, branch: Branch) -> None:
        """End the session, if nobody else takes part in it."""
        self._inside.remove(branch)
        if not self._inside:
            self._phase, self.opened = _Phase.ENDING, 0
            try:
                await self.link.close()
            finally:
                self._phase = _Phase.CLOSED
        self._tell()

    async def lost(self, branch: Branch) -> str:
        """Wait until the session has ended; returns why."""
        while not self._over:
            if self.speaks(branch):
                self._over = await self.link.lost() or "the session has ended"
                self._phase, self.opened = _Phase.ENDING, 0
                self._tell()
            else:
                await self._news.wait()
        return self._over

    async def send(self, message: Message) -> Outcome:
        """As `Link.send`, never more at once than the link's window."""
        async with self._slots:
            return await self.link.send(message)

    async def serve(self, branch: Branch, slot: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """As `Serves.serve`, from when the branch speaks for the gateway."""
        while not self.speaks(branch):
            await self._news.wait()
        if isinstance(self.link, Serves):
            await self.link.serve(slot)


class Branch:
    """What one flow sees of the link: satisfies `Link`, `Serves` and `edged.uplink.state.Shares`."""

    def __init__(self, trunk: Trunk, label: str, *, strict: bool) -> None:
        """`label`: what it is called in the log; `strict`: everything in one order, whatever the link says."""
        self.label = label
        self._trunk = trunk
        self._strict = strict
        self._inside = False
        trunk.add(self)

    def withdraw(self) -> None:
        """Its flow is there no more, or begins anew with another branch."""
        self._trunk.remove(self)

    @property
    def title(self) -> str:
        """What the session is called in the log: it is the connection's."""
        return self._trunk.name

    @property
    def tells(self) -> bool:
        """Whether the session's changes of state are to be told here: once, not for each flow."""
        return self._trunk.leads(self)

    def waiting(self) -> int:
        """Readings that wait for all flows of the connection."""
        return self._trunk.waiting()

    @property
    def window(self) -> int:
        """Its share of the link's."""
        return max(1, self._trunk.link.window // max(1, len(self._trunk.branches)))

    @property
    def pacing(self) -> Pacing:
        """That of the link. Who does not lead waits for the session of the one who does, so never long."""
        pacing = self._trunk.link.pacing
        if not self._trunk.leads(self):
            longest = pacing.retry_steps[-1][0] if pacing.retry_steps else pacing.retry_max
            pacing = replace(pacing, retry_steps=((_SOON, _EVER), (longest, math.inf)))
        return replace(pacing, strict=True) if self._strict else pacing

    async def connect(self, epoch: str) -> str:
        """Take part in a session."""
        line = await self._trunk.join(self, epoch)
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
        if self._trunk.speaks(self):
            await self._trunk.link.announce()

    async def report(self) -> None:
        """Once, not for each flow."""
        if self._trunk.speaks(self):
            await self._trunk.link.report()

    async def serve(self, slot: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Once, not for each flow."""
        await self._trunk.serve(self, slot)

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        return await self._trunk.lost(self)

    async def close(self) -> None:
        """Take part no longer."""
        if self._inside:
            self._inside = False
            await self._trunk.leave(self)
