"""The MQTT link by itself, and a broker for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name
from edged.errors import EdgedError
from edged.uplink.api import ConnectionContext, Message
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.links.mqtt import MqttLink
from tests.support.mosquitto import Mosquitto

EPOCH = "e1"


def make(port: int, *, scheme: str = "mqtt", host: str = "127.0.0.1", secret: str = "", **settings: Any) -> MqttLink:
    settings = {"connect_timeout": Duration(5), **settings}
    config = MqttConnection(connector="mqtt", url=f"{scheme}://{host}:{port}", **settings)
    context = ConnectionContext("cloud", GatewayConfig(id=Name("plant-7")), {}, lambda _: secret)
    link = CONNECTOR.link(config, context)
    assert isinstance(link, MqttLink)
    return link


@contextlib.asynccontextmanager
async def connected(port: int, **settings: Any) -> AsyncIterator[MqttLink]:
    link = make(port, **settings)
    await link.connect(EPOCH)
    try:
        yield link
    finally:
        await link.close()


async def refusal(link: MqttLink) -> EdgedError:
    with pytest.raises(EdgedError) as caught:
        await link.connect(EPOCH)
    assert "\n" not in str(caught.value)
    return caught.value


def alone() -> str:
    """The id of a client whose session no other test shares."""
    return f"subscriber-{time.monotonic_ns()}"


def message(text: str = "hello", topic: str = "edged/plant-7/data", **more: Any) -> Message:
    return Message(topic, text.encode(), **more)


@contextlib.contextmanager
def plain_broker(folder: Path) -> Iterator[Mosquitto]:
    """A broker for all tests of a module that need no special one."""
    acl = folder / "acl"
    acl.write_text("topic readwrite edged/#\ntopic deny forbidden/#\n")
    options = [f"acl_file {acl}", "max_packet_size 20000", "max_keepalive 600", "max_inflight_messages 7"]
    with Mosquitto(folder, options=options) as running:
        yield running
