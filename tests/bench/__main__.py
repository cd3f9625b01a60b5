"""One command: the daemon under load on one core, beside raw references of the same minutes.

    python -m tests.bench [--quick] [--json FILE] [--page FILE]

Everything the daemon talks to runs on another core: a Modbus TCP server that stamps each register, mosquitto, and a
receiver that traces every value back to the read it came from. Ratios to the references are what to quote: machines
differ, and their speed drifts. Serial lines have a benchmark of their own: `python -m tests.bench.serial`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import measure, report, workloads
from tests.support.load_server import REGISTERS, load_server
from tests.support.mosquitto import Mosquitto

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


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
        ports = stack.enter_context(load_server(workloads.PORTS, *measure.pinned(measure.THE_REST)))
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
        elif not isinstance(value, str):
            print(f"  {name:<26}" + (f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"))
    sys.stdout.flush()


async def run(*, quick: bool) -> dict[str, Any]:
    """The whole benchmark."""
    os.sched_setaffinity(0, {measure.THE_REST})
    seconds = 8.0 if quick else 30.0
    results: dict[str, Any] = {"raw": await asyncio.to_thread(references, 2.0 if quick else 8.0)}
    for name, record in results["raw"].items():
        show(f"raw {name}", record)
    results["idle"] = await workloads.idle(seconds)
    show("idle: 1 device x 10 registers, each second", results["idle"])
    results["steady"] = await workloads.load(1, seconds)
    show("steady: 20 devices x 50 registers, each second, flush 1s", results["steady"])
    results["prompt"] = await workloads.load(1, seconds, flush="100ms")
    show("prompt: the same, flush 100ms", results["prompt"])
    for units in (120,) if quick else (60, 120, 180, 210, 240):
        record = results[f"load-{units * workloads.PORTS}"] = await workloads.load(units, seconds)
        record["of_raw_pymodbus"] = record["readings_per_second"] / (
            results["raw"]["pymodbus"]["per_second"] * REGISTERS
        )
        show(f"load: {units * workloads.PORTS} devices x 50 registers, each second", record)
    results["drain"] = await workloads.drain(20, 5.0 if quick else 60.0)
    show("drain: 400 devices x 50 registers, after an outage", results["drain"])
    return results


def write_page(page: Path, results: Mapping[str, Any]) -> None:
    """Put the table between the marks of the page, and the picture beside it."""
    head, _, rest = page.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    told = f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench`.\n\n{report.markdown(results)}"
    page.write_text(f"{head}{BEGIN}\n{told}\n{END}{tail}")
    (page.parent.parent / "images" / "cpu-per-load.svg").write_text(report.picture(results))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, for a first look")
    parser.add_argument("--json", metavar="FILE", type=Path, help="append the results there, as one line of JSON")
    parser.add_argument("--page", metavar="FILE", type=Path, help="write table and picture into this page")
    options = parser.parse_args()
    results = asyncio.run(run(quick=options.quick))
    print(f"\n{report.markdown(results)}")
    if options.json:
        with options.json.open("a") as file:
            file.write(json.dumps(results) + "\n")
    if options.page:
        write_page(options.page, results)


if __name__ == "__main__":
    main()
