"""What Linux tells of this process and its machine. Reads a few small files, and nothing is kept.

`root` stands for `/`, so that tests can show it another machine. What cannot be read is None: never a reason to fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edged.health.document import Disk, Machine, Process

_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_BITS = {0: "under-voltage", 1: "capped", 2: "throttled", 3: "hot"}
"""Of the firmware's word; sixteen bits further up, whether it was so since the start."""
_BEFORE = 16
_PLAUSIBLE = (-60.0, 200.0)
"""Degrees Celsius that a sensor which works can show."""
_TOO_OLD = 11
"""eMMC, JESD84-B51: 0x01 is 0-10 % of its life, 0x0A 90-100 %, 0x0B beyond."""


def process(root: Path, cpu: float | None) -> Process:
    """This process; `cpu` is the share that the caller has worked out."""
    status = dict(_pairs(root / "proc/self/status"))
    io = dict(_pairs(root / "proc/self/io"))
    return Process(
        cpu_seconds=cpu_seconds(root),
        cpu=cpu,
        rss=_kib(status.get("VmRSS")),
        rss_max=_kib(status.get("VmHWM")),
        written=_number(io.get("write_bytes")),
        threads=_number(status.get("Threads")),
        files=_count(root / "proc/self/fd"),
    )


def cpu_seconds(root: Path) -> float | None:
    """CPU time that this process has used, and its children that have ended."""
    fields = _read(root / "proc/self/stat").rpartition(")")[2].split()
    ticks = [_number(word) for word in fields[11:15]]
    if len(ticks) < 4 or None in ticks:  # noqa: PLR2004  # user, system, and both of children: man 5 proc
        return None
    return round(sum(tick or 0 for tick in ticks) / os.sysconf("SC_CLK_TCK"), 2)


def disk(root: Path, state: Path) -> Disk:
    """The disk below `state`, and what the eMMCs of the machine say of their life."""
    free = total = None
    try:
        status = os.statvfs(state)
    except OSError:
        pass
    else:
        free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    grades: list[int] = []
    worn: list[bool] = []
    for path in sorted((root / "sys/block").glob("mmcblk*/device/life_time")):
        known = [grade for word in _read(path).split() if (grade := _hexadecimal(word)) and grade <= _TOO_OLD]
        if known:
            grades.append(max(known))
            worn.append((_hexadecimal(_read(path.with_name("pre_eol_info"))) or 0) > 1)
    return Disk(
        free=free, total=total, life_used=10 * max(grades) if grades else None, worn_out=any(worn) if worn else None
    )


def machine(root: Path) -> Machine:
    """Memory, load, temperature, supply."""
    memory = dict(_pairs(root / "proc/meminfo"))
    return Machine(
        uptime=_first(root / "proc/uptime"),
        load=_first(root / "proc/loadavg"),
        memory_total=_kib(memory.get("MemTotal")),
        memory_free=_kib(memory.get("MemAvailable")),
        temperature=max(_temperatures(root), default=None),
        throttled=_throttled(root),
    )


def _temperatures(root: Path) -> Iterator[float]:
    for path in (root / "sys/class/thermal").glob("thermal_zone*/temp"):
        text = _read(path)
        if text.lstrip("-").isdigit() and _PLAUSIBLE[0] <= int(text) / 1000 <= _PLAUSIBLE[1]:
            yield round(int(text) / 1000, 1)


def _throttled(root: Path) -> list[str] | None:
    """By the firmware's own word; where the kernel does not pass that on, by its alarm of low voltage."""
    word = _hexadecimal(_read(root / _THROTTLED))
    if word is not None:
        now = [name for bit, name in _BITS.items() if word >> bit & 1]
        return now + [f"{name}-before" for bit, name in _BITS.items() if word >> (bit + _BEFORE) & 1]
    for path in (root / "sys/class/hwmon").glob("hwmon*"):
        if _read(path / "name") == "rpi_volt":
            return ["under-voltage-before"] if _read(path / "in0_lcrit_alarm") == "1" else []
    return None


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _read(path).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key, value.strip()


def _kib(text: str | None) -> int | None:
    number = _number((text or "").removesuffix(" kB"))
    return None if number is None else number * 1024


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _hexadecimal(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _first(path: Path) -> float | None:
    try:
        return float(_read(path).split()[0])
    except (ValueError, IndexError):
        return None


def _count(path: Path) -> int | None:
    try:
        return len(os.listdir(path))  # noqa: PTH208  # names are enough
    except OSError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").strip()
    except OSError:
        return ""
