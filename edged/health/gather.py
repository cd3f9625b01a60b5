"""Fills the health document: reads what there is when it is asked for; and every ten seconds, who has made progress."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edged import __version__
from edged.backup.manifest import FORMAT as BACKUP_FORMAT
from edged.buffer.store import FORMAT as BUFFER_FORMAT
from edged.clock import iso, mono_us, wall_us
from edged.health.document import Disk, Health, Versions
from edged.health.machine import cpu_seconds, disk, machine, process
from edged.health.restarts import Runs
from edged.upgrade import outcome
from edged.uplink.payload import VERSION

LOOK = 10.0
"""Seconds between two looks at who has made progress."""
_WINDOW = 60.0
"""Seconds over which the share of the CPU is reckoned, at least."""
_EXTRAS = {"ble-decoders": "bthome_ble", "demo": "amqtt", "meters": "meterbus", "sunspec": "sunspec2"}
"""Extra → a package that it brings."""
_HOT, _OLD = 80.0, 90
"""Degrees Celsius at which a Pi slows down; per cent of its life after which an eMMC should be replaced."""
Progress = Callable[[], Iterable[tuple[str, int]]]


class Heartbeats:
    """When each task last made progress, told by counters that only ever rise. Pure."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, counters: Iterable[tuple[str, int]], now: float) -> None:
        """Take the counters as they are now. A task that is new counts from now on, one that is gone no more."""
        before = self._seen
        self._seen = {
            name: before[name] if name in before and before[name][0] == count else (count, now)
            for name, count in counters
        }

    def ages(self, now: float) -> dict[str, float]:
        """Task → seconds since its counter was last seen to rise."""
        return {name: round(max(0.0, now - since), 1) for name, (_, since) in self._seen.items()}


class Gatherer:
    """Knows how the gateway does. `run` must be running for heartbeats and the CPU's share."""

    def __init__(self, state: Path, progress: Progress, runs: Runs, root: Path = Path("/")) -> None:
        """`progress`: (task, a counter of what it has brought to its end) of each."""
        self._state, self._root = state, root
        self._progress, self._runs = progress, runs
        self._beats = Heartbeats()
        self._began = mono_us() / 1e6
        self._before = self._last = (self._began, cpu_seconds(root))

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            self.look(mono_us() / 1e6)
            if self._runs.changed:
                await asyncio.to_thread(self._runs.keep)
            await asyncio.sleep(LOOK)

    def look(self, now: float) -> None:
        """One look."""
        self._beats.look(self._progress(), now)
        if now - self._last[0] >= _WINDOW:
            self._before, self._last = self._last, (now, cpu_seconds(self._root))

    def health(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """The document as plain data; `status` is the rest of what the daemon says of itself."""
        now = mono_us() / 1e6
        disk_now, machine_now = disk(self._root, self._state), machine(self._root)
        problems = [*_own(status), *_of_machine(disk_now, machine_now.temperature)]
        problems += [f"the supply is too weak: {one}" for one in machine_now.throttled or () if one == "under-voltage"]
        return asdict(
            Health(
                v=1,
                gateway=status["gateway"],
                time=iso(wall_us()),
                uptime=round(now - self._began, 1),
                ok=not problems,
                problems=problems,
                clock="trusted" if status["clock"]["trusted"] else "untrusted",
                heartbeats=self._beats.ages(now),
                versions=versions(),
                restarts=self._runs.state(),
                process=process(self._root, self._share(now)),
                disk=disk_now,
                machine=machine_now,
                alarm=status["buffer"]["alarm"],
                down=_down(status),
            )
        )

    def _share(self, now: float) -> float | None:
        """Of one core, since a moment that is one to two minutes ago."""
        since, used = self._before
        spent = cpu_seconds(self._root)
        if used is None or spent is None or now <= since:
            return None
        return round((spent - used) / (now - since), 4)

    def brief(self) -> dict[str, Any]:
        """What a receiver is told once a minute: little, because it may cost money."""
        disk_now, machine_now = disk(self._root, self._state), machine(self._root)
        now = mono_us() / 1e6
        own = process(self._root, self._share(now))
        return {
            "version": __version__,
            "uptime": int(now - self._began),
            "restarts": self._runs.state().by_reason,
            "cpu": own.cpu,
            "rss": own.rss,
            "written": own.written,
            "disk_free": disk_now.free,
            "life_used": disk_now.life_used,
            "memory_free": machine_now.memory_free,
            "temperature": machine_now.temperature,
            "throttled": machine_now.throttled,
            "upgrade": (outcome() or {}).get("outcome"),
        }


def _own(status: Mapping[str, Any]) -> Iterable[str]:
    """What the gateway itself suffers."""
    yield from status["stalled"]
    upgrade = status.get("upgrade") or {}
    if upgrade.get("outcome", "good") != "good":
        yield f"the upgrade to {upgrade['new']} was {upgrade['outcome']}, {upgrade['old']} goes on: {upgrade['why']}"
    for name, fault in status["faults"].items():
        yield f"{name} was started again {fault['restarts']} times, last {fault['time']}: {fault['detail']}"
    if status["buffer"]["alarm"]:
        yield f"the buffer is {status['buffer']['alarm']}: {status['buffer']['detail']}"
    if not status["clock"]["trusted"]:
        yield "the clock is not set"
    for name, state in status["connections"].items():
        if not state["connected"]:
            yield f"connection {name}: {state['detail']}"
    for bus in status["buses"]:
        if bus["health"] == "down":
            yield f"bus {bus['bus']}: {bus['last_error']}"


def _of_machine(disk: Disk, temperature: float | None) -> Iterable[str]:
    if disk.worn_out or (disk.life_used or 0) > _OLD:
        yield f"the eMMC has used {disk.life_used} % of its life: replace it"
    if temperature is not None and temperature >= _HOT:
        yield f"the processor has {temperature:.0f} °C and slows down"


def _down(status: Mapping[str, Any]) -> dict[str, int]:
    buses = status["buses"]
    return {
        "buses": sum(bus["health"] == "down" for bus in buses),
        "devices": sum(device["health"] == "down" for bus in buses for device in bus["devices"]),
        "connections": sum(not one["connected"] for one in status["connections"].values()),
    }


@cache
def versions() -> Versions:
    """What runs; it cannot change while it does."""
    return Versions(
        edged=__version__,
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        kernel=platform.release(),
        formats={"messages": VERSION, "buffer": BUFFER_FORMAT, "backup": BACKUP_FORMAT},
        extras=[name for name, package in _EXTRAS.items() if find_spec(package) is not None],
    )
