"""One MQTT session with a broker. The only module that knows aiomqtt and paho.

A session object is never used again: paho keeps the messages of a broken connection and would send them once more on
the next, while here SQLite is the only queue. What else of aiomqtt 2.5 and paho 2 had to be changed is said beside each
override; their private names are used nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTT_LOG_ERR, WebsocketConnectionError, error_string
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.downlink.api import Incoming, Reply
from edged.errors import PermanentError, TransientError
from edged.uplink.api import CLOSED, OFFLINE, SILENT, Message, Outcome, Verdict
from edged.uplink.links import reasons
from edged.uplink.links.tls import Tls, TlsContext, make_context

_wire = logging.getLogger("edged.mqtt.wire")
_wire.setLevel(logging.CRITICAL)  # what paho says of each broken connection is said once, by the forwarder

_KNOWN = {code for code, names in ReasonCode.names.items() if any(PacketTypes.PUBACK in of for of in names.values())}
ReasonCode.names = {
    **ReasonCode.names,
    **{
        code: {**ReasonCode.names.get(code, {}), f"refusal 0x{code:02x}": [PacketTypes.PUBACK]}
        for code in {*range(0x80, 0x100)} - _KNOWN
    },
}
"""paho would end the session over a PUBACK with a code that the standard has not: mosquitto's is 0x95 (too large)."""

Version = aiomqtt.ProtocolVersion
V5, V311 = Version.V5, Version.V311
_FAREWELL = 2.0
"""Seconds that the end of a session may take."""
_INCOMING = 256 * 1024
"""Bytes of the largest packet that a broker may send us."""
UNACKNOWLEDGED = 100
"""So many messages may a broker send before it has our word on the first: more wait there, not here."""
_PACKED = 100
_ANY = 65_535
_CONNACK_PROPERTIES = (
    "MaximumPacketSize", "MaximumQoS", "ReasonString", "ReceiveMaximum", "RetainAvailable", "ServerKeepAlive",
    "ServerReference",
)  # fmt: skip
_CLOSED_BY_US = {"Success", "Normal disconnection"}
_BROKEN = "the connection broke"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker, and how to be its client. Times in seconds."""

    url: str
    """As configured, for messages to people."""
    host: str
    port: int
    client_id: str
    websocket_path: str = ""
    """Not empty: MQTT over WebSocket."""
    tls: Tls | None = None
    username: str | None = None
    token: Callable[[], str] | None = None
    """A secret that goes where the user name goes; called like the password."""
    password: Callable[[], str] | None = None
    """Asked at every attempt. Raises ConfigError."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive: int = 30
    session_expiry: int = 86_400
    connect_timeout: float = 10.0
    ack_timeout: float = 20.0
    window: int = 20
    max_message: int = 128 * 1024
    renewal: float = 30.0
    """How often to look whether certificates have been renewed."""
    clean: bool = False
    """Whether each session begins anew and ends with its connection: the broker keeps nothing for us."""


class Accepted(NamedTuple):
    """A CONNACK."""

    code: int
    session_present: bool
    properties: Mapping[str, Any]


class Waiting(NamedTuple):
    """A message under way."""

    mid: int
    outcome: asyncio.Future[Outcome]
    since: float


def _make_properties(kind: int) -> Properties:
    return Properties(kind)  # type: ignore[no-untyped-call]  # paho's


class _Packed(Properties):
    """Properties that are packed once: paho packs them anew for each message, which takes a fifth of publishing it."""

    whole: bytes

    def __init__(self, properties: Properties) -> None:
        super().__init__(properties.packetType)  # type: ignore[no-untyped-call]  # paho's
        self.__dict__.update(properties.__dict__, whole=properties.pack())  # type: ignore[no-untyped-call]  # paho's

    def pack(self) -> bytes:
        """What `Properties.pack` returned."""
        return self.whole


