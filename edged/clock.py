"""Time as edged uses it: whole microseconds, wall and monotonic, and the boot they belong to."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def wall_us() -> int:
    """Microseconds since the Unix epoch, UTC, by the machine's clock."""
    return time.time_ns() // 1000


def mono_us() -> int:
    """Microseconds on the monotonic clock of this boot."""
    return time.monotonic_ns() // 1000


@cache
def boot_id() -> str:
    """The identity of this boot, without which monotonic times of two runs cannot be compared."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())  # no such file in some containers: then a boot lasts as long as the process


def iso(us: int) -> str:
    """`us` as people and JSON read it: 2026-11-20T12:00:00.123456Z."""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def boottime_us() -> int:
    """Microseconds since the boot, those included in which the machine was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
