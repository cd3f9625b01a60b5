"""The MQTT link to AWS IoT Core: provisioned by claim where that is wanted, and a shadow kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edged.config.compiled import store
from edged.downlink.api import Incoming
from edged.errors import ConfigError, PermanentError, TransientError
from edged.uplink.api import Message, Outcome, Pacing, Verdict
from edged.uplink.dialects.aws import (
    CREATE,
    OWN_TOPICS,
    Credentials,
    Shadow,
    ShadowRefusedError,
    check_topic,
    refusal,
    register_topic,
    registration,
    thing_of,
)
from edged.uplink.links.exchange import Keeper, KeepingLink, Replies, Reported, RequestLink, Trouble
from edged.uplink.links.mqtt import Announcer, Broker
from edged.uplink.links.mqtt_commands import CommandService, Send, Slot

log = logging.getLogger("edged.uplink")

_FILE, _CERTIFICATE = "credentials.json", "certificate.pem"


@dataclass(frozen=True, slots=True)
class Claim:
    """How a gateway without credentials gets some."""

    broker: Broker
    """As which to ask: with the claim's certificate."""
    template: str
    parameters: Mapping[str, str]


class Provisioner:
    """Gets the credentials of this gateway, once. They are kept with their key in a folder of the connection."""

    def __init__(self, name: str, claim: Claim, folder: Path) -> None:
        self._name = name
        self._claim = claim
        self._file = folder / _FILE
        self.certificate = folder / _CERTIFICATE
        """Certificate and key, once `credentials` has returned."""
        self._replies: Replies[Incoming] = Replies()

    async def credentials(self) -> Credentials:
        """Those on the disk, or new ones. Raises EdgedError.

        Each step is on the disk before the next begins, so that whatever happens in between nothing is done twice.
        """
        known = await asyncio.to_thread(self._stored)
        if known is None or not known.thing:
            known = await self._provision(known)
        await asyncio.to_thread(self._lay_out, known)
        return known

    async def _provision(self, known: Credentials | None) -> Credentials:
        requests = CREATE, register_topic(self._claim.template)
        topics = [f"{topic}/{end}" for topic in requests for end in ("accepted", "rejected")]
        link = RequestLink(self._name, self._claim.broker, topics, self._take)
        await link.connect("")
        try:
            if known is None:
                known = await self._create(link)
            return await self._register(link, known)
        finally:
            await link.close()

    async def _create(self, link: RequestLink) -> Credentials:
        answer = await self._ask(link, CREATE, Message(CREATE, b""), "create a certificate")
        try:
            known = Credentials.load(answer.payload)
        except ValueError as exc:
            raise TransientError(f"AWS created a certificate, but {exc}", reason="provisioning") from exc
        await asyncio.to_thread(self._keep, known)
        log.info("%s: AWS has created the certificate %s", self._name, known.certificate_id)
        return known

    async def _register(self, link: RequestLink, known: Credentials) -> Credentials:
        topic = register_topic(self._claim.template)
        message = registration(known, self._claim.template, self._claim.parameters)
        try:
            answer = await self._ask(link, topic, message, f"provision by the template {self._claim.template}")
        except PermanentError as exc:
            if exc.reason == "token":  # an hour has passed: that certificate does not exist any more
                await asyncio.to_thread(self._file.unlink, missing_ok=True)
            raise
        try:
            known = replace(known, thing=thing_of(answer.payload), token="")
        except ValueError as exc:
            raise TransientError(f"AWS provisioned this gateway, but {exc}", reason="provisioning") from exc
        await asyncio.to_thread(self._keep, known)
        log.info("%s: AWS has registered this gateway as the thing %s", self._name, known.thing)
        return known

    async def _ask(self, link: RequestLink, topic: str, message: Message, step: str) -> Incoming:
        answer = await self._replies.ask(topic, message, link.send)
        if answer.topic.endswith("/rejected"):
            raise refusal(step, answer.payload)
        return answer

    def _take(self, incoming: Incoming) -> bool:
        self._replies.settle(incoming.topic.rpartition("/")[0], incoming)
        return True

    # -- the disk; in a thread -------------------------------------------------------------------------------------

    def _stored(self) -> Credentials | None:
        try:
            return Credentials.load(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise ConfigError(f"{self._file}: {exc}; delete it, and the gateway is provisioned anew") from exc
        except OSError as exc:
            raise ConfigError(f"{self._file} cannot be read: {exc.strerror or exc}") from exc

    def _keep(self, known: Credentials) -> None:
        _write(self._file, known.dump())

    def _lay_out(self, known: Credentials) -> None:
        whole = f"{known.private_key.strip()}\n{known.certificate.strip()}\n".encode()
        with suppress(OSError):
            if self.certificate.read_bytes() == whole:
                return
        _write(self.certificate, whole)


def _write(place: Path, content: bytes) -> None:
    try:
        store(place, content)
    except OSError as exc:
        raise TransientError(f"{place} cannot be written: {exc.strerror or exc}", reason="storage") from exc


class ShadowKeeper(Keeper):
    """Keeps the reported side of a shadow as the twin is."""

    what = "shadow"

    def __init__(
        self, name: str, shadow: Shadow, reported: Reported, every: float, clock_trusted: Callable[[], bool]
    ) -> None:
        super().__init__(name, every)
        self._shadow = shadow
        self._reported = reported
        self._clock_trusted = clock_trusted
        self._replies: Replies[ShadowRefusedError | None] = Replies()
        self._asked_trusted = False

    @property
    def topics(self) -> Sequence[str]:
        """See the base class."""
        return self._shadow.topics.answers

    def take(self, incoming: Incoming) -> bool:
        """See the base class. The whole document says what is desired, too."""
        found = self._shadow.take(incoming)
        if found is not None:
            self._replies.settle(*found)
        return found is not None and incoming.topic != self._shadow.topics.found

    def concerns(self, message: Message) -> bool:
        """See the base class."""
        return message.topic == self._shadow.topics.update

    def forget(self) -> None:
        """See the base class."""
        self._shadow.version = None

    async def keep_up(self, send: Send, slot: Slot) -> Trouble | None:
        """See the base class. When the clock has been set, what is desired is asked for again."""
        try:
            if self._shadow.version is None or self._asked_trusted != self._clock_trusted():
                await self._fetch(send, slot)
            token = self.token()
            message = self._shadow.update(await self._reported.document(), token)
            if message is not None:
                await self._ask(token, message, send, slot)
        except ShadowRefusedError as exc:
            if exc.conflict:
                return Trouble("", 0)
            return Trouble(f"AWS refused the shadow: {exc}", 1 if exc.passing else 10)
        return None

    async def _fetch(self, send: Send, slot: Slot) -> None:
        self._asked_trusted = self._clock_trusted()
        token = self.token()
        try:
            await self._ask(token, self._shadow.request(token), send, slot)
        except ShadowRefusedError as exc:
            if not exc.missing:
                raise
            self._shadow.forget()

    async def _ask(self, token: str, message: Message, send: Send, slot: Slot) -> None:
        refused = await self._replies.ask(token, message, send, slot)
        if refused is not None:
            raise refused


class AwsLink(KeepingLink):
    """Sessions with AWS IoT Core. Implements `edged.uplink.api.Link`."""

    def __init__(  # each is one thing that a session depends on
        self, name: str, broker: Broker, announcer: Announcer, pacing: Pacing, service: CommandService, *,
        thing: str, shadow: Shadow, keeper: ShadowKeeper | None = None, provisioner: Provisioner | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, broker, announcer, pacing, service, keeper)
        self._thing = thing
        self._shadow = shadow
        self._provisioner = provisioner

    async def connect(self, epoch: str) -> str:
        """See the protocol."""
        try:
            if self._provisioner is not None:
                self._become(await self._provisioner.credentials(), self._provisioner)
            self._shadow.belong_to(self._thing)
            return await super().connect(epoch)
        except TransientError as exc:
            if exc.reason != "closed":
                raise
            hint = "AWS closes the connection where a policy forbids the client id, a topic or a subscription"
            raise TransientError(f"{exc}; {hint}", reason="closed") from exc

    def _become(self, mine: Credentials, provisioner: Provisioner) -> None:
        """Connect as what AWS has made of this gateway."""
        tls = self._broker.tls
        if tls is not None:
            tls = replace(tls, certificate=str(provisioner.certificate), key="")
        self._broker = replace(self._broker, tls=tls, client_id=mine.thing)
        self._thing = mine.thing

    async def send(self, message: Message) -> Outcome:
        """As in the base class. For a topic that it does not take, AWS would close the connection."""
        if not message.topic.startswith(OWN_TOPICS):
            try:
                check_topic(message.topic)
            except ValueError as exc:
                return Outcome(Verdict.REJECTED, "topic", str(exc))
        return await super().send(message)
