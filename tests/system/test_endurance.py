"""Thousands of broken links, and a day at 200 times its speed: memory, descriptors, threads and tasks stay flat.

The clocks of the fast gateway, wall and monotonic, are libfaketime's, which shortens all waiting, too. So a whole day
of flushes, reports, retention and outages passes; what takes real work (network, disk, CPU) has 200 times less time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edged.config.load import load
from edged.daemon import Daemon, Places
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


@dataclass(frozen=True, slots=True)
class Used:
    """What this process holds, with the daemon in it."""

    descriptors: int
    threads: int
    tasks: int
    objects: int
    rss: int
    """KiB."""


async def used(proxy: FaultProxy) -> Used:
    """Measured while every connection is up and nothing is being cut."""
    proxy.reset()
    await asyncio.sleep(1.5)
    gc.collect()
    status = Path("/proc/self/status").read_text()
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return Used(
        len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks()),
        len(gc.get_objects()), rss,
    )  # fmt: skip


@asynccontextmanager
async def daemon(folder: Path, port: int) -> AsyncIterator[Daemon]:
    connection = {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "retry_max": "100ms"}
    config = {
        "gateway": {"id": "plant-7"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {f"d{i}": {"bus": "lab", "every": "100ms", "points": {"a": {}, "b": {}}} for i in range(4)},
        "connections": {f"c{i}": connection for i in range(CONNECTIONS)},
        "buffer": {"flush": "100ms", "min_free": 0},
    }
    path = folder / "edged.yaml"
    path.write_text(json.dumps(config))
    loaded = load(path).config
    assert loaded is not None
    one = Daemon(loaded, Places(folder, folder, folder / "edged.sock"))
    task = asyncio.create_task(one.run(), name="daemon")
    try:
        yield one
    finally:
        one.stop()
        async with asyncio.timeout(20):
            await task


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
    async with FakeBroker() as broker, FaultProxy("127.0.0.1", broker.port) as proxy:
        async with daemon(tmp_path, proxy.port) as one:
            await cut_until(proxy, broker, WARM)
            before = await used(proxy)
            await cut_until(proxy, broker, CYCLES)
            after = await used(proxy)
            status = one.status()
    sessions = len(broker.connects)
    print(before, after, sessions, "sessions")
    assert after.descriptors <= before.descriptors + 4  # a connection may just be dialling
    assert after.threads <= before.threads + 4
    assert after.tasks <= before.tasks + 2 * CONNECTIONS  # messages in flight are tasks
    assert after.objects <= before.objects + 0.5 * CYCLES + 2_000  # not one object more for each session
    assert after.rss <= before.rss + 8 * 1024
    assert not status["faults"]
    assert {record["connected"] for record in status["connections"].values()} == {True}
    if SOAK:
        keep(
            "sessions",
            f"{sessions:,} sessions of {CONNECTIONS} connections were cut. Of {before.descriptors} file descriptors, "
            f"{before.threads} threads and {before.tasks} tasks there were {after.descriptors}, {after.threads} and "
            f"{after.tasks} in the end; memory grew by {(after.rss - before.rss) / 1024:.1f} MiB.",
        )


SPEED = 200
DAY = seconds(86_400, 3_600)
"""Seconds of the gateway's own time."""
_OUTAGE = 3.0
"""Real seconds: ten minutes of the gateway's."""
_POINTS = 10


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
    environ = {**os.environ, "LD_PRELOAD": LIBRARY, "FAKETIME": f"+0 x{SPEED}", "NO_FAKE_STAT": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.day", str(path), str(DAY),
        cwd=Path(__file__).parents[2], env=environ, stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    assert process.stdout is not None
    told: list[dict[str, Any]] = []
    outages = 0
    try:
        async for line in process.stdout:
            told.append(json.loads(line))
            if len(told) % 4 == 1:
                outages += 1
                await proxy.refuse()
                await asyncio.sleep(_OUTAGE)
                await proxy.restore()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
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
