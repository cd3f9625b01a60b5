"""One gateway under 1,000 readings a second between real devices and a real broker, and what became of each reading.

A fault is put in by the case; the bench notes when it was over. What arrived is judged afterwards, from the messages
alone and against what the devices say they served.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edged.config.compiled import load_compiled
from edged.testing.audit import Audit
from edged.testing.proxy import FaultProxy
from tests.support.checker import check, newest
from tests.support.fakeclock import FakeClock
from tests.support.gateway import Gateway
from tests.support.load_server import REGISTERS, load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.refuser import Refuser
from tests.support.subscriber import Subscriber, subscribed

SOAK = bool(os.environ.get("EDGED_SOAK"))
"""The long versions: `make soak`."""
DEVICES = 20
WINDOW = 20
"""The default in-flight window: so many messages may be repeated after a fault."""
A_POLL = DEVICES * REGISTERS
"""Readings of one second."""
_PATIENCE = 120.0
_CUT_OFF = re.compile(r"polls that were under way and are not waited for: (\d+)")
"""What the log says at a stop: so many answers were perhaps given, but not taken."""
_TOLD = (" was damaged ", " begins the new epoch ", " are lost")
"""What the log says when the disk destroyed something."""


def seconds(long: float, short: float) -> float:
    """How long a fault lasts, in `make soak` and in the ordinary tests."""
    return long if SOAK else short


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, and how much it may cost."""

    name: str
    act: Callable[[Bench], Awaitable[None]]
    connection: Mapping[str, Any] = field(default_factory=dict)
    buffer: Mapping[str, Any] = field(default_factory=dict)
    disk: str = ""
    """The size of the disk that the buffer has to itself, if it has one."""
    ext4: bool = False
    """The disk is an ext4 in a file, which its kernel makes read-only after an error; `disk` says how large."""
    persistent: bool = False
    """The broker keeps its sessions over a restart."""
    damage: bool = False
    """The disk destroys stored readings: they may be gone, but not without a word."""
    traceless: bool = False
    """Nothing is left from which the daemon could know that there was something."""
    broker: Sequence[str] = ()
    """Lines for the broker's configuration."""
    refuses: bool = False
    """The broker refuses messages. They come later, under other numbers."""
    shift: float | None = None
    """The daemon's wall clock is the test's, and so many seconds off at first."""
    alone: bool = False
    """Runs in a network of its own, because the network itself is disturbed."""


@dataclass(slots=True)
class Row:
    """A line of the table."""

    case: str
    readings: int = 0
    faults: int = 0
    lost: int = 0
    """Readings that had been flushed, or were read outside of a crash, and never arrived."""
    unflushed: int = 0
    """Readings that were not flushed when the daemon was killed, or answers not taken at a stop: at most `allowed`."""
    allowed: int = 0
    destroyed: int = 0
    """Readings that the disk destroyed, by the daemon's own count or log."""
    duplicates: int = 0
    """Messages."""
    out_of_order: int = 0
    wrong: int = 0
    adds_up: bool = True
    live_again: float = 0.0
    """Seconds from the end of a fault to the arrival of something read after it; the longest."""
    caught_up: float = 0.0
    """Seconds from the end of a fault until everything read before its end had arrived; the longest."""
    log: str = ""

    def complaints(self) -> list[str]:
        """What is not as promised."""
        found = {
            f"{self.lost} readings lost": self.lost,
            f"{self.unflushed} readings gone without a word, {self.allowed} may be by kills": self.unflushed
            > self.allowed,
            f"{self.duplicates} duplicates after {self.faults} faults": self.duplicates > WINDOW * self.faults,
            f"{self.out_of_order} out of order": self.out_of_order,
            f"{self.wrong} wrong": self.wrong,
            "the counters do not add up": not self.adds_up,
            "nothing arrived": not self.readings,
            "no fault was put in": not self.faults,
        }
        return [f"{self.case}: {what}" for what, is_so in found.items() if is_so]


