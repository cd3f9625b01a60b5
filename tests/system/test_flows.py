"""Flows over a real broker: each with its own place in the buffer, over one session, complete over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.buffer.log import Buffer
from edged.buffer.service import perform
from edged.clock import mono_us
from edged.config.flows import AggregateConfig, BindingConfig, FlowConfig, MapConfig, MatchConfig, StepConfig
from edged.config.types import Duration
from edged.model import Sample
from edged.uplink.forwarders import flow_states, told
from tests.support.flowing import config_of, running
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Got, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

START = 1_795_219_200_000_000
"""The beginning of a minute."""
HOT = FlowConfig(
    match=(MatchConfig(key="CHILLER/*"),),
    steps=(StepConfig(filter="supply > 50"), StepConfig(map=MapConfig(rename={"supply": "flow_temp"}))),
    connections={"cloud": BindingConfig(topic="plants/hot")},
)
MINUTES = FlowConfig(
    steps=(StepConfig(aggregate=AggregateConfig(every=Duration(60))),),
    connections={"cloud": BindingConfig(topic="plants/minutes")},
)
BROKEN = FlowConfig(
    steps=(StepConfig(filter="supply / (ret - ret) > 1"),), connections={"cloud": BindingConfig(topic="plants/broken")}
)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker:
        yield broker


async def put(buffer: Buffer, begin: int, end: int) -> None:
    for second in range(begin, end):
        for device in ("chiller", "boiler"):
            time = START + second * 1_000_000
            buffer.count(read=2)
            assert buffer.put(Sample(device, time, mono_us(), ("supply", "ret"), [float(second), 20.0]))
        if second % 7 == 0:
            await buffer.flush()
    await buffer.flush()


async def replayed(buffer: Buffer, place: str, begin: int, end: int) -> int:
    chosen = {"connection": [place], "from": [str(START + begin * 1_000_000)], "to": [str(START + end * 1_000_000)]}
    return int((await perform(buffer, "replay", chosen))["readings"])


def rows_of(messages: list[dict[str, Any]]) -> list[tuple[str, int, tuple[Any, ...], int]]:
    """(Device, second, values, how many are not good) of what is sent once more."""
    return [
        (device, (time - START) // 1_000_000, tuple(values), sum(one[0] == i for one in table.get("quality", [])))
        for message in messages
        if message.get("replay")
        for table in message["tables"]
        for i, (device, time, values) in enumerate(
            zip(table["devices"], table["times"], table["values"], strict=True)
        )
    ]  # fmt: skip


def of(messages: list[Got], topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(one.payload) for one in messages if one.topic == topic]


def check_chain(messages: list[dict[str, Any]]) -> None:
    """By the numbers alone nothing is missing, and nothing came twice."""
    by_lane: dict[str, list[dict[str, Any]]] = {}
    for one in messages:
        by_lane.setdefault(one["lane"], []).append(one)
    for some in by_lane.values():
        previous = 0
        for one in some:
            assert one["prev"] == previous
            assert previous < one["first"] <= one["seq"]
            previous = one["seq"]


async def test_each_flow_sends_its_own_and_the_counters_add_up(tmp_path: Path, mosquitto: Mosquitto) -> None:
    config = config_of(mosquitto.port, hot=HOT, minutes=MINUTES, broken=BROKEN)
    with subscribed(mosquitto.port, "plants/#") as subscriber:
        async with running(tmp_path / "buffer.db", config) as (buffer, uplink):
            await put(buffer, 0, 90)
            await until(lambda: buffer.stats().connections["cloud/hot"].pending == 0)
            await until(lambda: buffer.stats().connections["cloud/broken"].pending == 0)
            await until(lambda: buffer.stats().connections["cloud/minutes"].delivered > 0)
            await buffer.flush()
            states = flow_states(config, uplink.forwarders, buffer.stats())
            whole = told(buffer.stats(), config, "cloud")
    hot = of(subscriber.messages, "plants/hot")
    check_chain(hot)
    assert {one["flow"] for one in hot} == {"hot"}
    rows = [row for one in hot for table in one["tables"] for row in table["values"]]
    assert sorted(rows) == [[float(second), 20.0] for second in range(51, 90)]
    assert {device for one in hot for table in one["tables"] for device in table["devices"]} == {"chiller"}
    assert {point for one in hot for table in one["tables"] for point in table["points"]} == {"flow_temp", "ret"}
    for state in states.values():
        counted = state["connections"]["cloud"]
        assert counted["in"] == 360 == sum(number for name, number in counted.items() if name != "in")
    assert states["hot"]["connections"]["cloud"]["sent"] == 78
    assert states["broken"]["connections"]["cloud"]["filtered"] == 360
    assert states["broken"]["errors"] == 180
    assert "division by zero" in states["broken"]["last_error"]
    assert whole["stored_for"] == 3 * 360


async def test_an_interval_survives_a_restart_and_is_sent_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    config = config_of(mosquitto.port, minutes=MINUTES)
    with subscribed(mosquitto.port, "plants/#") as subscriber:
        async with running(tmp_path / "buffer.db", config) as (buffer, _):
            await put(buffer, 0, 30)
            assert not subscriber.messages
        async with running(tmp_path / "buffer.db", config) as (buffer, _):
            await put(buffer, 30, 130)
            await until(lambda: len(of(subscriber.messages, "plants/minutes")) == 2)
            await until(lambda: buffer.stats().connections["cloud/minutes"].pending == 40)
    messages = of(subscriber.messages, "plants/minutes")
    check_chain(messages)
    first, second = (
        [dict(zip(table["points"], row, strict=True)) for table in one["tables"] for row in table["values"]]
        for one in messages
    )
    assert [one["supply_count"] for one in first] == [60, 60]
    assert [(one["supply_min"], one["supply_max"], one["supply_avg"]) for one in second] == [(60.0, 119.0, 89.5)] * 2


async def test_a_restart_in_the_interval_of_a_boot_does_not_show_the_rest_as_whole(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    config = config_of(mosquitto.port, minutes=MINUTES)

    async def read(buffer: Buffer, begin: int, end: int, booted: int) -> None:
        for second in range(begin, end):
            buffer.count(read=1)
            stamp = START + second * 1_000_000, (second - booted) * 1_000_000
            assert buffer.put(Sample("chiller", *stamp, ("supply",), [float(second)]))
        await buffer.flush()

    with subscribed(mosquitto.port, "plants/#") as subscriber:
        async with running(tmp_path / "buffer.db", config, boot="a") as (buffer, _):
            await read(buffer, 0, 20, -1000)
        async with running(tmp_path / "buffer.db", config, boot="b") as (buffer, _):
            await read(buffer, 30, 40, 25)
            await until(lambda: len(of(subscriber.messages, "plants/minutes")) == 1)
        async with running(tmp_path / "buffer.db", config, boot="b") as (buffer, _):
            await read(buffer, 40, 130, 25)
            await until(lambda: len(of(subscriber.messages, "plants/minutes")) == 3)
    tables = [table for one in of(subscriber.messages, "plants/minutes") for table in one["tables"]]
    counts = [dict(zip(table["points"], table["values"][0], strict=True))["supply_count"] for table in tables]
    assert counts == [20, 30, 60]
    odd = [{quality for _, _, quality in table.get("quality", [])} for table in tables]
    assert odd == [{"uncertain(partial)"}, {"uncertain(late)"}, set()]


async def test_a_replay_works_out_whole_intervals_once_more(tmp_path: Path, mosquitto: Mosquitto) -> None:
    config = config_of(mosquitto.port, minutes=MINUTES, hot=HOT)
    minute = [("boiler", 60 * n) for n in range(2)], [("chiller", 60 * n) for n in range(2)]
    with subscribed(mosquitto.port, "plants/#") as subscriber:

        def came() -> list[dict[str, Any]]:
            return of(subscriber.messages, "plants/minutes")

        async with running(tmp_path / "buffer.db", config, retention=86_400 * 10_000) as (buffer, _):
            await put(buffer, 0, 130)
            await until(lambda: buffer.stats().connections["cloud/minutes"].pending == 40)
            assert await replayed(buffer, "cloud/hot", 0, 90) == 360  # cuts no minute
            assert await replayed(buffer, "cloud/minutes", 30, 125) == 480  # what waits is left out
            await put(buffer, 130, 150)
            await until(lambda: len(rows_of(came())) == 4)
            assert await replayed(buffer, "cloud/minutes", 59, 60) == 240
            await put(buffer, 150, 190)
            await until(lambda: len(rows_of(came())) == 6)
            await until(lambda: buffer.stats().connections["cloud/minutes"].pending == 40)
    first, again = rows_of(came())[:4], rows_of(came())[4:]
    assert sorted((device, second) for device, second, _, _ in first) == sorted([*minute[0], *minute[1]])
    assert sorted((device, second) for device, second, _, _ in again) == [("boiler", 0), ("chiller", 0)]
    assert [odd for _, _, _, odd in first + again] == [0] * 6
    assert {values for _, second, values, _ in first + again if second == 0} == {
        (29.5, 0.0, 59.0, 60, 20.0, 20.0, 20.0, 60)
    }
    check_chain([{**one, "lane": "live"} for one in came()])  # such a flow sends in one order


async def test_each_flow_gives_up_by_its_own_age_and_says_how_many(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What ThingPark calls `uplinkTimeValidity`."""
    fresh = FlowConfig(connections={"cloud": BindingConfig(topic="plants/fresh", max_age=Duration(60))})
    everything = FlowConfig(connections={"cloud": BindingConfig(topic="plants/all")})
    config = config_of(mosquitto.port, fresh=fresh, all=everything)
    with subscribed(mosquitto.port, "plants/#") as subscriber:
        async with running(tmp_path / "buffer.db", config) as (buffer, uplink):
            await until(lambda: uplink.state().get("connected"))
            await asyncio.to_thread(mosquitto.stop)
            for number, age in enumerate((3600, 120, 0)):
                buffer.count(read=1)
                moment = mono_us() - age * 1_000_000
                assert buffer.put(Sample("chiller", START - age * 1_000_000, moment, ("supply",), [number]))
                await buffer.flush()
            await buffer.change(
                lambda writer, done: writer.retention.retain(writer.ledger, done)
            )  # as it does now and then
            await asyncio.to_thread(mosquitto.start)
            await until(lambda: buffer.stats().connections["cloud/all"].delivered == 3)
            await until(lambda: buffer.stats().connections["cloud/fresh"].pending == 0)
            await until(lambda: len(subscriber.messages) >= 4)
            await buffer.flush()
            states = flow_states(config, uplink.forwarders, buffer.stats())
            whole = told(buffer.stats(), config, "cloud")
    counted = {name: state["connections"]["cloud"] for name, state in states.items()}
    nothing = {"filtered": 0, "queued": 0, "evicted": 0, "dead": 0}
    assert counted["fresh"] == {"in": 3, "sent": 1, "expired": 2, **nothing}
    assert counted["all"] == {"in": 3, "sent": 3, "expired": 0, **nothing}
    assert (whole["stored_for"], whole["delivered"], whole["expired"]) == (6, 4, 2)
    sent = {topic: [row for one in of(subscriber.messages, topic) for table in one["tables"] for row in table["values"]]
            for topic in ("plants/fresh", "plants/all")}  # fmt: skip
    assert sent == {"plants/fresh": [[2]], "plants/all": [[0], [1], [2]]}
