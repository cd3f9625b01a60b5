"""The whole buffer against a list in memory: any order of puts, settles, flushes, faults and restarts."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edged.buffer.log import Buffer
from edged.config.model import BufferConfig
from edged.config.types import Size
from tests.unit.buffer.helpers import BOOT, BY_HAND, adds_up, noise, numbers, put, read_all

CONNECTIONS = ("one", "two")
SIZES = [200, 4000, 18_000]


class BufferMachine(RuleBasedStateMachine):
    """The model: the numbers of all samples ever flushed, and by connection what it settled as what."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.path = Path(self.folder.name) / "b.db"
        self.put = 0
        self.head = 0
        self.settled: dict[str, set[int]] = {name: set() for name in CONNECTIONS}
        self.outcomes: dict[str, Counter[str]] = {name: Counter() for name in CONNECTIONS}

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 30))

    async def start(self) -> None:
        config = BufferConfig(flush=BY_HAND, max_bytes=Size(2**20), min_free=Size(0))
        self.buffer = Buffer(self.path, config, CONNECTIONS, boot=BOOT)
        await self.buffer.start()

    async def first_flush(self) -> None:
        """It comes by itself a moment after the first readings: what is drawn must not depend on which moment."""
        self.put += 1
        assert put(self.buffer, noise(self.put, 200)) == 1
        self.head = await self.buffer.flush()

    @initialize()
    def begin(self) -> None:
        self.run(self.start())
        self.run(self.first_flush())

    @rule(count=st.integers(1, 12), size=st.sampled_from(SIZES))
    def put_some(self, count: int, size: int) -> None:
        for _ in range(count):
            self.put += 1
            assert put(self.buffer, noise(self.put, size)) == 1

    @rule()
    def flush(self) -> None:
        self.head = self.put
        assert self.run(self.buffer.flush()) == self.head

    @rule(
        data=st.data(), name=st.sampled_from(CONNECTIONS), outcome=st.sampled_from(["delivered", "delivered", "dead"])
    )
    def settle(self, data: st.DataObject, name: str, outcome: str) -> None:
        low = self.buffer.cursor(name).low
        first = data.draw(st.integers(max(1, low - 3), self.head))
        last = min(self.head, first + data.draw(st.integers(0, 15)))
        span = set(range(first, last + 1))
        self.buffer.settle(name, first, last, len(span), lane="live", outcome=outcome)  # type: ignore[arg-type]  # drawn
        self.settled[name] |= span

    @rule()
    def restart(self) -> None:
        epoch = self.buffer.epoch
        self.run(self.buffer.stop())
        self.head = self.put
        self.run(self.start())
        assert (self.buffer.epoch, self.buffer.head) == (epoch, self.head)
        assert self.buffer.stats().waiting == 0
        self.run(self.first_flush())

    @rule()
    def settle_all(self) -> None:
        for name in CONNECTIONS:
            self.buffer.settle(name, 1, self.head, self.head, lane="live", outcome="delivered")
            self.settled[name] |= set(range(1, self.head + 1))

    @invariant()
    def counters_add_up(self) -> None:
        if hasattr(self, "buffer"):
            assert adds_up(self.buffer.stats())

    @invariant()
    def what_is_not_settled_is_there(self) -> None:
        if not hasattr(self, "buffer"):
            return
        batches = self.run(read_all(self.buffer))
        assert self.buffer.head == self.head
        assert numbers(batches) == [n for batch in batches for n in range(batch.first, batch.last + 1)]
        there = set(numbers(batches))
        for name in CONNECTIONS:
            cursor = self.buffer.cursor(name)
            gone = set(range(1, cursor.low + 1)).union(*(range(a, b + 1) for a, b in cursor.islands))
            assert gone >= self.settled[name]
            assert there | gone == set(range(1, self.head + 1))
            evicted = gone - self.settled[name]
            assert not evicted or max(evicted) < min(there, default=self.head + 1)  # only the oldest were given up

    @rule()
    def verify(self) -> None:
        assert self.run(self.buffer.verify()).problems == ()

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.run(self.buffer.flush())
            assert self.run(self.buffer.verify()).problems == ()
            stats = self.buffer.stats()
            assert stats.stored == stats.read == self.put
            self.run(self.buffer.stop())
        self.loop.close()
        self.folder.cleanup()


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(max_examples=40, stateful_step_count=30)
