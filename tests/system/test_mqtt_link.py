"""The MQTT link against real brokers, and a raw one where a real one is too well behaved."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import amqtt.broker
import orjson
import pytest

from edged.config.base import DeviceConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name, Secret, Size
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.testing.proxy import FaultProxy
from edged.uplink.api import (
    CLOSED,
    DELIVERED,
    OFFLINE,
    SILENT,
    TOO_LARGE,
    ConnectionContext,
    Message,
    Outcome,
    Serves,
    Verdict,
)
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.links.mqtt import MqttLink
from tests.support.fakebroker import OK, OK_311, REFUSED_311, FakeBroker, connack
from tests.support.mosquitto import Mosquitto, free_port, password_file
from tests.support.pki import Pki
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

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


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A plain broker that all tests share which do not need a special one."""
    folder = tmp_path_factory.mktemp("broker")
    acl = folder / "acl"
    acl.write_text("topic readwrite edged/#\ntopic deny forbidden/#\n")
    options = [f"acl_file {acl}", "max_packet_size 20000", "max_keepalive 600", "max_inflight_messages 7"]
    with Mosquitto(folder, options=options) as running:
        yield running


# -- delivery --------------------------------------------------------------------------------------------------------


async def test_a_message_is_delivered_with_its_properties(broker: Mosquitto) -> None:
    with subscribed(broker.port, "edged/plant-7/data", client_id=alone()) as subscriber:
        async with connected(broker.port) as link:
            assert await link.send(message("one", properties={"content-encoding": "none"})) == Outcome(
                Verdict.DELIVERED, detail="success"
            )
            assert await link.send(message("two")) == Outcome(Verdict.DELIVERED, detail="success")
        await until(lambda: len(subscriber.messages) == 2)
    assert [one.payload for one in subscriber.messages] == [b"one", b"two"]


async def test_messages_are_started_in_order_and_many_may_wait_without_a_warning(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edged")
    with subscribed(broker.port, "edged/plant-7/data", client_id=alone()) as subscriber:
        async with connected(broker.port) as link:
            outcomes = await asyncio.gather(*(link.send(message(str(i))) for i in range(200)))
        await until(lambda: len(subscriber.messages) == 200)
    assert all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes)
    assert [int(one.payload) for one in subscriber.messages] == list(range(200))
    assert not caplog.records


async def test_that_nobody_subscribes_is_told(broker: Mosquitto) -> None:
    async with connected(broker.port) as link:
        outcome = await link.send(message(topic="edged/nobody"))
    assert outcome == Outcome(Verdict.DELIVERED, "no_subscriber", "accepted, but nobody subscribes to the topic")


async def test_a_refused_topic_is_no_delivery_and_concerns_only_its_message(broker: Mosquitto) -> None:
    async with connected(broker.port) as link:
        bad, good = await asyncio.gather(link.send(message(topic="forbidden/x")), link.send(message()))
    assert (bad.verdict, bad.reason) == (Verdict.REJECTED, "not_authorized")
    assert good.verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        (0x00, Verdict.DELIVERED, ""),
        (0x10, Verdict.DELIVERED, "no_subscriber"),
        (0x80, Verdict.RETRY, "unspecified"),
        (0x83, Verdict.RETRY, "implementation"),
        (0x87, Verdict.REJECTED, "not_authorized"),
        (0x90, Verdict.REJECTED, "topic"),
        (0x91, Verdict.RETRY, "packet_id"),
        (0x97, Verdict.RETRY, "quota"),
        (0x99, Verdict.REJECTED, "payload"),
    ],
)
async def test_each_reason_code_has_its_verdict(code: int, verdict: Verdict, reason: str) -> None:
    async with FakeBroker(puback=lambda one: code if one.topic == "x" else 0) as fake, connected(fake.port) as link:
        outcome = await link.send(message(topic="x"))
    assert (outcome.verdict, outcome.reason) == (verdict, reason)


async def test_a_topic_that_mqtt_does_not_allow_concerns_only_its_message(broker: Mosquitto) -> None:
    async with connected(broker.port) as link:
        assert (await link.send(message(topic="edged/+"))).verdict is Verdict.REJECTED
        assert (await link.send(message(topic="x" * 70_000))).verdict is Verdict.REJECTED
        assert (await link.send(message())).verdict is Verdict.DELIVERED


