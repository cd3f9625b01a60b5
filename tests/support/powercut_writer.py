"""Fills a real buffer and says after each flush what is durable: `python -m tests.support.powercut_writer PATH`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.model import Sample

CONFIG = BufferConfig(flush=Duration(60), max_bytes=Size(8 * 2**20), min_free=Size(0))
POINTS = tuple(f"p{i}" for i in range(50))
BOOT = "power cut"


def values(n: int) -> tuple[int, ...]:
    """What sample `n` holds."""
    return tuple(n * 1000 + i * 7919 % 1000 for i in range(len(POINTS)))


async def write(path: Path) -> None:
    """Flush after flush until nothing can be written any more. Every line is a promise, and when it was given."""
    buffer = Buffer(path, CONFIG, ["cloud"], boot=BOOT)
    await buffer.start()
    for n in range(1, 1_000_000):
        buffer.count(read=len(POINTS))
        sample = Sample("d", n * 1_000_000, n * 1_000_000, POINTS, values(n))
        if n % 3:
            buffer.put(sample)
        else:
            buffer.put_first(sample, at_once=True)
        head = await buffer.flush()
        print(head, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
