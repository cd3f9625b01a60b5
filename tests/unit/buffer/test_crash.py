"""kill -9 at random moments: what was reported durable is there or was settled, and the books are right."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from edged.buffer.counters import Ledger
from edged.buffer.log import Buffer
from edged.buffer.store import open_reader, read_state
from edged.config.model import BufferConfig
from edged.config.types import Size
from tests.unit.buffer.helpers import (
    BOOT,
    BY_HAND,
    adds_up,
    check,
    deliver,
    noise,
    numbers,
    put,
    read_all,
    running,
    sample,
)  # fmt: skip

CHILD = """
import asyncio, random, sys
from pathlib import Path
from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from tests.unit.buffer.helpers import BOOT, sample, put

async def main(path, seed, size):
    rng = random.Random(seed)
    config = BufferConfig(flush=Duration(0.01), flush_readings=200, max_bytes=Size(size), min_free=Size(0))
    buffer = Buffer(Path(path), config, ["cloud"], boot=BOOT)
    await buffer.start()
    number = buffer.head
    at = buffer.cursor("cloud").low
    print("start", buffer.epoch, buffer.head, flush=True)
    while True:
        for _ in range(rng.randrange(1, 60)):
            number += 1
            put(buffer, sample(number))
        if rng.random() < 0.5:
            print("durable", await buffer.flush(), flush=True)
        else:
            await asyncio.sleep(0.003)
        for batch in await buffer.read(at, max_readings=300):
            at = batch.last
            if rng.random() < 0.8:
                buffer.settle("cloud", batch.first, batch.last, batch.readings, lane="live", outcome="delivered")
        if rng.random() < 0.1:
            buffer.request_commit()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def run_and_kill(path: Path, seed: int, size: int) -> tuple[str, int, int]:
    """(epoch, head at start, last head that was reported durable) of a run that was killed."""
    rng = random.Random(seed)
    command = [sys.executable, "-c", CHILD, str(path), str(seed), str(size)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None
        _, epoch, head = child.stdout.readline().split()
        durable = int(head)
        for _ in range(rng.randrange(0, 25)):
            durable = int(child.stdout.readline().split()[1])
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines():
            if line.startswith("durable ") and line.split()[1:]:
                durable = max(durable, int(line.split()[1]))
        return epoch, int(head), durable


async def test_a_crash_between_the_transactions_of_a_long_flush_counts_nothing_that_it_loses(tmp_path: Path) -> None:
    """Whatever can be seen from outside is what a crash at that moment leaves behind."""
    path = tmp_path / "b.db"
    seen: dict[int, Ledger] = {}
    over = threading.Event()

    def look() -> None:
        with closing(open_reader(path)) as db:
            while not over.is_set():
                _, _, ledger = read_state(db)
                seen[ledger.head] = ledger

    config = BufferConfig(flush=BY_HAND, flush_readings=1000, max_bytes=Size(64 * 2**20), min_free=Size(0))
    async with running(path, config) as buffer:
        put(buffer, *(noise(n, 90_000) for n in range(60)))
        watcher = threading.Thread(target=look)
        watcher.start()
        await buffer.flush()
        over.set()
        watcher.join()
        assert any(0 < head < 60 for head in seen), "the flush was one transaction, or nobody saw the others"
    for ledger in seen.values():
        assert ledger.totals.read == ledger.stored


@pytest.mark.parametrize("size", [64 * 2**20, 2**20], ids=["roomy", "full"])
async def test_killed_at_random_moments(tmp_path: Path, size: int) -> None:
    path = tmp_path / "b.db"
    head, epochs = 0, set()
    for seed in range(8):
        epoch, begin, durable = run_and_kill(path, seed, size)
        epochs.add(epoch)
        assert begin == head
        config = BufferConfig(flush=BY_HAND, max_bytes=Size(size), min_free=Size(0))
        async with running(path, config) as buffer:
            head = buffer.head
            assert head >= durable
            low, islands = buffer.cursor("cloud").low, buffer.cursor("cloud").islands
            settled = set(range(1, low + 1)).union(*(range(a, b + 1) for a, b in islands))
            batches = await read_all(buffer)
            assert numbers(batches) == [n for batch in batches for n in range(batch.first, batch.last + 1)]
            assert set(numbers(batches)) | settled == set(range(1, head + 1))
            stats = buffer.stats()
            assert stats.stored == 3 * head
            assert stats.rejected == 0
            await check(buffer)
            put(buffer, sample(head + 1))
            head += 1
            assert await buffer.flush() == head
    assert len(epochs) == 1


async def test_a_process_that_dies_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    run_and_kill(path, 1, 2**25)
    async with running(path) as buffer:
        assert adds_up(buffer.stats())


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from tests.unit.buffer.helpers import check, noise, numbers, put, read_all, running

async def main(path):
    async with running(path) as buffer:
        put(buffer, noise(0, 20_000))
        await buffer.flush()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
        flushing = None
        for n in range(1, 41):
            put(buffer, noise(n, 20_000))
            if flushing is None or flushing.done():
                flushing = asyncio.ensure_future(buffer.flush())
            await asyncio.sleep(0.01)
        assert buffer.stats().alarm == "failing", buffer.stats()
        assert buffer.stats().waiting > 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await buffer.flush()
        assert numbers(await read_all(buffer)) == list(range(41))
        await check(buffer)
        print("healed", buffer.stats().alarm or "well")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_write_that_the_system_refuses_is_tried_again(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path / "b.db")]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.returncode) == ("healed well\n", 0), done.stderr


async def test_what_was_not_flushed_is_all_that_a_crash_loses(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db", BufferConfig(flush=BY_HAND), ["cloud"], boot=BOOT)
    await buffer.start()
    put(buffer, *(sample(n) for n in range(10)))
    await buffer.flush()
    deliver(buffer, (await buffer.read(0))[0])
    put(buffer, sample(10))
    # As after a power cut: the files as they are now, under their own inode.
    kept = {file: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    await buffer.stop()
    for file, content in kept.items():
        file.write_bytes(content)
    async with running(tmp_path / "b.db") as buffer:
        stats = buffer.stats()
        assert (buffer.head, stats.read, stats.connections["cloud"].delivered) == (10, 30, 0)
        assert numbers(await read_all(buffer)) == list(range(10))
        await check(buffer)
