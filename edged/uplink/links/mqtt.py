"""The MQTT link: sessions with one broker, one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from edged.clock import wall_us
from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import OFFLINE, TOO_LARGE, Message, Outcome, Pacing, Verdict
from edged.uplink.links import reasons
from edged.uplink.links.mqtt_commands import CommandService, Slot
from edged.uplink.links.mqtt_session import V5, V311, Accepted, Broker, Session, Version
from edged.uplink.links.reach import unreachable
from edged.uplink.links.tls import Tls, files_of, make_context

__all__ = ["Announcer", "Broker", "MqttLink"]

log = logging.getLogger("edged.uplink")

_NOTES = 5
_PART = 4
"""A quarter of the window at most is for what is left to say of the devices."""


class Announcer(Protocol):
    """What to say at the beginning and the end of a session. `time`: microseconds since the Unix epoch."""

    def greeting(self, epoch: str, time: int) -> Iterable[Message]:
        """What to say when a session is open: what matters most comes first, for readings wait for the first ones."""
        ...

    def health(self, epoch: str, time: int) -> Message:
        """What to say from time to time: how the counters stand."""
        ...

    def will(self, epoch: str, time: int) -> Message | None:
        """What the broker is to say when the session breaks; None: nothing."""
        ...

    def farewell(self, epoch: str, time: int) -> Message | None:
        """What to say before the session is closed; None: nothing."""
        ...


def _refuses_version(answer: Accepted | str) -> bool:
    return isinstance(answer, str) or answer.code == reasons.UNSUPPORTED_VERSION


class MqttLink:
    """Sessions with one broker, one after the other. Implements `edged.uplink.api.Link`."""

    def __init__(
        self, name: str, broker: Broker, announcer: Announcer, pacing: Pacing, service: CommandService | None = None
    ) -> None:
        """`service`: what the connection does besides, if anything."""
        self._name = name
        self._broker = broker
        self._announcer = announcer
        self._pacing = pacing
        self._service = service
        self._session: Session | None = None
        self._unsaid: Iterator[Message] = iter(())
        """What is left of the greeting: readings do not wait for it."""
        self._refused_some = False
        """Whether it was told that the broker did not take some of that."""
        self._epoch = ""
        self._protocol = V311 if broker.protocol == "3.1.1" else V5
        self._retain = True
        self._fallbacks = 0

    @property
    def window(self) -> int:
        """How many messages may be in flight."""
        return max(1, min(self._broker.window, self._session.receive_maximum)) if self._session else self._broker.window

    @property
    def pacing(self) -> Pacing:
        """As configured."""
        return self._pacing

    def fits(self, message: Message) -> bool:
        """Whether broker and configuration allow a message of this size."""
        session = self._session
        if len(message.payload) > self._broker.max_message:
            return False
        return session is None or not session.max_packet or session.size(message) <= session.max_packet

    # -- connecting ------------------------------------------------------------------------------------------------

    async def connect(self, epoch: str) -> str:
        """Open a session, in another way where the broker refuses the first, and announce the gateway."""
        await self._wait_for_thread()
        will = self._announcer.will(epoch, wall_us())
        protocol = self._protocol
        accepted = await self._attempt(protocol, will)
        if self._broker.protocol == "auto" and protocol is V5 and _refuses_version(accepted):
            protocol, refused = V311, not isinstance(accepted, str)
            accepted = await self._attempt(protocol, will)
            self._adopt(accepted, refused=refused)
        if isinstance(accepted, Accepted) and accepted.code == reasons.RETAIN_NOT_SUPPORTED and self._retain:
            self._retain = False
            accepted = await self._attempt(protocol, will)
        if isinstance(accepted, str):
            raise TransientError(f"{self._where} {accepted}", reason="closed")
        if accepted.code != 0:
            raise self._refused(accepted)
        self._epoch = epoch
        version = "MQTT 5" if protocol is V5 else "MQTT 3.1.1, which cannot report refused messages"
        resumed = ["session resumed"] if accepted.session_present else []
        return ", ".join([version, *resumed, *await self._begin(accepted)])

    def _adopt(self, accepted: Accepted | str, *, refused: bool) -> None:
        """Stay with 3.1.1 when 5 was refused in so many words.

        An old broker may also hang up or say nothing; but a broker that is just starting does so too, and with 5 we
        know more. So this must have happened twice.
        """
        if isinstance(accepted, Accepted) and accepted.code == 0:
            self._fallbacks += 1
            if refused or self._fallbacks > 1:
                self._protocol = V311

    async def _wait_for_thread(self) -> None:
        """A look-up of a name cannot be cancelled; never let a second one begin beside it."""
        dialling = self._session.dialling if self._session else None
        if dialling is not None:
            await asyncio.wait([dialling], timeout=self._broker.connect_timeout)
            if not dialling.done():
                raise TransientError(f"looking up {self._broker.host} still hangs: does name resolution work here?")

    async def _attempt(self, protocol: Version, will: Message | None) -> Accepted | str:
        """The broker's answer to one CONNECT, or what happened instead of one. Raises EdgedError."""
        broker, keep = self._broker, None
        if self._service is not None:
            self._service.renew()
            keep = self._service.keep
        session = self._session = Session(broker, protocol, will, retain=self._retain, keep=keep)
        try:
            return await session.open()
        except (OSError, UnicodeError) as exc:
            raise unreachable(
                exc, self._where, broker.host, broker.connect_timeout, "broker", tls=broker.tls is not None
            ) from exc

    @property
    def _where(self) -> str:
        return self._broker.url

    def _refused(self, accepted: Accepted) -> EdgedError:
        known = accepted.properties
        return reasons.connack(
            accepted.code,
            self._where,
            client_id=self._broker.client_id,
            reference=known.get("ServerReference", ""),
            text=known.get("ReasonString", ""),
        )

    async def _begin(self, accepted: Accepted) -> list[str]:
        """Take over what the broker wants, and announce the gateway; returns what a person should know."""
        begun = False
        try:
            if accepted.properties.get("MaximumQoS", 2) == 0:
                raise PermanentError(
                    f"{self._where} does not support QoS 1, without which delivery is not certain", reason="qos"
                )
            refused = await self._service.begin(self._session) if self._service and self._session else ""
            notes = [refused] if refused else []
            notes += await self._greet()
            begun = True
            return notes
        finally:
            if not begun:
                await self.close()

    async def _greet(self) -> list[str]:
        session, notes = self._session, []
        if session is None:
            return []
        if not session.retain:
            notes.append("the broker retains nothing, so status and metadata are not kept")
        self._unsaid = iter(self._announcer.greeting(self._epoch, wall_us()))
        some = list(islice(self._unsaid, self.window))
        outcomes = await asyncio.gather(*map(self.send, some))
        if session.ended.done():
            raise TransientError(f"{self._where}: {session.ended.result()}", reason="closed")
        notes += [
            f"{message.topic} not published: {outcome.detail}"
            for message, outcome in zip(some, outcomes, strict=True)
            if outcome.verdict is not Verdict.DELIVERED
        ]
        return notes[:_NOTES]

    async def _say_the_rest(self, slot: Slot) -> None:
        """Of 100,000 devices the metadata take minutes."""
        for message in self._unsaid:
            async with slot():
                outcome = await self.send(message)
            if outcome.verdict is Verdict.RETRY:
                return  # the session is over
            if outcome.verdict is Verdict.REJECTED and not self._refused_some:
                self._refused_some = True
                log.warning("%s: %s not published: %s", self._name, message.topic, outcome.detail)

    # -- a session -------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Outcome:
        """Publish and wait for the broker's word, or for the end of the session."""
        session = self._session
        if session is None:
            return Outcome(Verdict.RETRY, OFFLINE, "not connected")
        if not self.fits(message):
            return Outcome(Verdict.REJECTED, TOO_LARGE, "larger than the broker or `max_message` allows")
        return await session.deliver(message)

    async def announce(self) -> None:
        """Publish status and metadata again, one message after the other."""
        for message in self._announcer.greeting(self._epoch, wall_us()):
            await self.send(message)

    async def report(self) -> None:
        """Publish the counters."""
        await self.send(self._announcer.health(self._epoch, wall_us()))

    async def serve(self, slot: Slot) -> None:
        """See `edged.uplink.api.Serves`."""
        async with asyncio.TaskGroup() as group:
            for number in range(max(1, self.window // _PART)):
                group.create_task(self._say_the_rest(slot), name=f"{self._name} metadata {number}")
            if self._service is not None:
                group.create_task(self._service.serve(self.send, slot), name=f"{self._name} service")
            if self._broker.tls is not None:
                group.create_task(self._watch_files(self._broker.tls), name=f"{self._name} certificates")

    async def _watch_files(self, tls: Tls) -> None:
        """Connect anew when certificate, key or authorities are renewed, and belong together."""
        session, before, told = self._session, await asyncio.to_thread(files_of, tls), ""
        while session is not None and not session.ended.done():
            await asyncio.sleep(self._broker.renewal)
            if await asyncio.to_thread(files_of, tls) == before:
                continue
            try:
                await asyncio.to_thread(make_context, tls)
            except EdgedError as exc:
                if str(exc) != told:
                    told = str(exc)
                    log.warning("%s: a certificate has changed, but cannot be used yet: %s", self._name, exc)
                continue
            log.info("%s: a certificate has been renewed: connecting anew", self._name)
            await session.leave(None)

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        return await asyncio.shield(self._session.ended) if self._session else "not connected"

    async def close(self) -> None:
        """Say good-bye and close, within a limited time."""
        session = self._session
        if session is not None:
            await session.leave(self._announcer.farewell(self._epoch, wall_us()))
