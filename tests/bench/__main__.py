"""One command: the daemon under load on one core, beside raw references of the same minutes.

    python -m tests.bench [--quick] [--json FILE] [--page [FILE]]

Everything the daemon talks to runs on another core: a Modbus TCP server that stamps each register, mosquitto, and a
receiver that traces every value back to the read it came from. Ratios to the references are what to quote: machines
differ, and their speed drifts. Each round is one line of JSON; the table shows medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import backlog, ble, measure, references, report, scale, serial, workloads
from tests.bench.rounds import together
from tests.support.load_server import REGISTERS

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
LINES = Path(".build/bench.jsonl")
_LINKS = 40
"""Endpoints for the ladder of loads; a Modbus address allows 247 devices behind each."""
_BAUDRATES = (9_600, 115_200)
_TAGS, _ADVERTISEMENTS = 200, 2_000.0
"""Sensors with a radio, and how many advertisements a second they send together."""
_OLD = 12.0
"""Seconds of an outage after which what waits is old, so that fresh readings go beside it and not after it."""
_BACKLOG = 1_000_000
"""Readings that wait when the daemon opens its buffer."""


@dataclass
class Bench:
    """One run."""

    quick: bool
    lines: Path
    results: dict[str, Any] = field(default_factory=dict)

    async def measured(
        self, name: str, what: str, make: Callable[[], Awaitable[Mapping[str, Any]]], *, rounds: int = 1
    ) -> dict[str, Any]:
        """Some rounds of one thing: kept line by line, shown, and their median among the results."""
        records = []
        for number in range(1, 1 + (1 if self.quick else rounds)):
            record = await make()
            records.append(record)
            with self.lines.open("a") as file:
                line = {"at": round(time.time()), "name": name, "round": number, "quick": self.quick, **record}
                file.write(json.dumps(line) + "\n")
        record = self.results[name] = together(records)
        show(what, record)
        return record

    async def run(self) -> dict[str, Any]:
        """The whole benchmark."""
        os.sched_setaffinity(0, {measure.THE_REST})
        os.environ["MALLOC_ARENA_MAX"] = "1"  # as in systemd/edged.service
        seconds = 4.0 if self.quick else 15.0
        raw = 1.0 if self.quick else 4.0
        await self.measured("raw", "raw references", lambda: asyncio.to_thread(references.all_of_them, raw), rounds=3)
        what = "commands: `edged --help`, `edged check` of 1,400 lines, the same file kept"
        await self.measured("commands", what, lambda: asyncio.to_thread(scale.commands, 1 if self.quick else 5))
        await self.measured("idle", "idle: 1 device x 10 registers", lambda: workloads.idle(seconds), rounds=3)
        await self.measured(
            "steady", "steady: 20 devices x 50 registers, flush 1s", lambda: workloads.load(1, seconds), rounds=3
        )
        await self.measured(
            "prompt", "prompt: the same, flush 100ms", lambda: workloads.load(1, seconds, flush="100ms"), rounds=2
        )
        await self._ladder(seconds)
        await self._drain(raw)
        await self._backlog()
        await self._scale(seconds)
        await self._radio(seconds)
        await self._serial()
        return self.results

    async def _ladder(self, seconds: float) -> None:
        if not self.quick:
            await self.measured("few", "10 devices x 50 registers", lambda: workloads.load(1, seconds, ports=10))
        for units in (80,) if self.quick else (25, 50, 120, 160, 200):
            count = units * _LINKS
            record = await self.measured(
                f"load-{count}", f"load: {count:,} devices x 50 registers, each second",
                lambda units=units: workloads.load(units, seconds, ports=_LINKS),  # type: ignore[misc]  # a loop's value
            )  # fmt: skip
            raw = self.results["raw"]["pymodbus"]["per_second"] * REGISTERS
            record["of_raw_pymodbus"] = record["readings_per_second"] / raw

    async def _drain(self, raw: float) -> None:
        """With a reference of its own right before each round: what a broker takes changes within minutes."""

        async def once() -> dict[str, Any]:
            alone = (await asyncio.to_thread(references.aiomqtt, raw))["per_second"]
            record = await workloads.drain(40, _OLD if self.quick else 2 * _OLD)
            return record | {"aiomqtt_per_second": alone, "of_aiomqtt": record["messages_per_second"] / alone}

        await self.measured("drain", "drain: 800 devices x 50 registers, after an outage", once, rounds=3)

    async def _backlog(self) -> None:
        if self.quick:
            return
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp may be memory
            await self.measured(
                "backlog", f"a gateway that starts with {_BACKLOG:,} readings in its buffer",
                lambda: backlog.measured(Path(folder), _BACKLOG, None, 5.0),
            )  # fmt: skip

    async def _radio(self, seconds: float) -> None:
        if self.quick:
            return
        with tempfile.TemporaryDirectory() as folder:
            await self.measured(
                "ble", f"BLE only: {_TAGS} sensors, {_ADVERTISEMENTS:,.0f} advertisements/s",
                lambda: ble.daemon(seconds, _TAGS, _ADVERTISEMENTS, Path(folder)),
            )  # fmt: skip

    async def _scale(self, seconds: float) -> None:
        """One event a minute from each of 100,000 devices, and multiples of it until one does not hold."""
        devices = 10_000 if self.quick else 100_000
        for multiple in (1,) if self.quick else (1, 8, 12):
            every = 60 * devices / 100_000 / multiple
            record = await self.measured(
                f"sensors-{multiple}", f"{devices:,} simulated devices, each every {every:g} s",
                lambda every=every: scale.sensors(devices, every, seconds),  # type: ignore[misc]  # a loop's value
            )  # fmt: skip
            if not report.holds(record):
                break

    async def _serial(self) -> None:
        logging.disable()  # that no device can be read as often as asked is the point there
        for baudrate in _BAUDRATES[-1:] if self.quick else _BAUDRATES:
            await self.measured(
                f"rtu-{baudrate}", f"RTU at {baudrate:,} baud: 10 devices x 20 registers, as fast as the wire allows",
                lambda baudrate=baudrate: serial_line(baudrate, 3.0 if self.quick else 10.0),  # type: ignore[misc]  # likewise
            )  # fmt: skip


async def serial_line(baudrate: int, seconds: float) -> dict[str, Any]:
    """One speed of the serial benchmark, on the daemon's core."""

    def measured() -> dict[str, Any]:
        os.sched_setaffinity(0, {measure.UNDER_TEST})
        try:
            return serial.measured(baudrate, seconds, dead=False)
        finally:
            os.sched_setaffinity(0, {measure.THE_REST})

    return await asyncio.to_thread(measured)


