"""Live readings for whoever watches, such as `edged tail`, and the last ones of each device.

A subscriber that is too slow loses its oldest samples and is told how many; it can never hold up the poll.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Container, Iterator, Sequence
from contextlib import contextmanager

from edged.model import Sample

_KEPT = 4
"""So many samples of a device are remembered, each with other points."""


class Subscription:
    """A bounded queue of samples for one watcher."""

    def __init__(self, bound: int) -> None:
        self._samples: deque[Sample] = deque(maxlen=bound)
        self._ready = asyncio.Event()
        self.missed = 0
        """How many samples were dropped because the watcher was too slow."""

    def put(self, sample: Sample) -> None:
        """Queue a sample; the oldest gives way when there is no room."""
        if len(self._samples) == self._samples.maxlen:
            self.missed += 1
        self._samples.append(sample)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[Sample]:
        """Samples as they come, for ever."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._samples:
                yield self._samples.popleft()


class Hub:
    """Hands every sample to every subscriber. Costs next to nothing while nobody watches."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []
        self._latest: dict[str, Sample] = {}
        self._others: dict[str, dict[tuple[str, ...], Sample]] = {}
        """Of devices whose samples differ in their points, the newest of each kind before the latest, oldest first."""

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._subscriptions)

    def publish(self, sample: Sample) -> None:
        """Hand over one sample. Never blocks."""
        before = self._latest.get(sample.device)
        self._latest[sample.device] = sample
        if before is not None and before.points is not sample.points and before.points != sample.points:
            self._put_aside(before, sample)
        for subscription in self._subscriptions:
            subscription.put(sample)

    def renew(self, devices: Container[str]) -> None:
        """Only these are configured from now on: forget the samples of the others."""
        for gone in [name for name in self._latest if name not in devices]:
            del self._latest[gone]
            self._others.pop(gone, None)

    def recent(self, device: str) -> Sequence[Sample]:
        """The newest samples of a device, oldest first: one read of it may have yielded several."""
        latest = self._latest.get(device)
        return [*self._others.get(device, {}).values(), *([latest] if latest else [])]

    def _put_aside(self, before: Sample, sample: Sample) -> None:
        others = self._others.setdefault(sample.device, {})
        others.pop(sample.points, None)
        others[before.points] = before
        if len(others) >= _KEPT:
            del others[next(iter(others))]

    @contextmanager
    def subscribe(self, bound: int = 1000) -> Iterator[Subscription]:
        """Watch while the context lasts."""
        subscription = Subscription(bound)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
