"""The forwarder with a real buffer file, a real link and real brokers: what arrives, judged from the messages alone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.config.types import Duration, Size
from edged.testing.audit import Audit, LaneId
from edged.testing.proxy import FaultProxy
from edged.uplink.api import Lane
from tests.support.draining import killed
from tests.support.fakebroker import FakeBroker, Published, connack
from tests.support.forwarding import TOPIC, WINDOW, arrived, assert_complete, gateway
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


# -- good weather ----------------------------------------------------------------------------------------------------


async def test_everything_arrives_once_and_in_order_also_over_a_restart(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        for run in range(1, 3):
            async with gateway(tmp_path / "buffer.db", broker.port) as one:
                for _ in range(5):
                    one.poll(4)
                    await asyncio.sleep(0.05)
                await one.drained()
                state = one.forwarder.state()
                assert (state.connected, state.pending, state.rejected, state.retried) == (
                    True,
                    0,
                    0,
                    0,
                ) or state.unsaved
                assert state.delivered_readings == 5 * 4 * 500
                assert (await one.saved()) == {"delivered": run * 10_000, "pending": 0, "dead": 0}
                audit = await arrived(subscriber, run * 10_000)
                assert_complete(audit, one)
                assert [lane.lane for lane in audit.lanes] == ["live"]
    values = [
        (table["devices"][row], table["values"][row][0])
        for message in subscriber.messages
        for table in orjson.loads(message.payload)["tables"]
        for row in range(len(table["devices"]))
    ]
    assert values == [(f"d{i}", float(poll)) for _ in range(2) for poll in range(1, 21) for i in range(10)]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_one_sample_per_message(tmp_path: Path, protocol: str) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, "edged/plant-7/data/#") as subscriber:
        settings: dict[str, Any] = {"layout": "samples", "topic": "edged/{gateway}/data/{device}"}
        async with gateway(
            tmp_path / "buffer.db", broker.port, protocol=protocol, compression="none", **settings
        ) as one:
            one.poll(20)
            await one.drained()
            assert_complete(await arrived(subscriber, 20 * 500), one)
    assert {message.topic for message in subscriber.messages} == {f"edged/plant-7/data/d{i}" for i in range(10)}


async def test_a_long_flush_interval_does_not_hold_up_a_full_window(tmp_path: Path) -> None:
    """Confirmations are made durable when the window is full of them; at no time more than the window could repeat."""
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port, flush=60, layout="samples") as one:
            one.poll(40)
            await one.buffer.flush()
            most = 0
            while one.buffer.cursor("cloud").low < one.buffer.head:
                state = one.forwarder.state()
                most = max(most, state.in_flight + state.unsaved)
                await asyncio.sleep(0)
            assert 0 < most <= WINDOW
            assert_complete(await arrived(subscriber, 40 * 500), one)


async def test_that_nobody_listens_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Mosquitto(tmp_path) as broker:
        async with gateway(tmp_path / "buffer.db", broker.port, layout="samples") as one:
            one.poll(2)
            await one.drained()
            assert one.forwarder.state().unheard == 20
    assert len([line for line in caplog.messages if "nobody subscribes" in line]) == 1


# -- bad weather -----------------------------------------------------------------------------------------------------


async def test_a_broker_that_is_stopped_and_started_costs_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port) as one:
            for step in range(40):
                one.poll(2)
                await asyncio.sleep(0.05)
                if step == 10:
                    broker.stop()
                if step == 25:
                    broker.start()
            await one.drained()
            audit = await arrived(subscriber, 40 * 2 * 500)
            assert_complete(audit, one, duplicates=WINDOW)
            assert (await one.saved())["delivered"] == 40 * 2 * 500


async def test_a_silent_link_costs_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            settings: dict[str, Any] = {"ack_timeout": Duration(0.3), "connect_timeout": Duration(0.3)}
            async with gateway(tmp_path / "buffer.db", proxy.port, **settings) as one:
                for step in range(40):
                    one.poll(2)
                    await asyncio.sleep(0.05)
                    if step == 10:
                        proxy.blackhole()
                    if step == 25:
                        await proxy.restore()
                await one.drained()
                assert_complete(await arrived(subscriber, 40 * 2 * 500), one, duplicates=WINDOW)


async def test_connections_cut_in_the_middle_of_the_window_again_and_again(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.005
            async with gateway(tmp_path / "buffer.db", proxy.port, layout="samples") as one:
                cuts = 0
                for step in range(30):
                    one.poll(1)
                    await asyncio.sleep(0.03)
                    if step % 6 == 5:
                        proxy.reset()
                        cuts += 1
                await one.drained()
                assert_complete(await arrived(subscriber, 30 * 500), one, duplicates=cuts * WINDOW)
                assert (await one.saved()) == {"delivered": 30 * 500, "pending": 0, "dead": 0}


async def test_kill_9_while_a_backlog_drains_repeats_no_more_than_the_window(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, TOPIC) as subscriber:
        kills = await killed(
            tmp_path / "buffer.db", broker.port, 120, lambda: len(subscriber.messages), 100, 400, 800, layout="samples"
        )
        audit = await arrived(subscriber, 120 * 500)
    assert kills
    assert (audit.missing, audit.out_of_order) == ([], 0)
    assert audit.duplicates <= kills * WINDOW
    assert audit.readings == 120 * 500


async def test_an_outage_is_told_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edged.uplink")
    with Mosquitto(tmp_path) as broker:
        broker.stop()
        async with gateway(tmp_path / "buffer.db", broker.port, retry_max=Duration(0.1)) as one:
            one.poll(2)
            await until(lambda: one.forwarder.state().attempts > 10)
            state = one.forwarder.state()
            assert not state.connected
            assert "nothing listens" in state.detail
            broker.start()
            await one.drained()
            assert one.forwarder.state().connected
    lines = [record.message for record in caplog.records if record.name == "edged.uplink"]
    assert len([line for line in lines if "cloud: not connected (nothing listens at mqtt://" in line]) == 1
    assert len([line for line in lines if "cloud: connected after" in line and "1,000 readings waiting" in line]) == 1


# -- lanes -----------------------------------------------------------------------------------------------------------


async def test_after_an_outage_fresh_readings_do_not_wait_for_old_ones(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with gateway(path, broker.port, running=False) as before:
            before.poll(60, age=60)
            await before.buffer.flush()
            backlog = before.buffer.head
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.01  # the backlog takes a while
            async with gateway(path, proxy.port, layout="samples", flush=0.05) as one:
                await until(lambda: one.forwarder.state().lanes)
                for _ in range(20):
                    one.poll(1)
                    await asyncio.sleep(0.05)
                await one.drained()
                audit = await arrived(subscriber, 80 * 500)
                assert_complete(audit, one)
                assert set(one.forwarder.state().lanes) == {"live", "historical"}
    live, old = (audit.lanes[LaneId("plant-7", one.buffer.epoch, lane)] for lane in ("live", "historical"))
    assert (live.messages, old.messages) == (200, backlog)
    lanes = [orjson.loads(message.payload)["lane"] for message in subscriber.messages]
    first, last = lanes.index("live"), len(lanes) - lanes[::-1].index("historical")
    assert first < len(lanes) // 2 < last  # beside each other, not one after the other
    payloads = [orjson.loads(message.payload) for message in subscriber.messages]
    assert next(one for one in payloads if one["lane"] == "live")["seq"] == backlog + 1
    assert [one["seq"] for one in payloads if one["lane"] == "historical"] == list(range(1, backlog + 1))


async def test_a_short_blip_goes_on_in_order_on_the_live_lane(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy, gateway(tmp_path / "b.db", proxy.port) as one:
            for step in range(12):
                one.poll(2)
                await asyncio.sleep(0.1)
                if step == 4:
                    await proxy.refuse()
                if step == 8:
                    await proxy.restore()
            await one.drained()
            audit = await arrived(subscriber, 24 * 500)
            assert_complete(audit, one, duplicates=WINDOW)
    assert {lane.lane for lane in audit.lanes} == {"live"}


# -- messages that are not taken -------------------------------------------------------------------------------------


async def test_a_refused_topic_goes_to_the_dead_letters_and_the_others_go_on(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\ntopic deny edged/plant-7/data/d3\n")
    settings: dict[str, Any] = {"layout": "samples", "topic": "edged/{gateway}/data/{device}"}
    with Mosquitto(tmp_path / "m", options=[f"acl_file {acl}"]) as broker:
        with subscribed(broker.port, "edged/plant-7/data/#") as subscriber:
            async with gateway(tmp_path / "buffer.db", broker.port, **settings) as one:
                one.poll(10)
                await one.drained()
                audit = await arrived(subscriber, 10 * 450)
                assert (await one.saved()) == {"delivered": 10 * 450, "pending": 0, "dead": 10 * 50}
                state = one.forwarder.state()
                assert state.rejected == 10
                assert "not authorised" in state.last_rejection
    assert audit.duplicates == 0
    # A receiver can see for itself what the broker refused: later messages name it.
    assert {one.seq for one in audit.missing} <= set(range(4, 101, 10))
    assert audit.gaps("plant-7", one.buffer.epoch) == [(seq, seq) for seq in range(4, 101, 10)]


@pytest.mark.parametrize(
    ("option", "protocol"),
    [("max_packet_size 3000", "5"), ("message_size_limit 3000", "5"), ("max_packet_size 3000", "3.1.1")],
    ids=["announced", "answered with 0x95", "answered by hanging up"],
)
async def test_messages_that_are_too_large_are_divided(tmp_path: Path, option: str, protocol: str) -> None:
    with Mosquitto(tmp_path, options=[option]) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with gateway(
            tmp_path / "buffer.db", broker.port, protocol=protocol, retry_max=Duration(0.1), max_readings=2000
        ) as one:
            one.poll(8, value=1234.5678)
            await one.drained()
            audit = await arrived(subscriber, 8 * 500)
            assert (await one.saved()) == {"delivered": 8 * 500, "pending": 0, "dead": 0}
            assert audit.gaps("plant-7", one.buffer.epoch) == []
            assert max(len(message.payload) for message in subscriber.messages) <= 3000
            assert one.forwarder.state().attempts == 1 or protocol == "3.1.1"
            one.poll(4, value=1234.5678)
            await one.drained()
            after = await arrived(subscriber, 12 * 500)
            assert (after.missing, after.gaps("plant-7", one.buffer.epoch), after.duplicates) == ([], [], 0)
            assert after.out_of_order == audit.out_of_order  # only the first ones came in parts


async def test_a_single_sample_that_is_too_large_is_a_dead_letter(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port, max_message=Size(2000)) as one:
            one.poll(1)
            one.poll(1, devices=1, value="x" * 100)
            one.poll(1)
            await one.drained()
            audit = await arrived(subscriber, 2 * 500)
            assert (await one.saved()) == {"delivered": 2 * 500, "pending": 0, "dead": 50}
            assert "larger" in one.forwarder.state().last_rejection
    assert audit.missing == []
    assert audit.gaps("plant-7", one.buffer.epoch) == [(11, 11)]


def _taken(fake: FakeBroker, puback: Callable[[Published], int | None]) -> Audit:
    """What a subscriber makes of the messages that the broker confirmed."""
    audit = Audit()
    for message in fake.published:
        if message.topic.endswith("/data") and puback(message) == 0:
            audit.take(orjson.loads(message.payload))
    return audit


def _few(message: Published) -> int:
    """Takes five samples at once."""
    if not message.topic.endswith("/data"):
        return 0
    payload = orjson.loads(message.payload)
    return 0x95 if payload["seq"] - payload["first"] >= 5 else 0


async def test_what_is_too_large_is_divided_again_and_again_and_every_part_comes(tmp_path: Path) -> None:
    """Once by the broker's answer, once by what it taught, in both halves."""
    async with (
        FakeBroker(puback=_few) as fake,
        gateway(tmp_path / "buffer.db", fake.port, compression="none", max_readings=2000) as one,
    ):
        one.poll(2, devices=8, value=1234.5678)
        await one.drained(15)
        assert (await one.saved()) == {"delivered": 800, "pending": 0, "dead": 0}
        one.poll(2, devices=8, value=1234.5678)
        await one.drained(15)
        refused = [message for message in fake.published if _few(message)]
        spans = [(one["first"], one["seq"]) for one in (orjson.loads(message.payload) for message in refused)]
        assert spans == [(1, 16), (1, 8)]
        audit = _taken(fake, _few)
        assert_complete(audit, one)
        assert audit.readings == 1600


