"""One MQTT session with a broker: the only module of the adapter that knows paho.

paho runs in a thread of its own and tells us of everything there. What it tells goes to the event loop, except
messages: those go into a bounded inbox at once, so that a broker cannot fill the memory while the loop is busy. Nothing
is acknowledged before somebody says so (`acknowledge`). A session that has ended is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, WebsocketConnectionError, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.adapter import PermanentError, Reason, TransientError

from .config import MqttBus, endpoint
from .tls import context, explain

RECEIVE = 1000
"""So many messages may an MQTT 5 broker send before the first is acknowledged."""
INBOX = 4000
"""Most messages that wait to be looked at; those of QoS 0 have no other bound."""
LARGEST = 256 << 10
"""Bytes of the largest message that a broker may send us."""
_AT_ONCE = 100
"""Filters in one SUBSCRIBE."""
_ANSWER = 10.0
"""Seconds that the broker has for its word on a subscription or a message."""
_FAREWELL = 2.0
_REFUSED = 0x80
_UNSUPPORTED = frozenset({0x84, 0x01})
"""Reason codes of a broker that does not speak the version: of MQTT 5, and of MQTT 3.1.1."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came."""

    topic: str
    payload: bytes
    number: int
    """For `acknowledge`; 0 where there is nothing to acknowledge."""
    retained: bool
    again: bool = False
    """The broker says that it has sent it before."""


class VersionError(Exception):
    """The broker does not speak this version of MQTT, or hung up without a word, which old ones do instead."""


