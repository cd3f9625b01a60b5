"""How much of a serial line the bus master uses, what it costs, and what a dead device costs the others.

    python -m tests.bench.serial [SECONDS]

Ten devices with twenty registers each. The line is simulated in a process of its own, on another core: a pseudo
terminal paced at the baud rate, whose devices answer after 4 ms. The limit is what the wire allows: request, the
device's turnaround, answer, and the silence before the next request. A silence is measured from the last bit of an
answer to the moment just before the next request is written, both on the monotonic clock that all processes share.
"Typically" is by the median: on a machine that others use too, single transactions are held up by the machine.

Where the rest goes: "the line" is what the line's own process was late, in sum, taking note of requests and handing
over answers, the kernel's way of a request included; no real wire does that. "Without" is the share of the limit with
that taken off. "Ours" is from an answer's being handed over to the next request, beyond the silence, by the median, in
microseconds: the kernel's way of the answer, our wake-ups, and all that we do; "stalls" what that was beyond its median
in sum, which is the machine holding us up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import edged_modbus
from edged.adapter import Name
from edged.polling import Assignment, BusPoller
from edged_modbus.config import ModbusDevice
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusRtuBus
from edged_modbus.simline import responder
from tests.bench.measure import THE_REST, UNDER_TEST, pinned

_UNITS, _REGISTERS, _TURNAROUND = 10, 20, 0.004
_DEAD = 4


def main() -> None:
    """Print one line a speed."""
    if len(sys.argv) > 2 and sys.argv[1] == "--line":
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3]), dead=sys.argv[4] == "dead"))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    os.sched_setaffinity(0, {UNDER_TEST})
    logging.disable()  # that no device can be read as often as asked is the point here
    print(
        f"{'baud':>7} {'of the limit':>13} {'typically':>10} {'the line':>9} {'without':>8} {'ours':>6} {'stalls':>7} "
        f"{'of a core':>10} {'1 of 10 dead':>13}  silences"
    )
    for baudrate in (9_600, 19_200, 115_200):
        healthy = measured(baudrate, seconds, dead=False)
        dead = measured(baudrate, seconds, dead=True)
        print(
            f"{baudrate:>7} {healthy['share']:>13.2%} {healthy['typical']:>10.2%} {healthy['line']:>9.2%} "
            f"{healthy['without']:>8.2%} {healthy['ours'] * 1e6:>6.0f} {healthy['stalls']:>7.2%} "
            f"{healthy['cpu']:>10.2%} {dead['readings'] / healthy['readings']:>13.1%}  {healthy['early']} too short, "
            f"the shortest {healthy['shortest'] * 1e3:.3f} of {healthy['gap'] * 1e3:.3f} ms",
            flush=True,
        )


def measured(baudrate: int, seconds: float, *, dead: bool) -> dict[str, Any]:
    """One speed, with all devices healthy or with one of ten dead."""
    with tempfile.TemporaryDirectory() as folder, _line(Path(folder), baudrate, dead=dead) as ends:
        return asyncio.run(_load(str(Path(folder) / "port"), baudrate, seconds, dead=dead, ends=ends))


# -- the side under test ----------------------------------------------------------------------------------------------


async def _load(port: str, baudrate: int, seconds: float, *, dead: bool, ends: Path) -> dict[str, Any]:
    """Poll as the daemon does, as fast as the line allows."""
    config = ModbusRtuBus(adapter="modbus-rtu", port=port, baudrate=baudrate)
    points: dict[Any, ModbusPoint] = {f"p{i}": ModbusPoint(holding=i) for i in range(_REGISTERS)}
    devices = {f"d{unit}": ModbusDevice(bus=Name("b"), unit=unit, points=points) for unit in range(1, _UNITS + 1)}
    bus = edged_modbus.RTU.open("b", config, devices)
    cycle = 53 * config.character + _TURNAROUND + config.gap
    readings = 0

    def emit(sample: Any) -> None:
        nonlocal readings
        readings += sum(value is not None for value in sample.values)

    work = [Assignment(name, list(points), every=0.5 * cycle * _UNITS) for name in devices]
    poller = BusPoller("b", lambda: bus, config, work, emit)
    running = asyncio.create_task(poller.run())
    # A dead device has to be found out first: what is measured is the steady state.
    await asyncio.sleep(5.0 if dead else 1.0)
    sent: list[int] = []
    (link,) = bus._links  # type: ignore[attr-defined]  # the only way to its ring
    stop_listening = link._medium.ring.listen(
        lambda frame: sent.append(frame.time) if frame.direction == "tx" else None
    )
    before, cpu, began = readings, time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    rate = (readings - before) / took
    stop_listening()
    running.cancel()
    await asyncio.wait([running])
    periods = [(b - a) / 1e6 for a, b in pairwise(sent)]
    typical = statistics.median(periods)
    begins, due, handed = ([], [], []) if dead else json.loads(_last(ends))
    gaps = _gaps(sent, due)
    line, ours = _delays(sent, begins, due, handed, config.gap)
    whole = sum(periods)
    usual = statistics.median(ours or [0.0])
    return {
        "readings": rate,
        "typical": cycle / typical,
        "line": sum(line) / whole,
        "without": cycle * len(periods) / (whole - sum(line)),
        "ours": usual,
        "stalls": sum(each - usual for each in ours if each > usual) / whole,
        "share": cycle * (len(sent) - 1) / (sent[-1] - sent[0]) * 1e6,
        "cpu": cpu / took,
        "gap": config.gap,
        "shortest": min(gaps, default=float("nan")),
        "early": sum(gap < config.gap for gap in gaps),
    }


def _gaps(sent: list[int], ends: list[float]) -> list[float]:
    """From the end of the last answer before each request to the request."""
    gaps = []
    for microseconds in sent:
        moment = microseconds / 1e6
        if at := bisect_right(ends, moment):
            gaps.append(moment - ends[at - 1])
    return gaps


def _delays(
    sent: list[int], begins: list[float], due: list[float], handed: list[float], gap: float
) -> tuple[list[float], list[float]]:
    """Of each transaction: what the line's process was late, and what we took beyond the silence."""
    line, ours = [], []
    for microseconds, following in pairwise(sent):
        moment, later = microseconds / 1e6, following / 1e6
        begin, end = bisect_right(begins, moment), bisect_right(handed, moment)
        if max(begin, end + 1) < min(len(begins), len(handed)) and handed[end] < later:
            line.append(begins[begin] - moment + handed[end] - due[end])
            ours.append(later - handed[end] - gap)
    return line, ours