def _deaf_for_one(message: Published) -> int:
    return 0x87 if message.topic.endswith("/data/d0") else 0


async def test_refusals_among_messages_that_are_taken_slow_nothing_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"layout": "samples", "topic": "edged/{gateway}/data/{device}"}
    async with (
        FakeBroker(puback=_deaf_for_one) as fake,
        gateway(tmp_path / "buffer.db", fake.port, retry_max=Duration(30), **settings) as one,
    ):
        one.poll(70, devices=2)
        await one.drained()
        assert (await one.saved()) == {"delivered": 70 * 50, "pending": 0, "dead": 70 * 50}
    assert not [line for line in caplog.messages if "every message is refused" in line]


def _poisonous(message: Published) -> int:
    return -1 if b"poison" in message.payload else 0


@pytest.mark.parametrize("layout", ["columns", "samples"])
async def test_a_message_over_which_the_broker_hangs_up_does_not_block_the_others(tmp_path: Path, layout: str) -> None:
    async with (
        FakeBroker(puback=_poisonous) as fake,
        gateway(tmp_path / "buffer.db", fake.port, layout=layout, retry_max=Duration(0.1)) as one,
    ):
        one.poll(1)
        one.poll(1, devices=1, value="poison")
        one.poll(1)
        await one.buffer.flush()
        await until(lambda: one.buffer.cursor("cloud").low >= 21)
        assert (await one.saved()) == {"delivered": 2 * 500, "pending": 0, "dead": 50}
        assert "takes others" in one.forwarder.state().last_rejection
    audit = _taken(fake, _poisonous)
    assert audit.readings == 2 * 500
    assert audit.missing == []  # what was never taken precedes nothing


