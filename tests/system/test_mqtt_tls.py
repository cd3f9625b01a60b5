"""MQTT over TLS and WebSocket, and other brokers than mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import amqtt.broker
import pytest

from edged.config.base import DeviceConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name
from edged.errors import TransientError
from edged.uplink.api import (
    ConnectionContext,
    Serves,
    Verdict,
)
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.mqttlink import EPOCH, connected, make, message, plain_broker, refusal
from tests.support.pki import Pki
from tests.support.subscriber import subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with plain_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_broker(tmp_path_factory: pytest.TempPathFactory, authority: Pki) -> Iterator[Mosquitto]:
    """It wants client certificates."""
    certificate, key = authority.issue("localhost", "DNS:localhost", "DNS:broker.test")
    listener = [
        f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true"
    ]  # fmt: skip
    with Mosquitto(tmp_path_factory.mktemp("tls"), listener=listener) as running:
        yield running


async def test_tls_with_authority_and_client_certificate(tls_broker: Mosquitto, authority: Pki) -> None:
    certificate, key = authority.issue("plant-7")
    mutual: dict[str, Any] = {"ca": str(authority.certificate), "certificate": str(certificate), "key": str(key)}
    async with connected(tls_broker.port, scheme="mqtts", host="localhost", alpn=["mqtt"], **mutual) as link:
        large = message("x" * 100_000)
        assert (await asyncio.gather(*(link.send(large) for _ in range(5))))[0].verdict is Verdict.DELIVERED
    async with connected(tls_broker.port, scheme="mqtts", server_name="broker.test", **mutual) as link:
        assert (await link.send(message())).verdict is Verdict.DELIVERED
    async with connected(
        tls_broker.port, scheme="mqtts", insecure=True, certificate=str(certificate), key=str(key)
    ) as link:
        assert (await link.send(message())).verdict is Verdict.DELIVERED


async def test_what_can_be_wrong_with_certificates_is_told(
    tls_broker: Mosquitto, authority: Pki, tmp_path: Path, broker: Mosquitto
) -> None:
    certificate, key = authority.issue("client")
    other = Pki(tmp_path / "other")
    ca = str(authority.certificate)
    mutual: dict[str, Any] = {"ca": ca, "certificate": str(certificate), "key": str(key)}

    async def error(port: int = tls_broker.port, host: str = "localhost", **settings: Any) -> str:
        link = make(port, scheme="mqtts", host=host, **settings)
        caught = await refusal(link)
        await link.close()
        return str(caught)

    assert "not trusted: set `ca`" in await error()
    assert "not trusted: set `ca`" in await error(ca=str(other.certificate))
    assert "not for this IP address" in await error(host="127.0.0.1", **mutual)
    assert "for another name" in await error(server_name="elsewhere.test", **mutual)
    assert "CERTIFICATE_REQUIRED" in (await error(ca=ca)).upper().replace(" ", "_")  # none of our own
    assert "is this its port for TLS?" in await error(port=broker.port, ca=ca)
    assert "cannot read `ca: /no/such" in await error(ca="/no/such.pem")
    assert "no PEM file" in await error(ca=str(key))
    assert "cannot read `key" in await error(ca=ca, certificate=str(certificate), key="/no/such.key")
    assert "does not belong" in await error(ca=ca, certificate=str(certificate), key=str(other.key))
    locked_certificate, locked_key = authority.issue("locked", passphrase="secret")
    assert "passphrase" in await error(ca=ca, certificate=str(locked_certificate), key=str(locked_key))


async def test_an_expired_certificate_may_be_a_wrong_clock(authority: Pki, tmp_path: Path) -> None:
    certificate, key = authority.issue("expired", "DNS:localhost", days=-1)
    listener = [f"certfile {certificate}", f"keyfile {key}"]
    with Mosquitto(tmp_path, listener=listener) as broker:
        error = await refusal(make(broker.port, scheme="mqtts", host="localhost", ca=str(authority.certificate)))
    assert isinstance(error, TransientError)
    assert "expired" in str(error)
    assert "clock" in str(error)


@contextlib.asynccontextmanager
async def python_broker(**listener: str) -> AsyncIterator[int]:
    """amqtt: a broker that knows only MQTT 3.1.1, also over WebSocket. Debian's mosquitto cannot do that everywhere."""
    port = free_port()
    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listeners = {"default": {"bind": f"127.0.0.1:{port}", **listener}}
    broker = amqtt.broker.Broker({"listeners": listeners, "plugins": anonymous})
    await broker.start()
    try:
        yield port
    finally:
        await broker.shutdown()


async def test_mqtt_over_websocket(broker: Mosquitto) -> None:
    async with python_broker(type="ws") as port:
        async with connected(port, scheme="ws", protocol="3.1.1") as link:
            assert (await link.send(message("x" * 70_000))).verdict is Verdict.DELIVERED
            outcomes = await asyncio.gather(*(link.send(message(str(i))) for i in range(50)))
            assert {one.verdict for one in outcomes} == {Verdict.DELIVERED}
    assert "WebSocket" in str(await refusal(make(broker.port, scheme="ws")))


async def test_a_real_broker_that_knows_only_3_1_1() -> None:
    async with python_broker(type="tcp") as port:
        async with connected(port, connect_timeout=Duration(0.5)) as link:
            assert (await link.send(message())).verdict is Verdict.DELIVERED


async def test_small_packets_do_not_wait_for_each_other(broker: Mosquitto) -> None:
    async with connected(broker.port) as link:
        session = link._session  # the socket's options cannot be seen from outside
        assert session is not None
        raw = session._client.socket()
        assert isinstance(raw, socket.socket)
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_readings_wait_for_the_first_metadata_only_and_the_others_keep_to_a_part_of_the_window(
    tmp_path: Path,
) -> None:
    devices = {f"d{number}": DeviceConfig(bus=Name("line")) for number in range(50)}
    config = MqttConnection(
        connector="mqtt", url="mqtt://127.0.0.1:1", metadata_topic="edged/{gateway}/metadata/{device}", window=8
    )
    held, most = 0, 0

    @contextlib.asynccontextmanager
    async def slot() -> AsyncIterator[None]:
        nonlocal held, most
        held += 1
        most = max(most, held)
        yield
        held -= 1

    with Mosquitto(tmp_path) as broker, subscribed(broker.port, "edged/plant-7/metadata/+") as subscriber:
        config = replace(config, url=f"mqtt://127.0.0.1:{broker.port}")
        context = ConnectionContext("cloud", GatewayConfig(id=Name("plant-7")), devices, lambda _: "")
        link = CONNECTOR.link(config, context)
        await link.connect(EPOCH)
        await until(lambda: len(subscriber.messages) == 7)  # a window of eight, of which one said that it is online
        await asyncio.sleep(0.2)
        assert len(subscriber.messages) == 7
        assert isinstance(link, Serves)
        await asyncio.wait_for(link.serve(slot), 10)
        await until(lambda: len(subscriber.messages) == 50)
        await link.close()
    assert {message.topic.rpartition("/")[2] for message in subscriber.messages} == devices.keys()
    assert 1 <= most <= 2
