"""How fast a backlog goes, beside fresh readings, and what those notice of it.

The backlog is in the buffer's file before the daemon starts: millions of readings as the load server would have served
them, so that the drain lasts seconds and every value can be checked. The broker starts last.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.model import Sample
from tests.bench import measure, references, workloads
from tests.support.checker import check
from tests.support.gateway import Gateway, running
from tests.support.load_server import REGISTERS, expected, load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Got, subscribed

_DEVICES = 200
_HOUR = 3_600_000_000
_POINTS = tuple(f"r{register}" for register in range(REGISTERS))
_QUIET = 1.5
"""Seconds without a message of the backlog after which it is gone."""
_REFERENCE = 3.0
"""Seconds for aiomqtt alone."""
_BEFORE = 4.0
"""Seconds that the daemon polls without a broker, so that nothing of its start falls into the drain."""
_AFTER = 6.0
"""Seconds of fresh readings without a backlog, to compare with those beside it."""


def reply(number: int, at: int) -> list[int]:
    """What the load server answers to the read `number` of a device, `at` microseconds since the epoch."""
    head = [at >> 48 & 0xFFFF, at >> 32 & 0xFFFF, at >> 16 & 0xFFFF, at & 0xFFFF, number >> 16, number & 0xFFFF]
    return head + [expected(number, register) for register in range(len(head), REGISTERS)]


async def fill(path: Path, readings: int) -> None:
    """A buffer as a gateway leaves it that read 10,000 a second and had no broker."""
    path.parent.mkdir(parents=True)
    buffer = Buffer(path, BufferConfig(flush=Duration(60)), ["cloud"], boot=boot_id())
    await buffer.start()
    wall, mono = wall_us() - _HOUR, mono_us() - _HOUR
    for number in range(1, 1 + readings // REGISTERS // _DEVICES):
        for device in range(_DEVICES):
            at = number * 1_000_000 + device * 5000
            buffer.count(read=REGISTERS)
            buffer.put(Sample(f"old{device}", wall + at, mono + at, _POINTS, reply(number, wall + at)))
        await buffer.flush()
    await buffer.stop()


async def drain(readings: int) -> dict[str, Any]:
    """A backlog of so many readings beside 1,000 fresh ones a second; then aiomqtt alone with messages of that size."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))  # /tmp may be memory
        where = stack.enter_context(load_server(workloads.PORTS, *measure.pinned(measure.THE_REST)))
        broker = Mosquitto(folder / "broker")
        stack.callback(broker.kill)
        gateway = Gateway(
            folder / "gateway", workloads.config(where, 1, flush="1s", broker=broker.port),
            prefix=measure.pinned(measure.UNDER_TEST), profiles={"load": {"points": points_yaml()}},
        )  # fmt: skip
        await fill(folder / "gateway" / "state" / "buffer.db", readings)
        async with running(gateway):
            await asyncio.sleep(_BEFORE)
            broker.start()
            subscriber = stack.enter_context(subscribed(broker.port, "edged/bench/data"))
            spent, rss = await _gone(gateway, subscriber.messages)
            await asyncio.sleep(_AFTER)
    messages = subscriber.messages
    old = [message for message in messages if _is_old(message)]
    begun, ended = old[0].at, old[-1].at
    seconds = (ended - begun) / 1e6
    live = [message for message in messages if not _is_old(message)]
    beside = workloads.latencies(message for message in live if begun <= message.at <= ended)
    alone = workloads.latencies(message for message in live if message.at > ended + 1_000_000)
    size = sum(len(message.payload) for message in old) / len(old)
    reference = await asyncio.to_thread(references.aiomqtt, _REFERENCE, size=round(size))
    return {
        "aiomqtt_per_second": reference["per_second"],
        "of_aiomqtt": len(old) / seconds / reference["per_second"],
        "cpu_to_aiomqtt": 1e6 * spent / len(old) / reference["cpu_us"],
        "drained_per_second": readings / seconds,
        "seconds": seconds,
        "messages_per_second": len(old) / seconds,
        "message_bytes": size,
        "cpu_percent": 100 * spent / seconds,
        "cpu_us": 1e6 * spent / len(old),
        "rss_mib": rss,
        "live_latency_ms": beside,
        "live_alone_latency_ms": alone,
        **workloads.verdict(check(orjson.loads(message.payload) for message in messages)),
    }


def _is_old(message: Got) -> bool:
    return b'"lane":"historical"' in message.payload[:200]


async def _gone(gateway: Gateway, messages: list[Got]) -> tuple[float, float]:
    """Wait until the backlog is gone, seen from the receiver: (CPU seconds it took, the highest RSS in MiB)."""
    while not messages:
        await asyncio.sleep(0.001)
    before = measure.cost(gateway.pid).cpu
    seen, quiet, spent, rss = 0, time.monotonic(), 0.0, 0.0
    while time.monotonic() - quiet < _QUIET:
        await asyncio.sleep(0.05)
        fresh = range(seen, len(messages))
        seen = len(messages)
        if any(_is_old(messages[number]) for number in fresh):
            quiet, spent = time.monotonic(), measure.cost(gateway.pid).cpu - before
            rss = max(rss, measure.memory(gateway.pid)[0])
    return spent, rss