async def test_a_broker_that_hangs_up_on_everything_makes_no_dead_letters(tmp_path: Path) -> None:
    sick = True
    async with (
        FakeBroker(puback=lambda one: -1 if sick and one.topic.endswith("/data") else 0) as fake,
        gateway(tmp_path / "buffer.db", fake.port, layout="samples", retry_max=Duration(0.1)) as one,
    ):
        one.poll(3)
        await until(lambda: len(fake.connects) > 25)
        assert (await one.saved()) == {"delivered": 0, "pending": 1500, "dead": 0}
        sick = False
        await one.drained()
        assert (await one.saved()) == {"delivered": 1500, "pending": 0, "dead": 0}


@pytest.mark.parametrize("code", [0x97, 0xA5], ids=["quota", "no code of the standard"])
async def test_a_refusal_that_may_pass_is_tried_again_in_the_same_session(tmp_path: Path, code: int) -> None:
    refusals = 3

    def quota(message: Published) -> int:
        nonlocal refusals
        if message.topic.endswith("/data") and refusals:
            refusals -= 1
            return code
        return 0

    async with (
        FakeBroker(puback=quota) as fake,
        gateway(tmp_path / "buffer.db", fake.port, retry_max=Duration(0.1)) as one,
    ):
        one.poll(3)
        await one.drained()
        assert (await one.saved()) == {"delivered": 1500, "pending": 0, "dead": 0}
        assert one.forwarder.state().retried == 3
        assert len(fake.connects) == 1


