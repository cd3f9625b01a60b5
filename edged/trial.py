"""A configuration on trial: how the parts do that it concerns, and whether that is worse than before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.config.history import Entry
from edged.config.model import Config

LOOK = 0.5
"""Seconds between two looks at what was changed, at least."""


@dataclass(frozen=True, slots=True)
class Vital:
    """Whether one part works, for the judgement."""

    up: bool
    detail: str = ""
    slow: float = 0.0
    """Seconds within which it need not have shown anything yet."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How everything does at one moment. Keys are `bus NAME`, `device NAME`, `connection NAME`, `flow NAME to NAME`."""

    parts: Mapping[str, Vital]
    faults: Mapping[str, str]
    """Parts that had to be started again, and why the last time."""


@dataclass(slots=True)
class Run:
    """One reload, and what it has told so far."""

    watch: float | None = None
    """Seconds; None: as configured."""
    keep: bool = False
    """Whether to keep the new configuration although it does not come up."""
    events: list[dict[str, Any]] = field(default_factory=list)
    over: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: str, *, last: bool = False, **facts: Any) -> None:
        """Add an event; after the last one nothing follows."""
        self.events.append({"event": event, **facts})
        self.over |= last
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """The events from the first to the last. For any number of followers."""
        told = 0
        while True:
            news = self._news
            while told < len(self.events):
                told += 1
                yield self.events[told - 1]
            if self.over:
                return
            await news.wait()


@dataclass(slots=True)
class Trial:
    """A configuration that runs and has not proved itself yet."""

    run: Run
    entry: Entry | None
    base: Config
    """What to go back to."""
    base_entry: Entry | None
    base_restart: tuple[str, ...]
    """What only a restart would have applied already before."""
    worked: Vitals
    """How things were before."""
    parts: frozenset[str]
    """What is judged."""
    watch: float
    began: float
    pause: float = LOOK
    """Seconds until the next look."""
    looks: int = 0
    up: dict[str, int] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds that it is still watched."""
        return self.began + self.watch - time.monotonic()

    def look(self, now: Vitals) -> str:
        """Count what is up; returns why to give up at once, if so."""
        self.looks += 1
        for part in self.parts & now.parts.keys():
            self.up[part] = self.up.get(part, 0) + now.parts[part].up
        broken = [f"{part}: {why}" for part, why in now.faults.items() if part in self.parts]
        return "; ".join(sorted(broken))

    def failed(self, now: Vitals) -> list[str]:
        """What worked before, was changed, and does not work now."""
        return _grouped([part for part in self._down(now) if self._worked(part)], now, " worked before")

    def silent(self, now: Vitals) -> list[str]:
        """What did not work before either, or is new."""
        return _grouped([part for part in self._down(now) if not self._worked(part)], now, "")

    def _down(self, now: Vitals) -> list[str]:
        """What is down, unless that is an exception; with the patience that a rarely read device needs."""
        return [
            part
            for part in sorted(self.parts & now.parts.keys())
            if not now.parts[part].up
            and 2 * self.up.get(part, 0) < max(self.looks, 1)
            and now.parts[part].slow <= self.watch
        ]

    def _worked(self, part: str) -> bool:
        before = self.worked.parts.get(part)
        return before is not None and before.up


def _grouped(parts: list[str], now: Vitals, words: str) -> list[str]:
    """A line for each reason, with all the parts that it keeps down."""
    reasons: dict[str, list[str]] = {}
    for part in parts:
        reasons.setdefault(now.parts[part].detail or "nothing has come yet", []).append(part)
    return [f"{', '.join(named)}{words}: {reason}" for reason, named in reasons.items()]