class Bench:
    """What a case works with."""

    def __init__(self, case: Case, folder: Path, ports: list[int], broker: Mosquitto, sub: Subscriber) -> None:
        self.case = case
        self.folder = folder
        self.broker = broker
        self.subscriber = sub
        self.refuser = Refuser(broker.port)
        self.proxy = FaultProxy("127.0.0.1", broker.port)
        self.gateway: Gateway
        self.clock: FakeClock
        self._ports = ports
        self._healed: list[int] = []
        self.kills = self.stops = 0

    def configure(self) -> None:
        """Write the gateway's configuration. The proxy is listening."""
        ports = self._ports
        url = f"mqtt://127.0.0.1:{self.proxy.port}"
        buses = {f"b{i}": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port} for i, port in enumerate(ports)}
        points = points_yaml()
        devices = {f"d{i}": {"bus": f"b{i}", "unit": 1, "every": "1s", "points": points} for i in range(DEVICES)}
        alarms = {name: {**point, "priority": "high"} for name, point in points.items()}
        devices[f"d{DEVICES - 1}"]["points"] = alarms
        connection = {"connector": "mqtt", "url": url, "retry_max": "1s", **self.case.connection}
        buffer = {"path": str(self.folder / "disk" / "buffer.db"), "min_free": "1MiB", **self.case.buffer}
        config = {
            "gateway": {"id": "plant-7"}, "buses": buses, "devices": devices,
            "connections": {"cloud": connection}, "buffer": buffer,
        }  # fmt: skip
        if self.case.shift is None:
            self.gateway = Gateway(self.folder / "gateway", config)
            return
        self.clock = FakeClock(self.folder)
        self.clock.shift(self.case.shift)
        self.gateway = Gateway(self.folder / "gateway", config, prefix=self.clock.prefix)
        # Compiled already: libfaketime breaks time.sleep, by which that would be waited for.
        load_compiled(self.gateway.config, self.gateway.folder / "state" / "cache")

    def over(self) -> None:
        """The fault is over now."""
        self._healed.append(time.time_ns() // 1000)

    async def arrives(self, messages: int = 2) -> None:
        """Wait until so many more messages have arrived."""
        wanted = len(self.subscriber.messages) + messages
        async with asyncio.timeout(_PATIENCE):
            while len(self.subscriber.messages) < wanted:
                assert not self.gateway.ended, self.gateway.lines()
                await asyncio.sleep(0.05)

    async def delivered(self) -> dict[str, Any]:
        """Wait until nothing older than a few flushes is pending; returns the status."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                status = await self.gateway.status()
                buffer = status["buffer"]
                if buffer["connections"]["cloud"]["pending"] + buffer["waiting"] <= 3 * A_POLL:
                    return status
                await asyncio.sleep(0.2)

    async def kill(self, number: int) -> None:
        """End the daemon with a signal and start it again."""
        await self.gateway.stop(number)
        self.kills += number == signal.SIGKILL
        self.stops += number == signal.SIGTERM
        await self.gateway.start()
        self.over()

    def served(self) -> dict[str, int]:
        """Device → how many reads it has answered, by its own count."""
        counts = {}
        for i, port in enumerate(self._ports):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 4, 2))
                (count,) = struct.unpack(">I", connection.recv(64)[9:13])
            counts[f"d{i}"] = int(count) - 1
        return counts

    def judge(self, status: Mapping[str, Any]) -> Row:
        """What became of everything, once the gateway has ended."""
        arrived = [(orjson.loads(message.payload), message.at) for message in self.subscriber.messages]
        audit = Audit()
        for payload, _ in arrived:
            audit.take(payload)
        report = check(payload for payload, _ in arrived)
        tail = sum(max(0, count - report.last.get(device, 0)) for device, count in self.served().items())
        gone = (report.missing + tail) * REGISTERS
        buffer = status["buffer"]
        cloud = buffer["connections"]["cloud"]
        row = Row(self.case.name, report.good_readings, len(self._healed), log=self.gateway.lines())
        row.adds_up = adds_up(buffer) and (self.case.damage or audit.readings >= cloud["delivered"])
        epochs = {(lane.gateway, lane.epoch) for lane in audit.lanes}
        uncovered = sum(last - first + 1 for epoch in epochs for first, last in audit.gaps(*epoch))
        absent = len(audit.missing)
        if self.case.refuses:  # it has come under other numbers; what was on its way by then still names it
            uncovered, absent = cloud["dead"], max(0, absent - len(self.refuser.refused))
        # What is pending may have arrived, without the gateway having heard so.
        kept_back = 0 if self.case.damage else buffer["stored"] - cloud["pending"] - audit.readings
        unseen = max(absent * REGISTERS, uncovered * REGISTERS, kept_back)
        row.duplicates, row.out_of_order = audit.duplicates, self._out_of_order(payload for payload, _ in arrived)
        row.wrong = report.wrong
        untaken = sum(int(polls) for polls in _CUT_OFF.findall(row.log)) * REGISTERS
        row.allowed = self.kills * 2 * A_POLL + (untaken if self.kills or self.stops else 0)
        if self.case.damage:
            # What had not been flushed before the kill cannot be told apart from a little that was destroyed.
            told = self.case.traceless or any(words in row.log for words in _TOLD)
            row.destroyed, row.unflushed = (gone, 0) if told else (0, gone)
        elif self.kills:
            row.unflushed, row.lost = gone, unseen
        else:
            row.unflushed, row.lost = min(gone, row.allowed), max(gone - untaken, unseen)
        times = [(newest(payload), at) for payload, at in arrived]
        for healed in self._healed:
            row.live_again = max(row.live_again, min((at for read, at in times if read > healed), default=0) - healed)
            row.caught_up = max(row.caught_up, max((at for read, at in times if read <= healed), default=0) - healed)
        row.live_again, row.caught_up = row.live_again / 1e6, row.caught_up / 1e6
        return row

    def _out_of_order(self, payloads: Iterable[dict[str, Any]]) -> int:
        """Messages, and samples, that came late. What was refused may: it comes after others, and in any order."""
        audit, refused = Audit(), self.refuser.refused

        def is_prompt(payload: dict[str, Any]) -> bool:
            begin, end = payload.get("first", payload["seq"]), payload["seq"]
            sent_again = self.case.refuses and payload.get("replay")
            return not sent_again and not any(first <= end and begin <= last for first, last in refused)

        prompt = [payload for payload in payloads if is_prompt(payload)]
        for payload in prompt:
            audit.take(payload)
        return audit.out_of_order + check(prompt).disordered


def adds_up(buffer: Mapping[str, Any]) -> bool:
    """Promise 5."""
    settled = ("delivered", "expired", "evicted", "dead", "pending")
    return buffer["read"] == buffer["stored"] + buffer["suppressed"] + buffer["rejected"] + buffer["waiting"] and all(
        connection["stored_for"] == sum(connection[key] for key in settled)
        for connection in buffer["connections"].values()
    )


def _mount_tmpfs(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "edged-test", disk], check=True)


def mount_ext4(disk: Path, size: str = "") -> None:
    """What lies in the image beside it; made anew if a size is given."""
    image = disk.with_suffix(".img")
    if size:
        subprocess.run(["mkfs.ext4", "-q", "-F", image, size], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop,noatime,errors=remount-ro", image, disk], check=True)


def unmount(disk: Path) -> None:
    """Also what is in use: whoever has files open on it keeps them."""
    subprocess.run(["umount", "-l", disk], check=True)


@asynccontextmanager
async def _bench(case: Case, folder: Path) -> AsyncIterator[Bench]:
    disk = folder / "disk"
    disk.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        if case.disk:
            await asyncio.to_thread(mount_ext4 if case.ext4 else _mount_tmpfs, disk, case.disk)
            stack.callback(unmount, disk)
        ports = stack.enter_context(load_server(DEVICES))
        broker = Mosquitto(folder / "broker", persistence=case.persistent, options=case.broker)
        stack.enter_context(broker)
        sub = stack.enter_context(subscribed(broker.port, "edged/+/data"))
        bench = Bench(case, folder, ports, broker, sub)
        if case.refuses:
            await stack.enter_async_context(bench.refuser)
            bench.proxy.upstream = ("127.0.0.1", bench.refuser.port)
        await stack.enter_async_context(bench.proxy)
        await asyncio.to_thread(bench.configure)
        yield bench


async def run(case: Case, folder: Path) -> Row:
    """Run one case and judge it."""
    return await _run_alone(case, folder) if case.alone else await run_here(case, folder)


async def _run_alone(case: Case, folder: Path) -> Row:
    """In a process of its own that has no network but its own loopback; with that it ends, rules and all."""
    command = ["unshare", "-n", sys.executable, "-m", "tests.support.fault_alone", case.name, str(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    return Row(**orjson.loads(output.splitlines()[-1]))


async def run_here(case: Case, folder: Path) -> Row:
    """Run one case in this process and judge it."""
    async with _bench(case, folder) as bench:
        await bench.gateway.start()
        try:
            await bench.arrives(3)
            await case.act(bench)
            bench.proxy.delay = 0.0
            await bench.proxy.restore()
            await bench.arrives(2)
            status = await bench.delivered()
            code = await bench.gateway.stop()
        finally:
            await bench.gateway.stop(9)
        await asyncio.sleep(0.5)
        assert code == 0, bench.gateway.lines()
        return await asyncio.to_thread(bench.judge, status)