# -- the end of a session --------------------------------------------------------------------------------------------


async def test_a_broken_connection_ends_waiting_at_once() -> None:
    async with FakeBroker(puback=lambda one: None if one.topic == "x" else 0) as fake:
        async with connected(fake.port, ack_timeout=Duration(600)) as link:
            waiting = [asyncio.ensure_future(link.send(message(topic="x"))) for _ in range(5)]
            await until(lambda: len(fake.published) == 7)
            fake.hang_up()
            async with asyncio.timeout(5):
                outcomes = await asyncio.gather(*waiting)
                assert "connection broke" in await link.lost()
            assert (await link.send(message())).reason == OFFLINE
    assert {(one.verdict, one.reason) for one in outcomes} == {(Verdict.RETRY, CLOSED)}


async def test_what_was_in_flight_is_not_sent_again_behind_our_back() -> None:
    async with FakeBroker(puback=lambda one: None if one.session == 0 and one.topic == "x" else 0) as fake:
        link = make(fake.port)
        await link.connect(EPOCH)
        waiting = asyncio.ensure_future(link.send(message("old", topic="x")))
        await until(lambda: len(fake.published) == 3)
        fake.hang_up()
        await waiting
        await link.close()
        await link.connect(EPOCH)
        assert (await link.send(message("new", topic="x"))).verdict is Verdict.DELIVERED
        await link.close()
    assert [one.payload for one in fake.published if one.session == 1 and one.topic == "x"] == [b"new"]


async def test_a_cancelled_message_neither_disturbs_the_others_nor_comes_again() -> None:
    async with FakeBroker(puback=lambda one: None if one.payload == b"a" else 0) as fake:
        async with connected(fake.port) as link:
            waiting = asyncio.ensure_future(link.send(message("a")))
            await until(lambda: len(fake.published) == 3)
            waiting.cancel()
            await asyncio.wait([waiting])
            fake.say(b"\x40\x02" + fake.published[-1].mid.to_bytes(2, "big"))  # a late confirmation
            assert (await link.send(message("b"))).verdict is Verdict.DELIVERED
    assert [one.payload for one in fake.published].count(b"a") == 1


async def test_a_link_that_swallows_everything_is_noticed_by_missing_confirmations(broker: Mosquitto) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        async with connected(proxy.port, ack_timeout=Duration(0.3)) as link:
            proxy.blackhole()
            async with asyncio.timeout(10):
                outcome = await link.send(message())
                assert "not confirmed anything for 0.3 s" in await link.lost()
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, SILENT)


async def test_an_idle_link_that_died_is_noticed_by_keepalive(broker: Mosquitto) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy, connected(proxy.port, keepalive=Duration(1)) as link:
        proxy.blackhole()
        async with asyncio.timeout(10):
            assert "does not answer" in await link.lost()


async def test_a_slow_link_on_which_confirmations_come_is_not_cut() -> None:
    pending: list[int] = []

    def slowly(one: Any) -> int | None:
        if one.topic == "x":
            pending.append(one.mid)
            return None
        return 0

    async with FakeBroker(puback=slowly) as fake, connected(fake.port, ack_timeout=Duration(0.5)) as link:
        sends = [asyncio.ensure_future(link.send(message(topic="x"))) for _ in range(6)]
        await until(lambda: len(pending) == 6)
        for mid in pending:  # the last one waits for 1.5 s
            await asyncio.sleep(0.25)
            fake.say(b"\x40\x02" + mid.to_bytes(2, "big"))
        outcomes = await asyncio.gather(*sends)
    assert {one.verdict for one in outcomes} == {Verdict.DELIVERED}


async def test_the_broker_s_reason_for_ending_the_session_is_told() -> None:
    async with FakeBroker() as fake, connected(fake.port) as link:
        fake.say(b"\xe0\x02\x8e\x00")
        assert await link.lost() == "another client uses the same `client_id` 'edged-plant-7-cloud'"


async def test_garbage_from_the_broker_ends_the_session() -> None:
    for garbage in (b"\xf0\xff\xff\xff\xff\xff", b"\x40\x05\x00\x01\xee\x7f\x00", b"\x00\x00", b"\x30\xff\xff\xff\x7f"):
        async with FakeBroker() as fake, connected(fake.port, keepalive=Duration(1)) as link:
            fake.say(garbage)
            async with asyncio.timeout(10):
                await link.lost()


