"""A gateway that lives fast: `python -m tests.support.day CONFIG SECONDS`, under libfaketime with a speed.

Prints once an hour of its own time, as JSON, what its process holds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from pathlib import Path

from edged.config.load import load
from edged.daemon import Daemon, Places

REPORT = 1800.0


def held() -> dict[str, int]:
    """What this process has now."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())), "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects()), "rss_kib": rss,
    }  # fmt: skip


async def main(path: Path, seconds: float) -> None:
    """Run for so long."""
    folder, config = path.parent, load(path).config
    assert config is not None
    daemon = Daemon(config, Places(folder, folder, folder / "edged.sock"))
    running, begun = asyncio.create_task(daemon.run(), name="daemon"), time.monotonic()
    while time.monotonic() - begun < seconds:
        await asyncio.sleep(REPORT)
        status = daemon.status()
        told = {"at": round(time.monotonic() - begun), "faults": status["faults"], "buffer": status["buffer"]}
        print(json.dumps(held() | told, default=str), flush=True)
    daemon.stop()
    await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