def _last(ends: Path) -> str:
    """What the line has written when it was told to stop."""
    ends.with_name("stop").touch()
    deadline = time.monotonic() + 10
    while not ends.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return ends.read_text()


# -- the line ---------------------------------------------------------------------------------------------------------


@contextmanager
def _line(folder: Path, baudrate: int, *, dead: bool) -> Iterator[Path]:
    command = [
        *pinned(THE_REST), sys.executable, "-m", "tests.bench.serial",
        "--line", str(folder), str(baudrate), "dead" if dead else "all",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        while not (folder / "port").exists():
            time.sleep(0.02)
        try:
            yield folder / "ends"
        finally:
            process.terminate()


async def _serve(folder: Path, baudrate: int, *, dead: bool) -> None:
    from edged.testing.line import Line  # noqa: PLC0415  # the other side does not need it

    body = bytes((3, 2 * _REGISTERS)) + bytes(2 * _REGISTERS)

    def answer(unit: int, _pdu: bytes) -> bytes | None:
        return None if dead and unit == _DEAD else body

    respond = responder(answer, range(1, _UNITS + 1), ascii=False, turnaround=_TURNAROUND)
    async with Line(respond, baudrate=baudrate, link=folder / "port") as line:
        while not (folder / "stop").exists():
            await asyncio.sleep(0.1)
        done = folder / "ends.new"
        done.write_text(json.dumps([list(each) for each in (line.begins, line.ends, line.handed)]))
        done.rename(folder / "ends")
        await asyncio.sleep(3600)


if __name__ == "__main__":
    main()