class Session:
    """One connection, from dialling to its end. Belongs to one event loop."""

    def __init__(self, config: MqttBus, client_id: str, *, v5: bool, wake: Callable[[], None]) -> None:
        """`wake` is called in the event loop when there is something in `inbox`."""
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._v5 = v5
        self._wake = wake
        self._client_id = client_id
        self.inbox: deque[Arrived] = deque()
        self.shed = 0
        """Messages that found the inbox full. Those of QoS 1 wait at the broker until the next session."""
        self.resumed = False
        """Whether the broker had kept a session, and messages in it."""
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._connack: asyncio.Future[int] = self._loop.create_future()
        self._abandoned = False
        self._waiting: dict[int, asyncio.Future[Sequence[int]]] = {}
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=None if v5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if config.url.startswith("ws") else "tcp",
            reconnect_on_failure=False, manual_ack=True,
        )  # fmt: skip
        self._client.connect_timeout = float(config.connect_timeout)
        if config.username is not None:
            self._client.username_pw_set(config.username, config.password.text if config.password else None)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._tell(self._over, "the connection broke")
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish

    # -- in the event loop -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises TransientError, PermanentError, ConfigError, VersionError; leaves nothing behind then."""
        opened = False
        try:
            await self._dial()
            self._client.loop_start()
            try:
                async with asyncio.timeout(float(self._config.connect_timeout)):
                    await _first(self._connack, self.ended)
            except TimeoutError:
                raise self._unreachable("did not answer: is it an MQTT broker, is it overloaded?") from None
            if not self._connack.done():
                raise VersionError
            self._check(self._connack.result())
            opened = True
        finally:
            if not opened:
                await self.close()

    async def _dial(self) -> None:
        where = self._config.url
        try:
            await asyncio.to_thread(self._connect)
        except asyncio.CancelledError:
            self._abandoned = True  # the thread goes on, and may still connect
            raise
        except TimeoutError as exc:
            raise self._unreachable("did not answer: is it up, is a firewall in the way?") from exc
        except ssl.SSLError as exc:
            raise explain(exc, where) from exc
        except socket.gaierror as exc:
            raise self._unreachable(f"has a host that nobody knows ({exc.strerror}): check `url` and the DNS") from exc
        except WebsocketConnectionError as exc:
            raise self._unreachable("does not speak MQTT over WebSocket there: check `url`") from exc
        except ConnectionRefusedError as exc:
            raise self._unreachable("refuses: is the broker running, is the port right?") from exc
        except OSError as exc:
            raise self._unreachable(f"cannot be reached: {exc.strerror or exc}") from exc

    def _connect(self) -> None:
        """In a thread: the look-up of the name, TCP and TLS block."""
        config, where = self._config, endpoint(self._config.url)
        if where.tls:
            self._client.tls_set_context(context(config))
            self._client.tls_insecure_set(config.insecure)
        if where.scheme.startswith("ws"):
            self._client.ws_set_options(path=where.path)
        keepalive = round(config.keepalive)
        if self._v5:
            self._client.connect(where.host, where.port, keepalive, clean_start=False, properties=self._properties())
        else:
            self._client.connect(where.host, where.port, keepalive)
        if self._abandoned:
            self._stop()

    def _properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
        properties.SessionExpiryInterval = min(round(self._config.session_expiry), 2**32 - 1)
        properties.ReceiveMaximum = RECEIVE
        properties.MaximumPacketSize = LARGEST
        return properties

    def _unreachable(self, text: str) -> TransientError:
        return TransientError(f"{self._config.url} {text}", reason=Reason.UNREACHABLE)

    def _check(self, code: int) -> None:
        if code == 0:
            return
        if self._v5 and code in _UNSUPPORTED:
            raise VersionError
        known = {
            0x85: f"does not accept the `client_id` {self._client_id!r}",
            0x86: "refused user name or password: check `username` and `password`",
            0x87: "says not authorised: check `username`, `password` and what the account may do",
        }
        raise self._unreachable(known.get(code, f"refused the session (reason code 0x{code:02x})"))

    async def subscribe(self, filters: Sequence[str]) -> tuple[list[str], bool]:
        """(The filters that were refused, whether all others are with QoS 1). Raises TransientError."""
        refused: list[str] = []
        certain = True
        for start in range(0, len(filters), _AT_ONCE):
            some = filters[start : start + _AT_ONCE]
            # What the broker keeps (retained) is sent for a new subscription, and not again at each reconnection.
            wanted: list[Any] = [(one, SubscribeOptions(qos=1, retainHandling=1) if self._v5 else 1) for one in some]
            code, number = self._client.subscribe(wanted)
            codes = await self._word(int(code), number or 0)
            refused += [one for one, got in zip(some, codes, strict=False) if got >= _REFUSED]
            certain = certain and 0 not in codes
        return refused, certain

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        """Publish and wait for the broker's word. Raises TransientError, PermanentError."""
        try:
            info = self._client.publish(topic, payload, qos)
        except ValueError as exc:
            raise PermanentError(f"{topic!r} cannot be published to: {exc}", reason="topic") from exc
        code = (await self._word(int(info.rc), info.mid))[0] if qos else 0
        if code >= _REFUSED:
            raise PermanentError(f"the broker refused {topic} (reason code 0x{code:02x})", reason="not-authorized")

    async def _word(self, code: int, number: int) -> Sequence[int]:
        """The broker's reason codes. Raises TransientError."""
        if code:
            raise self._unreachable(error_string(code))
        waiting = self._waiting.setdefault(number, self._loop.create_future())
        try:
            await _first(waiting, self.ended, seconds=_ANSWER)
            if waiting.done():
                return waiting.result()
            why = self.ended.result() if self.ended.done() else f"has not confirmed within {_ANSWER:g} s"
            raise self._unreachable(why)
        finally:
            self._waiting.pop(number, None)

    def acknowledge(self, number: int) -> None:
        """Tell the broker that a message is ours now."""
        if not self.ended.done():
            self._client.ack(number, 1)

    async def close(self) -> None:
        """Say good-bye and end the thread. Idempotent."""
        if not self.ended.done():
            self._client.disconnect()
            await asyncio.wait([self.ended], timeout=_FAREWELL if self._connack.done() else 0.1)
        self._over("closed")
        await asyncio.shield(asyncio.to_thread(self._stop))

    def _stop(self) -> None:
        """In a thread, for it waits for paho's."""
        self._client.loop_stop()
        self._client._reset_sockets()  # noqa: SLF001  # there is no public way to close what a failed handshake leaves

    def _over(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    # -- in paho's thread ----------------------------------------------------------------------------------------------

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody wants to know
            self._loop.call_soon_threadsafe(what, *arguments)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:  # noqa: ARG002  # paho's signature
        def accept() -> None:
            self.resumed = bool(flags.session_present)
            if not self._connack.done():
                self._connack.set_result(int(reason_code.value))

        self._tell(accept)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any) -> None:  # noqa: ARG002  # likewise
        why = f"the connection broke ({reason_code})"
        if reason_code.value == 0x8E:  # noqa: PLR2004  # session taken over
            why = "another client with the same `client_id` took the session: give each its own"
        self._tell(self._over, why)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:  # noqa: ARG002  # likewise
        number = message.mid if message.qos else 0
        try:
            topic = message.topic
        except UnicodeDecodeError:  # so it is none of those subscribed to
            client.ack(message.mid, message.qos)
            return
        if len(self.inbox) >= INBOX:
            self.shed += 1
            return
        self.inbox.append(Arrived(topic, bytes(message.payload), number, bool(message.retain), bool(message.dup)))
        if len(self.inbox) == 1:
            self._tell(self._wake)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reason_codes: Any, properties: Any) -> None:  # noqa: ARG002  # likewise
        self._tell(self._answered, mid, [int(one.value) for one in reason_codes])

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:  # noqa: ARG002  # likewise
        self._tell(self._answered, mid, [int(reason_code.value)])

    def _answered(self, number: int, codes: Sequence[int]) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(codes)


async def _first(*waits: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until one of these is done."""
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
