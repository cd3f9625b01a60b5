"""Buffer and forwarder against a list in memory, with faults at every I/O; run by tests/unit/uplink/test_model.py.

The disk refuses through faultydisk.c. The receiver is a link in memory: it loses messages or its answer, or refuses.
`python -m tests.support.model EXAMPLES [SEED...]` in the environment that test_model.py makes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edged.buffer.again import Choice, Progress, purge, replay, retry
from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us, wall_us
from edged.config.model import BufferConfig, GatewayConfig
from edged.config.types import Duration, Name, Size
from edged.errors import PermanentError, TransientError
from edged.model import Sample
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from tests.support.book import Book, Fault, Receiver
from tests.unit.buffer.helpers import adds_up, noise

_OLD = 3600
_MAX_AGE = 600.0


class Gateway(RuleBasedStateMachine):
    """The model: every number ever put, and where each must be in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=os.environ["FAULTYDISK_UNDER"])
        self.control = Path(os.environ["FAULTYDISK"])
        self.control.unlink(missing_ok=True)
        self.loop = asyncio.new_event_loop()
        self.put = self.noise = 0
        self.old: set[int] = set()
        self.first: set[int] = set()
        self.book = Book()
        self.again = self.revived = 0
        """Readings that a request has put back into the log, and those of them that were dead letters."""
        self.owed = -1
        """The disk refused a repair after so many commits: until the next has made up for it, nothing is changed."""
        self.up, self.strict = True, False

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 40))

    async def start(self) -> None:
        config = BufferConfig(
            flush=Duration(30), max_bytes=Size(2**20), min_free=Size(0), retention=Duration(10**6), when_full="thin"
        )
        path = Path(self.folder.name) / "b.db"
        self.buffer = Buffer(path, config, ["cloud"], boot=boot_id(), max_age={"cloud": _MAX_AGE})
        await self.buffer.start()
        mqtt = MqttConnection(connector="mqtt", url="mqtt://nowhere", layout="samples")
        context = ConnectionContext("cloud", GatewayConfig(id=Name("g")), {}, lambda _: "")
        self.link = Receiver(strict=self.strict, book=self.book, head=lambda: self.buffer.head)
        if self.up:
            self.link.up.set()
        forwarder = Forwarder("cloud", CONNECTOR.encoder(mqtt, context), self.link, self.buffer)
        self.forwarding = asyncio.create_task(forwarder.run())

    async def stop(self) -> None:
        self.forwarding.cancel()
        await asyncio.wait([self.forwarding])
        await self.buffer.stop()

    @initialize()
    def begin(self) -> None:
        self.run(self.start())

    @rule(count=st.integers(1, 30), priority=st.booleans(), age=st.sampled_from([0, 0, 60, _OLD]))
    def put_some(self, count: int, priority: bool, age: int) -> None:
        self.run(self.put_all(count, priority, age))

    async def put_all(self, count: int, priority: bool, age: int) -> None:
        shift = age * 1_000_000
        for _ in range(count):
            self.put += 1
            self.buffer.count(read=1)
            sample = Sample("d", wall_us() - shift, mono_us() - shift, ("n",), [self.put])
            taken = self.buffer.put_first(sample, at_once=False) if priority else self.buffer.put(sample)
            assert taken
            if age == _OLD:
                self.old.add(self.put)
            if priority:
                self.first.add(self.put)

    @rule(count=st.integers(1, 12))
    def put_much(self, count: int) -> None:
        self.run(self.put_noise(count))

    async def put_noise(self, count: int) -> None:
        """Readings that fill the buffer, so that it thins and drops."""
        for _ in range(count):
            self.noise += 1
            self.buffer.count(read=1)
            assert self.buffer.put(noise(self.noise, 9_000))
        if not self.control.exists():
            await self.buffer.flush()

    @rule()
    def flush(self) -> None:
        if not self.control.exists():
            self.run(self.buffer.flush())

    @rule(times=st.integers(1, 30))
    def time_passes(self, times: int) -> None:
        self.run(self.idle(times))

    async def idle(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    @rule(error=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]))
    def disk_refuses(self, error: int) -> None:
        self.control.write_text(str(error))
        self.buffer.request_commit()
        self.run(self.idle(3))

    @rule()
    def disk_is_back(self) -> None:
        self.control.unlink(missing_ok=True)

    @rule(fault=st.sampled_from(["lost", "unheard", "refused", "too_large", "later"]))
    def receiver_fails_once(self, fault: Fault) -> None:
        self.link.fault = fault

    @rule()
    def receiver_goes(self) -> None:
        self.up = False
        self.link.up.clear()
        self.link.cut()

    @rule()
    def receiver_comes(self) -> None:
        self.up = True
        self.link.up.set()

    @precondition(lambda self: not self.control.exists())
    @rule(strict=st.booleans())
    def restart(self, strict: bool) -> None:
        self.strict = strict
        self.run(self.stop())
        self.run(self.start())

    @rule(work=st.sampled_from(["replay", "retry", "purge", "rewrite", "repair"]))
    def by_request(self, work: str) -> None:
        try:
            self.run(self.request(work))
        except TransientError:
            stats = self.buffer.stats()
            assert self.control.exists() or stats.waiting or self.owed == stats.commits
            if work == "repair":
                self.owed = stats.commits
        except PermanentError:  # no room for so much again
            if work != "replay":
                raise

    async def request(self, work: str) -> None:
        if work in {"rewrite", "repair"}:
            await self.buffer.rewrite("asked for" if work == "repair" else "")
            return
        through = self.buffer.head
        steps = {
            "replay": lambda so_far: lambda writer, done: replay(writer, done, "cloud", Choice(), through, 0, so_far),
            "retry": lambda so_far: lambda writer, done: retry(writer, done, (), "cloud", so_far),
        }
        if work == "purge":
            await self.buffer.change(lambda writer, done: purge(writer, done, (), "cloud"))
            return
        progress, before = Progress(), 0
        while not progress.over:
            progress = await self.buffer.change(steps[work](progress))
            self.again += progress.readings - before
            self.revived += progress.readings - before if work == "retry" else 0
            before = progress.readings

    @invariant()
    def counters_add_up(self) -> None:
        if hasattr(self, "buffer"):
            stats = self.buffer.stats()
            assert adds_up(stats), stats

    def teardown(self) -> None:
        try:
            if hasattr(self, "buffer"):
                self.control.unlink(missing_ok=True)
                self.up, self.link.fault = True, "none"
                self.run(self.buffer.flush())
                self.run(self.stop())
                self.run(self.finish())
                self.judge()
        finally:
            self.loop.close()
            self.folder.cleanup()

    async def finish(self) -> None:
        """The disk and the receiver are well again: everything gets its verdict."""
        await self.start()
        async with asyncio.timeout(10):
            while self.buffer.cursor("cloud").low < self.buffer.head:
                await asyncio.sleep(0.005)
        await self.buffer.flush()
        await self.buffer.flush()
        assert (await self.buffer.verify()).problems == ()
        self.account = self.buffer.stats().connections["cloud"]
        assert self.buffer.cursor("cloud").islands == ()
        assert self.buffer.stats().stored == self.put + self.noise == self.buffer.head - self.again
        await self.stop()

    def judge(self) -> None:
        """Hold what came against the gateway's own account. Each sample is one reading, and so is each message."""
        book, account = self.book, self.account
        book.assert_confirmed_once()
        book.assert_lanes(self.first)
        book.assert_in_order()
        book.assert_chained()
        confirmed, refused, came = book.seqs("confirmed"), book.seqs("refused"), book.seqs("confirmed", "unheard")
        gone, dead = account.expired + account.evicted, account.dead + self.revived
        assert account.pending == 0
        # What was given up while it was under way counts as that, whatever the receiver said.
        assert 0 <= len(confirmed) - account.delivered <= gone, "more was booked than confirmed"
        assert 0 <= len(refused) - dead <= gone, "more dead letters than were refused"
        assert account.expired <= len(self.old)
        lost = set(range(1, self.put + 1)) - book.numbers("confirmed", "unheard") - book.numbers("refused")
        assert len(lost) <= gone, (lost, account)
        assert len(lost - self.old) <= account.evicted, (lost, account)
        audit, arrivals = book.audited(), list(book.arrivals())
        assert audit.readings == len(came)
        assert audit.duplicates == len(arrivals) - len(came)
        assert {one.seq for one in audit.missing} == {one.payload["prev"] for one in arrivals} - came - {0}


def main(examples: int, seeds: Sequence[int]) -> None:
    """Run it under the faulty disk: always the same examples, or those of each seed, and then also make them small."""
    phases = [Phase.generate, *([Phase.shrink] if seeds else [])]  # to make it small takes minutes
    usual = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, derandomize=not seeds, database=None,
        print_blob=True, phases=phases, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for number in seeds or [0]:
        run_state_machine_as_test(seed(number)(Gateway) if seeds else Gateway, settings=usual)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(text) for text in sys.argv[2:]])
