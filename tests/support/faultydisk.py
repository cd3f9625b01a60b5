"""A buffer on a disk that refuses for a while; run by tests/unit/buffer/test_disk.py under faultydisk.c."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from tests.unit.buffer.helpers import adds_up, check, numbers, put, read_all, running, sample


async def main(folder: Path, control: Path, error: str, when_full: str, taken_meanwhile: int) -> None:
    """Fifty samples before, some while the disk refuses, fifty after; prints what became of them."""
    config = BufferConfig(
        flush=Duration(0.02), min_free=Size(0), inbox_readings=300, flush_readings=60,
        when_full=when_full,  # type: ignore[arg-type]  # one of the words, from the test
    )  # fmt: skip
    async with running(folder / "b.db", config) as buffer:
        put(buffer, *(sample(n) for n in range(50)))
        await buffer.flush()
        control.write_text(error)
        taken = 0
        for n in range(50, 50 + taken_meanwhile):
            taken += put(buffer, sample(n))
            await asyncio.sleep(0.002)
            assert adds_up(buffer.stats()), buffer.stats()
        while buffer.stats().alarm != "failing":
            await asyncio.sleep(0.01)
        failing = buffer.stats()
        readable = numbers(await read_all(buffer))
        control.unlink()
        await buffer.flush()
        put(buffer, *(sample(n) for n in range(1000, 1050)))
        await buffer.flush()
        found = numbers(await read_all(buffer))
        await check(buffer)
        stats = buffer.stats()
    async with running(folder / "b.db", config) as buffer:
        assert numbers(await read_all(buffer)) == found
        epoch = buffer.epoch
    report = {
        "taken": taken, "found": found, "readable": readable, "detail": failing.detail, "waiting": failing.waiting,
        "rejected": stats.rejected_by, "alarm": stats.alarm, "same_epoch": epoch == stats.epoch,
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
