"""Links on pymodbus: Modbus TCP, TLS and UDP.

pymodbus opens the connection, keeps it and closes it. Requests and replies go past its transaction manager, straight
through its connection: that compares neither function nor length of a reply with its request, ends up in asyncio's
exception handler on a malformed one, lets a request whose connection is gone run into its time-out, and takes a fifth
of the CPU of a small gateway (docs/explanation/performance.md).
Whatever goes wrong costs the connection: a late reply then has no way to reach a later request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pymodbus.client import AsyncModbusTcpClient, AsyncModbusTlsClient, AsyncModbusUdpClient, ModbusBaseClient

from edged.adapter import ConfigError, Reason, TransientError
from edged.media import FrameRing, held_up

from .config import ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from .link import NETWORK_FRAMES, Endpoint, Moment, hexdump, now
from .pdu import DeviceFailureError, InvalidReplyError, RefusedError, Request

T = TypeVar("T")
Factory = Callable[[str, Callable[[bool], None]], ModbusBaseClient]
"""A client for an address, with its hook for the connection."""

_READS = frozenset({1, 2, 3, 4, 43})
_HEAD = struct.Struct(">HHHBB")
"""The MBAP header (Modbus Messaging on TCP/IP V1.0b, 3.1.3): transaction, protocol, length, unit; and the function."""
_HEADER = 6
"""Bytes of the header up to and with its length field."""
_LONGEST = 254
"""Highest value of the length field: unit and PDU."""
_REFUSAL = 9
"""Bytes of a frame with an exception."""
_NUMBERS = 65_000
"""Requests are numbered from 1 to this."""

_pymodbus_log = logging.getLogger("pymodbus")
if _pymodbus_log.level == logging.NOTSET:
    # It logs each failure, with dumps, each time. We tell the same once, by our own errors.
    _pymodbus_log.setLevel(logging.CRITICAL + 1)


class _ClosedError(TransientError):
    """The connection ended before any reply."""


class PymodbusLink:
    """A link over one connection, opened when first needed and again after every failure."""

    def __init__(self, endpoint: Endpoint, make: Factory, closed: tuple[str, Reason] | None = None) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.news: list[str] = []
        self.ring = FrameRing(NETWORK_FRAMES)
        self._endpoint = endpoint
        self._make = make
        self._closed = closed or (f"{endpoint} closed the connection instead of answering", Reason.PROTOCOL)
        """What it means when a connection ends without a reply. The link itself works: it could be opened."""
        self._session: _Session | None = None
        self._number = 0
        """The last transaction identifier; they go on across connections."""

    async def exchange(self, unit: int, request: Request[T], within: float) -> T:
        """See `Link`."""
        session = self._session
        if session is not None and session.client.connected:
            try:
                return await self._on(session, unit, request, within)
            except _ClosedError:
                if request.function not in _READS:
                    raise
                # The peer closed an idle connection at the moment we used it. A read may simply be asked again.
        return await self._on(await self._connect(), unit, request, within)

    async def _on(self, session: _Session, unit: int, request: Request[T], within: float) -> T:
        self._number = self._number % _NUMBERS + 1
        try:
            reply = await session.transact(unit, request.pdu, self._number, within)
            self.arrived = session.arrived
            return request.parse(reply)
        except (RefusedError, DeviceFailureError):
            raise
        except BaseException:
            self._drop()
            raise
        finally:
            self.foreign += session.foreign
            session.foreign = 0

    async def close(self) -> None:
        """See `Link`."""
        self._drop()
        self._endpoint.close()
        await asyncio.sleep(0)  # asyncio closes the socket in the next turn of its loop

    async def _connect(self) -> _Session:
        self._drop()
        self._session = await self._endpoint.open(self._attempt)
        return self._session

    async def _attempt(self, address: str) -> _Session:
        session = _Session(address, self._make, self._closed, self.ring)
        try:
            # client.connect() does the same, but says nothing of what went wrong.
            await session.client.ctx.call_create()
        except BaseException:
            session.abandon()
            raise
        return session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.abandon()


class _Session:
    """One connection. What still arrives on an abandoned one finds nobody waiting."""

    def __init__(self, address: str, make: Factory, closed: tuple[str, Reason], ring: FrameRing) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.client = make(address, self._connection)
        # asyncio hands what comes in straight to us; these are the two methods of its protocols for that.
        self.client.ctx.data_received = self._received  # type: ignore[method-assign]  # as said above
        self.client.ctx.datagram_received = self._received  # type: ignore[method-assign]  # as said above
        self._loop = asyncio.get_running_loop()
        self._record = ring.add
        self._closed = closed
        self._unit = self._function = self._number = 0
        self._reply: asyncio.Future[bytes] | None = None
        """What the request under way waits for."""
        self._timer: asyncio.TimerHandle
        """Ends it."""
        self._pending = b""
        """The part of a reply that has come so far."""

    def abandon(self) -> None:
        """Close at once: pymodbus would first wait for unsent data and for TLS's farewell."""
        transport = self.client.ctx.transport
        self.client.close()
        if isinstance(transport, asyncio.WriteTransport | asyncio.DatagramTransport):
            transport.abort()

    async def transact(self, unit: int, request: bytes, number: int, within: float) -> bytes:
        """See `Link.exchange`. Afterwards, unless it succeeded, the connection must not be used any more."""
        self._unit, self._function, self._number = unit, request[0], number
        self._pending = b""
        if not self.client.connected:
            raise self._ended()
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._reply = reply
        due = self._loop.time() + within
        self._timer = self._loop.call_at(due, self._too_late, within, due)
        try:
            frame = _HEAD.pack(number, 0, len(request) + 1, unit, request[0]) + request[1:]
            self._record(time.monotonic_ns() // 1000, "tx", frame)
            self.client.ctx.send(frame)
            return await reply
        except asyncio.CancelledError:
            if not reply.cancel():
                reply.exception()  # it had failed in the same moment: that has been looked at
            raise
        finally:
            self._timer.cancel()
            self._reply = None

    def _too_late(self, within: float, due: float) -> None:
        more = held_up(due, self._loop.time())
        if more:
            self._timer = self._loop.call_later(min(more, within), self._give_up, within)
        else:
            self._give_up(within)

    def _give_up(self, within: float) -> None:
        self._fail(self._missing(within))

    def _ended(self) -> TransientError:
        why, reason = self._closed
        return _ClosedError(why, reason=reason)

    def _missing(self, within: float) -> TransientError:
        if self._pending:
            return InvalidReplyError(f"only a part of a reply came within {within:g} s")
        late = ", only one to an earlier request: is `timeout` too short?" if self.foreign else ""
        return TransientError(f"no answer within {within:g} s{late}", reason=Reason.TIMEOUT)

    # -- called by pymodbus and asyncio -------------------------------------------------------------------------------

    def _connection(self, connected: bool) -> None:  # noqa: FBT001  # pymodbus' own signature
        if connected:
            return
        if self._pending:
            self._fail(InvalidReplyError("the connection was closed in the middle of a reply"))
        else:
            self._fail(self._ended())

    def _received(self, data: bytes, addr: tuple[Any, ...] | None = None) -> None:  # noqa: ARG002  # asyncio's signature
        """Let through what is the reply to the request under way, and nothing else."""
        self._record(time.monotonic_ns() // 1000, "rx", data)
        reply = self._reply
        if reply is None or reply.done():
            return  # nobody waits for it
        if self._pending:
            data = self._pending + data
        while len(data) >= _HEADER:
            number, protocol, length = int.from_bytes(data[:2]), int.from_bytes(data[2:4]), int.from_bytes(data[4:6])
            if protocol or not 3 <= length <= _LONGEST:  # noqa: PLR2004  # unit, function and at least one byte
                self._invalid(f"the answer is not Modbus ({hexdump(data)})")
                return
            end = _HEADER + length
            if len(data) < end:
                break
            if number == self._number:
                self._checked(reply, data[:end])
                return
            age = (self._number - number) % _NUMBERS
            if not 0 < age < _NUMBERS // 2 or not number:
                self._invalid(f"it answered transaction {number} when asked {self._number}")
                return
            # The reply to an earlier request: a device that repeats itself, or on UDP a late one.
            self.foreign += 1
            data = data[end:]
        self._pending = data

    def _checked(self, reply: asyncio.Future[bytes], frame: bytes) -> None:
        unit, function = frame[6], frame[7]
        if unit != self._unit:
            self._invalid(f"unit {unit} answered when unit {self._unit} was asked")
        elif function & 0x7F != self._function:
            self._invalid(f"it answered function {function} when asked {self._function}")
        elif function & 0x80 and len(frame) != _REFUSAL:
            self._invalid(f"an exception reply has 2 bytes, not {len(frame) - 7}")
        else:
            self.arrived = now()
            reply.set_result(frame[7:])

    def _invalid(self, why: str) -> None:
        self._fail(InvalidReplyError(why))

    def _fail(self, error: TransientError) -> None:
        """End the request under way."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


def tcp_links(config: ModbusTcpBus) -> list[PymodbusLink]:
    """The links of a Modbus TCP bus: one per connection."""
    endpoint = Endpoint(config.host, config.port, config.timeout)

    def make(address: str, connection: Callable[[bool], None]) -> ModbusBaseClient:
        return AsyncModbusTcpClient(address, port=config.port, retries=0, reconnect_delay=0, trace_connect=connection)

    return [PymodbusLink(endpoint, make) for _ in range(config.connections)]


def udp_links(config: ModbusUdpBus) -> list[PymodbusLink]:
    """The link of a Modbus UDP bus."""
    endpoint = Endpoint(config.host, config.port, config.timeout, socket.SOCK_DGRAM)

    def make(address: str, connection: Callable[[bool], None]) -> ModbusBaseClient:
        client = AsyncModbusUdpClient(address, port=config.port, retries=0, reconnect_delay=0, trace_connect=connection)
        # An ICMP "port unreachable" comes this way; pymodbus only logs it.
        client.ctx.error_received = client.ctx.connection_lost  # type: ignore[method-assign]  # the only hook there is
        return client

    nobody = f"nobody listens at {endpoint} (UDP): check the port, and that Modbus over UDP is enabled in the device"
    return [PymodbusLink(endpoint, make, (nobody, Reason.UNREACHABLE))]


def tls_links(config: ModbusTlsBus) -> list[PymodbusLink]:
    """The links of a Modbus/TCP Security bus. Raises ConfigError for a certificate or key that cannot be used."""
    endpoint = Endpoint(config.host, config.port, config.timeout)
    contexts = _Contexts(config)
    contexts.get()

    def make(address: str, connection: Callable[[bool], None]) -> ModbusBaseClient:
        try:
            context = contexts.get()
        except ConfigError as exc:
            raise TransientError(str(exc), reason=Reason.UNREACHABLE) from exc
        client = AsyncModbusTlsClient(
            address, port=config.port, sslctx=context, retries=0, reconnect_delay=0,
            trace_connect=connection,
        )  # fmt: skip
        # pymodbus has no parameter for the name to verify.
        create: partial[Any] = client.ctx.call_create  # type: ignore[assignment]  # declared as what it only behaves like
        client.ctx.call_create = partial(create, server_hostname=config.server_name or config.host)
        return client

    # With TLS 1.3 a server looks at our certificate when the connection is made already, and can only close it.
    closed = (
        f"{endpoint} closed the connection instead of answering: does it want a certificate of ours, or another one?"
    )
    return [PymodbusLink(endpoint, make, (closed, Reason.PROTOCOL)) for _ in range(config.connections)]


class _Contexts:
    """The TLS settings, read again when one of the files has changed, as certificates do when they are renewed."""

    def __init__(self, config: ModbusTlsBus) -> None:
        self._config = config
        self._context: ssl.SSLContext | None = None
        self._read: list[float] = []

    def get(self) -> ssl.SSLContext:
        """The context as the files are now. Raises ConfigError that names the file."""
        files = [name for name in (self._config.ca, self._config.certificate, self._config.key) if name]
        stamps = [_modified(name) for name in files]
        if self._context is None or stamps != self._read:
            self._context, self._read = _make_context(self._config), stamps
        return self._context


def _modified(name: str) -> float:
    try:
        return Path(name).stat().st_mtime
    except OSError as exc:
        raise ConfigError(f"cannot read {name}: {exc.strerror}") from exc


def _make_context(config: ModbusTlsBus) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca or None)
    except OSError as exc:  # an SSLError is one
        raise ConfigError(f"`ca: {config.ca}` is not a file of certificates in PEM format ({_why(exc)})") from exc
    # The same rules on every Python: from 3.13 on the strict ones are its default, and for their formalities it would
    # refuse the certificates of many devices, which make their own.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.certificate:
        files = f"`certificate: {config.certificate}`" + (f" and `key: {config.key}`" if config.key else "")
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(config.certificate, config.key or None, password="")
        except OSError as exc:
            raise ConfigError(
                f"{files}: not a certificate and its key in PEM format, without a password ({_why(exc)})"
            ) from exc
    return context


def _why(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    return exc.strerror or str(exc)
