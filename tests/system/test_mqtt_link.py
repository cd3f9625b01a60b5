"""The MQTT link against real brokers, and a raw one where a real one is too well behaved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.config.types import Duration, Size
from edged.testing.proxy import FaultProxy
from edged.uplink.api import (
    CLOSED,
    OFFLINE,
    SILENT,
    TOO_LARGE,
    Outcome,
    Verdict,
)
from tests.support.fakebroker import FakeBroker, connack
from tests.support.mosquitto import Mosquitto
from tests.support.mqttlink import EPOCH, alone, connected, make, message, plain_broker, refusal
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with plain_broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


# -- delivery ----------------------------------------------------------------------------------------------------------


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


# -- the end of a session ----------------------------------------------------------------------------------------------


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


# -- what the broker wants ---------------------------------------------------------------------------------------------


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
