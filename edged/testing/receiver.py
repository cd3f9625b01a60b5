"""Reads edged's messages at a broker, as a backend would. One of the places that know the MQTT library."""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import orjson

from edged.errors import ConfigError, TransientError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_PROOF = frozenset({"gateway", "epoch", "lane", "seq", "prev"})
"""What each message of readings says of itself."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to listen."""

    url: str
    username: str | None = None
    password: str | None = None
    ca: str | None = None
    """A file of certificates, PEM; None for those that the system trusts."""


async def receive(
    broker: Broker, topic: str, *, subscribed: Callable[[], object] = bool
) -> AsyncIterator[dict[str, Any]]:
    """The decoded messages under a topic filter, in the order of their arrival. Other messages are left out.

    `subscribed` is called when what is published from now on arrives here.
    Raises ConfigError (the URL, the topic filter), TransientError (the broker cannot be reached, or ends the session).
    """
    try:
        aiomqtt.Wildcard(topic)
    except ValueError:
        raise ConfigError(f"{topic!r} is no topic filter: they look like edged/+/data or plant/#") from None
    try:
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(_client(broker, aiomqtt.ProtocolVersion.V5))
            except aiomqtt.MqttError:  # it may know only the older one, whose messages have no properties
                client = await stack.enter_async_context(_client(broker, aiomqtt.ProtocolVersion.V311))
            await client.subscribe(topic, qos=1)
            subscribed()
            async for message in client.messages:
                payload = decode(bytes(message.payload)) or proof(getattr(message.properties, "UserProperty", ()))
                if payload is not None:
                    yield payload
    except (aiomqtt.MqttError, OSError) as exc:
        raise TransientError(f"{broker.url}: {exc}", reason="unreachable") from exc


def _client(broker: Broker, protocol: aiomqtt.ProtocolVersion) -> aiomqtt.Client:
    parts = urlsplit(broker.url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"{broker.url} is no URL: {exc}") from None
    if parts.scheme not in _PORTS or not host:
        raise ConfigError(f"{broker.url}: write mqtt://host or mqtts://host, with :port if it is not the usual one")
    try:
        context = ssl.create_default_context(cafile=broker.ca) if parts.scheme == "mqtts" else None
    except OSError as exc:
        raise ConfigError(f"{broker.ca}: {exc.strerror or exc}") from exc
    return aiomqtt.Client(
        host, port or _PORTS[parts.scheme], username=broker.username, password=broker.password, tls_context=context,
        protocol=protocol,
    )  # fmt: skip


def decode(payload: bytes) -> dict[str, Any] | None:
    """A message of readings, whether compressed or not; None if it is something else."""
    try:
        text = payload if payload[:1] == b"{" else zlib.decompress(payload, 32 + zlib.MAX_WBITS)
        record = orjson.loads(text)
    except (zlib.error, ValueError):
        return None
    return record if isinstance(record, dict) and _is_of_edged(record) else None


def _is_of_edged(record: dict[str, Any]) -> bool:
    """Whether it says what `Audit.take` needs: anybody may publish under the topic."""
    readings = record.get("readings", len(record["values"]) if isinstance(record.get("values"), dict) else None)
    numbers = (record.get("seq"), record.get("prev"), record.get("first", 1), readings)
    texts = (record.get("gateway"), record.get("epoch"), record.get("lane"), record.get("flow", ""))
    return all(type(number) is int and number >= 0 for number in numbers) and all(type(text) is str for text in texts)


def proof(properties: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
    """What a message of a layout that has no room for it says of itself in its user properties; None if nothing."""
    said: dict[str, Any] = dict(properties)
    if not said.keys() >= {*_PROOF, "first", "readings"}:
        return None
    try:
        numbers = {name: int(said[name]) for name in ("first", "seq", "prev", "readings")}
    except ValueError:
        return None
    return said | numbers | {"replay": said.get("replay") == "true"}
