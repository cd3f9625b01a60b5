"""Requests and answers over MQTT, and the documents that clouds keep by them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any, Generic, NamedTuple, TypeVar

from edged.config.base import DeviceConfig
from edged.downlink.api import Incoming, Twin
from edged.errors import TransientError
from edged.uplink.api import Message, Outcome, Pacing, Verdict
from edged.uplink.dialects.twins import Limits, chosen, reported
from edged.uplink.links.mqtt import Announcer, Broker, MqttLink
from edged.uplink.links.mqtt_commands import CommandService, Send, Slot

log = logging.getLogger("edged.uplink")

T = TypeVar("T")
_PATIENCE = 15.0
"""Seconds to wait for an answer."""
_GAP = 0.5
"""Seconds between two looks at the twin at least."""


class Replies(Generic[T]):
    """Who waits for which answer."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[T]] = {}

    def settle(self, key: str, answer: T) -> None:
        """An answer has come; without effect when nobody waits for it any more."""
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def ask(
        self, key: str, message: Message, send: Send, slot: Slot | None = None, *, patience: float = _PATIENCE
    ) -> T:
        """Send a request and wait for its answer. Raises TransientError if none comes."""
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        place: Callable[[], AbstractAsyncContextManager[None]] = slot or nullcontext
        try:
            async with place():
                outcome = await send(message)
            if outcome.verdict is not Verdict.DELIVERED:
                raise TransientError(f"{message.topic} was not sent: {outcome.detail}", reason=outcome.reason)
            async with asyncio.timeout(patience):
                return await waiting
        except TimeoutError:
            raise TransientError(f"there is no answer to {message.topic}", reason="silent") from None
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]


class _Silent:
    """Says nothing of the gateway."""

    def greeting(self, epoch: str, time: int) -> Sequence[Message]:  # noqa: ARG002  # as the protocol has it
        return ()

    def health(self, epoch: str, time: int) -> Message:  # never asked for: nothing is forwarded
        raise NotImplementedError

    def will(self, epoch: str, time: int) -> None:  # noqa: ARG002  # likewise
        return None

    def farewell(self, epoch: str, time: int) -> None:  # noqa: ARG002  # likewise
        return None


class RequestLink(MqttLink):
    """A session only for requests, such as the one in which a gateway is provisioned."""

    def __init__(self, name: str, broker: Broker, topics: Sequence[str], take: Callable[[Incoming], bool]) -> None:
        """`topics`: where answers come; `take` gets them."""
        super().__init__(name, broker, _Silent(), Pacing())
        self._topics = topics
        self._taker = take

    async def _greet(self) -> list[str]:
        if self._session is None:
            return []
        self._session.take = self._taker
        refused = await self._session.listen([(topic, 1) for topic in self._topics])
        if refused:
            raise TransientError(f"{self._where}: {refused}", reason="refused")
        return []


class Reported:
    """What the twin knows of the points that a cloud's document has."""

    def __init__(
        self, name: str, twin: Twin, devices: Mapping[str, DeviceConfig], patterns: Sequence[str], limits: Limits
    ) -> None:
        """`devices` as they are at the moment of asking."""
        self._name = name
        self._twin = twin
        self._devices = devices
        self._patterns = patterns
        self._limits = limits
        self._left_out = 0

    async def document(self) -> dict[str, Any]:
        """As it should be now."""
        known = {}
        for device, points in chosen(self._devices, self._patterns).items():
            twin = await self._twin.device(device)
            known[device] = {point: twin[point] for point in points if point in twin}
        document, left_out = reported(known, self._limits)
        if left_out > self._left_out:
            log.warning(
                "%s: there is no room for %d points in the document that the cloud keeps: choose fewer",
                self._name, left_out,
            )  # fmt: skip
        self._left_out = left_out
        return document


class Trouble(NamedTuple):
    """Why a document is not as it should be."""

    text: str
    """For people; empty where it is not worth a word."""
    patience: float = 1.0
    """How many times the usual pause to wait before the next try."""


class Keeper:
    """Keeps a cloud's document of our points up to date, by one change at a time and not more often than wanted."""

    what: str
    """What the document is called, for people."""

    def __init__(self, name: str, every: float) -> None:
        """`every`: seconds between two changes, at least, unless a command has just been carried out."""
        self._name = name
        self._every = every
        self._count = 0
        self._complaint = ""
        self.hurry = asyncio.Event()
        """Set when there may be something new."""

    @property
    def topics(self) -> Sequence[str]:
        """Where answers come."""
        raise NotImplementedError

    def take(self, incoming: Incoming) -> bool:
        """Whether this was an answer that nobody else needs."""
        raise NotImplementedError

    def concerns(self, message: Message) -> bool:
        """Whether this message tells the result of a command, so that there may be something new."""
        raise NotImplementedError

    def forget(self) -> None:
        """What the document says is not known any more."""
        raise NotImplementedError

    async def keep_up(self, send: Send, slot: Slot) -> Trouble | None:
        """Make the document as it should be. May raise TransientError."""
        raise NotImplementedError

    def token(self) -> str:
        """The mark of a new request."""
        self._count += 1
        return f"edged-{self._count}"

    async def run(self, send: Send, slot: Slot) -> None:
        """Work for one session, until cancelled."""
        self.forget()
        while True:
            try:
                trouble = await self.keep_up(send, slot)
            except TransientError as exc:
                trouble = Trouble(str(exc))
            if trouble is not None:
                self.forget()
            self._complain(trouble.text if trouble else "")
            await self._rest(self._every * (trouble.patience if trouble else 1))

    async def _rest(self, pause: float) -> None:
        await asyncio.sleep(_GAP)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause - _GAP):
                await self.hurry.wait()
        self.hurry.clear()

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            if text:
                log.warning("%s: %s", self._name, text)
            else:
                log.info("%s: the %s is kept up to date again", self._name, self.what)
            self._complaint = text


class KeepingLink(MqttLink):
    """Sessions in which a document is kept, if there is one."""

    def __init__(  # each is one thing that a session depends on
        self, name: str, broker: Broker, announcer: Announcer, pacing: Pacing, service: CommandService,
        keeper: Keeper | None,
    ) -> None:  # fmt: skip
        super().__init__(name, broker, announcer, pacing, service)
        self._keeper = keeper

    async def _greet(self) -> list[str]:
        notes = []
        if self._session is not None and self._keeper is not None:
            self._session.take = self._keeper.take
            if refused := await self._session.listen([(topic, 1) for topic in self._keeper.topics]):
                notes.append(refused)
        return [*notes, *await super()._greet()]

    async def send(self, message: Message) -> Outcome:
        """As in the base class. After the result of a command the new value is reported soon."""
        outcome = await super().send(message)
        if self._keeper is not None and self._keeper.concerns(message):
            self._keeper.hurry.set()
        return outcome

    async def serve(self, slot: Slot) -> None:
        """Besides commands: the document."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().serve(slot), name=f"{self._name} commands")
            if self._keeper is not None:  # what it sends itself is nothing new to it
                group.create_task(self._keeper.run(super().send, slot), name=f"{self._name} {self._keeper.what}")
