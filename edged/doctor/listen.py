"""Asks the devices of a bus a few times, reading only, to see what goes over the line: a doctor without a daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from edged.adapter import Bus, Traced, TransientError
from edged.media import Frame

ROUNDS = 8
_LAST_WORDS = 0.3
"""Seconds to hear what comes after the last answer."""


async def listen(bus: Bus, devices: Mapping[str, Any], *, seconds: float, rounds: int = ROUNDS) -> tuple[str, ...]:
    """Poll each device `rounds` times, as long as there is time. Returns what went wrong, each thing once.

    Raises ConfigError.
    """
    jobs = [bus.prepare(name, [str(point) for point in config.points]) for name, config in devices.items()]
    wrong: dict[str, None] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for _ in range(rounds):
                for job in jobs:
                    try:
                        await bus.poll(job)
                    except TransientError as exc:
                        wrong[f"{job.device}: {exc}"] = None
            await asyncio.sleep(_LAST_WORDS)
    return tuple(wrong)


def pieces_of(bus: Bus) -> list[Sequence[Frame]]:
    """What is in the rings of a bus; empty if it keeps none."""
    return [ring.pieces() for ring in bus.rings] if isinstance(bus, Traced) else []