async def test_the_will_tells_of_a_lost_gateway_and_closing_of_a_stopped_one(broker: Mosquitto) -> None:
    with subscribed(broker.port, "edged/plant-7/status", client_id=alone()) as subscriber:
        link = make(broker.port)
        await link.connect(EPOCH)
        await link.close()
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            await make(proxy.port).connect(EPOCH)
            proxy.reset()
            await until(lambda: len([one for one in subscriber.messages if not one.retained]) >= 4)
    states = [orjson.loads(one.payload) for one in subscriber.messages if not one.retained]
    assert [(one["status"], one["reason"]) for one in states] == [
        ("online", "connected"), ("offline", "stopped"), ("online", "connected"), ("offline", "lost"),
    ]  # fmt: skip
    with subscribed(broker.port, "edged/plant-7/#", client_id=alone()) as later:
        await until(lambda: len(later.messages) == 2)
    retained = {one.topic: orjson.loads(one.payload) for one in later.messages if one.retained}
    assert retained["edged/plant-7/status"]["reason"] == "lost"
    assert retained["edged/plant-7/metadata"]["gateway"] == "plant-7"


# -- what the broker wants -------------------------------------------------------------------------------------------


async def test_the_broker_s_limits_are_kept(broker: Mosquitto) -> None:
    async with connected(broker.port, keepalive=Duration(3600)) as link:
        assert link.window == 7
        size = 20_000 - 30 - len("edged/plant-7/data") - len("application/json")
        assert link.fits(message("x" * size))
        assert (await link.send(message("x" * size))).verdict is Verdict.DELIVERED
        large = message("x" * 20_000)
        assert not link.fits(large)
        assert (await link.send(large)).reason == TOO_LARGE
        assert (await link.send(message())).verdict is Verdict.DELIVERED


async def test_the_server_keepalive_is_used() -> None:
    async with FakeBroker(connack=lambda *_: connack(properties=b"\x13\x00\x01")) as fake:
        async with connected(fake.port, keepalive=Duration(3600)):
            await until(lambda: fake.pings)


async def test_a_broker_without_qos_1_or_without_retained_messages() -> None:
    async with FakeBroker(connack=lambda *_: connack(properties=b"\x24\x00")) as fake:
        assert "QoS 1" in str(await refusal(make(fake.port)))
    async with FakeBroker(connack=lambda *_: connack(properties=b"\x25\x00")) as fake:
        link = make(fake.port)
        assert "retains nothing" in await link.connect(EPOCH)
        await link.close()
    assert not any(one.retain for one in fake.published)


async def test_a_broker_that_refuses_a_retained_will(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, options=["retain_available false"]) as broker:
        async with connected(broker.port) as link:
            assert (await link.send(message())).verdict is Verdict.DELIVERED


async def test_the_configured_largest_message_counts_too(broker: Mosquitto) -> None:
    async with connected(broker.port, max_message=Size(1024)) as link:
        assert link.fits(message("x" * 1024))
        assert not link.fits(message("x" * 1025))


async def test_the_session_lasts_over_connections_and_processes(broker: Mosquitto) -> None:
    link = make(broker.port, client_id="lasting")
    assert "resumed" not in await link.connect(EPOCH)
    await link.close()
    assert "session resumed" in await link.connect(EPOCH)
    await link.close()
    another = make(broker.port, client_id="lasting")
    assert "session resumed" in await another.connect(EPOCH)
    await another.close()


async def test_what_an_old_session_brings_does_not_pile_up(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    before = Subscriber(broker.port, "edged/commands", client_id="edged-plant-7-cloud")
    before.start()
    before.stop()
    async with connected(broker.port, client_id="other") as other:
        for _ in range(50):
            await other.send(message("x" * 1000, topic="edged/commands"))
    async with connected(broker.port) as link:
        assert (await link.send(message())).verdict is Verdict.DELIVERED
        session = link._session  # where it would pile up cannot be seen from outside
        assert session is not None
        assert len(session.messages) == 0
    assert not caplog.records


# -- versions --------------------------------------------------------------------------------------------------------


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


# -- refusals --------------------------------------------------------------------------------------------------------


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


# -- TLS and WebSocket -----------------------------------------------------------------------------------------------


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