def show(title: str, record: Mapping[str, Any], indent: str = "  ") -> None:
    """One result as lines of text."""
    print(f"\n{title}" if title else "", end="\n" if title else "")
    for name, value in record.items():
        if isinstance(value, dict):
            print(f"{indent}{name:<26}" + ", ".join(f"{key} {_number(one)}" for key, one in value.items()), flush=True)
        else:
            print(f"{indent}{name:<26}{_number(value)}", flush=True)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_page(page: Path, results: Mapping[str, Any], command: str) -> None:
    """Put the table between the marks of the page, and the picture beside it."""
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    told = f"Measured on {datetime.now(UTC):%Y-%m-%d} with `{command}`.\n\n{report.markdown(results)}"
    page.write_text(f"{head}{BEGIN}\n{told}\n{END}{tail}", "utf-8")
    (page.parent.parent / "images" / "cpu-per-load.svg").write_text(report.picture(results), "utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, for a first look")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=LINES, help=f"a line for each round (here: {LINES})"
    )
    parser.add_argument(
        "--page",
        metavar="FILE",
        type=Path,
        nargs="?",
        const=PAGE,
        help="write table and picture into the documentation",
    )
    options = parser.parse_args()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    results = asyncio.run(Bench(options.quick, options.json).run())
    print(f"\n{report.markdown(results)}")
    if options.page:
        write_page(options.page, results, "make bench-quick" if options.quick else "make bench")


if __name__ == "__main__":
    main()
