"""The connector `http`: readings as requests to a server of one's own, with address, headers and body as it wants them.

What is sent, and how a receiver proves that nothing is missing, is described in docs/how-to/http.md.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Secret
from edged.discretion import hide, names_a_secret, secrets_in
from edged.errors import ConfigError
from edged.uplink.api import Chunk, ConnectionContext, Encoder, Envelope, Link
from edged.uplink.dialects.http import fill_text, fill_url, signature
from edged.uplink.laidout import LaidOutConnection, LaidOutEncoder, proof
from edged.uplink.servers import ServerConnection, server
from edged.uplink.topics import names_used
from edged.uplink.upstream import NAMES, names_of, pacing

if TYPE_CHECKING:
    from edged.uplink.links.http import Signer

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""RFC 9110, 5.6.2: the name of a header."""
_OURS = frozenset({
    "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "expect",
    "upgrade", "te", "trailer",
})  # fmt: skip
_CODINGS = {"zlib": "deflate", "gzip": "gzip"}
"""RFC 9110, 8.4.1: what HTTP calls the compressions."""
_PATIENCE = 12


@dataclass(frozen=True, kw_only=True)
class HmacConfig:
    """A signature in each request: HMAC-SHA256 over method, path, time and body."""

    __pydantic_config__: ClassVar = STRICT

    secret: Secret
    """What both sides know: `!secret NAME`."""
    key_id: str = ""
    """Which of its secrets the server is to check with, if it has several."""
    signature_header: str = "X-Signature"
    """Where the signature goes, in hexadecimal."""
    timestamp_header: str = "X-Timestamp"
    """Where the time goes: seconds since 1970. It is a part of what is signed."""
    key_id_header: str = "X-Key-Id"
    """Where `key_id` goes."""

    def __post_init__(self) -> None:
        for name in ("signature_header", "timestamp_header", "key_id_header"):
            _check_header(name, getattr(self, name))
        _check_text("key_id", self.key_id)


