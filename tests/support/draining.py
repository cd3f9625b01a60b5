"""A gateway in a process of its own that drains what it has put, so that it can be killed while it does."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.forwarding import gateway
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


async def killed(
    buffer: Path, port: int, polls: int, reached: Callable[[], int], *thresholds: int, **settings: Any
) -> int:
    """Kill it each time so much more is reached, and let it finish in the end. Returns the kills.

    `settings` are those of the connection; plain values, for they go as JSON.
    """
    kills = 0
    arguments = (str(buffer), str(port), str(polls), json.dumps(settings))
    for threshold in (*thresholds, None):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.draining", *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert child.stdout is not None
        line = asyncio.ensure_future(child.stdout.readline())
        await until(lambda: line.done() or (threshold is not None and reached() > threshold))  # noqa: B023  # used up in this round
        kills += not line.done()
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await asyncio.wait([line])
    return kills


async def _drain(buffer: Path, port: int, polls: int, settings: Mapping[str, Any]) -> None:
    async with gateway(buffer, port, **settings) as one:
        if one.buffer.head == 0:
            one.poll(polls)
        await one.drained()
        print("drained", flush=True)
        await asyncio.sleep(30)  # until it is killed


if __name__ == "__main__":
    asyncio.run(_drain(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])))