class Session(aiomqtt.Client):
    """One connection, from dialling to its end."""

    def __init__(
        self,
        broker: Broker,
        protocol: Version,
        will: Message | None,
        *,
        retain: bool,
        keep: Callable[[Incoming, int], None] | None = None,
    ) -> None:
        """`keep` gets what comes for us and `take` does not want, and a number for `acknowledge`.

        It must neither wait nor raise.
        """
        self._broker = broker
        self._v5 = protocol is V5
        properties = None
        if self._v5:
            properties = _make_properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if broker.clean else broker.session_expiry
            properties.MaximumPacketSize = _INCOMING
            if keep is not None:
                properties.ReceiveMaximum = UNACKNOWLEDGED
        user = broker.token() if broker.token else broker.username
        super().__init__(
            broker.host, broker.port, username=user, logger=_wire, identifier=broker.client_id,
            password=broker.password() if broker.password else None, protocol=protocol,
            will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=retain and will.retain) if will else None,
            clean_session=None if self._v5 else broker.clean, properties=properties,
            clean_start=broker.clean if self._v5 else MQTT_CLEAN_START_FIRST_ONLY,  # 3.1.1 has no other
            keepalive=broker.keepalive, max_inflight_messages=0,
            transport="websockets" if broker.websocket_path else "tcp", websocket_path=broker.websocket_path or None,
        )  # fmt: skip
        self.retain = retain
        self._keep = keep
        if keep is not None:
            self._client.manual_ack_set(True)  # noqa: FBT003  # paho's signature
        self.take: Callable[[Incoming], bool] | None = None
        """Is shown first what comes for us; True where it wanted it. It must neither wait nor raise."""
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.receive_maximum = _ANY
        self.max_packet = 0
        """Bytes of the largest packet that the broker takes; 0 if it did not say."""
        self._connack: asyncio.Future[Accepted | None] = self._loop.create_future()
        self._dial: asyncio.Future[None] | None = None
        self._thread = threading.get_ident()
        self._context: TlsContext | None = None
        self._raw: socket.socket | None = None
        self._error = ""
        self._waiting: dict[int, Waiting] = {}
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._packed: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Properties, int]] = {}
        self._client.connect_timeout = broker.connect_timeout
        self._client.on_log = self._note_error
        # So that a socket which paho opened and then forgot can be closed.
        self._client._create_socket_connection = self._create_socket  # type: ignore[method-assign]  # noqa: SLF001  # as said above
        # Set by the base class when reading raised an exception, and by nobody else here.
        self._disconnected.add_done_callback(lambda done: self._break(f"{_BROKEN}: {done.exception()}", CLOSED))

    # -- opening ---------------------------------------------------------------------------------------------------

    async def open(self) -> Accepted | str:
        """Dial and wait for the CONNACK; returns it, or what happened instead.

        Leaves neither socket nor task behind when it fails or is cancelled. Raises OSError.

        The base class's `__aenter__` leaves both, and waits in vain when the broker hangs up instead of answering.
        """
        opened = False
        self._dial = asyncio.ensure_future(self._loop.run_in_executor(None, self._client_connect))
        try:
            async with asyncio.timeout(self._broker.connect_timeout):
                await asyncio.shield(self._dial)
            done, _ = await asyncio.wait([self._connack], timeout=self._broker.connect_timeout)
            accepted = self._connack.result() if done else None
            opened = accepted is not None and accepted.code == 0
            return accepted or self._no_answer(waited=not done)
        finally:
            self._client.on_log = None
            if not opened:
                self.abandon()

    def _no_answer(self, *, waited: bool) -> str:
        if waited:
            return f"did not answer within {self._broker.connect_timeout:g} s: is it an MQTT broker, is it overloaded?"
        return f"hung up before a session began ({self._error or 'no reason given'})"

    def _client_connect(self) -> None:
        """In a thread: name look-up, TCP and TLS block."""
        if self._broker.tls is not None:
            self._context = make_context(self._broker.tls)
            self._client.tls_set_context(self._context)
            if self._broker.tls.insecure:
                self._client.tls_insecure_set(True)  # noqa: FBT003  # else paho looks for ssl.match_hostname, gone since 3.12
        try:
            super()._client_connect()
        except WebsocketConnectionError as exc:
            broker = self._broker
            raise PermanentError(
                f"{broker.url} does not speak MQTT over WebSocket on {broker.websocket_path}: check `url`",
                reason="websocket",
            ) from exc
        except struct.error as exc:
            raise PermanentError(
                "a user name, password or client id is longer than the 65,535 bytes that MQTT allows", reason="too_long"
            ) from exc

    def _create_socket(self) -> socket.socket:
        """In the thread. TCP_NODELAY: with Nagle's algorithm a full window crosses a slow line at half the speed."""
        broker = self._broker
        self._raw = socket.create_connection((broker.host, broker.port), timeout=broker.connect_timeout)
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._raw

    @property
    def dialling(self) -> asyncio.Future[None] | None:
        """The thread's work, if it still goes on although nobody wants it any more."""
        return self._dial if self._dial is not None and not self._dial.done() else None

    def abandon(self) -> None:
        """Close the socket now, or as soon as the dialling thread is done with it."""
        if self.dialling is not None:
            self.dialling.add_done_callback(lambda _: self.abandon())
            return
        if self._dial is not None and not self._dial.cancelled():
            self._dial.exception()  # has been looked at
        self._break("closed", OFFLINE)
        wrapped = self._context.wrapped if self._context else None
        for leftover in (wrapped, self._raw):
            if leftover is not None:
                leftover.close()

    def _note_error(self, _client: object, _userdata: object, level: int, text: str) -> None:
        if level == MQTT_LOG_ERR:
            self._error = text.removeprefix("failed to receive on socket: ")

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:  # noqa: ARG002  # paho's signature
        if self._connack.done():
            return
        known = {name: getattr(properties, name) for name in _CONNACK_PROPERTIES if hasattr(properties, name)}
        self.receive_maximum = known.get("ReceiveMaximum", _ANY)
        self.max_packet = known.get("MaximumPacketSize", 0)
        self.retain = self.retain and known.get("RetainAvailable", 1) == 1
        keepalive = known.get("ServerKeepAlive")
        if keepalive is not None:
            self._client._keepalive = keepalive  # noqa: SLF001  # paho before 2.2 does not read it
        self._connack.set_result(Accepted(reason_code.value, flags.session_present, known))

    # -- publishing ------------------------------------------------------------------------------------------------

    def size(self, message: Message) -> int:
        """Bytes of the whole PUBLISH packet (MQTT 5, 3.3), a few more at most."""
        properties = self._packing(message)[1] if self._v5 else 0
        return 5 + 2 + len(message.topic.encode()) + 2 + properties + len(message.payload)

    def _packing(self, message: Message) -> tuple[Properties | None, int]:
        if message.correlation:
            properties = _make_properties(PacketTypes.PUBLISH)
            properties.ContentType, properties.CorrelationData = message.content_type, message.correlation
            return properties, len(properties.pack())  # type: ignore[no-untyped-call]  # paho's
        key = message.content_type, tuple(message.properties.items())
        if key not in self._packed:
            if len(self._packed) >= _PACKED:  # where each message has properties of its own
                self._packed.clear()
            properties = _make_properties(PacketTypes.PUBLISH)
            properties.ContentType = message.content_type
            if message.properties:
                properties.UserProperty = list(message.properties.items())
            packed = _Packed(properties)
            self._packed[key] = packed, len(packed.whole)
        return self._packed[key]

    async def deliver(self, message: Message) -> Outcome:
        """Publish and wait for the PUBACK or the end of the session."""
        return await self.confirmed(self.publish_now(message))

    def publish_now(self, message: Message) -> Outcome | Waiting:
        """Begin to publish; what to wait for, or the outcome where nothing was sent.

        The base class's `publish` throws the reason code away, sits out its time-out when the connection breaks, and
        logs a warning for each message beyond the tenth that waits.
        """
        if self.ended.done():
            return Outcome(Verdict.RETRY, OFFLINE, self.ended.result())
        properties = self._packing(message)[0] if self._v5 else None
        try:
            info = self._client.publish(message.topic, message.payload, 1, message.retain and self.retain, properties)
        except ValueError as exc:
            return Outcome(Verdict.REJECTED, "topic", f"{message.topic[:80]!r}: {exc}")
        if info.rc != 0:
            return Outcome(Verdict.RETRY, OFFLINE, error_string(info.rc))
        now = self._loop.time()
        waiting = self._waiting[info.mid] = Waiting(info.mid, self._loop.create_future(), now)
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._broker.ack_timeout, self._check_acks)
        return waiting

    async def confirmed(self, begun: Outcome | Waiting) -> Outcome:
        """The broker's word on what `publish_now` began."""
        if isinstance(begun, Outcome):
            return begun
        try:
            return await begun.outcome
        finally:
            if self._waiting.get(begun.mid) is begun:
                del self._waiting[begun.mid]

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:  # noqa: ARG002  # paho's signature
        self._heard = self._loop.time()
        waiting = self._waiting.pop(mid, None)
        if waiting is None or waiting.outcome.done():
            return
        waiting.outcome.set_result(reasons.puback(reason_code.value, getattr(properties, "ReasonString", "")))

    def _check_acks(self) -> None:
        """End a session in which messages wait and nothing comes: the link may be swallowing everything.

        Any acknowledgement counts, so that a slow line which needs long for a full window is not cut again and again.
        """
        self._timer = None
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None:
            return
        timeout, now = self._broker.ack_timeout, self._loop.time()
        due = max(oldest.since, self._heard) + timeout
        if now >= due:
            self._break(f"the broker has not confirmed anything for {timeout:g} s", SILENT)
        else:
            self._timer = self._loop.call_at(due, self._check_acks)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:  # noqa: ARG002  # paho's signature
        if not self._connack.done():
            if reason_code.getName() == "Protocol error":
                self._error = "its answer is not MQTT as we know it"
            self._connack.set_result(None)
        elif flags.is_disconnect_packet_from_server:
            text = getattr(properties, "ReasonString", "")
            client_id = self._broker.client_id
            name = reason_code.getName()
            self._end(reasons.disconnect(reason_code.value, name, client_id=client_id, text=text), CLOSED)
        elif reason_code.getName() in _CLOSED_BY_US:
            self._end("closed", OFFLINE)
        elif reason_code.getName() == "Keep alive timeout":
            self._end("the broker does not answer any more", SILENT)
        else:
            self._end(_BROKEN, CLOSED)

    def _end(self, why: str, reason: str) -> None:
        """Note the end of the session, and tell everybody who waits for the broker's word."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        if not self._connack.done():
            self._error = self._error or why.removeprefix(f"{_BROKEN}: ")
            self._connack.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._waiting.values():
            if not waiting.outcome.done():
                waiting.outcome.set_result(Outcome(Verdict.RETRY, reason, why))
        self._waiting.clear()

    def _break(self, why: str, reason: str) -> None:
        """End the session from our side. Not within a callback of paho: it holds a lock there that closing takes."""
        self._end(why, reason)
        self._client._sock_close()  # noqa: SLF001  # there is no public way to close without waiting for the broker

    async def leave(self, farewell: Message | None) -> None:
        """Say good-bye and close, within a limited time. Whatever the broker does, nothing is left open."""
        try:
            if not self.ended.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        if farewell is not None and len(self._waiting) < self.receive_maximum:
                            await self.deliver(farewell)
                        self._client.disconnect()
                        await asyncio.shield(self.ended)
        finally:
            self.abandon()
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait([self._misc_task])

    # -- the event loop --------------------------------------------------------------------------------------------

    def _on_socket_register_write(self, _client: Any, _userdata: Any, sock: Any) -> None:
        """At once where possible.

        The base class always does it a moment later, when the socket may be closed and its number be another one's.
        """
        if threading.get_ident() == self._thread:
            self._loop.add_writer(sock.fileno(), self._write)
        else:
            self._loop.call_soon_threadsafe(self._await_room, sock)

    def _await_room(self, sock: Any) -> None:
        """For what the dialling thread wants to send, unless the broker has hung up and paho closed it meanwhile."""
        current = self._client.socket()
        if current is not None and current is sock:
            self._loop.add_writer(current.fileno(), self._write)

    def _write(self) -> None:
        written = False
        try:
            self._client.loop_write()
            written = True
        finally:
            if not written:
                self._break(_BROKEN, CLOSED)

    async def listen(self, topics: Sequence[tuple[str, int]]) -> str:
        """Subscribe to (filter, QoS) and wait for the broker's word; returns what it refused, for people.

        Raises TransientError when the session ends meanwhile, or the broker does not answer.
        """
        wanted: list[Any] = list(topics)
        if self._v5 and self._keep is not None:  # a retained message can be told from a fresh one, even as it comes
            wanted = [(topic, SubscribeOptions(qos=qos, retainAsPublished=True)) for topic, qos in topics]
        waiting = asyncio.ensure_future(self.subscribe(wanted, timeout=self._broker.ack_timeout))
        try:
            both: list[asyncio.Future[Any]] = [waiting, self.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise TransientError(f"{self._broker.url}: {self.ended.result()}", reason="closed")
            codes = waiting.result()
        except aiomqtt.MqttError as exc:
            raise TransientError(f"{self._broker.url} did not confirm a subscription: {exc}", reason="closed") from exc
        finally:
            waiting.cancel()
        refused = [topic for (topic, _), code in zip(topics, codes, strict=True) if _is_failure(code)]
        return f"not allowed to subscribe to {', '.join(refused)}" if refused else ""

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:  # noqa: ARG002  # paho's signature
        """Without a taker: what an old session brings is not for us, and must not pile up in a queue."""
        try:
            incoming = _incoming(message)
        except UnicodeDecodeError:
            self.acknowledge(message.mid, message.qos)
            return  # its topic is no text, so it is none of those subscribed to
        if self.take is not None and self.take(incoming):
            self.acknowledge(message.mid, message.qos)
        elif self._keep is not None:
            self._keep(incoming, message.mid)

    def acknowledge(self, number: int, qos: int) -> None:
        """Tell the broker that a message handed to `keep` is ours now. Without effect when the session has ended."""
        if self._keep is not None and qos and not self.ended.done():
            self._client.ack(number, qos)


def _is_failure(code: Any) -> bool:
    """Of a SUBACK: a number from a 3.1.1 broker, paho's object from another."""
    return (code if isinstance(code, int) else code.value) >= 0x80  # noqa: PLR2004  # MQTT: from 0x80 on it is an error


def _incoming(message: Any) -> Incoming:
    known = message.properties
    return Incoming(
        topic=str(message.topic),
        payload=bytes(message.payload),
        qos=message.qos,
        retained=message.retain,
        expiry=getattr(known, "MessageExpiryInterval", None),
        reply=Reply(getattr(known, "ResponseTopic", ""), getattr(known, "CorrelationData", b"")),
        properties=dict(getattr(known, "UserProperty", [])),
    )
