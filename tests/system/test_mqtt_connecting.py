"""The beginning of an MQTT session: versions, and sessions that are refused or do not come about."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name, Secret
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.testing.proxy import FaultProxy
from edged.uplink.api import (
    DELIVERED,
    ConnectionContext,
    Verdict,
)
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from tests.support.fakebroker import OK, OK_311, REFUSED_311, FakeBroker, connack
from tests.support.mosquitto import Mosquitto, free_port, password_file
from tests.support.mqttlink import EPOCH, connected, make, message, plain_broker, refusal

pytestmark = pytest.mark.mosquitto

_HANG_UPS = 3000
"""With so many, what two threads can do to each other happens a few times."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with plain_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [REFUSED_311, connack(0x84)])
async def test_mqtt_3_1_1_where_5_is_refused_and_from_then_on(answer: bytes) -> None:
    async with FakeBroker(connack=lambda _, version: answer if version == 5 else OK_311) as fake:
        link = make(fake.port)
        for _ in range(2):
            assert "MQTT 3.1.1" in await link.connect(EPOCH)
            assert (await link.send(message())).verdict is Verdict.DELIVERED
            await link.close()
    assert fake.connects == [5, 4, 4]


@pytest.mark.parametrize("answer", [b"", None])
async def test_mqtt_3_1_1_where_the_broker_hangs_up_or_is_silent_on_5_twice(answer: bytes | None) -> None:
    async with FakeBroker(connack=lambda _, version: answer if version == 5 else OK_311) as fake:
        link = make(fake.port, connect_timeout=Duration(0.3))
        for _ in range(3):
            assert "MQTT 3.1.1" in await link.connect(EPOCH)
            await link.close()
    assert fake.connects == [5, 4, 5, 4, 4]


async def test_a_broker_that_hung_up_while_it_started_is_asked_for_5_again() -> None:
    answers = iter([b"", OK_311, OK])
    async with FakeBroker(connack=lambda *_: next(answers)) as fake:
        link = make(fake.port)
        for version in ("MQTT 3.1.1", "MQTT 5"):
            assert version in await link.connect(EPOCH)
            await link.close()


async def test_a_fixed_version_is_kept(broker: Mosquitto) -> None:
    async with FakeBroker(connack=lambda *_: REFUSED_311) as fake:
        assert "set `protocol: 3.1.1`" in str(await refusal(make(fake.port, protocol="5")))
    assert fake.connects == [5]
    link = make(broker.port, protocol="3.1.1")
    assert "MQTT 3.1.1" in await link.connect(EPOCH)
    assert (await link.send(message())) == DELIVERED.__class__(Verdict.DELIVERED, detail="success")
    await link.close()


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    passwords = password_file(tmp_path / "passwords", plant="secret")
    with Mosquitto(tmp_path / "b", options=[f"password_file {passwords}"], anonymous=False) as broker:
        wrong = await refusal(make(broker.port, username="plant", password=Secret("mqtt"), secret="wrong"))
        assert "`username`" in str(wrong)
        assert f"mqtt://127.0.0.1:{broker.port}" in str(wrong)
        assert isinstance(wrong, PermanentError)
        assert isinstance(await refusal(make(broker.port)), PermanentError)
        async with connected(broker.port, username="plant", password=Secret("mqtt"), secret="secret") as link:
            assert (await link.send(message())).verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (0x85, PermanentError, "client_id"),
        (0x88, TransientError, "not available"),
        (0x8A, PermanentError, "banned"),
        (0x9D, PermanentError, "moved"),
        (0x9F, TransientError, "too many"),
        (0xEE, TransientError, "not MQTT as we know it"),
    ],
)
async def test_a_refused_session_is_told_in_plain_words(code: int, kind: type[EdgedError], text: str) -> None:
    async with FakeBroker(connack=lambda *_: connack(code)) as fake:
        error = await refusal(make(fake.port))
    assert isinstance(error, kind)
    assert text in str(error)


async def test_nobody_listens_nobody_answers_no_such_host() -> None:
    assert "nothing listens" in str(await refusal(make(free_port())))
    assert "cannot find the host" in str(
        await refusal(make(1883, host="no-such-host.invalid", connect_timeout=Duration(40)))
    )
    assert "no host name" in str(await refusal(make(1883, host="a..b")))
    async with FakeBroker(connack=lambda *_: None) as fake:
        assert "did not answer within 0.2 s" in str(await refusal(make(fake.port, connect_timeout=Duration(0.2))))
    async with FakeBroker(connack=lambda *_: b"") as fake:
        assert "hung up before a session began" in str(await refusal(make(fake.port)))


async def test_a_broker_that_hangs_up_while_the_session_begins_is_no_fault() -> None:
    """Nor is there a word in the log of asyncio about it, whatever the dialling thread and the loop do first."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    interval = sys.getswitchinterval()
    with socket.create_server(("127.0.0.1", 0)) as server:
        hanging_up = asyncio.create_task(asyncio.to_thread(_hang_up, server))
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(_HANG_UPS):
                with pytest.raises(TransientError):
                    await make(server.getsockname()[1]).connect(EPOCH)
        finally:
            sys.setswitchinterval(interval)
            server.shutdown(socket.SHUT_RDWR)
            await hanging_up
    assert faults == []


def _hang_up(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # until it is closed
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # with a reset
            client.close()


async def test_a_missing_secret_is_the_connection_s_trouble(broker: Mosquitto) -> None:
    def missing(_: object) -> str:
        raise ConfigError("there is no secret 'mqtt'")

    config = MqttConnection(
        connector="mqtt", url=f"mqtt://127.0.0.1:{broker.port}", username="x", password=Secret("mqtt")
    )
    link = CONNECTOR.link(config, ConnectionContext("cloud", GatewayConfig(id=Name("g")), {}, missing))
    with pytest.raises(ConfigError, match="no secret"):
        await link.connect(EPOCH)
    await link.close()


async def test_failed_attempts_leave_neither_files_nor_tasks_nor_connections_behind(broker: Mosquitto) -> None:
    async with connected(broker.port):
        pass  # threads and selectors of the first use
    tasks, files = len(asyncio.all_tasks()), descriptors()
    async with FakeBroker(connack=lambda *_: None) as silent, FakeBroker(connack=lambda *_: connack(0x87)) as refusing:
        closed = free_port()
        for _ in range(5):
            plain = [(port, "mqtt") for port in (silent.port, refusing.port, closed)]
            for port, scheme in (*plain, (broker.port, "mqtts"), (broker.port, "ws"), (silent.port, "ws")):
                link = make(port, scheme=scheme, connect_timeout=Duration(0.15))
                await refusal(link)
                await link.close()
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) <= tasks
    assert descriptors() <= files


async def test_a_cancelled_attempt_leaves_the_link_usable(broker: Mosquitto) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        link = make(proxy.port)
        proxy.blackhole()
        for pause in (0.0, 0.001, 0.05):
            attempt = asyncio.ensure_future(link.connect(EPOCH))
            await asyncio.sleep(pause)
            attempt.cancel()
            await asyncio.wait([attempt])
            assert attempt.cancelled()
        await proxy.restore()
        await link.connect(EPOCH)
        assert (await link.send(message())).verdict is Verdict.DELIVERED
        await link.close()


async def test_closing_takes_no_longer_than_it_may_when_the_broker_is_silent(broker: Mosquitto) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        link = make(proxy.port)
        await link.connect(EPOCH)
        proxy.blackhole()
        began = time.monotonic()
        await link.close()
        await link.close()
        assert time.monotonic() - began < 10
        assert (await link.send(message())).verdict is Verdict.RETRY
