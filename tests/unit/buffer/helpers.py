"""What the buffer's tests share: samples, buffers on real files, and the promise that counters add up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from edged.buffer.batch import Batch
from edged.buffer.counters import BufferStats
from edged.buffer.log import Buffer
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.model import Sample, Value

BOOT = "8a6f5c1e-0000-4000-8000-000000000001"
BY_HAND = Duration(60)
"""A flush time that no test waits for."""
POINTS = ("temperature", "pressure", "state")


def sample(number: int, width: int = 3, text: str = "", *, time: int | None = None) -> Sample:
    """A sample that can be told from all others by its first value."""
    first: list[Value] = [number, number / 7, text or f"state {number % 5}"]
    values = first[:width]
    values.extend(range(width - len(values)))
    now = wall_us() if time is None else time
    return Sample(
        f"meter-{number % 4}", now, mono_us(), (POINTS + tuple(f"p{i}" for i in range(width)))[:width], values
    )


def noise(number: int, size: int) -> Sample:
    """A sample of one reading that compresses badly: about `size` bytes in the file."""
    seed = number * 2654435761
    digits: list[str] = []
    while len(digits) * 17 < size * 2:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        digits.append(f"{seed:016x}")
    return Sample("noisy", wall_us(), mono_us(), ("text",), [f"{number} " + " ".join(digits)])


@asynccontextmanager
async def running(
    path: Path, config: BufferConfig | None = None, connections: Sequence[str] = ("cloud",), boot: str = BOOT
) -> AsyncIterator[Buffer]:
    """A started buffer that is stopped properly. It flushes only when asked, unless configured otherwise."""
    buffer = Buffer(path, config or BufferConfig(flush=BY_HAND), connections, boot=boot)
    await buffer.start()
    try:
        yield buffer
    finally:
        await buffer.stop()


def put(buffer: Buffer, *samples: Sample) -> int:
    """Count and put, as the pipeline does; returns how many were taken."""
    taken = 0
    for one in samples:
        buffer.count(read=len(one.values))
        taken += buffer.put(one)
    return taken


def numbers(batches: Sequence[Batch]) -> list[int]:
    """The first values, in order."""
    return [int(str(one.values[0]).split()[0]) for batch in batches for one in batch.samples]


async def read_all(buffer: Buffer, after: int = 0) -> list[Batch]:
    """Everything beyond `after`, page by page."""
    found: list[Batch] = []
    while after < buffer.head:
        page = await buffer.read(after)
        if not page:
            break
        found += page
        after = page[-1].last
    return found


def deliver(buffer: Buffer, batch: Batch, connection: str = "cloud", lane: str = "live") -> None:
    """Settle a whole batch."""
    buffer.settle(connection, batch.first, batch.last, batch.readings, lane=lane, outcome="delivered")


def adds_up(stats: BufferStats) -> bool:
    """Promise 5, as far as the numbers alone can show it."""
    incoming = stats.read == stats.stored + stats.suppressed + stats.rejected + stats.waiting
    by_reason = stats.rejected == sum(stats.rejected_by.values())
    outgoing = all(
        c.stored_for == c.delivered + c.pending + c.expired + c.evicted + c.dead
        and min(c.delivered, c.pending, c.expired, c.evicted, c.dead) >= 0
        and c.corrupt <= c.evicted
        for c in stats.connections.values()
    )
    return incoming and by_reason and outgoing


async def check(buffer: Buffer) -> None:
    """The books are right: among themselves, and against every row in the file."""
    assert adds_up(buffer.stats()), buffer.stats()
    assert (await buffer.verify()).problems == ()
