"""Commands over an MQTT session: taken in, stored, then acknowledged; and their results told.

The broker has our word on a message only when its commands are on the disk. It may send so many before that, and keeps
the others itself; so neither a flood nor a slow disk fills the memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from edged.clock import wall_us
from edged.downlink.api import Command, CommandResult, Commands, Dialect, Incoming, Refused, State
from edged.uplink.api import Message, Outcome, Verdict
from edged.uplink.links.mqtt_session import UNACKNOWLEDGED, Session

log = logging.getLogger("edged.commands")

_INBOX = 8 * 2**20
"""Bytes of messages that may wait here, for brokers that send more at once than they were told, or cannot be told."""
_OVERHEAD = 1024
"""Bytes that a message takes here besides its payload, about."""
_AT_ONCE = 8
"""Results that are told at the same time."""
_REFUSALS = 100
"""Answers to what is no command that wait to be told; further ones are dropped."""

Send = Callable[[Message], Awaitable[Outcome]]
Slot = Callable[[], AbstractAsyncContextManager[None]]


class CommandService:
    """What a connection does besides forwarding: takes commands, tells results, and republishes changes."""

    def __init__(
        self,
        name: str,
        dialect: Dialect | None = None,
        commands: Commands | None = None,
        changes: Callable[[], AsyncIterator[Message]] | None = None,
    ) -> None:
        """Without `commands` nothing is subscribed to; `changes` yields messages to publish as they come."""
        self._name = name
        self._dialect = dialect
        self._commands = commands if dialect is not None else None
        self._changes = changes
        self._session: Session | None = None
        self._inbox: asyncio.Queue[tuple[Incoming, int]] = asyncio.Queue()
        self._held = 0
        """Bytes in the inbox."""
        self._refusals: asyncio.Queue[CommandResult] = asyncio.Queue(_REFUSALS)
        self._told: set[str] = set()

    @property
    def keep(self) -> Callable[[Incoming, int], None] | None:
        """For the session: what takes its messages."""
        return self._keep if self._commands is not None else None

    async def begin(self, session: Session) -> str:
        """A session is open: subscribe; returns what the broker refused. Raises TransientError."""
        self._session = session
        topics = self._dialect.topics() if self._dialect is not None and self._commands is not None else ()
        return await session.listen(topics) if topics else ""

    def renew(self) -> None:
        """A new session will bring anew what the last one left without our word."""
        self._inbox = asyncio.Queue()
        self._held = 0

    async def serve(self, send: Send, slot: Slot) -> None:
        """Work for one session, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._changes is not None:
                group.create_task(self._republish(self._changes(), send, slot), name=f"{self._name} monitor")
            if self._commands is not None and self._dialect is not None:
                group.create_task(self._take_all(self._commands, self._dialect), name=f"{self._name} commands")
                group.create_task(self._tell_all(self._commands, self._dialect, send, slot), name=f"{self._name} told")
                group.create_task(self._refuse_all(self._dialect, send, slot), name=f"{self._name} refusals")

    # -- down ------------------------------------------------------------------------------------------------------

    def _keep(self, incoming: Incoming, number: int) -> None:
        size = len(incoming.payload) + _OVERHEAD
        if self._held + size > _INBOX:
            # Not acknowledged, so the broker still has it, and sends it again in another session.
            self._warn_once("the broker sends more commands than it was told to; some wait for the next session")
            return
        self._held += size
        self._inbox.put_nowait((incoming, number))

    async def _take_all(self, commands: Commands, dialect: Dialect) -> None:
        while True:
            some = [await self._inbox.get()]
            while not self._inbox.empty() and len(some) < UNACKNOWLEDGED:
                some.append(self._inbox.get_nowait())
            self._held -= sum(len(incoming.payload) + _OVERHEAD for incoming, _ in some)
            await self._take(commands, dialect, some)

    async def _take(self, commands: Commands, dialect: Dialect, some: list[tuple[Incoming, int]]) -> None:
        """Store what some messages bring, in one go, and acknowledge them in the order in which they came."""
        found: list[Command] = []
        known = False
        try:
            for incoming, _ in some:
                try:
                    found += dialect.decode(incoming)
                except Refused as exc:
                    self._refuse(exc)
            known = True
        finally:
            if not known:  # a dialect that fails on a message would fail again each time the broker repeats it
                self._acknowledge(some)
        await asyncio.gather(*map(commands.submit, found))
        self._acknowledge(some)

    def _acknowledge(self, some: list[tuple[Incoming, int]]) -> None:
        for incoming, number in some:
            if self._session is not None:
                self._session.acknowledge(number, incoming.qos)

    def _refuse(self, why: Refused) -> None:
        self._warn_once(f"a message was no command: {why.detail}")
        result = CommandResult(
            id=why.id, device="", point="", state=State.REJECTED, reason=why.reason, detail=why.detail, time=wall_us(),
            reply=why.reply,
        )  # fmt: skip
        if not self._refusals.full():
            self._refusals.put_nowait(result)

    def _warn_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < _REFUSALS:
            self._told.add(text)
            log.warning("%s: %s", self._name, text)

    # -- up --------------------------------------------------------------------------------------------------------

    async def _tell_all(self, commands: Commands, dialect: Dialect, send: Send, slot: Slot) -> None:
        """Tell results, several at once, each begun in order."""
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            async for result in commands.results():
                await places.acquire()
                task = group.create_task(self._tell(commands, dialect, result, send, slot))
                task.add_done_callback(lambda _: places.release())

    async def _tell(self, commands: Commands, dialect: Dialect, result: CommandResult, send: Send, slot: Slot) -> None:
        for message in dialect.encode(result):
            async with slot():
                outcome = await send(message)
            if outcome.verdict is Verdict.RETRY:
                return  # the next session tells it
            if outcome.verdict is Verdict.REJECTED:
                self._warn_once(f"a result cannot be told: {outcome.detail}")
        commands.told(result)

    async def _refuse_all(self, dialect: Dialect, send: Send, slot: Slot) -> None:
        while True:
            for message in dialect.encode(await self._refusals.get()):
                async with slot():
                    await send(message)

    async def _republish(self, changes: AsyncIterator[Message], send: Send, slot: Slot) -> None:
        async for message in changes:
            async with slot():
                await send(message)
