"""One command: the daemon under load on one core, beside raw references of the same minutes.

    python -m tests.bench [--quick] [--json FILE]

Everything the daemon talks to runs on another core: a Modbus TCP server that stamps each register, mosquitto, and a
receiver that traces every value back to the read it came from. Ratios to the references are what to quote: machines
differ, and their speed drifts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
from tests.support.mosquitto import Mosquitto

from tests.bench import measure
from tests.support.checker import Report, check
from tests.support.gateway import Gateway, running
from tests.support.load_server import REGISTERS, load_server, points_yaml
from tests.support.subscriber import subscribed

_PORTS = 20


def config(ports: Iterable[int], units: int, *, flush: str, broker: int) -> dict[str, Any]:
    """A gateway with `units` devices behind each port, each read once a second."""
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
        "connections": {"cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}"}},
    }


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


async def load(units: int, seconds: float, *, flush: str = "1s") -> dict[str, Any]:
    """Run the daemon under load for `seconds` after it settled; what arrived and what it cost."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))  # a real disk
        ports = stack.enter_context(load_server(_PORTS, *measure.pinned(measure.THE_REST)))
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        subscriber = stack.enter_context(subscribed(broker.port, "edged/bench/data"))
        made = config(ports, units, flush=flush, broker=broker.port)
        profiles = {"load": {"points": points_yaml()}}
        gateway = Gateway(folder / "gateway", made, prefix=measure.pinned(measure.UNDER_TEST), profiles=profiles)
        began = time.monotonic()
        async with running(gateway):
            while not subscriber.messages:
                await asyncio.sleep(0.01)
            first = time.monotonic() - began
            await asyncio.sleep(5)
            before, since, at = measure.cost(gateway.pid), len(subscriber.messages), time.monotonic()
            transactions = await _transactions(gateway)
            await asyncio.sleep(seconds)
            after, elapsed = measure.cost(gateway.pid), time.monotonic() - at
            until = len(subscriber.messages)
            transactions = await _transactions(gateway) - transactions
            rss, pss = measure.memory(gateway.pid)
            count = measure.threads(gateway.pid)
        messages = subscriber.messages
    spent = after - before
    window = messages[since:until]
    readings = sum(orjson.loads(message.payload)["readings"] for message in window)
    report = check(orjson.loads(message.payload) for message in messages)
    return {
        "devices": units * _PORTS,
        "due_per_second": units * _PORTS * REGISTERS,
        "readings_per_second": readings / elapsed,
        "transactions_per_second": transactions / elapsed,
        "cpu_percent": 100 * spent.cpu / elapsed,
        "cpu_s_per_million": 1e6 * spent.cpu / max(readings, 1),
        "written_per_reading": spent.written / max(readings, 1),
        "rss_mib": rss,
        "pss_mib": pss,
        "threads": count,
        "first_message_s": first,
        "latency_ms": _latencies(messages[since:until]),
        **_verdict(report),
    }


async def _transactions(gateway: Gateway) -> int:
    return sum(bus["transactions"] for bus in (await gateway.status())["buses"])


def _latencies(messages: Iterable[Any]) -> dict[str, float]:
    ages = [
        (message.at - moment) / 1000
        for message in messages
        for table in orjson.loads(message.payload)["tables"]
        for moment in table["times"]
    ]
    return {"p50": percentile(ages, 0.5), "p95": percentile(ages, 0.95), "p99": percentile(ages, 0.99)}


def _verdict(report: Report) -> dict[str, Any]:
    return {
        "wrong": report.wrong,
        "missing_reads": report.missing,
        "repeated": report.repeated,
        "disordered": report.disordered,
        "bad_readings": report.bad_readings,
        "stamp_error_ms_p99": percentile(map(abs, report.stamp_errors), 0.99) / 1000,
    }


def reference(name: str, seconds: float, ports: Iterable[int] = ()) -> dict[str, Any]:
    """One raw reference, pinned to the daemon's core."""
    command = [
        *measure.pinned(measure.UNDER_TEST), sys.executable, "-m", "tests.bench.raw", name, str(seconds),
        *map(str, ports),
    ]  # fmt: skip
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def references(seconds: float) -> dict[str, dict[str, Any]]:
    """All raw references."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = stack.enter_context(load_server(_PORTS, *measure.pinned(measure.THE_REST)))
        broker = stack.enter_context(Mosquitto(folder))
        return {
            "pymodbus": reference("pymodbus", seconds, ports),
            "streams": reference("streams", seconds, ports),
            "aiomqtt": reference("aiomqtt", seconds, [broker.port]),
            "sqlite": reference("sqlite", seconds),
        }


def show(title: str, record: Mapping[str, Any]) -> None:
    """One result as lines of text."""
    print(f"\n{title}")
    for name, value in record.items():
        if isinstance(value, dict):
            print(f"  {name:<26}" + ", ".join(f"{key} {number:,.1f}" for key, number in value.items()))
        else:
            print(f"  {name:<26}" + (f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"))
    sys.stdout.flush()


async def run(*, quick: bool) -> dict[str, Any]:
    """The whole benchmark."""
    os.sched_setaffinity(0, {measure.THE_REST})
    seconds = 10.0 if quick else 30.0
    raw = await asyncio.to_thread(references, 3.0 if quick else 8.0)
    for name, record in raw.items():
        show(f"raw {name}", {key: value for key, value in record.items() if key != "name"})
    results: dict[str, Any] = {"raw": raw}
    results["steady"] = await load(1, seconds)
    show("steady: 20 devices x 50 registers, each second, flush 1s", results["steady"])
    results["prompt"] = await load(1, seconds, flush="100ms")
    show("prompt: the same, flush 100ms", results["prompt"])
    for units in (60, 120) if quick else (60, 90, 120, 150, 180):
        record = await load(units, seconds)
        record["of_raw_pymodbus"] = record["readings_per_second"] / (raw["pymodbus"]["per_second"] * REGISTERS)
        results[f"load-{units * _PORTS}"] = record
        show(f"load: {units * _PORTS} devices x 50 registers, each second", record)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, for a first look")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there, too")
    options = parser.parse_args()
    results = asyncio.run(run(quick=options.quick))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
