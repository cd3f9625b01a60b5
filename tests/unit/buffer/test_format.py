"""The file is what docs/explanation/buffer.md says, so that anyone can read it without edged."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edged.buffer.store import FORMAT
from edged.model import bad
from tests.unit.buffer.helpers import check, put, read_all, running, sample

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "buffer.md"


async def test_the_program_in_the_docs_reads_a_file_while_the_daemon_writes_it(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    given = [sample(1), sample(2, 5), sample(3), sample(4, 1)]
    async with running(tmp_path / "b.db") as buffer:
        put(buffer, *given)
        await buffer.flush()
        put(buffer, sample(5))
        await buffer.flush()
        command = [sys.executable, "-I", "-c", program, str(tmp_path / "b.db")]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=30)
        printed = str(done.stdout)
    expected = [
        f"{seq} {one.time} {one.device}/{point} {json.dumps(value)}"
        for seq, one in enumerate([*given, sample(5)], 1)
        for point, value in zip(one.points, one.values, strict=True)
    ]
    lines = printed.splitlines()
    assert lines[:-3] == expected[:-3]
    assert [line.split(" ", 2)[2] for line in lines[-3:]] == [line.split(" ", 2)[2] for line in expected[-3:]]


async def test_tables_and_pages_are_as_documented(tmp_path: Path) -> None:
    async with running(tmp_path / "b.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "b.db")) as db:
        pragmas = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "journal_mode")}
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert pragmas == {"page_size": 1024, "journal_mode": "wal"}
    text = PAGE.read_text(encoding="utf-8")
    assert tables == {"log", "state", "dead_letters"}
    assert all(f"- `{name}`:" in text for name in tables)


CASES = Path(__file__).parents[2] / "cases" / "buffer"
"""One file of each format that was ever released. Never change one; a new format adds one."""


def test_there_is_a_file_of_each_format() -> None:
    assert {file.name for file in CASES.glob("*.db")} == {f"format-{n}.db" for n in range(1, FORMAT + 1)}


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
async def test_a_file_of_an_older_format_is_migrated_with_all_that_is_in_it(
    tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "b.db"
    shutil.copy(CASES / f"format-{version}.db", path)
    async with running(path, connections=("cloud", "local")) as buffer:
        stats = buffer.stats()
        assert (stats.read, stats.stored, stats.suppressed, stats.head) == (97, 90, 7, 30)
        cloud, local = stats.connections["cloud"], stats.connections["local"]
        assert (cloud.delivered, cloud.dead, cloud.pending, cloud.low, cloud.islands) == (36, 6, 48, 7, 1)
        assert (local.delivered, local.pending, local.low) == (15, 75, 5)
        batches = await read_all(buffer)
        assert [(batch.first, batch.last) for batch in batches] == [(n, n + 4) for n in range(6, 30, 5)]
        assert str(next(batches[0].samples[0].readings())).startswith("Reading(device='meter-0', point='a'")
        assert batches[0].samples[0].values == (5, None, "é")
        assert batches[0].samples[0].quality == {1: bad("timeout")}
        put(buffer, sample(31))
        await buffer.flush()
        await check(buffer)
    assert (f"from format {version} to {FORMAT}" in caplog.text) == (version < FORMAT)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
        assert db.execute("SELECT connection, first, last, reason FROM dead_letters").fetchall() == [
            ("cloud", 16, 17, "too_large")
        ]
