"""The MQTT link to Azure IoT Hub: assigned by DPS where that is wanted, tokens renewed in time, the twin kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from edged.clock import wall_us
from edged.config.compiled import store
from edged.downlink.api import Incoming
from edged.errors import ConfigError, PermanentError, TransientError
from edged.uplink.api import TOO_LARGE, Message, Outcome, Pacing, Verdict
from edged.uplink.dialects.azure import (
    MAX_MESSAGE,
    TWIN_ANSWERS,
    Answer,
    Identity,
    Twin,
    answer_of,
    token,
)
from edged.uplink.dialects.azure_commands import AzureCommands
from edged.uplink.dialects.azure_dps import DPS_ANSWERS, Assigning, Enrolment, assignment
from edged.uplink.links.exchange import Keeper, KeepingLink, Replies, Reported, RequestLink, Trouble
from edged.uplink.links.mqtt import Announcer, Broker
from edged.uplink.links.mqtt_commands import CommandService, Send, Slot

log = logging.getLogger("edged.uplink")

_FILE = "hub.json"
_PATIENTLY = 3.0
_RENEW = 0.85
"""The part of a token's life after which a session with a new one begins."""
_PLAUSIBLE = 1_735_689_600
"""2025: a clock that says less has never been set."""
_SHORTEST_POLL, _LONGEST_POLL = 0.5, 60.0
_ASSIGNED_WITHIN = 300.0
"""Seconds that DPS may take to assign a hub."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Makes the passwords of a gateway that has a symmetric key."""

    key: Callable[[], str]
    """Asked for each. Raises ConfigError."""
    lifetime: float
    """Seconds."""

    def make(self, resource: str, policy: str = "") -> str:
        """One for a resource, valid from now on. Raises ConfigError."""
        try:
            return token(resource, self.key(), round(wall_us() / 1e6 + self.lifetime), policy)
        except ValueError as exc:
            raise ConfigError(f"`shared_access_key`: {exc}") from exc


def _proof(tokens: Tokens | None) -> str:
    return "its key" if tokens else "`certificate` and `key`"


class Registration:
    """Has DPS assign this gateway to a hub; the hub is remembered."""

    def __init__(self, name: str, broker: Broker, enrolment: Enrolment, tokens: Tokens | None, folder: Path) -> None:
        """`broker`: the provisioning service."""
        self._name = name
        self._enrolment = enrolment
        self._tokens = tokens
        self._broker = replace(
            broker, client_id=enrolment.registration, username=enrolment.username, clean=True,
            password=(lambda: tokens.make(enrolment.resource, "registration")) if tokens else None,
        )  # fmt: skip
        self._file = folder / _FILE
        self._replies: Replies[Answer] = Replies()

    async def identity(self) -> Identity:
        """The hub that was assigned before, or is assigned now. Raises EdgedError."""
        return await asyncio.to_thread(self._stored) or await self._register()

    async def forget(self) -> None:
        """That hub does not want this gateway any more."""
        with suppress(OSError):
            await asyncio.to_thread(self._file.unlink)

    async def _register(self) -> Identity:
        link = RequestLink(self._name, self._broker, [f"{DPS_ANSWERS}#"], self._take)
        try:
            await link.connect("")
        except PermanentError as exc:
            if exc.reason != "refused":
                raise
            raise PermanentError(
                f"the provisioning service does not accept the registration {self._enrolment.registration!r}: check "
                f"`id_scope`, `registration_id` and {_proof(self._tokens)}, and that the enrolment is enabled",
                reason=exc.reason,
            ) from exc
        try:
            async with asyncio.timeout(_ASSIGNED_WITHIN):
                found = await self._until_assigned(link)
        except TimeoutError:
            raise TransientError("the provisioning service does not come to an end", reason="busy") from None
        finally:
            await link.close()
        await asyncio.to_thread(self._keep, found)
        log.info("%s: assigned to %s as %s", self._name, found.host, found.device)
        return found

    async def _until_assigned(self, link: RequestLink) -> Identity:
        number = 1
        found = assignment(await self._replies.ask("1", self._enrolment.register("1"), link.send))
        while isinstance(found, Assigning):
            await asyncio.sleep(min(max(found.after, _SHORTEST_POLL), _LONGEST_POLL))
            number += 1
            found = assignment(
                await self._replies.ask(str(number), self._enrolment.poll(str(number), found.operation), link.send)
            )
        return found

    def _take(self, incoming: Incoming) -> bool:
        answer = answer_of(incoming, DPS_ANSWERS)
        if answer is not None:
            self._replies.settle(answer.request, answer)
        return True

    # -- the disk; in a thread -------------------------------------------------------------------------------------

    def _stored(self) -> Identity | None:
        """What cannot be read is asked for again: that changes nothing."""
        try:
            found = orjson.loads(self._file.read_bytes())
            if (found["scope"], found["registration"]) != (self._enrolment.scope, self._enrolment.registration):
                return None
            return Identity(str(found["host"]), str(found["device"]))
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def _keep(self, found: Identity) -> None:
        known = {"scope": self._enrolment.scope, "registration": self._enrolment.registration}
        try:
            store(self._file, orjson.dumps({**known, "host": found.host, "device": found.device}))
        except OSError as exc:
            log.warning("%s: %s cannot be written: %s", self._name, self._file, exc.strerror or exc)


