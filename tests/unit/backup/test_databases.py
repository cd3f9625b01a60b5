"""A buffer is copied while it works: the copy is of one moment, and the work is not held up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from edged.backup.databases import copy_buffer, copy_commands, problems_of
from edged.buffer.log import Buffer
from edged.buffer.offline import look
from edged.buffer.table import COLUMNS
from edged.config.model import BufferConfig
from edged.config.types import Duration, Size
from edged.errors import ConfigError, TransientError
from tests.support.backups import ledger, rows, site
from tests.unit.buffer.helpers import BOOT, noise, put, sample


async def worked(path: Path, config: BufferConfig, backlog: int, copies: int) -> tuple[int, list[dict[str, object]]]:
    """Copy a buffer again and again while it is written to and read from; returns the longest journal, and verdicts."""
    buffer = Buffer(path, config, ["cloud", "slow"], boot=BOOT)
    await buffer.start()
    for number in range(backlog):
        put(buffer, noise(number, 3000))
        if number % 20 == 0:
            await buffer.flush()
    await buffer.flush()
    longest = 0

    async def work() -> None:
        nonlocal longest
        number = settled = 0
        while True:
            number += 1
            put(buffer, *(sample(number * 10 + i) for i in range(10)))
            await buffer.flush()
            if settled < buffer.head - 5:
                count = 1 if settled < backlog else 3
                buffer.settle("cloud", settled + 1, settled + 1, count, lane="live", outcome="delivered")
                buffer.settle("slow", settled + 1, settled + 1, count, lane="live", outcome="delivered")
                settled += 1
            longest = max(longest, buffer.stats().wal_bytes)
            await asyncio.sleep(0.001)

    working = asyncio.create_task(work())
    verdicts = []
    for number in range(copies):
        target = path.with_name(f"copy-{number}.db")
        copied = await asyncio.to_thread(copy_buffer, path, target)
        verdicts.append({"copied": copied, **look(target, "verify", {})})
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    await buffer.stop()
    return longest, verdicts


@pytest.mark.parametrize("when_full", ["drop-oldest", "thin"])
def test_each_copy_adds_up_while_rows_come_and_go(tmp_path: Path, when_full: str) -> None:
    config = BufferConfig(
        flush=Duration(60), max_bytes=Size(2**20), when_full=when_full, thin_interval=Duration(0.001), min_free=Size(0)  # type: ignore[arg-type]  # one of the words
    )  # fmt: skip
    longest, verdicts = asyncio.run(worked(tmp_path / "b.db", config, 500, 12))
    for one in verdicts:
        assert one["ok"], one["problems"]
    assert len({one["head"] for one in verdicts}) > 6, "it was written to between the copies"
    assert 0 < longest <= 2**20 // 8 + 64 * 1024, "the journal stays within its budget"


def test_a_copy_of_one_at_rest_has_the_same_rows_and_the_same_books(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    source, target = one.state / "buffer.db", tmp_path / "copy.db"
    copied = copy_buffer(source, target)
    for table, columns in (("log", COLUMNS), ("dead_letters", "*")):
        assert rows(source, table, columns) == rows(target, table, columns)
    assert ledger(source) == ledger(target)
    assert (copied.head, copied.pending) == (300, {"cloud": 340})
    assert not list(problems_of(target))


def test_what_is_no_buffer_is_not_copied(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=0)
    with pytest.raises(ConfigError, match="is not a buffer"):
        copy_buffer(one.state / "commands.db", tmp_path / "copy.db")
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    with pytest.raises(TransientError, match="edged buffer repair"):
        copy_buffer(tmp_path / "junk", tmp_path / "copy.db")
    with pytest.raises(TransientError):
        copy_commands(tmp_path / "junk", tmp_path / "copy.db")


def test_every_older_format_is_copied_into_the_newest(tmp_path: Path) -> None:
    older = sorted((Path(__file__).parents[2] / "cases/buffer").glob("*.db"))
    assert len(older) > 1
    for path in older:
        source = tmp_path / path.name
        source.write_bytes(path.read_bytes())
        target = tmp_path / f"copy-{path.name}"
        copied = copy_buffer(source, target)
        assert look(target, "verify", {})["ok"]
        assert copied.head > 0
