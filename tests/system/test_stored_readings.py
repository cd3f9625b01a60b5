"""The page about stored readings and SQL: its commands, as they stand there, on what a gateway has stored."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import Gateway, running

PAGE = Path(__file__).parents[2] / "docs/how-to/look-at-stored-readings.md"
POINTS = {"level": {"low": 8, "high": 12, "period": "200ms"}, "x": {"range": [200, 300]}}
CONFIG = {
    "gateway": {"id": "t1"},
    "buffer": {"flush": "50ms", "retention": "1h"},
    "buses": {"lab": {"adapter": "sim"}},
    "devices": {"oven": {"bus": "lab", "every": "20ms", "points": POINTS}},
}


def commands() -> str:
    """The export for a spreadsheet, and what is done with it."""
    text = PAGE.read_text("utf-8")
    export = re.search(r"^edged buffer export .* > readings\.csv$", text, re.MULTILINE)
    question = re.search(r"^(sqlite-utils insert.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert export
    assert question
    return f"set -e\n{export[0]}\n{question[1]}"


def ask(folder: Path, socket: Path) -> subprocess.CompletedProcess[str]:
    """Run them as a shell would, in a folder where both programs are."""
    for program, module in (("edged", "edged"), ("sqlite-utils", "sqlite_utils")):
        (folder / program).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        (folder / program).chmod(0o755)
    environ = {**os.environ, "EDGED_SOCKET": str(socket), "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/sh", "-c", commands()], cwd=folder, env=environ, capture_output=True, text=True, timeout=40, check=False
    )


async def test_what_the_page_says_about_stored_readings_works(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, CONFIG)
    async with running(gateway):
        await gateway.until(lambda status: status["buffer"]["stored"] >= 80)
        ran = await asyncio.to_thread(ask, tmp_path, gateway.socket)
    assert ran.returncode == 0, ran.stderr
    (row,) = (line.split() for line in ran.stdout.splitlines() if line.startswith("oven"))
    device, point, readings, lowest, highest = row
    assert (device, point) == ("oven", "level"), "what is bad does not count"
    assert int(readings) >= 40
    assert 8 <= float(lowest) < 9.5
    assert 10.5 < float(highest) <= 12, "as texts, 9 is more than 10"
