"""Links on pymodbus: Modbus TCP, TLS and UDP.

pymodbus opens the connection, numbers, frames and sends the requests, and waits for the reply. What comes in is checked
here before pymodbus sees it, because it compares neither function nor length of a reply with its request, ends up in
asyncio's exception handler on a malformed one, and lets a request whose connection is gone run into its time-out.
Whatever goes wrong costs the connection: a late reply then has no way to reach a later request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from pymodbus.client import AsyncModbusTcpClient, AsyncModbusTlsClient, AsyncModbusUdpClient, ModbusBaseClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from edged.adapter import ConfigError, Reason, TransientError

from .config import ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from .link import Endpoint, Moment, hexdump, now
from .pdu import DeviceFailureError, InvalidReplyError, RefusedError, Request

T = TypeVar("T")
Factory = Callable[[str, Callable[[bool, bytes], bytes], Callable[[bool], None]], ModbusBaseClient]
"""A client for an address, with its hooks for packets and for the connection."""

_FUNCTIONS = (1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 43)
_READS = frozenset({1, 2, 3, 4, 43})
_HEADER = 6
"""Bytes of an MBAP header up to and with its length field (Modbus Messaging on TCP/IP V1.0b, 3.1.3)."""
_LONGEST = 254
"""Highest value of the length field: unit and PDU."""
_REFUSAL = 9
"""Bytes of a frame with an exception; pymodbus does not look at what follows the code."""
_BUFFER = 1 << 16
_NUMBERS = 65_000
"""pymodbus numbers its requests from 1 to this."""

_pymodbus_log = logging.getLogger("pymodbus")
if _pymodbus_log.level == logging.NOTSET:
    # It logs each failure, with dumps, each time. We tell the same once, by our own errors.
    _pymodbus_log.setLevel(logging.CRITICAL + 1)


class _ClosedError(TransientError):
    """The connection ended before any reply."""


class _Request(ModbusPDU):
    """A request whose bytes are made already."""

    def __init__(self, unit: int, pdu: bytes) -> None:
        super().__init__(dev_id=unit)
        self.function_code = pdu[0]
        self._body = pdu[1:]

    def encode(self) -> bytes:
        return self._body


class _Reply(ModbusPDU):
    """A reply as it came: decoding is the codec's, for whole blocks at once."""

    body = b""

    def decode(self, data: bytes) -> None:
        self.body = data

    __str__ = object.__repr__  # pymodbus formats each reply for its debug log, logged or not


_REPLIES = [type(f"_Reply{code}", (_Reply,), {"function_code": code}) for code in _FUNCTIONS]


