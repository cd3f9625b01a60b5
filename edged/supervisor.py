"""Keeps the parts of the daemon running: what dies is started again, after a pause, and what it died of is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from edged.clock import iso, mono_us, wall_us
from edged.errors import EdgedError

log = logging.getLogger("edged")

_RESTART_MIN, _RESTART_MAX = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """The last time a part of the daemon had to be started again."""

    time: str
    detail: str
    restarts: int


class Supervisor:
    """Runs parts by name, such as `bus line-a`. They live in a task group, which is set before the first begins."""

    group: asyncio.TaskGroup

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        """By part: of those that run."""
        self._parts: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[str]:
        """The parts that run."""
        return iter(list(self._parts))

    def spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Begin a part."""
        self._parts[name] = self.group.create_task(self._supervise(name, run), name=name)

    async def end(self, names: Iterable[str]) -> None:
        """End those of the parts that run, all at once, and forget what they suffered."""
        names = list(names)
        await end_tasks([task for name in names if (task := self._parts.pop(name, None)) is not None])
        for name in names:
            self.faults.pop(name, None)

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep one part running whatever happens inside it, so that a fault in it never stops the others."""
        pause = _RESTART_MIN
        while True:
            began = mono_us()
            try:
                await run()
                detail = "ended unexpectedly"
            except Exception as exc:
                cause = first_of(exc)
                known = isinstance(cause, EdgedError)
                detail = str(cause) if known else f"{type(cause).__name__}: {cause}"
                if self._is_news(name, detail, began) and known:
                    log.error("%s: %s", name, cause)  # noqa: TRY400  # the message says it all; people get no traceback
                elif self._is_news(name, detail, began):
                    log.exception("%s failed; this is a bug in edged, please report it", name)
            if _seconds_since(began) > _RESTART_MAX:
                pause = _RESTART_MIN
            fault = self.faults.get(name)
            self.faults[name] = Fault(iso(wall_us()), detail, fault.restarts + 1 if fault else 1)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RESTART_MAX)

    def _is_news(self, name: str, detail: str, began: int) -> bool:
        """Whether a fault is another one than the last, or comes after a while without any."""
        known = self.faults.get(name)
        return known is None or known.detail != detail or _seconds_since(began) > _RESTART_MAX


def _seconds_since(began: int) -> float:
    return (mono_us() - began) / 1e6


def first_of(error: Exception) -> Exception:
    """The first of several that came together; they say nothing themselves."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def end_tasks(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
