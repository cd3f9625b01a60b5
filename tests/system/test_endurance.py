"""Thousands of broken links, and a day at 200 times its speed: memory, descriptors, threads and tasks stay flat.

The clocks of the fast gateway, wall and monotonic, are libfaketime's, which shortens all waiting, too. So a whole day
of flushes, reports, retention and outages passes; what takes real work (network, disk, CPU) has 200 times less time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.testing.audit import Audit
from edged.testing.proxy import FaultProxy
from tests.support.fakebroker import FakeBroker
from tests.support.fakeclock import LIBRARY, MISSING
from tests.support.faultbench import SOAK, WINDOW, adds_up, seconds
from tests.support.faultpage import keep
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

CONNECTIONS = 12
WARM = seconds(2_000, 200)
"""Sessions before the first measurement: what is made once has been made by then."""
CYCLES = seconds(20_000, 1_000)
"""Sessions between the two."""
_CUT_EVERY = 0.05
HELD = ("descriptors", "threads", "tasks", "objects", "rss_kib")


@asynccontextmanager
async def gateway(*arguments: str | Path, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`tests.support.day` with these arguments, as long as the block lasts; by its end it must have ended well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.day", *arguments, cwd=Path(__file__).parents[2],
        env={**os.environ, **environ}, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    try:
        yield process
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def used(process: asyncio.subprocess.Process, proxy: FaultProxy) -> dict[str, Any]:
    """What the gateway's process holds while every connection is up and nothing is being cut."""
    assert process.stdin is not None
    assert process.stdout is not None
    proxy.reset()
    await asyncio.sleep(1.5)
    process.stdin.write(b"\n")
    told: dict[str, Any] = json.loads(await process.stdout.readline())
    return told