async def test_when_everything_is_refused_not_everything_becomes_a_dead_letter(tmp_path: Path) -> None:
    refuse = True
    async with (
        FakeBroker(puback=lambda one: 0x87 if refuse and one.topic.endswith("/data") else 0) as fake,
        gateway(tmp_path / "buffer.db", fake.port, layout="samples", retry_max=Duration(0.5)) as one,
    ):
        one.poll(50)
        await until(lambda: one.forwarder.state().rejected >= 60)
        await asyncio.sleep(1)
        rejected = one.forwarder.state().rejected
        assert rejected <= 60 + WINDOW + 5
        refuse = False
        await one.drained()
        counters = await one.saved()
        assert counters["pending"] == 0
        assert counters["dead"] <= (rejected + 2) * 50


async def test_what_the_broker_confirms_and_loses_is_noticed_by_the_receiver(tmp_path: Path) -> None:
    async with FakeBroker() as fake, gateway(tmp_path / "buffer.db", fake.port) as one:
        for _ in range(5):
            one.poll(2)
            await one.drained()
        payloads = [orjson.loads(message.payload) for message in fake.published if message.topic.endswith("/data")]
    audit = Audit()
    for payload in payloads[:3] + payloads[4:]:
        audit.take(payload)
    assert [missing.seq for missing in audit.missing] == [payloads[3]["seq"]]


