"""What the daemon is put through, and what came of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from tests.bench import measure
from tests.support.checker import Report, check, rows
from tests.support.gateway import Gateway, running
from tests.support.load_server import REGISTERS, load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Got, Subscriber, subscribed

PORTS = 20
"""Endpoints of the load server, each one bus."""
_SETTLE = 4.0
"""Seconds after the first message before anything is measured."""


def config(ports: Iterable[int], units: int, *, flush: str, broker: int, max_readings: int = 500) -> dict[str, Any]:
    """A gateway with `units` devices behind each port, each read once a second; `max_readings` go into a message."""
    buses, devices = {}, {}
    for i, port in enumerate(ports):
        buses[f"b{i}"] = {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port}
        for unit in range(1, units + 1):
            devices[f"b{i}u{unit}"] = {"bus": f"b{i}", "unit": unit, "every": "1s", "profile": "load"}
    return {
        "gateway": {"id": "bench"},
        "buffer": {"flush": flush},
        "buses": buses,
        "devices": devices,
        "connections": {
            "cloud": {
                "connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", "retry_max": "1s",
                "max_readings": max_readings,
            }
        },
    }  # fmt: skip


@dataclass
class Rig:
    """A daemon at work between a load server and a receiver."""

    gateway: Gateway
    subscriber: Subscriber
    broker: Mosquitto
    first: float
    """Seconds from the start of the process to the first message at the receiver."""

    async def transactions(self) -> int:
        """How many reads it has made."""
        return sum(bus["transactions"] for bus in (await self.gateway.status())["buses"])

    async def per_poll(self) -> float:
        """How many reads it has made for each poll of a device."""
        buses = (await self.gateway.status())["buses"]
        polls = sum(device["polls"] for bus in buses for device in bus["devices"])
        return float(sum(bus["transactions"] for bus in buses) / max(polls, 1))


@asynccontextmanager
async def rig(
    units: int, *, ports: int = PORTS, registers: int = REGISTERS, flush: str = "1s", max_readings: int = 500
) -> AsyncIterator[Rig]:
    """Start everything; yields when the first message has arrived."""
    with ExitStack() as stack:
        # A real disk: /tmp may be memory.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        where = stack.enter_context(load_server(ports, *measure.pinned(measure.THE_REST)))
        broker = stack.enter_context(Mosquitto(folder / "broker", persistence=True))
        subscriber = stack.enter_context(subscribed(broker.port, "edged/bench/data"))
        gateway = Gateway(
            folder / "gateway",
            config(where, units, flush=flush, broker=broker.port, max_readings=max_readings),
            prefix=measure.pinned(measure.UNDER_TEST),
            profiles={"load": {"points": points_yaml(registers)}},
        )
        began = time.monotonic()
        async with running(gateway, patience=60):
            while not subscriber.messages:
                if gateway.ended:
                    raise RuntimeError(f"the gateway ended: {gateway.lines()[-1000:]}")
                await asyncio.sleep(0.005)
            yield Rig(gateway, subscriber, broker, time.monotonic() - began)


async def load(
    units: int, seconds: float, *, ports: int = PORTS, flush: str = "1s", max_readings: int = 500
) -> dict[str, Any]:
    """Run under load for `seconds` after it settled: what arrived, when, and what it cost."""
    async with rig(units, ports=ports, flush=flush, max_readings=max_readings) as one:
        await asyncio.sleep(_SETTLE)
        before, since, at = measure.cost(one.gateway.pid), len(one.subscriber.messages), time.monotonic()
        transactions = await one.transactions()
        await asyncio.sleep(seconds)
        spent, elapsed = measure.cost(one.gateway.pid) - before, time.monotonic() - at
        until = len(one.subscriber.messages)
        transactions = await one.transactions() - transactions
        per_poll = await one.per_poll()
        rss, pss = measure.memory(one.gateway.pid)
        count, files = measure.threads(one.gateway.pid), measure.descriptors(one.gateway.pid)
    messages = one.subscriber.messages
    window = messages[since:until]
    readings = sum(orjson.loads(message.payload)["readings"] for message in window)
    return {
        "devices": units * ports,
        "due_per_second": units * ports * REGISTERS,
        "readings_per_second": readings / elapsed,
        "transactions_per_second": transactions / elapsed,
        "transactions_per_poll": per_poll,
        "cpu_percent": 100 * spent.cpu / elapsed,
        "cpu_s_per_million": 1e6 * spent.cpu / max(readings, 1),
        "written_per_reading": spent.written / max(readings, 1),
        "rss_mib": rss,
        "pss_mib": pss,
        "threads": count,
        "descriptors": files,
        "latency_ms": latencies(window),
        "jitter_ms_p99": _jitter(window),
        **verdict(check(orjson.loads(message.payload) for message in messages)),
    }


async def idle(seconds: float) -> dict[str, Any]:
    """One device with ten registers, each second, started twice: from the YAML, and from what was kept of it."""
    async with rig(1, ports=1, registers=10) as one:
        cold = one.first
        await one.gateway.stop()
        seen = len(one.subscriber.messages)
        began = time.monotonic()
        await one.gateway.start()
        while len(one.subscriber.messages) == seen:
            await asyncio.sleep(0.005)
        warm = time.monotonic() - began
        await asyncio.sleep(_SETTLE)
        before, at = measure.cost(one.gateway.pid), time.monotonic()
        await asyncio.sleep(seconds)
        spent, elapsed = measure.cost(one.gateway.pid) - before, time.monotonic() - at
        rss, pss = measure.memory(one.gateway.pid)
    return {
        "first_message_cold_s": cold,
        "first_message_warm_s": warm,
        "cpu_percent": 100 * spent.cpu / elapsed,
        "written_per_reading": spent.written / (10 * elapsed),
        "rss_mib": rss,
        "pss_mib": pss,
    }


def latencies(messages: Iterable[Got]) -> dict[str, float]:
    """From the read to the arrival at the receiver."""
    ages = [
        (message.at - moment) / 1000
        for message in messages
        for table in orjson.loads(message.payload)["tables"]
        for moment in table["times"]
    ]
    return {name: measure.percentile(ages, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _jitter(messages: Sequence[Got]) -> float:
    """By how much the time between two reads of a device differs from a second."""
    times: dict[str, list[int]] = {}
    for message in messages:
        for device, moment, _ in rows(orjson.loads(message.payload)):
            times.setdefault(device, []).append(moment)
    return measure.percentile((abs(b - a - 1e6) / 1000 for of in times.values() for a, b in pairwise(sorted(of))), 0.99)


def verdict(report: Report) -> dict[str, Any]:
    return {
        "readings": report.good_readings,
        "wrong": report.wrong,
        "missing_reads": report.missing,
        "repeated": report.repeated,
        "disordered": report.disordered,
        "bad_readings": report.bad_readings,
        "stamp_error_ms_p99": measure.percentile(map(abs, report.stamp_errors), 0.99) / 1000,
    }
