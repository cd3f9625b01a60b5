"""What people do to the files: delete what lies beside them, work as root, look where nothing may be written."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged.buffer import offline, service
from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.errors import ConfigError, TransientError
from tests.unit.buffer.helpers import check, numbers, put, read_all, running, sample

ROOT = os.geteuid() == 0


async def flushed(buffer: Buffer, *samples: int) -> None:
    put(buffer, *map(sample, samples))
    await buffer.flush()


@pytest.mark.parametrize("which", ["-wal", "-shm"])
async def test_a_journal_that_is_deleted_while_at_work_takes_nothing_with_it(tmp_path: Path, which: str) -> None:
    """SQLite would go on writing into the deleted file, without an error, until it is closed: or until a crash."""
    path, crashed = tmp_path / "b.db", tmp_path / "crashed"
    async with running(path) as buffer:
        epoch = buffer.epoch
        await flushed(buffer, 0, 1)
        path.with_name(f"b.db{which}").unlink()
        await flushed(buffer, 2)
        await flushed(buffer, 3)
        await check(buffer)
        shutil.copytree(tmp_path, crashed, ignore=shutil.ignore_patterns("crashed"))  # what a crash would leave
        assert buffer.epoch == epoch
    async with running(crashed / "b.db") as left:
        assert numbers(await read_all(left)) == [0, 1, 2, 3]


async def test_a_lock_that_is_deleted_keeps_a_second_daemon_out_again(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await flushed(buffer, 0)
        path.with_name("b.db.lock").unlink()
        await flushed(buffer, 1)
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            await Buffer(path, BufferConfig(), ["cloud"], boot="b").start()
        assert buffer.stats().alarm == ""


async def test_who_lost_the_lock_to_another_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await flushed(buffer, 0)
        path.with_name("b.db.lock").unlink()
        async with running(path) as faster:
            put(buffer, sample(1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(buffer.flush(), 0.3)
            assert "another process has it now" in buffer.stats().detail
            await flushed(faster, 2)
            assert numbers(await read_all(faster)) == [0, 2]


async def test_of_what_was_moved_away_the_journals_do_not_gather(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        for number in range(5):
            await flushed(buffer, number)
            path.rename(tmp_path / f"moved-{number}")
        await buffer.flush()
    assert len({one.name.split("-wal")[0] for one in tmp_path.glob("b.db.corrupt-*")}) <= 2


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
async def test_what_root_mends_still_belongs_to_the_service(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    async with running(path) as buffer:
        await flushed(buffer, 0)
    os.chown(path, 4711, 4712)
    path.chmod(0o640)
    path.with_name("b.db.lock").unlink()
    async with running(path) as buffer:
        await service.perform(buffer, "vacuum", {})
        await flushed(buffer, 1)
        found = {one.name: (one.stat().st_uid, one.stat().st_gid) for one in tmp_path.iterdir()}
        assert found == dict.fromkeys(("b.db", "b.db-wal", "b.db-shm", "b.db.lock"), (4711, 4712))
        assert path.stat().st_mode & 0o777 == 0o640


def with_less(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with no more rights than the files give."""
    drop = "-dac_override,-dac_read_search"
    prefix = ("setpriv", "--bounding-set", drop, "--inh-caps", drop) if ROOT else ()
    return subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)


async def test_a_buffer_can_be_looked_at_where_nothing_may_be_written(tmp_path: Path) -> None:
    """A stick that is mounted read-only, for instance."""
    folder = tmp_path / "stick"
    async with running(folder / "b.db") as buffer:
        await flushed(buffer, 0, 1)
    folder.chmod(0o555)
    edged = (sys.executable, "-m", "edged", "buffer", "--file", str(folder / "b.db"))
    try:
        for action in ("stats", "verify", "export"):
            ran = with_less(*edged, action)
            assert (ran.returncode, ran.stderr) == (0, ""), action
        assert {one.name for one in folder.iterdir()} == {"b.db", "b.db.lock"}
        (folder / "b.db").chmod(0)
        ran = with_less(*edged, "stats")
        assert (ran.returncode, "check its owner and permissions" in ran.stderr) == (2, True), ran.stderr
        folder.chmod(0)
        for action in ("stats", "export", "repair"):
            ran = with_less(*edged, action)
            assert ran.returncode == 2, action
            assert ran.stderr == f"edged: the buffer {folder / 'b.db'} cannot be read: Permission denied; use sudo\n"
    finally:
        folder.chmod(0o755)


async def test_a_repair_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path, in_the_way = tmp_path / "b.db", tmp_path / "b.db.new"
    async with running(path) as buffer:
        await flushed(buffer, 0)
        in_the_way.mkdir()
        with pytest.raises(TransientError, match="cannot be changed now"):
            await buffer.rewrite("somebody asked")
        assert await service.perform(buffer, "purge", {}) == {"letters": 0, "skipped": {}}
        in_the_way.rmdir()
        await buffer.rewrite("somebody asked")
        await check(buffer)


async def test_an_empty_file_and_none_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no buffer"):
        offline.look(tmp_path / "none", "stats", {})
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is empty"):
        offline.look(tmp_path / "empty", "stats", {})
