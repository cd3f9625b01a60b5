"""Many devices, long files, and what a person waits for at the terminal."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from edged.testing.audit import Audit
from tests.bench import measure
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed

_SETTLE = 4.0
"""Seconds for each 50,000 devices, but once at least: all are read within the first, and that is to be delivered."""
_LINES = 1_400
"""How long the configuration for `edged check` is."""
_KEPT = """
from pathlib import Path
from edged.config.compiled import load_compiled
load_compiled(Path({file!r}), Path({cache!r}))
"""
"""What the daemon does with a configuration that it has seen before."""


async def sensors(devices: int, every: float, seconds: float) -> dict[str, Any]:
    """So many simulated devices with one point each, every one read each `every` seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))  # /tmp may be memory
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        subscriber = stack.enter_context(subscribed(broker.port, "edged/bench/data"))
        point = {"waveform": "sine", "low": 15, "high": 30, "period": "10m", "decimals": 2}
        config = {
            "gateway": {"id": "bench"},
            "control": {"watch": "1s"},  # watching 100,000 new devices come up costs a third of a core while it lasts
            "buses": {"lab": {"adapter": "sim"}},
            "devices": {f"s{number}": {"bus": "lab", "profile": "sensor"} for number in range(devices)},
            "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}"}},
        }
        profile = {"device": {"every": f"{every:g}s"}, "points": {"temperature": point}}
        gateway = Gateway(
            folder / "gateway", config, prefix=measure.pinned(measure.UNDER_TEST), profiles={"sensor": profile}
        )
        began = time.monotonic()
        async with running(gateway, patience=60):
            while not subscriber.messages:
                await asyncio.sleep(0.01)
            start = time.monotonic() - began
            await asyncio.sleep(_SETTLE * (1 + devices // 50_000))
            before, at, since = measure.cost(gateway.pid), time.monotonic(), len(subscriber.messages)
            await asyncio.sleep(seconds)
            spent, elapsed, until = measure.cost(gateway.pid) - before, time.monotonic() - at, len(subscriber.messages)
            rss, pss = measure.memory(gateway.pid)
        audit, events = Audit(), 0
        ages: list[float] = []
        for number, message in enumerate(subscriber.messages):
            payload = orjson.loads(message.payload)
            audit.take(payload)
            if since <= number < until:
                events += payload["readings"]
                ages += [(message.at - moment) / 1000 for table in payload["tables"] for moment in table["times"]]
    return {
        "devices": devices,
        "due_per_second": devices / every,
        "events_per_second": events / elapsed,
        "cpu_percent": 100 * spent.cpu / elapsed,
        "rss_mib": rss,
        "pss_mib": pss,
        "latency_ms_p95": measure.percentile(ages, 0.95),
        "missing": len(audit.missing),
        "start_s": start,
    }


def commands(rounds: int) -> dict[str, float]:
    """Seconds that `edged --help` and `edged check` of a long file take, started anew each time; medians."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "edged.yaml"
        file.write_text(long_configuration())
        return {
            "help_s": _timed(rounds, "--help"),
            "check_s": _timed(rounds, "check", str(file)),
            "kept_s": _timed(rounds, code=_KEPT.format(file=str(file), cache=folder)),
        }


def long_configuration() -> str:
    """A file of so many lines, as a technician writes them."""
    lines = ["gateway:", "  id: bench", "buses:"]
    for line in range(4):
        lines += [f"  line-{line}:", "    adapter: modbus-tcp", f"    host: 192.0.2.{line + 1}"]
    lines.append("devices:")
    number = 0
    while len(lines) < _LINES - 3:
        number += 1
        lines += [
            f"  meter-{number}:  # panel {number}", f"    bus: line-{number % 4}", f"    unit: {number // 4 + 1}",
            "    every: 10s", "    points:",
            "      voltage: {input: 0, type: float32, unit: V, range: [0, 500]}",
            "      current: {input: 6, type: float32, unit: A, deadband: 0.1}",
            "      energy: {input: 72, type: float32, unit: kWh, decimals: 1}",
        ]  # fmt: skip
    lines += ["connections:", "  cloud:", "    {connector: mqtt, url: mqtts://broker.example.com}"]
    return "\n".join(lines) + "\n"


def _timed(rounds: int, *arguments: str, code: str = "") -> float:
    what = ("-c", code) if code else ("-m", "edged", *arguments)
    command = [*measure.pinned(measure.UNDER_TEST), sys.executable, *what]
    taken = []
    for _ in range(rounds + 1):  # the first also fills the caches of the disk
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.monotonic() - began)
    return median(taken[1:])