async def test_stopping_is_quick_and_hears_the_last_word(tmp_path: Path) -> None:
    held: list[int] = []

    def slowly(message: Published) -> int | None:
        if message.topic.endswith("/data"):
            held.append(message.mid)
            return None
        return 0

    async with FakeBroker(puback=slowly) as fake:
        async with gateway(tmp_path / "buffer.db", fake.port) as one:
            one.poll(2)
            await until(lambda: len(held) == 2)
            loop = asyncio.get_running_loop()
            for mid in held:
                loop.call_later(0.1, fake.say, b"\x40\x02" + mid.to_bytes(2, "big"))
        async with gateway(tmp_path / "buffer.db", fake.port, running=False) as after:
            assert after.buffer.cursor("cloud").low == 20
            assert after.buffer.cursor("cloud").lanes == {Lane.LIVE.value: 20}


async def test_refused_sessions_that_need_a_person_are_tried_slowly(tmp_path: Path) -> None:
    async with (
        FakeBroker(connack=lambda *_: connack(0x86)) as fake,
        gateway(tmp_path / "buffer.db", fake.port, retry_max=Duration(0.4)) as one,
    ):
        await asyncio.sleep(1.2)
        assert 1 <= len(fake.connects) <= 7  # pauses of 0.2 s to 0.4 s
        assert "`username`" in one.forwarder.state().detail


@pytest.mark.parametrize("seed", range(4))
async def test_a_broker_in_any_mood_gets_everything_and_never_more_than_the_window_at_once(
    tmp_path: Path, seed: int
) -> None:
    mood = random.Random(seed)
    sick = True
    outstanding: dict[int, int] = {}
    most = 0
    confirmed: list[Any] = []

    def puback(message: Published) -> int | None:
        nonlocal most
        if not message.topic.endswith("/data"):
            return 0
        outstanding[message.session] = outstanding.get(message.session, 0) + 1
        most = max(most, outstanding[message.session])
        dice = mood.random() if sick else 1.0
        if dice < 0.02:
            return -1
        if dice < 0.04:
            return None  # and so the whole session goes silent in the end
        outstanding[message.session] -= 1
        if dice < 0.1:
            return 0x97
        confirmed.append(orjson.loads(message.payload))
        return 0

    settings: dict[str, Any] = {"retry_max": Duration(0.1), "ack_timeout": Duration(0.2), "window": 8}
    async with (
        FakeBroker(puback=puback) as fake,
        gateway(tmp_path / "buffer.db", fake.port, layout="samples", **settings) as one,
    ):
        one.poll(10, age=60)  # some of it goes the historical lane
        for _ in range(20):
            one.poll(1)
            await asyncio.sleep(0.05)
        sick = False
        await one.drained()
        assert (await one.saved()) == {"delivered": 30 * 500, "pending": 0, "dead": 0}
    audit = Audit()
    for payload in confirmed:
        audit.take(payload)
    assert audit.readings == 30 * 500
    assert audit.missing == []
    assert audit.duplicates == 0  # what was confirmed is not sent again
    assert most <= 8
