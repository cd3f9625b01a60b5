"""Does to a real buffer all that a gateway does, and notes what it promises.

Run under recorddisk.c: `… crashpoint_writer FOLDER KEPT SEED STEPS ROWS`, with ROWS to fill it before the STEPS.
A sample's number is its seq. The file `promise` in the folder says what a crash must not undo.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path

from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Size
from edged.model import Sample
from tests.unit.buffer.helpers import BOOT, BY_HAND, noise

CONFIG = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), min_free=Size(0))
PROMISE = "promise"
_ROW = 9_000
"""Bytes of a row that fills the buffer, so that the oldest go."""


def number(sample: Sample) -> int:
    """Which one it is."""
    return int(str(sample.values[0]).split()[0])


async def opened(path: Path, kept: Path) -> Buffer:
    """The buffer, its inode kept from being used again."""
    buffer = Buffer(path, CONFIG, ["cloud"], boot=BOOT)
    await buffer.start()
    keep(path, kept)
    return buffer


def keep(path: Path, kept: Path) -> None:
    """Let the file have its inode for ever."""
    link = kept / str(path.stat().st_ino)
    if not link.exists():
        os.link(path, link)


class Work:
    """A gateway's work in random order."""

    def __init__(self, buffer: Buffer, promise: int, seed: int) -> None:
        self.buffer = buffer
        self._promise = promise
        self._rng = random.Random(seed)

    async def step(self) -> None:
        """Store, settle and promise."""
        await self._store()
        await self._settle()
        self._note()

    async def _store(self) -> None:
        """One flush; either all of it passes ahead, or nothing: what does would get the lower numbers."""
        put = self.buffer.put
        if self._rng.random() < 0.3:  # the share of alarms
            put = self._put_first
        at = self.buffer.head
        for n in range(at + 1, at + 1 + self._rng.randrange(1, 4)):
            self.buffer.count(read=1)
            assert put(noise(n, self._rng.choice([60, 60, _ROW])))
        await self.buffer.flush()

    def _put_first(self, sample: Sample) -> bool:
        return self.buffer.put_first(sample, at_once=False)

    async def _settle(self) -> None:
        if self._rng.random() < 0.4:  # how often the receiver is away
            return
        for batch in await self.buffer.read(self.buffer.cursor("cloud").low, max_readings=self._rng.randrange(1, 6)):
            dead = self._rng.random() < 0.1  # how often it refuses
            self.buffer.settle(
                "cloud", batch.first, batch.last, batch.readings, lane="live", outcome="dead" if dead else "delivered",
                reason="refused" if dead else "",
            )  # fmt: skip
        await self.buffer.flush()

    async def fill(self, rows: int) -> None:
        """Nothing of this is interesting."""
        self._note(filling=True)
        for _ in range(rows):
            self.buffer.count(read=1)
            assert self.buffer.put(noise(self.buffer.head + 1, _ROW))
            await self.buffer.flush()
        self._note()

    def _note(self, *, filling: bool = False) -> None:
        stats = self.buffer.stats()
        one = stats.connections["cloud"]
        known = {"epoch": stats.epoch, "head": stats.head, "low": one.low, "delivered": one.delivered, "dead": one.dead}
        text = json.dumps(known | {"filling": filling})
        os.pwrite(self._promise, text.ljust(200).encode(), 0)


async def main(folder: Path, kept: Path, seed: int, steps: int, rows: int) -> None:
    """So many steps; the file is copied after half of them, and closed and opened after three quarters."""
    path = folder / "b.db"
    buffer = await opened(path, kept)
    work = Work(buffer, os.open(folder / PROMISE, os.O_RDWR | os.O_CREAT, 0o600), seed)
    await work.fill(rows)
    for step in range(steps):
        await work.step()
        if step == steps // 2:
            await buffer.rewrite()
            keep(path, kept)
        if step == steps * 3 // 4:
            await buffer.stop()
            buffer = work.buffer = await opened(path, kept)
    await buffer.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
