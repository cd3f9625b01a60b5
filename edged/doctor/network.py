"""The way to a receiver: its name, its port, its certificate, the login."""

from __future__ import annotations

import contextlib
import secrets as random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edged.config.model import Config
from edged.config.secrets import filled
from edged.errors import ConfigError, EdgedError
from edged.uplink.links.reasons import UNSUPPORTED_VERSION, connack
from edged.uplink.links.tls import Tls, explain, make_context

from .check import Check, ok, problem, skipped, warning
from .mqtt import DISCONNECT, connack_code, connect_packet

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443, "http": 80, "https": 443}
_PATIENCE = 5.0
_SOON = 30
"""Days before its end in which a certificate is worth a warning."""


def check_connections(config: Config | None, base: Path) -> Iterator[Check]:
    """Each connection that has a `url`."""
    for name, connection in config.connections.items() if config else ():
        url = str(getattr(connection, "url", ""))
        if not connection.enabled or not url:
            yield skipped(f"connection {name}", "switched off" if not connection.enabled else "it has no `url`")
            continue
        if "{" in urlsplit(url).netloc:
            yield skipped(f"connection {name}", f"the host in {url} is made of names")
            continue
        yield from _check_one(name, connection, url, base)


def _check_one(name: str, connection: Any, url: str, base: Path) -> Iterator[Check]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
        settings = filled(connection, base=base)
    except (ConfigError, ValueError) as exc:
        yield problem(f"connection {name}", str(exc), "see docs/how-to/secrets.md")
        return
    try:
        addresses = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except OSError as exc:
        yield problem(
            f"dns {name}", f"there is no host {host!r} ({exc.strerror})",
            "check the spelling, the name server (resolvectl status), and whether the machine has a network at all",
        )  # fmt: skip
        return
    yield ok(f"dns {name}", f"{host} is {', '.join(addresses)}")
    try:
        raw = socket.create_connection((host, port), timeout=_PATIENCE)
    except OSError as exc:
        why = exc.strerror or ("no answer" if isinstance(exc, TimeoutError) else str(exc))
        yield problem(
            f"port {name}", f"no connection to {host}:{port} ({why})",
            "is the receiver running, is the port right, does a firewall on the way let it through?",
        )  # fmt: skip
        return
    yield ok(f"port {name}", f"{host}:{port} accepts connections")
    with raw:
        yield from _beyond_tcp(name, settings, parts.scheme, raw, f"{host}:{port}")


def _beyond_tcp(name: str, settings: Any, scheme: str, raw: socket.socket, where: str) -> Iterator[Check]:
    stream: socket.socket = raw
    if scheme in {"mqtts", "wss", "https"}:
        try:
            wrapped, check = _wrapped(name, settings, raw, where)
        except EdgedError as exc:
            yield problem(f"tls {name}", str(exc), "see docs/how-to/secrets.md, `ca` and `server_name`; and the clock")
            return
        except OSError as exc:
            yield problem(
                f"tls {name}", f"{where} ends the handshake ({exc.strerror or exc})", "does this port speak TLS?"
            )
            return
        yield check
        stream = wrapped
    if not getattr(settings, "PLAIN_LOGIN", True):
        yield skipped(f"login {name}", "only the gateway itself can log in there: `edged status` says how that goes")
    elif scheme in {"mqtt", "mqtts"}:
        yield _login(name, settings, stream, where)
    else:
        yield skipped(f"login {name}", f"only mqtt:// and mqtts:// are tried, and this is {scheme}://")


def _wrapped(name: str, settings: Any, raw: socket.socket, where: str) -> tuple[ssl.SSLSocket, Check]:
    """The encrypted stream. Raises EdgedError, OSError."""
    alpn = tuple(getattr(settings, "alpn", ()))  # HTTP has no choice of them
    tls = Tls(settings.ca, settings.certificate, settings.key, alpn, settings.server_name, settings.insecure)
    host = where.rpartition(":")[0]
    try:
        stream = make_context(tls).wrap_socket(raw, server_hostname=settings.server_name or host)
    except ssl.SSLError as exc:
        raise explain(exc, where) from exc
    if settings.insecure:
        return stream, warning(f"tls {name}", "any certificate is accepted (`insecure: true`)", "remove `insecure`")
    ends = (stream.getpeercert() or {}).get("notAfter", "")
    days = (ssl.cert_time_to_seconds(str(ends)) - time.time()) / 86_400 if ends else 0.0
    text = f"{stream.version()}, the certificate is trusted and ends in {days:,.0f} days ({ends})"
    if days < _SOON:
        return stream, warning(f"tls {name}", text, "have the receiver's certificate renewed")
    return stream, ok(f"tls {name}", text)


def _login(name: str, settings: Any, stream: socket.socket, where: str) -> Check:
    """Log in under a client id of our own, so that the gateway's session stays."""
    client_id = f"edged-doctor-{random.token_hex(4)}"
    password = settings.password.text if settings.password is not None else None
    token = getattr(settings, "token", None)
    user = token.text if token is not None else settings.username
    version = 4 if settings.protocol == "3.1.1" else 5
    stream.settimeout(_PATIENCE)
    try:
        stream.sendall(connect_packet(client_id, user, password, version=version))
        code = connack_code(stream.recv(1024))
    except OSError as exc:
        return problem(
            f"login {name}", f"{where} does not answer the login ({exc.strerror or 'in time'})", "is it an MQTT broker?"
        )
    if code is None:
        return problem(
            f"login {name}", f"{where} ends the session without an answer", "is it an MQTT broker, on the right port?"
        )
    if code == UNSUPPORTED_VERSION and settings.protocol == "auto":
        return ok(f"login {name}", "the broker speaks only MQTT 3.1.1, which the gateway uses by itself then")
    if code:
        reason = connack(code, where, client_id=client_id)
        return problem(
            f"login {name}", f"{reason} (reason code 0x{code:02x})", "correct the account, here or at the broker"
        )
    with contextlib.suppress(OSError):
        stream.sendall(DISCONNECT)
    named = password is not None  # else the user name may be a secret itself, such as a token
    return ok(f"login {name}", f"{where} accepts user {user!r}" if named else f"{where} accepts us")
