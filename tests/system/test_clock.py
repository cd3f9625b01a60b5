"""The daemon on a board that starts in 1970, as a receiver sees it; the wall clock is libfaketime's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.clock import mono_us, wall_us
from edged.config.compiled import load_compiled
from edged.testing.audit import Audit
from edged.timesync import Evidence
from tests.support.fakeclock import LIBRARY, MISSING, FakeClock
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

needs_faketime = pytest.mark.skipif(not LIBRARY, reason=MISSING)
needs_a_clock = pytest.mark.skipif(
    not Evidence().source(wall_us(), mono_us()), reason="nothing vouches for this machine's clock"
)


def config(port: int, **clock: str) -> dict[str, Any]:
    return {
        "gateway": {"id": "plant-7"},
        "clock": clock,
        "buses": {"b": {"adapter": "sim"}},
        "devices": {"m": {"bus": "b", "every": "200ms", "points": {"p": {"waveform": "counter"}}}},
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "retry_max": "500ms"}},
    }


def board(folder: Path, settings: dict[str, Any], clock: FakeClock) -> Gateway:
    """A gateway whose configuration is compiled already: libfaketime breaks time.sleep, by which that is waited for."""
    gateway = Gateway(folder, settings, prefix=clock.prefix)
    load_compiled(gateway.config, folder / "state" / "cache")
    return gateway


def rows(subscriber: Subscriber) -> Iterator[tuple[int, str]]:
    """Time and quality of each reading in the order of arrival."""
    for message in list(subscriber.messages):
        if not message.topic.endswith("/data"):
            continue
        for table in orjson.loads(message.payload)["tables"]:
            flags = {row: text for row, _, text in table.get("quality", ())}
            for row, taken in enumerate(table["times"]):
                yield taken, flags.get(row, "good")


def nothing_missing(subscriber: Subscriber) -> bool:
    audit = Audit()
    for message in subscriber.messages:
        if message.topic.endswith("/data"):
            audit.take(orjson.loads(message.payload))
    return not audit.missing and not audit.out_of_order


def told(subscriber: Subscriber) -> list[str]:
    return [orjson.loads(one.payload)["clock"] for one in subscriber.messages if one.topic.endswith("/status")]


@needs_faketime
@needs_a_clock
async def test_what_waited_gets_the_right_time_and_what_was_sent_was_flagged(tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    clock.shift(-time.time() + 60)
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, "edged/plant-7/+") as got:
        gateway = board(tmp_path / "gateway", config(broker.port), clock)
        async with running(gateway):
            await until(lambda: len(list(rows(got))) >= 3)
            assert not (await gateway.status())["clock"]["trusted"]
            broker.stop()
            sent = len(list(rows(got)))
            away = time.time_ns() // 1000
            await asyncio.sleep(3)
            clock.shift(0)
            await gateway.until(lambda status: status["clock"]["trusted"])
            broker.start()
            await until(lambda: any(flag == "good" and taken > away + 4_000_000 for taken, flag in rows(got)))
            await gateway.stop()
        await asyncio.sleep(0.3)
    seen = list(rows(got))
    assert nothing_missing(got)
    assert all(taken < 10**12 and flag == "uncertain(clock)" for taken, flag in seen[:sent]), seen
    late = [taken for taken, flag in seen[sent:] if flag == "good"]
    # What was in flight when the broker went may come once more; the rest of those three seconds has its right time.
    # It is 15 where the machine lets it poll; what was polled is there, as was seen above.
    assert sum(away <= taken <= away + 3_000_000 for taken in late) >= 5, seen
    assert late == sorted(late)
    assert all(taken <= time.time_ns() // 1000 for taken in late)
    assert told(got)[0] == "untrusted"
    assert told(got)[-1] == "trusted"


@needs_faketime
@needs_a_clock
async def test_hold_sends_nothing_until_the_clock_is_set_and_then_all_of_it_right(tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    clock.shift(-time.time() + 60)
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "edged/plant-7/+") as got:
        gateway = board(tmp_path / "gateway", config(broker.port, untrusted="hold"), clock)
        began = time.time_ns() // 1000
        async with running(gateway):
            await until(lambda: "untrusted" in told(got))
            await asyncio.sleep(3)
            assert list(rows(got)) == []
            clock.shift(0)
            await until(lambda: len(list(rows(got))) >= 20)
            await until(lambda: told(got)[-1] == "trusted")
            await gateway.stop()
    seen = list(rows(got))
    assert {flag for _, flag in seen} == {"good"}
    times = [taken for taken, _ in seen]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= time.time_ns() // 1000


@needs_faketime
@needs_a_clock
async def test_a_clock_set_back_an_hour_never_shows_a_good_time_twice(tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "edged/plant-7/+") as got:
        gateway = board(tmp_path / "gateway", config(broker.port), clock)
        async with running(gateway):
            await until(lambda: len(list(rows(got))) >= 5)
            clock.shift(-3600)
            await until(lambda: any(flag != "good" for _, flag in rows(got)))
            await asyncio.sleep(1)
            clock.shift(0)
            back = time.time_ns() // 1000 + 1_000_000
            await until(lambda: any(flag == "good" and taken > back for taken, flag in rows(got)))
            state = (await gateway.status())["clock"]
            await gateway.stop()
    good = [taken for taken, flag in rows(got) if flag == "good"]
    assert good == sorted(good)
    assert nothing_missing(got)
    assert state["steps"] == 2
    assert gateway.lines().count("the clock was set by") == 2
