"""The MQTT link of a Sparkplug B edge node: births and deaths, `seq`, rebirths, and the primary host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson

from edged.clock import wall_us
from edged.downlink.api import Incoming, Twin
from edged.errors import TransientError
from edged.uplink.api import OFFLINE, TOO_LARGE, Message, Outcome, Pacing, Verdict
from edged.uplink.dialects import sparkplug_payload as payload
from edged.uplink.dialects.sparkplug import NAMESPACE, REBIRTH, Node, SparkplugMessage, all_down
from edged.uplink.links.mqtt import Broker, MqttLink
from edged.uplink.links.mqtt_commands import CommandService
from edged.uplink.links.mqtt_session import Session, Waiting

_SEQS = 256
_STAMP = 12
"""Bytes that time and `seq` take at most."""
_BETWEEN_BIRTHS = 1.0
"""Seconds from one birth to the next at least, however often hosts ask."""


class _Deaths:
    """The will and the farewell: NDEATH with the `bdSeq` of the session, 0 at first [topics-nbirth-bdseq-increment]."""

    def __init__(self, node: Node, counters: Callable[[], Mapping[str, int]]) -> None:
        self._node = node
        self._counters = counters
        self.bdseq = -1

    def greeting(self, epoch: str, time: int) -> Sequence[Message]:  # noqa: ARG002  # the link's own births take its place
        return ()

    def health(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # Sparkplug knows no epoch
        return self._node.node_data(self._counters(), time)

    def will(self, epoch: str, time: int) -> Message:  # as above
        self.bdseq = (self.bdseq + 1) % _SEQS
        return self.farewell(epoch, time)

    def farewell(self, epoch: str, time: int) -> Message:  # noqa: ARG002  # as above
        death = self._node.node_death(self.bdseq)
        return replace(death, payload=payload.stamped(death.payload, time, None))


class PrimaryHost:
    """What is known of the host without which nothing is to be sent (5.2, `STATE`)."""

    def __init__(self, name: str) -> None:
        """An empty name: there is none to wait for."""
        self.name = name
        self.changed = asyncio.Event()
        self.online = not name
        self._time = -1

    @property
    def topic(self) -> str:
        """Where it says so."""
        return f"{NAMESPACE}/STATE/{self.name}"

    def forget(self) -> None:
        """A new session: the broker tells anew, by a retained message."""
        self.online, self._time = not self.name, -1

    def take(self, content: bytes) -> None:
        """A STATE message. One that is older than another before it says nothing [host-topic-phid-death-payload]."""
        try:
            state = orjson.loads(content)
            online, time = state["online"], state["timestamp"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        if isinstance(online, bool) and isinstance(time, int) and time >= self._time:
            self.online, self._time = online, time
            self.changed.set()


class SparkplugLink(MqttLink):
    """Sessions with one broker as an edge node. Implements `edged.uplink.api.Link`."""

    def __init__(  # each is one thing that a session depends on
        self, name: str, broker: Broker, pacing: Pacing, node: Node, *, primary_host: str = "",
        counters: Callable[[], Mapping[str, int]] = dict, twin: Twin | None = None,
        service: CommandService | None = None,
    ) -> None:  # fmt: skip
        self._deaths = _Deaths(node, counters)
        super().__init__(name, broker, self._deaths, pacing, service)
        self._node = node
        self._counters = counters
        self._twin = twin
        self._host = PrimaryHost(primary_host)
        self._seq = 0
        self._alive: set[str] = set()
        self._order = asyncio.Lock()
        """Held while a message gets its `seq`, and for as long as births last: nobody may come between them."""
        self._asked = asyncio.Event()

    @property
    def window(self) -> int:
        """One less than the broker allows: that one is for births and deaths."""
        return max(1, super().window - 1)

    def fits(self, message: Message) -> bool:
        """As in the base class, with the time and the `seq` that it is still to get."""
        return super().fits(replace(message, payload=message.payload + bytes(_STAMP)))

    # -- the beginning ---------------------------------------------------------------------------------------------

    async def _greet(self) -> list[str]:
        """Subscribe, wait for the primary host, give birth, in this order [message-flow-edge-node-ncmd-subscribe]."""
        session = self._session
        if session is None:
            return []
        self._host.forget()
        self._asked.clear()
        session.take = self._take
        topics = [(self._node.topic("NCMD"), 1)]
        topics += [(self._host.topic, 1)] if self._host.name else []
        notes = [note] if (note := await session.listen(topics)) else []
        await self._wait_for_host(session)
        async with self._order:
            notes += await self._give_birth(session, at_once=self.window)
        if session.ended.done():
            raise TransientError(f"{self._where}: {session.ended.result()}", reason="closed")
        return notes

    async def _wait_for_host(self, session: Session) -> None:
        """Raises TransientError if it is not online soon: until then the buffer keeps everything."""
        try:
            async with asyncio.timeout(self._broker.connect_timeout):
                while not self._host.online and not session.ended.done():
                    self._host.changed.clear()
                    await _first(self._host.changed.wait(), session.ended)
        except TimeoutError:
            raise TransientError(self._offline, reason="host") from None

    @property
    def _offline(self) -> str:
        return f"the primary host {self._host.name!r} is not online; until it is, the readings are kept here"

    def _take(self, incoming: Incoming) -> bool:
        if incoming.topic == self._host.topic:
            self._host.take(incoming.payload)
            return True
        if incoming.topic != self._node.topic("NCMD"):
            return False
        with suppress(ValueError):  # what is no payload asks for nothing
            metrics = payload.parse(incoming.payload).metrics
            if any(metric.name == REBIRTH and metric.value is True for metric in metrics):
                self._asked.set()
        return True

    # -- births and deaths -----------------------------------------------------------------------------------------

    async def _give_birth(self, session: Session, *, at_once: int = 1) -> list[str]:
        """NBIRTH and all DBIRTHs, up to `at_once` under way. The lock is held. Returns what was refused, for people."""
        node, now = self._node, wall_us()
        there, gone = node.refresh()
        for device in gone:
            await self._die(session, device)
        self._seq = 0
        begun = [self._publish(session, node.node_birth(self._deaths.bdseq, self._counters(), now))]
        notes: list[str] = []
        down = []
        for device in there:
            known = await self._twin.device(device) if self._twin else {}
            down += [device] if all_down(known) else []
            if len(begun) >= at_once:
                notes += _refused(await session.confirmed(begun.pop(0)))
            begun.append(self._publish(session, node.device_birth(device, known, now)))
        for one in begun:
            notes += _refused(await session.confirmed(one))
        self._alive = set(there)
        for device in down:  # hosts now know its metrics, and are not to take it for one that answers
            await self._die(session, device)
        return notes[:5]

    async def _die(self, session: Session, device: str) -> None:
        if device in self._alive:
            self._alive.discard(device)
            await session.confirmed(self._publish(session, self._node.device_death(device)))

    async def _revive(self, session: Session, device: str) -> None:
        """A birth of this device, if it has none, or not as its data now are."""
        if device and (device not in self._alive or device in self._node.due):
            known = await self._twin.device(device) if self._twin else {}
            self._alive.add(device)
            await session.confirmed(self._publish(session, self._node.device_birth(device, known, wall_us())))

    # -- a session -------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Outcome:
        """Publish with the time and the next `seq`, after a birth where one is due, and wait for the broker's word."""
        session = self._session
        if session is None:
            return Outcome(Verdict.RETRY, OFFLINE, "not connected")
        if not self.fits(message):
            return Outcome(Verdict.REJECTED, TOO_LARGE, "larger than the broker or `max_message` allows")
        async with self._order:
            if not isinstance(message, SparkplugMessage):
                begun = self._publish(session, message)
            else:
                await self._revive(session, message.device)
                begun = self._publish(session, self._current(message))
                if message.down:
                    await self._die(session, message.device)
        return await session.confirmed(begun)

    def _current(self, message: SparkplugMessage) -> Message:
        """The message as the last birth wants it: types may be others now, and its values older than those told."""
        if message.births == self._node.births or message.chunk is None or message.envelope is None:
            return message
        return self._node.encode(message.chunk, message.envelope)

    def _publish(self, session: Session, message: Message) -> Outcome | Waiting:
        """Give it the time and its `seq`; the lock is held."""
        stamped = payload.stamped(message.payload, wall_us(), self._seq)
        begun = session.publish_now(replace(message, payload=stamped))
        if isinstance(begun, Waiting):
            self._seq = (self._seq + 1) % _SEQS
        return begun

    async def report(self) -> None:
        """Publish the counters, and the death of each device that was born only for its past."""
        await super().report()
        session, twin = self._session, self._twin
        if session is None or twin is None:
            return
        for device in sorted(self._alive):
            if all_down(await twin.device(device)):
                async with self._order:
                    await self._die(session, device)

    async def announce(self) -> None:
        """Births of everything, because devices have changed."""
        session = self._session
        if session is not None:
            async with self._order:
                await self._give_birth(session)

    async def lost(self) -> str:
        """Wait until the session has ended, giving birth as often as hosts ask; returns why it ended."""
        session = self._session
        if session is None:
            return "not connected"
        while not session.ended.done():
            self._host.changed.clear()
            if not self._host.online:
                return self._offline
            await _first(self._asked.wait(), self._host.changed.wait(), session.ended)
            if self._asked.is_set() and not session.ended.done():
                await self.announce()
                self._asked.clear()
                await _first(asyncio.sleep(_BETWEEN_BIRTHS), session.ended)
        return session.ended.result()


async def _first(*waits: Any) -> None:
    """Wait until one of these is done; the coroutines among them are ended, a future is left as it is."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if isinstance(task, asyncio.Task):
                task.cancel()


def _refused(outcome: Outcome) -> list[str]:
    return [f"a birth was not published: {outcome.detail}"] if outcome.verdict is Verdict.REJECTED else []
