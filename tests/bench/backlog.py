"""What a large backlog costs: opening it, draining it while fresh readings flow, and what those notice of it.

    python -m tests.bench.backlog [--readings 3600000] [--rate BYTES_PER_SECOND] [--json FILE]

The buffer and its forwarder run in a process of their own on one core, mosquitto and the receiver on another. Each
run is measured beside one without a backlog. With `--rate` the link between them carries no more than that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us, wall_us
from edged.config.model import BufferConfig, GatewayConfig
from edged.config.types import Duration, Name, Size
from edged.model import Sample
from edged.testing.audit import Audit
from edged.testing.proxy import FaultProxy
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from tests.bench.measure import UNDER_TEST, memory, pinned
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

WIDTH = 50
POINTS = tuple(f"p{i}" for i in range(WIDTH))
_HOUR = 3_600_000_000
_TICK = 0.05
"""Seconds between two fresh samples: 1,000 readings/s."""


def sample(number: int, age: int) -> Sample:
    """One sample of a device, `age` microseconds old."""
    rng = random.Random(number)
    values = [rng.random() for _ in POINTS]
    return Sample(f"d{number % 20}", wall_us() - age, mono_us() - age, POINTS, values)


def new_buffer(path: Path) -> Buffer:
    """The bench's buffer."""
    config = BufferConfig(flush=Duration(1), max_bytes=Size(2**30), inbox_readings=200_000)
    return Buffer(path, config, ["cloud"], boot=boot_id())


async def fill(path: Path, readings: int) -> None:
    """Store a backlog, an hour old."""
    buffer = new_buffer(path)
    await buffer.start()
    for number in range(readings // WIDTH):
        buffer.count(read=WIDTH)
        buffer.put(sample(number, _HOUR))
        if number % 20 == 0:
            await asyncio.sleep(0)
        if number % 200 == 0:  # as 10,000 readings/s would be stored
            await buffer.flush()
    await buffer.flush()
    await buffer.stop()


async def gateway(path: Path, port: int, seconds: float) -> dict[str, Any]:
    """Open the buffer and forward; put fresh readings and an alarm each second, for so long and until it is drained."""
    begun = monotonic()
    buffer = new_buffer(path)
    await buffer.start()
    opened = monotonic() - begun
    backlog, file_bytes = buffer.head, buffer.stats().file_bytes
    config = MqttConnection(connector="mqtt", url=f"mqtt://127.0.0.1:{port}")
    context = ConnectionContext("cloud", GatewayConfig(id=Name("bench")), {}, lambda _: "")
    forwarder = Forwarder("cloud", CONNECTOR.encoder(config, context), CONNECTOR.link(config, context), buffer)
    task = asyncio.create_task(forwarder.run())
    rss, number, begun, drained, slowest = [memory(os.getpid())[0]], 0, monotonic(), 0.0, 0.0
    while not drained or monotonic() - begun < seconds:
        await asyncio.sleep(_TICK)
        number += 1
        buffer.count(read=WIDTH)
        buffer.put(sample(number, 0))
        if number % 20 == 0:
            buffer.count(read=1)
            buffer.put_first(Sample("alarm", wall_us(), mono_us(), ("alarm",), [number]), at_once=True)
            rss.append(memory(os.getpid())[0])
        if not drained and buffer.cursor("cloud").low >= backlog:
            drained = monotonic() - begun
        slowest = max(slowest, buffer.stats().commit_seconds)
    await buffer.flush()
    async with asyncio.timeout(60):
        await forwarder.drained()
    task.cancel()
    await asyncio.wait([task])
    await buffer.stop()
    stored = buffer.stats().stored
    return {
        "opened_in_s": round(opened, 4), "file_mib": round(file_bytes / 2**20, 1), "drained_in_s": round(drained, 2),
        "rss_mib": round(max(rss), 1), "stored": stored, "slowest_commit_ms": round(slowest * 1000, 1),
    }  # fmt: skip


def child(*arguments: str) -> list[str]:
    """A command that runs a part of this on the core under test."""
    return [*pinned(UNDER_TEST), sys.executable, "-m", "tests.bench.backlog", *arguments]


async def run(*arguments: str) -> str:
    """Its output."""
    process = await asyncio.create_subprocess_exec(*child(*arguments), stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def measured(folder: Path, readings: int, rate: float | None, seconds: float) -> dict[str, Any]:
    """One run with a backlog of so many readings."""
    path = folder / "buffer.db"
    if readings:
        await run("--fill", str(path), "--readings", str(readings))
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        subscriber = stack.enter_context(subscribed(broker.port, "edged/bench/data"))
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.rate = rate
            port = proxy.port if rate else broker.port
            answer = await run("--forward", str(path), "--port", str(port), "--seconds", str(seconds))
        result: dict[str, Any] = json.loads(answer)
        await asyncio.sleep(0.5)
        result |= judged(subscriber)
    if readings:
        result["drained_per_s"] = round(readings / result["drained_in_s"])
    return result


def judged(subscriber: Subscriber) -> dict[str, Any]:
    """From the messages alone: what was lost, and the time from reading to receiver, over the whole run."""
    audit = Audit()
    late: dict[str, list[int]] = {"live": [], "priority": []}
    for message in subscriber.messages:
        payload = orjson.loads(message.payload)
        audit.take(payload)
        if payload["lane"] in late:
            times = [time for table in payload["tables"] for time in table["times"]]
            late[payload["lane"]] += [message.at - time for time in times]
    record: dict[str, Any] = {
        "received": audit.readings, "lost": len(audit.missing), "duplicates": audit.duplicates,
    }  # fmt: skip
    for lane, times in late.items():
        record[f"{lane}_ms_p50_p95_max"] = [percentile(times, share) for share in (0.5, 0.95, 1)]
    return record


def percentile(times: Sequence[int], share: float) -> float:
    """In milliseconds."""
    return round(sorted(times)[min(len(times) - 1, int(len(times) * share))] / 1000, 1) if times else -1.0


async def main(options: argparse.Namespace) -> None:
    """One part, or all."""
    if options.fill:
        await fill(options.fill, options.readings)
    elif options.forward:
        print(json.dumps(await gateway(options.forward, options.port, options.seconds)))
    else:
        results = {}
        for name, readings in (("without", 0), ("with", options.readings)):
            with tempfile.TemporaryDirectory() as folder:
                results[name] = await measured(Path(folder), readings, options.rate, options.seconds)
            print(f"{name} a backlog: {json.dumps(results[name])}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backlog")
    parser.add_argument("--readings", type=int, default=3_600_000)
    parser.add_argument("--rate", type=float, help="bytes per second that the link carries")
    parser.add_argument("--seconds", type=float, default=20, help="how long fresh readings flow at least")
    parser.add_argument("--json", type=Path)
    for part in ("--fill", "--forward"):
        parser.add_argument(part, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(main(parsed()))
