"""One command: the daemon under load on one core, beside raw references of the same minutes.

    python -m tests.bench [--quick] [--json FILE] [--page [FILE]]
    python -m tests.bench --compare FILE FILE

Everything the daemon talks to runs on another core: a Modbus TCP server that stamps each register, mosquitto, and a
receiver that traces every value back to the read it came from. Ratios to the references are what to quote: machines
differ, and their speed drifts. Each round is one line of JSON; the table shows medians. The last line of a run holds
its ratios; `--compare` says which of two runs' differ by more than 15 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import backlog, ble, commands, drain, measure, references, report, scale, serial, system, workloads
from tests.bench.rounds import together
from tests.support.load_server import REGISTERS

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
LINES = Path(".build/bench.jsonl")
_LINKS = 40
"""Endpoints for many devices; a Modbus address allows 247 behind each."""
_TOP_LINKS = 64
_FIRST, _STEP = 0.52, 1.1
"""The ladder of loads: where it begins, as a share of what pymodbus alone does, and how far it is to the next step."""
_TOP_MESSAGE = 5000
"""Readings in a message, on the ladder: what is written to disk at once, 20,000 readings, is to fit into a window."""
_GROWTH_ROUNDS = 3
_BAUDRATES = (9_600, 115_200)
_TAGS, _ADVERTISEMENTS = 200, {"ble": 100.0, "ble-busy": 2_000.0}
"""Sensors with a radio, and how many advertisements a second they send together: one each two seconds, and many."""
_BACKLOG = 1_000_000
"""Readings that wait when the buffer is opened."""
_DRAINED = 6_000_000
"""Readings that wait when the broker comes: enough for some seconds."""
_COMMANDS, _QUEUED = 50, 1000
"""Commands sent one after the other, and at once."""


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
            self._keep(name, {"round": number, **record})
        record = self.results[name] = together(records)
        show(what, record)
        return record

    async def run(self) -> dict[str, Any]:
        """The whole benchmark."""
        os.sched_setaffinity(0, {measure.THE_REST})
        os.environ["MALLOC_ARENA_MAX"] = "1"  # as in systemd/edged.service
        seconds = 4.0 if self.quick else 8.0
        raw = 1.0 if self.quick else 1.5
        await self.measured("raw", "raw references", lambda: asyncio.to_thread(references.all_of_them, raw), rounds=3)
        what = "commands: `edged --help`, `edged check` of 1,400 lines, the same file kept"
        await self.measured("commands", what, lambda: asyncio.to_thread(scale.commands, 1 if self.quick else 3))
        await self.measured("idle", "idle: 1 device x 10 registers", lambda: workloads.idle(seconds), rounds=2)
        await self.measured(
            "steady", "steady: 20 devices x 50 registers, flush 1s", lambda: workloads.load(1, seconds), rounds=3
        )
        await self.measured(
            "prompt", "prompt: the same, flush 100ms", lambda: workloads.load(1, seconds, flush="100ms")
        )
        await self._growth(seconds)
        await self._ladder(seconds)
        await self.measured(
            "drain", "drain: millions of readings beside 1,000 fresh ones a second",
            lambda: drain.drain(_DRAINED * 2 // 3 if self.quick else _DRAINED), rounds=2,
        )  # fmt: skip
        await self._backlog()
        await self._commands()
        await self._scale(seconds)
        await self._radio(seconds)
        await self._serial()
        await self.measured("system", "what `make system-test` has found", lambda: asyncio.to_thread(system.figures))
        self._keep("ratios", {"ratios": report.ratios(self.results)})
        return self.results

    def _keep(self, name: str, record: Mapping[str, Any]) -> None:
        with self.lines.open("a") as file:
            line = {"at": round(time.time()), "name": name, "quick": self.quick, **record}
            file.write(json.dumps(line) + "\n")

    async def _growth(self, seconds: float) -> None:
        """More devices, and more points, with the same work for each reading."""
        if self.quick:
            return
        plants = (("few", 1, 10), ("load-1000", 25, _LINKS), ("load-2000", 50, _LINKS))
        rounds: dict[str, list[Mapping[str, Any]]] = {name: [] for name, *_ in plants}
        for number in range(1, 1 + _GROWTH_ROUNDS):
            for name, units, ports in plants:  # in turn: what is compared has the machine in the same mood
                record = await workloads.load(units, seconds, ports=ports)
                rounds[name].append(record)
                self._keep(name, {"round": number, **record})
        for name, units, ports in plants:
            self.results[name] = together(rounds[name])
            show(f"{units * ports:,} devices x 50 registers, each second", self.results[name])

    async def _ladder(self, seconds: float) -> None:
        """From a share of what pymodbus alone does upwards, until it breaks; where it breaks at once, downwards."""
        raw = self.results["raw"]["pymodbus"]["per_second"]
        share, climbing = _FIRST, True
        for step in range(2 if self.quick else 6):
            held = await self._step(math.ceil(share * raw / _TOP_LINKS), seconds, raw)
            climbing = held if step == 0 else climbing
            if held is not climbing:
                break
            share = share * _STEP if climbing else share / _STEP

    async def _step(self, units: int, seconds: float, raw: float) -> bool:
        count = units * _TOP_LINKS
        try:
            record = await self.measured(
                f"top-{count}", f"load: {count:,} devices x 50 registers, each second",
                lambda: workloads.load(units, seconds, ports=_TOP_LINKS, max_readings=_TOP_MESSAGE),
            )  # fmt: skip
        except TimeoutError:
            print(f"\nload: {count:,} devices: too much, it did not stop in time")
            return False
        record["of_raw_pymodbus"] = record["readings_per_second"] / raw / REGISTERS
        return report.kept_up(record)

    async def _commands(self) -> None:
        """What `tests.bench.commands` tells in full."""

        async def once() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as name:
                one = await commands.latency(Path(name, "latency"), _COMMANDS)
                many = await commands.queued(Path(name, "queued"), _QUEUED, answers=True)
            return one | many

        if not self.quick:
            await self.measured("writes", f"commands: {_COMMANDS}, and {_QUEUED:,} at once", once)

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
        for name, rate in _ADVERTISEMENTS.items():
            with tempfile.TemporaryDirectory() as folder:
                await self.measured(
                    name, f"BLE only: {_TAGS} sensors, {rate:,.0f} advertisements/s",
                    lambda rate=rate, folder=folder: ble.daemon(seconds, _TAGS, rate, Path(folder)),  # type: ignore[misc]  # a loop's values
                )  # fmt: skip

    async def _scale(self, seconds: float) -> None:
        """One event a minute from each of 100,000 devices, and multiples of it until one does not hold."""
        devices = 10_000 if self.quick else 100_000
        for multiple in (1,) if self.quick else (1, 16, 20):
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
                lambda baudrate=baudrate: serial_line(baudrate, 3.0 if self.quick else 8.0),  # type: ignore[misc]  # likewise
                rounds=3,
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


def ratios_of(file: Path) -> dict[str, float]:
    """Those of the last run in it. Raises ValueError if none came to its end."""
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    found: list[dict[str, float]] = [line["ratios"] for line in lines if line["name"] == "ratios"]
    if not found:
        raise ValueError(f"{file} has no run that came to its end")
    return found[-1]


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
    parser.add_argument("--compare", metavar="FILE", type=Path, nargs=2, help="two files of lines: their ratios")
    options = parser.parse_args()
    if options.compare:
        text, apart = report.comparison(*map(ratios_of, options.compare))
        print(text)
        sys.exit(1 if apart else 0)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    results = asyncio.run(Bench(options.quick, options.json).run())
    print(f"\n{report.markdown(results)}\n\nin {(time.monotonic() - began) / 60:.1f} min")
    if options.page:
        write_page(options.page, results, "make bench-quick" if options.quick else "make bench")


if __name__ == "__main__":
    main()
