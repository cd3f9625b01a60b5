"""What a process cost, read from /proc, and where processes run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SCHED = 2
"""CPUCLOCK_SCHED: what the scheduler has counted, of all threads, also those that have ended."""

CORES = sorted(os.sched_getaffinity(0))
UNDER_TEST = CORES[0]
"""The core for what is measured."""
THE_REST = CORES[-1]
"""The core for servers, broker and receiver; the same one on a machine with a single core."""


def pinned(core: int) -> tuple[str, ...]:
    """The start of a command that runs on one core only."""
    return ("taskset", "-c", str(core))


@dataclass(frozen=True, slots=True)
class Cost:
    """Totals of a process so far."""

    cpu: float
    """Seconds, user and system."""
    written: int
    """Bytes handed to the disk (write_bytes of /proc/PID/io)."""

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(self.cpu - earlier.cpu, self.written - earlier.written)


def cost(pid: int) -> Cost:
    """What `pid` has cost so far, its threads included."""
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Cost(_cpu(pid), int(io["write_bytes"]))


def _cpu(pid: int) -> float:
    """Seconds, to the nanosecond: ticks are too coarse for a small gateway, which takes six of them in ten seconds.

    The number of another process's clock is made as clock_getcpuclockid(3) of glibc makes it.
    """
    return time.clock_gettime(~pid << 3 | _SCHED)


def memory(pid: int) -> tuple[float, float]:
    """(RSS, PSS) of `pid` in MiB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) / 1024
    return sizes["Rss"], sizes["Pss"]


def threads(pid: int) -> int:
    """How many threads `pid` has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """How many files and sockets `pid` has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
