"""The file is what docs/explanation/buffer.md says, so that anyone can read it without edged."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.unit.buffer.helpers import put, running, sample

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
