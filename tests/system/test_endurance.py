"""A month of broken links in a few seconds: memory, file descriptors, threads and tasks stay flat."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edged.config.load import load
from edged.daemon import Daemon, Places
from edged.testing.proxy import FaultProxy
from tests.support.fakebroker import FakeBroker
from tests.support.faultbench import seconds

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
@pytest.mark.timeout(600)
async def test_thousands_of_broken_sessions_leave_nothing_behind(tmp_path: Path) -> None:
    async with FakeBroker() as broker, FaultProxy("127.0.0.1", broker.port) as proxy:
        async with daemon(tmp_path, proxy.port) as one:
            await cut_until(proxy, broker, WARM)
            before = await used(proxy)
            await cut_until(proxy, broker, CYCLES)
            after = await used(proxy)
            status = one.status()
    print(before, after, len(broker.connects), "sessions")
    assert after.descriptors <= before.descriptors + 4  # a connection may just be dialling
    assert after.threads <= before.threads + 4
    assert after.tasks <= before.tasks + 2 * CONNECTIONS  # messages in flight are tasks
    assert after.objects <= before.objects + 0.5 * CYCLES + 2_000  # not one object more for each session
    assert after.rss <= before.rss + 8 * 1024
    assert not status["faults"]
    assert {record["connected"] for record in status["connections"].values()} == {True}
