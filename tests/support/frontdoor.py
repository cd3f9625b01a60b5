"""A service's front door before a real mosquitto: TLS, who may come in, and what may be said; else the line is cut."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.support.pki import Pki

_CONNECT, _PUBLISH, _SUBSCRIBE = 1, 3, 8


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT of MQTT 3.1.1 (3.1)."""

    level: int
    clean: bool
    keepalive: int
    client_id: str
    will: tuple[str, int, bool] | None
    """Topic, QoS, RETAIN."""
    username: str
    password: str
    certificate: str
    """The common name of the client's certificate; empty if it has none."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What becomes of a CONNECT."""

    code: int = 0
    """The CONNACK's return code; 0 lets it in."""
    lasts: float | None = None
    """Seconds after which the line is cut."""


class FrontDoor:
    """Let in those that `admit` likes, and cut the line when `forbid` says why."""

    def __init__(
        self, backend: int, pki: Pki, admit: Callable[[Connect], Admission],
        forbid: Callable[[Connect, str, int, bool], str], forbid_filter: Callable[[Connect, str, int], str],
    ) -> None:  # fmt: skip
        """`forbid`: of (topic, QoS, RETAIN) that is published; `forbid_filter`: of (filter, QoS) subscribed to."""
        self._backend = backend
        self._admit = admit
        self._forbid = forbid
        self._forbid_filter = forbid_filter
        certificate, key = pki.issue("front-door", "IP:127.0.0.1")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.load_verify_locations(pki.certificate)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self.port = 0
        self.connects: list[Connect] = []
        self.refused: list[int] = []
        self.violations: list[str] = []
        self._lines: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._lines):
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._line(reader, writer)
        finally:
            self._lines.discard(task)
            writer.transport.abort()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, _, body, raw = await _packet(reader)
        assert kind == _CONNECT
        known = _connect(body, _common_name(writer))
        admission = self._admit(known)
        if admission.code:
            self.refused.append(admission.code)
            writer.write(bytes([0x20, 2, 0, admission.code]))
            await writer.drain()
            return
        self.connects.append(known)
        there, here = await asyncio.open_connection("127.0.0.1", self._backend)
        here.write(_without_user(body))
        del raw
        try:
            async with asyncio.timeout(admission.lasts):
                up = asyncio.ensure_future(self._up(known, reader, here))
                down = asyncio.ensure_future(_pump(there, writer))
                try:
                    await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in (up, down):
                        one.cancel()
                    await asyncio.gather(up, down, return_exceptions=True)
        except TimeoutError:
            pass
        finally:
            here.transport.abort()

    async def _up(self, known: Connect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, flags, body, raw = await _packet(reader)
            why = self._judge(known, kind, flags, body)
            if why:
                self.violations.append(why)
                return
            writer.write(raw)
            await writer.drain()

    def _judge(self, known: Connect, kind: int, flags: int, body: bytes) -> str:
        if kind == _PUBLISH:
            size = int.from_bytes(body[:2], "big")
            return self._forbid(known, body[2 : 2 + size].decode(), flags >> 1 & 3, bool(flags & 1))
        if kind != _SUBSCRIBE:
            return ""
        at, found = 2, []
        while at < len(body):
            size = int.from_bytes(body[at : at + 2], "big")
            found.append(self._forbid_filter(known, body[at + 2 : at + 2 + size].decode(), body[at + 2 + size]))
            at += size + 3
        return next(filter(None, found), "")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes, bytes]:
    raw = await reader.readexactly(1)
    size = shift = 0
    while True:
        one = await reader.readexactly(1)
        raw += one
        size |= (one[0] & 0x7F) << shift
        shift += 7
        if one[0] < 0x80:
            break
    body = await reader.readexactly(size)
    return raw[0] >> 4, raw[0] & 0x0F, body, raw + body


def _fields(body: bytes) -> tuple[list[bytes], int, int, int]:
    """The length-prefixed fields of a CONNECT's payload, and level, flags and keepalive."""
    level, flags, keepalive = body[6], body[7], int.from_bytes(body[8:10], "big")
    at, fields = 10, []
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        fields.append(body[at + 2 : at + 2 + size])
        at += 2 + size
    return fields, level, flags, keepalive


def _connect(body: bytes, certificate: str) -> Connect:
    fields, level, flags, keepalive = _fields(body)
    client_id = fields.pop(0).decode()
    will = (fields.pop(0).decode(), flags >> 3 & 3, bool(flags & 0x20)) if flags & 0x04 else None
    if will is not None:
        fields.pop(0)
    username = fields.pop(0).decode() if flags & 0x80 else ""
    password = fields.pop(0).decode() if flags & 0x40 else ""
    return Connect(level, bool(flags & 2), keepalive, client_id, will, username, password, certificate)


def _without_user(body: bytes) -> bytes:
    """The CONNECT for the broker behind, which knows no users."""
    fields, _, flags, _ = _fields(body)
    kept = fields[: 3 if flags & 0x04 else 1]
    rest = b"".join(len(one).to_bytes(2, "big") + one for one in kept)
    whole = body[:7] + bytes([flags & 0x3F]) + body[8:10] + rest
    size, length = len(whole), b""
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return b"\x10" + length + whole


def _common_name(writer: asyncio.StreamWriter) -> str:
    certificate = writer.get_extra_info("peercert") or {}
    return next((value for one in certificate.get("subject", ()) for name, value in one if name == "commonName"), "")