class PymodbusLink:
    """A link over one connection, opened when first needed and again after every failure."""

    def __init__(self, endpoint: Endpoint, make: Factory, closed: tuple[str, Reason] | None = None) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.news: list[str] = []
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
        self._number = session.client.ctx.next_tid = self._number % _NUMBERS
        self._number += 1  # as pymodbus will do
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
        session = _Session(address, self._make, self._closed)
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

    def __init__(self, address: str, make: Factory, closed: tuple[str, Reason]) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.client = make(address, self._packet, self._connection)
        for reply in _REPLIES:
            self.client.register(reply)
        # Its own limit is about one frame, and it empties the buffer without a word when more comes in at once.
        self.client.ctx.max_buffer_size = _BUFFER
        self._closed = closed
        self._unit = self._function = self._number = 0
        self._waiting = False
        self._heard = False
        """A part of a reply has come."""

    def abandon(self) -> None:
        """Close at once: pymodbus would first wait for unsent data and for TLS's farewell."""
        transport = self.client.ctx.transport
        self.client.close()
        if isinstance(transport, asyncio.WriteTransport | asyncio.DatagramTransport):
            transport.abort()

    async def transact(self, unit: int, request: bytes, number: int, within: float) -> bytes:
        """See `Link.exchange`. Afterwards, unless it succeeded, the connection must not be used any more."""
        self.client.ctx.comm_params.timeout_connect = within  # its only time-out, for replies too
        self._unit, self._function, self._number = unit, request[0], number
        self._heard = False
        self._waiting = True
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelled = task.cancelling()
        try:
            reply = await self.client.execute(False, _Request(unit, request))  # noqa: FBT003  # pymodbus' signature
        except ModbusException as exc:
            raise self._missing(within) from exc
        finally:
            self._waiting = False
        if task.cancelling() > cancelled:
            # In Python 3.11 the `wait_for` in pymodbus swallows a cancellation that comes together with the reply.
            raise asyncio.CancelledError
        if isinstance(reply, _Reply):
            return bytes((reply.function_code,)) + reply.body
        return bytes((reply.function_code, reply.exception_code))

    def _missing(self, within: float) -> TransientError:
        if self._heard:
            return InvalidReplyError(f"only a part of a reply came within {within:g} s")
        late = ", only one to an earlier request: is `timeout` too short?" if self.foreign else ""
        return TransientError(f"no answer within {within:g} s{late}", reason=Reason.TIMEOUT)

    # -- called by pymodbus ------------------------------------------------------------------------------------------

    def _connection(self, connected: bool) -> None:  # noqa: FBT001  # pymodbus' own signature
        if connected:
            return
        if self._heard:
            self._fail(InvalidReplyError("the connection was closed in the middle of a reply"))
        else:
            why, reason = self._closed
            self._fail(_ClosedError(why, reason=reason))

    def _packet(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001  # pymodbus' own signature
        """Let through what is the reply to the request under way, and nothing else.

        Gets everything received since the request was sent; an empty return asks for more.
        """
        if sending:
            return data
        if not self._waiting:
            return b""
        self._heard = True
        while len(data) >= _HEADER:
            number, protocol, length = int.from_bytes(data[:2]), int.from_bytes(data[2:4]), int.from_bytes(data[4:6])
            if protocol or not 3 <= length <= _LONGEST:  # noqa: PLR2004  # unit, function and at least one byte
                return self._invalid(f"the answer is not Modbus ({hexdump(data)})")
            end = _HEADER + length
            if len(data) < end:
                break
            if number == self._number:
                return self._checked(data[:end])
            age = (self._number - number) % _NUMBERS
            if not 0 < age < _NUMBERS // 2 or not number:
                return self._invalid(f"it answered transaction {number} when asked {self._number}")
            # The reply to an earlier request: a device that repeats itself, or on UDP a late one.
            self.foreign += 1
            data = data[end:]
            self.client.ctx.recv_buffer = data
            self._heard = bool(data)
        return b""

    def _checked(self, frame: bytes) -> bytes:
        unit, function = frame[6], frame[7]
        if unit != self._unit:
            return self._invalid(f"unit {unit} answered when unit {self._unit} was asked")
        if function & 0x7F != self._function:
            return self._invalid(f"it answered function {function} when asked {self._function}")
        if function & 0x80 and len(frame) != _REFUSAL:
            return self._invalid(f"an exception reply has 2 bytes, not {len(frame) - 7}")
        self.arrived = now()
        return frame

    def _invalid(self, why: str) -> bytes:
        self._fail(InvalidReplyError(why))
        return b""

    def _fail(self, error: TransientError) -> None:
        """End the request under way; pymodbus itself would let it run into its time-out."""
        future = self.client.ctx.response_future
        if self._waiting and not future.done():
            future.set_exception(error)


def tcp_links(config: ModbusTcpBus) -> list[PymodbusLink]:
    """The links of a Modbus TCP bus: one per connection."""
    endpoint = Endpoint(config.host, config.port, config.timeout)

    def make(
        address: str, packet: Callable[[bool, bytes], bytes], connection: Callable[[bool], None]
    ) -> ModbusBaseClient:
        return AsyncModbusTcpClient(
            address, port=config.port, retries=0, reconnect_delay=0, trace_packet=packet, trace_connect=connection
        )

    return [PymodbusLink(endpoint, make) for _ in range(config.connections)]


def udp_links(config: ModbusUdpBus) -> list[PymodbusLink]:
    """The link of a Modbus UDP bus."""
    endpoint = Endpoint(config.host, config.port, config.timeout, socket.SOCK_DGRAM)

    def make(
        address: str, packet: Callable[[bool, bytes], bytes], connection: Callable[[bool], None]
    ) -> ModbusBaseClient:
        client = AsyncModbusUdpClient(
            address, port=config.port, retries=0, reconnect_delay=0, trace_packet=packet, trace_connect=connection
        )
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

    def make(
        address: str, packet: Callable[[bool, bytes], bytes], connection: Callable[[bool], None]
    ) -> ModbusBaseClient:
        try:
            context = contexts.get()
        except ConfigError as exc:
            raise TransientError(str(exc), reason=Reason.UNREACHABLE) from exc
        client = AsyncModbusTlsClient(
            address, port=config.port, sslctx=context, retries=0, reconnect_delay=0,
            trace_packet=packet, trace_connect=connection,
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