class TwinKeeper(Keeper):
    """Keeps the reported properties of a device twin as our own twin is."""

    what = "device twin"

    def __init__(self, name: str, twin: Twin, reported: Reported, every: float) -> None:
        super().__init__(name, every)
        self._twin = twin
        self._reported = reported
        self._replies: Replies[Answer] = Replies()

    @property
    def topics(self) -> Sequence[str]:
        """See the base class."""
        return [TWIN_ANSWERS]

    def take(self, incoming: Incoming) -> bool:
        """See the base class. The whole twin says what is desired, too."""
        answer = answer_of(incoming)
        if answer is None:
            return False
        self._replies.settle(answer.request, answer)
        return not answer.body

    def concerns(self, message: Message) -> bool:
        """See the base class."""
        return message.topic.startswith("$iothub/")

    def forget(self) -> None:
        """See the base class."""
        self._twin.known = None

    async def keep_up(self, send: Send, slot: Slot) -> Trouble | None:
        """See the base class."""
        if self._twin.known is None:
            number = self.token()
            answer = await self._replies.ask(number, self._twin.request(number), send, slot)
            if not answer.good:
                return Trouble(f"the hub does not give the device twin: status {answer.status}", _PATIENTLY)
            try:
                self._twin.adopt(answer.body)
            except ValueError as exc:
                return Trouble(str(exc), _PATIENTLY)
        number = self.token()
        update = self._twin.update(await self._reported.document(), number)
        if update is None:
            return None
        message, known = update
        answer = await self._replies.ask(number, message, send, slot)
        if not answer.good:
            return Trouble(f"the hub does not take reported properties: status {answer.status}", _PATIENTLY)
        self._twin.known = known
        return None


class AzureLink(KeepingLink):
    """Sessions with an IoT hub. Implements `edged.uplink.api.Link`."""

    def __init__(  # each is one thing that a session depends on
        self, name: str, broker: Broker, announcer: Announcer, pacing: Pacing, service: CommandService, *,
        identity: Identity, commands: AzureCommands, clock_trusted: Callable[[], bool], tokens: Tokens | None = None,
        registration: Registration | None = None, keeper: TwinKeeper | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, broker, announcer, pacing, service, keeper)
        self._identity = identity
        self._commands = commands
        self._clock_trusted = clock_trusted
        self._tokens = tokens
        self._registration = registration

    async def connect(self, epoch: str) -> str:
        """See the protocol."""
        self._look_at_the_clock()
        if self._registration is not None:
            found = await self._registration.identity()
            self._identity.host, self._identity.device = found.host, found.device
        identity, tokens = self._identity, self._tokens
        self._broker = replace(
            self._broker, client_id=identity.device, username=identity.username,
            password=(lambda: tokens.make(identity.resource)) if tokens else None,
        )  # fmt: skip
        if self._registration is not None:
            scheme = self._broker.url.partition("://")[0]
            port = "" if self._broker.port in _USUAL else f":{self._broker.port}"
            self._broker = replace(self._broker, host=identity.host, url=f"{scheme}://{identity.host}{port}")
        self._commands.renew()
        try:
            return await super().connect(epoch)
        except PermanentError as exc:
            if exc.reason == "refused":
                raise await self._refused_by_hub(exc) from exc
            raise

    def _look_at_the_clock(self) -> None:
        """Raises TransientError where a token would have expired before it was made."""
        if self._tokens is not None and not self._clock_trusted() and wall_us() / 1e6 < _PLAUSIBLE:
            raise TransientError(
                "the gateway's clock is not set, so that a token for Azure would have expired already: waiting for it",
                reason="clock",
            )

    async def _refused_by_hub(self, exc: PermanentError) -> PermanentError | TransientError:
        """What a person can do about it; what the broker's words advise is not ours to set here."""
        identity, how = self._identity, _proof(self._tokens)
        text = f"the hub {identity.host} does not accept the device {identity.device!r}"
        if self._tokens is not None and not self._clock_trusted():
            return TransientError(f"{text}: is the gateway's clock right? It is not set", reason="clock")
        if self._registration is not None:
            await self._registration.forget()
            return TransientError(f"{text}; asking the provisioning service for a hub again", reason="refused")
        return PermanentError(f"{text}: check `device_id` and {how}, and that it is enabled", reason=exc.reason)

    def fits(self, message: Message) -> bool:
        """As in the base class; to the hub, the properties count as well."""
        return super().fits(message) and len(message.payload) + len(message.topic) <= MAX_MESSAGE

    async def send(self, message: Message) -> Outcome:
        """As in the base class; what is too large for the hub would end the session."""
        if not self.fits(message):
            return Outcome(Verdict.REJECTED, TOO_LARGE, "larger than the hub or `max_message` allows")
        return await super().send(message)

    async def serve(self, slot: Slot) -> None:
        """Besides commands and the twin: a new token in time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().serve(slot), name=f"{self._name} session")
            if self._tokens is not None:
                group.create_task(self._renew(self._tokens), name=f"{self._name} token")

    async def _renew(self, tokens: Tokens) -> None:
        """The hub closes the connection when a token expires; this is before, and between two messages."""
        session = self._session
        await asyncio.sleep(tokens.lifetime * _RENEW)
        if session is not None and not session.ended.done():
            log.info("%s: the token for Azure is renewed: connecting anew", self._name)
            await session.leave(None)


_USUAL = frozenset({443, 8883})
