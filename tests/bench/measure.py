"""What a process cost, read from /proc, and where processes run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")

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
    """Seconds, to the nanosecond where the kernel counts so: a small gateway takes six ticks in ten seconds."""
    exact = sum(_on_core(thread) for thread in Path(f"/proc/{pid}/task").iterdir())
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = (int(fields[11]) + int(fields[12])) / _TICK
    # Threads that have ended are in the ticks only; where those of the start differ much, nobody counts exactly.
    return exact if exact > 0.8 * ticks else ticks


def _on_core(thread: Path) -> float:
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it has just ended, or the kernel has no such file
        return 0.0


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