@dataclass(frozen=True, kw_only=True)
class HttpConnection(LaidOutConnection, ServerConnection):
    """A server that takes readings as requests: an API, a function of a cloud, a script."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True

    url: str
    """Where the requests go: `https://host/path`. `{gateway}`, `{tenant}`, `{building}`, `{location}`, `{connection}`
    and `{lane}` are filled in, and `{device}` with `layout: samples`."""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    """The method of the requests."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to send besides, such as `X-Site: "{building}"`. Names are filled in as in `url`, but lane and device."""
    secret_headers: dict[str, Secret] = field(default_factory=dict)
    """Headers that nobody may see, such as `X-Api-Key: !secret NAME`."""
    username: str | None = None
    """The user name, if the server wants one (Basic)."""
    password: Secret | None = None
    """The password: `!secret NAME`."""
    secret_query: dict[str, Secret] = field(default_factory=dict)
    """Parameters of the URL that nobody may see, such as `code: !secret NAME` for a function of Azure."""
    bearer: Secret | None = None
    """A token: `!secret NAME`. It goes into `Authorization: Bearer …`."""
    hmac: HmacConfig | None = None
    """A signature in each request."""
    idempotency_header: str = "Idempotency-Key"
    """A header that tells a message from all others and is the same when it is sent again, so that the server can drop
    what it has. Empty: none."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.hmac is not None and not self.hmac.key_id:
            yield "hmac.key_id_header", "there is no `key_id`"
        yield from super().idle()

    def revealed(self) -> Iterator[tuple[str, str, str]]:
        """See the base class."""
        for name, text in secrets_in(self.url):
            yield "url", text, f"take `{name}` out of it, and write `secret_query: {{{name}: !secret NAME}}`"
        for name in filter(names_a_secret, self.headers):
            yield "headers", self.headers[name], f"write `secret_headers: {{{name}: !secret NAME}}` instead"
        yield from super().revealed()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_layout()
        used = names_used(self.url, (*NAMES, "lane", "device"), "`url`")
        if "device" in used and self.layout != "samples":
            raise ValueError("`url` can use {device} only with `layout: samples`: other messages have many devices")
        if {"lane", "device"} & names_used(self.url.split("/", 3)[2], (*NAMES, "lane", "device"), "`url`"):
            raise ValueError("`url` can use {lane} and {device} only in its path: a connection goes to one host")
        ways = [way for way in ("username", "bearer") if getattr(self, way) is not None]
        if len(ways) > 1:
            raise ValueError("`username` and `bearer` both go into the header Authorization: use one of them")
        if self.password is not None and self.username is None:
            raise ValueError("`password` needs a `username`")
        if self.username is not None and ":" in self.username:
            raise ValueError("`username` cannot have a colon (RFC 7617)")
        self._check_headers()
        if twice := self.secret_query.keys() & {name for name, _ in parse_qsl(urlsplit(self.url).query)}:
            raise ValueError(f"`secret_query` sets `{min(twice)}`, which is in `url` already")

    def _check_headers(self) -> None:
        for name, text in self.headers.items():
            _check_header("headers", name)
            names_used(text, NAMES, f"the header {name}")
            _check_text(name, text)
        for name in self.secret_headers:
            _check_header("secret_headers", name)
        if self.idempotency_header:
            _check_header("idempotency_header", self.idempotency_header)
        names = [*self.headers, *self.secret_headers, self.idempotency_header]
        names += ["Authorization"] if self.username is not None or self.bearer is not None else []
        if self.hmac is not None:
            names += [self.hmac.signature_header, self.hmac.timestamp_header, self.hmac.key_id_header]
        twice = [name for name in names if [one.lower() for one in names].count(name.lower()) > 1]
        if twice:
            raise ValueError(f"the header {twice[0]} is set twice")


def _check_header(setting: str, name: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} in `{setting}` is no name of a header: letters, digits and hyphens")
    if name.lower() in _OURS or name.lower().startswith("edged-"):
        raise ValueError(f"the header {name} in `{setting}` is set by edged itself")


def _check_text(name: str, text: str) -> None:
    """Whatever else could end the header and begin another one."""
    if not (text.isascii() and text.isprintable() and text == text.strip()):
        raise ValueError(f"the header {name} can only have printable ASCII, without spaces around it")


class HttpEncoder(LaidOutEncoder):
    """Cuts batches into messages, one for each request."""

    def __init__(self, config: HttpConnection, context: ConnectionContext) -> None:
        """Raises ConfigError if URL or headers cannot be made."""
        super().__init__(config, context, "url", partial(fill_url, config.url))
        self._gateway = str(context.gateway.id)
        self._idempotency = config.idempotency_header
        coding = _CODINGS.get(config.compression)
        self._fixed = {"Content-Encoding": coding} if coding else {}
        try:
            _headers(config, names_of(context))
        except ValueError as exc:
            raise ConfigError(f"connection {context.name}: {exc}") from exc

    def properties(self, chunk: Chunk, envelope: Envelope) -> dict[str, str]:
        """The headers."""
        return {**self._fixed, **about(chunk, envelope, self._gateway, self._idempotency)}


def _headers(config: HttpConnection, names: Mapping[str, str]) -> dict[str, str]:
    """Those of the configuration. Raises ValueError if one cannot be made with these names."""
    headers = {}
    for name, template in config.headers.items():
        try:
            headers[name] = fill_text(template, names)
        except ValueError as exc:
            raise ValueError(f"the header {name}: {exc}") from exc
        _check_text(name, headers[name])
    return headers


def about(chunk: Chunk, envelope: Envelope, gateway: str, idempotency: str) -> dict[str, str]:
    """The headers that say where a message belongs, whatever its body says.

    What tells it from all others is named without its lane: after a crash it may come again on another one.
    """
    headers = {f"edged-{name}": text for name, text in proof(chunk, envelope, gateway).items()}
    if idempotency:
        flow = f"/{envelope.flow}" if envelope.flow else ""
        headers[idempotency] = f'"{gateway}{flow}/{envelope.epoch}/{chunk.first}-{envelope.seq}"'
    return headers


def _signer(config: HttpConnection, context: ConnectionContext) -> Callable[[], Signer]:
    """What says who we are. Secrets are read when a session begins."""

    def begin() -> Signer:
        fixed = {name: context.secret(secret) for name, secret in config.secret_headers.items()}
        if config.bearer is not None:
            fixed["Authorization"] = f"Bearer {context.secret(config.bearer)}"
        if config.username is not None:
            password = context.secret(config.password) if config.password is not None else ""
            pair = base64.b64encode(f"{config.username}:{password}".encode()).decode()
            hide(pair)  # the password in another form
            fixed["Authorization"] = f"Basic {pair}"
        for name, text in fixed.items():
            if not (text.isascii() and text.isprintable()):
                raise ConfigError(
                    f"connection {context.name}: the secret for {name} has characters that no header can have"
                )
        given, secret = config.hmac, context.secret(config.hmac.secret) if config.hmac else ""

        def sign(method: str, path: str, body: bytes, now: float) -> Mapping[str, str]:
            if given is None:
                return fixed
            key, moment = {given.key_id_header: given.key_id} if given.key_id else {}, str(int(now))
            signed = signature(secret, method, path, moment, body)
            return {**fixed, **key, given.timestamp_header: moment, given.signature_header: signed}

        return sign

    return begin


def _query(config: HttpConnection, context: ConnectionContext) -> str:
    """The parameters that nobody may see. Raises ConfigError."""
    texts = {name: context.secret(secret) for name, secret in config.secret_query.items()}
    return urlencode(texts, quote_via=quote, safe="")


def _credentials(config: HttpConnection) -> str:
    """The settings that say who we are, for people."""
    used = [
        name
        for name in ("username", "bearer", "hmac", "secret_headers", "secret_query", "certificate")
        if getattr(config, name)
    ]
    return (
        " and ".join(f"`{name}`" for name in used) or "whether the server wants a `bearer` token or another credential"
    )


class HttpConnector:
    """Builds the parts of an `http` connection."""

    connection_config: type[ConnectionConfig] = HttpConnection

    def encoder(self, config: HttpConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection. Raises ConfigError if its URL cannot be made."""
        return HttpEncoder(config, context)

    def link(self, config: HttpConnection, context: ConnectionContext) -> Link:
        """The link of this connection. Raises ConfigError if URL or headers cannot be made."""
        from edged.uplink.links.http import HttpLink  # noqa: PLC0415  # only a forwarding daemon pays for it

        names = names_of(context)
        try:
            url = fill_url(config.url, {**names, "lane": "live", "device": "device"})
            headers = _headers(config, names)
        except ValueError as exc:
            raise ConfigError(f"connection {context.name}: {exc}") from exc
        for text in (*dict(secrets_in(url)).values(), *(headers[name] for name in filter(names_a_secret, headers))):
            hide(text)
        made = server(
            config, context, url, headers=headers, signer=_signer(config, context), credentials=_credentials(config),
            query=partial(_query, config, context), method=config.method, own_addresses="{device}" in config.url,
            patience=_PATIENCE,
        )  # fmt: skip
        return HttpLink(context.name, made, pacing(config))


CONNECTOR = HttpConnector()
