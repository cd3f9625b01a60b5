"""Requests and answers over MQTT: what clouds do with pairs of topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Generic, TypeVar

from edged.config.base import DeviceConfig
from edged.downlink.api import Incoming, Twin
from edged.errors import TransientError
from edged.uplink.api import Message, Pacing, Verdict
from edged.uplink.dialects.twins import Limits, chosen, reported
from edged.uplink.links.mqtt import Broker, MqttLink
from edged.uplink.links.mqtt_commands import Send, Slot

log = logging.getLogger("edged.uplink")

T = TypeVar("T")
_PATIENCE = 15.0
"""Seconds to wait for an answer."""


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
