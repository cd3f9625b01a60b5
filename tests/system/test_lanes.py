"""Lanes beside each other, at a real broker: alarms ahead, replays beside, or everything in one strict order."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import validate  # type: ignore[import-untyped]  # it comes without types

from edged.buffer.again import Choice, Progress, replay
from edged.buffer.log import Buffer
from edged.testing.audit import REPLAY, Audit, LaneId
from edged.testing.proxy import FaultProxy
from edged.uplink.payload import schema
from tests.support.fakebroker import FakeBroker, Published, make_puback
from tests.support.forwarding import POINTS, TOPIC, WINDOW, Gateway, arrived, assert_complete, gateway
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

ONE_EACH: dict[str, Any] = {"layout": "samples", "flush": 0.05}


def payloads(subscriber: Subscriber) -> list[dict[str, Any]]:
    return [orjson.loads(message.payload) for message in subscriber.messages]


def alarms(subscriber: Subscriber) -> list[int]:
    """The values of the alarms, in the order of their arrival, repetitions left out."""
    audit = Audit()
    return [one["values"]["alarm"] for one in payloads(subscriber) if audit.take(one) and one["device"] == "alarms"]


async def settled_in_the_end(one: Gateway) -> None:
    """Nothing waits, the cursor has no islands left, and the rows agree with the counters."""
    assert (await one.saved())["pending"] == 0
    assert one.buffer.cursor("cloud").islands == ()
    assert (await one.buffer.verify()).problems == ()


async def test_an_alarm_passes_ahead_while_a_backlog_drains(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with gateway(path, broker.port, running=False) as before:
            before.poll(60, age=60)
            await before.buffer.flush()
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.02
            async with gateway(path, proxy.port, layout="samples", flush=30) as one:
                await until(lambda: len(subscriber.messages) > 30)
                one.alarm(1)
                await until(lambda: alarms(subscriber) == [1])
                one.alarm(2)
                await until(lambda: alarms(subscriber) == [1, 2])
                assert one.buffer.stats().connections["cloud"].pending > 10_000  # the backlog is far from its end
                proxy.delay = 0
                await one.drained()
                audit = await arrived(subscriber, 60 * 500 + 2)
                assert_complete(audit, one)
                await settled_in_the_end(one)
    assert {lane.lane for lane in audit.lanes} == {"historical", "priority"}


async def test_the_alarms_of_an_outage_come_first_and_each_once_also_over_a_crash(tmp_path: Path) -> None:
    """More of them, each between other readings, than a cursor could hold as islands."""
    count = 300
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with gateway(path, broker.port, flush=30, running=False) as before:
            for n in range(count):
                before.alarm(n, age=60)
                before.poll(1, age=60, devices=1)
                await before.buffer.flush()
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.02
            async with gateway(path, proxy.port, **ONE_EACH) as one:
                await until(lambda: len(alarms(subscriber)) > count // 2)
                await one.buffer.flush()
            others = [one for one in payloads(subscriber) if one["lane"] != "priority"]
            assert len(others) < len(alarms(subscriber))
            proxy.delay = 0
            async with gateway(path, proxy.port, **ONE_EACH) as one:
                one.alarm(count)
                await one.drained()
                audit = await arrived(subscriber, count * 51 + 1)
                assert_complete(audit, one, duplicates=WINDOW)
                await settled_in_the_end(one)
    assert alarms(subscriber) == list(range(count + 1))


async def test_a_flood_of_alarms_leaves_a_place_to_the_others(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.01
            async with gateway(tmp_path / "buffer.db", proxy.port, **ONE_EACH) as one:
                for n in range(400):
                    one.alarm(n)
                one.poll(1)
                await one.drained()
                assert_complete(await arrived(subscriber, 400 + 500), one)
                await settled_in_the_end(one)
    lanes = [one["lane"] for one in payloads(subscriber)]
    last_live = len(lanes) - lanes[::-1].index("live")
    assert last_live < len(lanes) - 100  # they did not wait for the end of the flood


async def send_again(buffer: Buffer) -> int:
    """Have everything sent once more; returns how many readings."""
    progress, through = Progress(), buffer.head

    def step(so_far: Progress, writer: Any, done: Any) -> Progress:
        return replay(writer, done, "cloud", Choice(), through, 0, so_far)

    while not progress.over:
        progress = await buffer.change(partial(step, progress))
    return progress.readings


async def test_a_large_replay_does_not_crowd_fresh_readings_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            async with gateway(path, proxy.port, retention=3600, **ONE_EACH) as one:
                one.poll(40)
                await one.drained()
                await arrived(subscriber, 40 * 500)
                proxy.delay = 0.02
                assert await send_again(one.buffer) == 40 * 500
                await until(lambda: any(payload.get("replay") for payload in payloads(subscriber)))
                one.poll(1)
                await until(lambda: sum(payload["lane"] == "live" for payload in payloads(subscriber)) >= 410)
                pending = one.buffer.stats().connections["cloud"].pending
                assert pending > 5000  # of the replay
            proxy.delay = 0
            async with gateway(path, proxy.port, retention=3600, **ONE_EACH) as one:
                await one.drained()
                audit = await arrived(subscriber, 81 * 500)
                assert_complete(audit, one, duplicates=WINDOW)
                await settled_in_the_end(one)
                again = audit.lanes[LaneId("plant-7", one.buffer.epoch, REPLAY)]
    assert (again.messages, again.readings, again.out_of_order) == (400, 40 * 500, 0)


@pytest.mark.parametrize("restart", [False, True])
async def test_strict_order_sends_the_oldest_first_on_one_lane(tmp_path: Path, restart: bool) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with gateway(path, broker.port, running=False) as before:
            for n in range(20):
                before.poll(1, age=60)
                before.alarm(n, age=60)
                await before.buffer.flush()
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.01
            if restart:
                async with gateway(path, proxy.port, lanes="strict", **ONE_EACH) as one:
                    await until(lambda: len(subscriber.messages) > 50)
            async with gateway(path, proxy.port, lanes="strict", **ONE_EACH) as one:
                one.poll(2)
                one.alarm(20)
                await one.drained()
                audit = await arrived(subscriber, one.buffer.stats().stored)
                assert_complete(audit, one, duplicates=WINDOW if restart else 0)
    fresh = Audit()
    seqs = [payload["seq"] for payload in payloads(subscriber) if fresh.take(payload)]
    assert seqs == sorted(seqs)
    assert {lane.lane for lane in audit.lanes} == {"live"}


async def test_from_live_first_to_strict_and_back_nothing_is_sent_twice(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, TOPIC) as subscriber:
        path = tmp_path / "buffer.db"
        async with gateway(path, broker.port, running=False) as before:
            for n in range(30):
                before.poll(1, age=60, devices=3)
                before.alarm(n, age=60)
                await before.buffer.flush()
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.02
            for lanes in ("live-first", "strict", "live-first"):
                seen = len(subscriber.messages)
                async with gateway(path, proxy.port, lanes=lanes, **ONE_EACH) as one:
                    await until(lambda: len(subscriber.messages) > seen + 25)  # noqa: B023  # used up in this round
            proxy.delay = 0
            async with gateway(path, proxy.port, **ONE_EACH) as one:
                await one.drained()
                audit = await arrived(subscriber, 30 * 151)
                assert (audit.missing, audit.gaps("plant-7", one.buffer.epoch)) == ([], [])
                assert audit.duplicates <= 3 * WINDOW
                await settled_in_the_end(one)


async def test_what_becomes_too_old_while_it_waits_for_its_turn_is_not_sent(tmp_path: Path) -> None:
    confirms = False

    def readings(broker: FakeBroker) -> list[Published]:
        return [message for message in broker.published if message.topic.endswith("/data")]

    broker = FakeBroker(puback=lambda message: 0 if confirms or not message.topic.endswith("/data") else None)
    async with broker, gateway(tmp_path / "b.db", broker.port, max_age=1, **ONE_EACH) as one:
        one.poll(6)
        await until(lambda: len(readings(broker)) == WINDOW)
        await asyncio.sleep(1.1)
        await one.buffer.change(lambda writer, done: writer.retention.retain(writer.ledger, done))
        assert one.buffer.stats().connections["cloud"].expired == 60 * len(POINTS)
        confirms = True
        for message in readings(broker):
            broker.say(make_puback(message.mid, 0, 5))
        one.poll(1)
        await one.drained()
        assert (await one.saved())["delivered"] == 10 * len(POINTS)
        assert len(readings(broker)) == WINDOW + 10
        await settled_in_the_end(one)


async def test_the_receiver_is_told_how_the_counters_stand(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, "edged/plant-7/health") as subscriber:
        async with gateway(tmp_path / "buffer.db", broker.port) as one:
            one.poll(2)
            await one.drained()
            await one.buffer.flush()
            await until(lambda: subscriber.messages)
    told = payloads(subscriber)[0]
    assert (told["read"], told["stored"], told["waiting"]) == (1000, 1000, 0)
    assert (told["stored_for"], told["delivered"], told["pending"], told["dead"]) == (1000, 1000, 0, 0)
    validate(told, {"$ref": "#/$defs/GatewayHealth", "$defs": schema()["$defs"]})