def many_connections(port: int) -> dict[str, Any]:
    """All through the proxy that cuts them."""
    connection = {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "retry_max": "100ms"}
    return {
        "gateway": {"id": "plant-7"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {f"d{i}": {"bus": "lab", "every": "100ms", "points": {"a": {}, "b": {}}} for i in range(4)},
        "connections": {f"c{i}": connection for i in range(CONNECTIONS)},
        "buffer": {"flush": "100ms", "min_free": 0},
    }


async def cut_until(proxy: FaultProxy, broker: FakeBroker, sessions: float) -> None:
    """Reset all connections again and again, until the broker has seen so many more."""
    wanted = len(broker.connects) + sessions
    while len(broker.connects) < wanted:
        proxy.reset()
        broker.published.clear()  # the broker's own memory
        await asyncio.sleep(_CUT_EVERY)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_thousands_of_broken_sessions_leave_nothing_behind(tmp_path: Path) -> None:
    """The gateway is alone in its process: what cuts it, asyncio's streams, takes more memory with each connection."""
    path = tmp_path / "edged.yaml"
    async with FakeBroker() as broker, FaultProxy("127.0.0.1", broker.port) as proxy:
        path.write_text(json.dumps(many_connections(proxy.port)))
        async with gateway(path) as process:
            await cut_until(proxy, broker, WARM)
            before = await used(process, proxy)
            await cut_until(proxy, broker, CYCLES)
            after = await used(process, proxy)
            assert process.stdin is not None
            process.stdin.close()
    sessions = len(broker.connects)
    print(*({key: told[key] for key in HELD} for told in (before, after)), sessions, "sessions")
    assert after["descriptors"] <= before["descriptors"] + 4  # a connection may just be dialling
    assert after["threads"] <= before["threads"] + 4
    assert after["tasks"] <= before["tasks"] + 2 * CONNECTIONS  # messages in flight are tasks
    assert after["objects"] <= before["objects"] + 0.5 * CYCLES + 2_000  # not one object more for each session
    # Each connection remembers some thousand messages that it has sent: 4 MiB for all, when that is full.
    assert after["rss_kib"] <= before["rss_kib"] + 6 * 1024
    assert not after["faults"]
    assert adds_up(after["buffer"])
    assert all(of_one["dead"] == 0 for of_one in after["buffer"]["connections"].values())
    assert after["connected"] == [True] * CONNECTIONS
    if SOAK:
        keep(
            "sessions",
            f"{sessions:,} sessions of {CONNECTIONS} connections were cut. Of {before['descriptors']} file "
            f"descriptors, {before['threads']} threads and {before['tasks']} tasks there were {after['descriptors']}, "
            f"{after['threads']} and {after['tasks']} in the end; memory grew by "
            f"{(after['rss_kib'] - before['rss_kib']) / 1024:.1f} MiB. (That levels off: with 60,000 it was 1.4 MiB; "
            "each connection remembers the last 8,192 messages of each lane.) No message became a dead letter.",
        )


SPEED = 200
DAY = seconds(86_400, 3_600)
"""Seconds of the gateway's own time."""
_OUTAGE = 3.0
"""Real seconds: ten minutes of the gateway's."""
_POINTS = 10
_REPORT = 1800.0
"""Seconds of its own time."""


def fast_config(port: int) -> dict[str, Any]:
    """Ten readings a second. What waits for the network has as much real time as ever."""
    points: dict[str, Any] = {f"p{i}": {"waveform": "counter"} for i in range(_POINTS - 1)}
    points["alarm"] = {"waveform": "counter", "priority": "high"}
    patient = {"keepalive": "5m", "connect_timeout": "5m", "ack_timeout": "10m"}
    return {
        "gateway": {"id": "plant-7"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {f"d{i}": {"bus": "lab", "every": "5s", "points": points} for i in range(5)},
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}", **patient}},
        "buffer": {"flush": "5s", "min_free": 0, "retention": "2h"},
    }


async def live_fast(path: Path, proxy: FaultProxy) -> tuple[list[dict[str, Any]], int]:
    """What a gateway said of itself each half hour of its day, and how many outages it had."""
    told: list[dict[str, Any]] = []
    outages = 0
    faked = {"LD_PRELOAD": LIBRARY, "FAKETIME": f"+0 x{SPEED}", "NO_FAKE_STAT": "1"}
    async with gateway(path, str(_REPORT), str(DAY), **faked) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            told.append(json.loads(line))
            if len(told) % 4 == 1:
                outages += 1
                await proxy.refuse()
                await asyncio.sleep(_OUTAGE)
                await proxy.restore()
    return told, outages


def audited(subscriber: Subscriber) -> Audit:
    """What a receiver makes of the messages."""
    audit = Audit()
    for message in subscriber.messages:
        audit.take(json.loads(message.payload))
    return audit


@pytest.mark.slow
@pytest.mark.mosquitto
@pytest.mark.timeout(1200 if SOAK else 120)
@pytest.mark.skipif(not LIBRARY, reason=MISSING)
async def test_a_day_in_minutes_leaves_nothing_behind_and_loses_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, "edged/plant-7/data") as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            path = tmp_path / "edged.yaml"
            path.write_text(json.dumps(fast_config(proxy.port)))
            told, outages = await live_fast(path, proxy)
        await asyncio.sleep(1)
    audit, last = audited(subscriber), told[-1]
    first = told[min(len(told) - 2, 8)]  # by then what is made once has been made, and the first history is deleted
    print(f"{last['at'] / 3600:.1f} h, {audit.readings:,} readings, {outages} outages; {first}; {last}")
    assert last["at"] >= DAY - 1
    assert last["faults"].keys() <= {"commands"}  # its patience with the disk is 50 ms of real time here
    assert adds_up(last["buffer"])
    assert last["buffer"]["read"] >= 0.3 * DAY * _POINTS  # at this speed a busy machine skips polls
    assert audit.missing == []
    assert audit.gaps("plant-7", last["buffer"]["epoch"]) == []
    assert audit.readings >= last["buffer"]["stored"] - last["buffer"]["connections"]["cloud"]["pending"]
    assert audit.out_of_order == 0
    assert audit.duplicates <= WINDOW * outages
    assert last["descriptors"] <= first["descriptors"] + 2
    assert last["threads"] <= first["threads"] + 1
    assert last["tasks"] <= first["tasks"] + WINDOW  # messages in flight are tasks
    assert last["objects"] <= first["objects"] + 10_000
    assert last["rss_kib"] <= first["rss_kib"] + 6 * 1024
    if SOAK:
        keep(
            "day",
            f"A gateway lived {last['at'] / 3600:.0f} hours at {SPEED} times their speed (libfaketime), with {outages} "
            f"outages of ten minutes: of {audit.readings:,} readings none was lost. From hour {first['at'] / 3600:.0f} "
            f"to the end it went from {first['descriptors']} to {last['descriptors']} file descriptors, from "
            f"{first['tasks']} to {last['tasks']} tasks, and from {first['rss_kib'] / 1024:.1f} to "
            f"{last['rss_kib'] / 1024:.1f} MiB of memory.",
        )
