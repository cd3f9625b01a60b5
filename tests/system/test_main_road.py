"""The main job end to end: real Modbus servers, the real daemon in its own process, a real mosquitto and subscriber.

Nothing here is ours but the daemon: the devices are `load_server.c`, the subscriber is paho's. What arrived is judged
from the messages alone (`epoch`, `seq`, `prev`), and then against what the devices say they served.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.testing.audit import Audit
from edged.testing.proxy import FaultProxy
from tests.support.checker import Report, check
from tests.support.gateway import Gateway, running
from tests.support.load_server import REGISTERS, load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto

DEVICES = 20
OUTAGE = float(os.environ.get("EDGED_TEST_OUTAGE", "60"))
"""Seconds that the outages last."""
WINDOW = 20
"""The default in-flight window: so many messages may be repeated after a crash."""


def config(ports: Iterable[int], broker: int, **connection: Any) -> dict[str, Any]:
    ports = list(ports)
    return {
        "gateway": {"id": "plant-7", "site": {"tenant": "fabrikam"}},
        "buses": {
            f"b{i}": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port} for i, port in enumerate(ports)
        },
        "devices": {
            f"d{i}": {"bus": f"b{i}", "unit": 1, "every": "1s", "points": points_yaml()} for i in range(len(ports))
        },
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", **connection}},
    }


def served(port: int) -> int:
    """How many reads the device behind `port` has answered, by its own count; asks it once more."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 4, 2))
        reply = connection.recv(64)
    (count,) = struct.unpack(">I", reply[9:13])
    return int(count) - 1


def judge(subscriber: Subscriber) -> tuple[Report, Audit]:
    """What arrived, from the messages alone."""
    payloads = [orjson.loads(message.payload) for message in subscriber.messages]
    audit = Audit()
    for payload in payloads:
        audit.take(payload)
    return check(payloads), audit


def assert_counters_add_up(status: Mapping[str, Any]) -> None:
    """Promise 5."""
    buffer = status["buffer"]
    assert buffer["read"] == buffer["stored"] + buffer["suppressed"] + buffer["rejected"] + buffer["waiting"]
    for connection in buffer["connections"].values():
        settled = connection["delivered"] + connection["expired"] + connection["evicted"] + connection["dead"]
        assert connection["stored_for"] == settled + connection["pending"]


async def until_seen(subscriber: Subscriber, messages: int = 1) -> None:
    async with asyncio.timeout(50):
        while len(subscriber.messages) < messages:
            await asyncio.sleep(0.05)


async def until_delivered(gateway: Gateway) -> dict[str, Any]:
    """Wait until nothing older than a few flushes is pending; returns the status."""
    few = 4 * DEVICES * REGISTERS
    return await gateway.until(
        lambda status: all(one["pending"] <= few for one in status["buffer"]["connections"].values()), 60
    )


async def test_every_reading_arrives_once_right_and_in_order(tmp_path: Path) -> None:
    with load_server(DEVICES) as ports, Mosquitto(tmp_path) as broker, subscribed(broker.port, "edged/+/data") as sub:
        gateway = Gateway(tmp_path / "gateway", config(ports, broker.port))
        async with running(gateway):
            await until_seen(sub)
            await asyncio.sleep(8)
            status = await gateway.status()
            assert await gateway.stop() == 0, gateway.lines()
        await asyncio.sleep(0.5)
        totals = [served(port) for port in ports]
    report, audit = judge(sub)
    assert_counters_add_up(status)
    assert (report.wrong, report.missing, report.repeated, report.disordered, report.bad_readings) == (0, 0, 0, 0, 0)
    assert (len(audit.missing), audit.duplicates, audit.out_of_order) == (0, 0, 0)
    assert len(report.last) == DEVICES
    assert min(report.last.values()) >= 8
    # A poll cut off by the stop may have been answered without being taken.
    assert all(total - report.last[f"d{i}"] <= 1 for i, total in enumerate(totals))
    errors = sorted(map(abs, report.stamp_errors))
    assert errors[len(errors) // 10] <= 10_000  # most are within a millisecond; a busy machine adds what it takes


def assert_nothing_lost(subscriber: Subscriber, gateway: Gateway) -> None:
    """In one outage; what was under way when it began may have come twice."""
    report, audit = judge(subscriber)
    assert (report.wrong, report.missing, report.disordered, report.bad_readings) == (0, 0, 0, 0), gateway.lines()
    assert not audit.missing
    assert audit.duplicates <= WINDOW


async def _broker_stopped(folder: Path) -> None:
    with (
        load_server(DEVICES) as ports,
        Mosquitto(folder, persistence=True) as broker,
        subscribed(broker.port, "edged/+/data") as sub,
    ):
        gateway = Gateway(folder / "gateway", config(ports, broker.port))
        async with running(gateway):
            await until_seen(sub, 2)
            broker.stop()
            await asyncio.sleep(OUTAGE)
            broker.start()
            await until_delivered(gateway)
            await gateway.stop()
        await asyncio.sleep(1)
    assert_nothing_lost(sub, gateway)


async def _silent_link(folder: Path) -> None:
    with load_server(DEVICES) as ports, Mosquitto(folder) as broker, subscribed(broker.port, "edged/+/data") as sub:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            gateway = Gateway(folder / "gateway", config(ports, proxy.port, ack_timeout="5s"))
            async with running(gateway):
                await until_seen(sub, 2)
                proxy.blackhole()
                await asyncio.sleep(OUTAGE)
                await proxy.restore()
                status = await until_delivered(gateway)
                assert_counters_add_up(status)
                await gateway.stop()
            await asyncio.sleep(1)
    assert_nothing_lost(sub, gateway)


async def _killed(folder: Path) -> None:
    with load_server(DEVICES) as ports, Mosquitto(folder) as broker, subscribed(broker.port, "edged/+/data") as sub:
        gateway = Gateway(folder / "gateway", config(ports, broker.port))
        async with running(gateway):
            for _ in range(3):
                await until_seen(sub, len(sub.messages) + 4)
                await gateway.stop(signal.SIGKILL)
                await gateway.start()
            status = await gateway.status()
            assert_counters_add_up(status)
            await until_seen(sub, len(sub.messages) + 2)
            await until_delivered(gateway)
            assert await gateway.stop() == 0
        await asyncio.sleep(1)
    report, audit = judge(sub)
    assert (report.wrong, report.disordered) == (0, 0), gateway.lines()
    assert not audit.missing
    assert audit.duplicates <= 3 * WINDOW
    # What had not been flushed when it was killed had no number yet: at most two polls of a device for each kill.
    assert report.missing <= 3 * 2 * DEVICES


@pytest.mark.slow
@pytest.mark.timeout(OUTAGE + 180)
async def test_outages_lose_nothing_and_repeat_no_more_than_the_window(tmp_path: Path) -> None:
    """Side by side, because each of them mostly waits."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_broker_stopped(tmp_path / "stopped"))
        group.create_task(_silent_link(tmp_path / "silent"))
        group.create_task(_killed(tmp_path / "killed"))
