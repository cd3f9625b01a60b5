"""A gateway in a process of its own that says what it holds: `python -m tests.support.day CONFIG [EVERY SECONDS]`.

Prints a line of JSON every so many seconds of its own time for so long (libfaketime may make them short), or for each
line that it reads, until there are no more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from edged.config.load import load
from edged.daemon import Daemon, Places


def held() -> dict[str, int]:
    """What this process has now."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())), "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects()), "rss_kib": rss,
    }  # fmt: skip


async def on_time(every: float, seconds: float) -> AsyncIterator[None]:
    """Every so many seconds, for so long."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        await asyncio.sleep(every)
        yield


async def when_asked() -> AsyncIterator[None]:
    """For each line of the standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        yield


async def main(path: Path, reports: AsyncIterator[None]) -> None:
    """Run as long as there are reports to make."""
    folder, config = path.parent, load(path).config
    assert config is not None
    daemon = Daemon(config, Places(folder, folder, folder / "edged.sock"))
    running, begun = asyncio.create_task(daemon.run(), name="daemon"), time.monotonic()
    async for _ in reports:
        status = daemon.status()
        told: dict[str, Any] = {
            "at": round(time.monotonic() - begun), "faults": status["faults"], "buffer": status["buffer"],
            "connected": [record["connected"] for record in status["connections"].values()],
        }  # fmt: skip
        print(json.dumps(held() | told, default=str), flush=True)
    daemon.stop()
    await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), on_time(*map(float, sys.argv[2:])) if sys.argv[2:] else when_asked()))
