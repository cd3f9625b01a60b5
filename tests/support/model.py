"""Buffer and forwarder against a list in memory, with faults at every I/O; run by tests/unit/uplink/test_model.py.

The disk refuses through faultydisk.c. The receiver is a link in memory: it loses messages or its answer, or refuses.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal

import orjson
from hypothesis import HealthCheck, settings
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
from edged.testing.audit import Audit
from edged.uplink.api import CLOSED, DELIVERED, TOO_LARGE, ConnectionContext, Message, Outcome, Pacing, Verdict
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from tests.unit.buffer.helpers import adds_up, noise

Fault = Literal["none", "lost", "unheard", "refused", "too_large", "later"]
_OLD = 3600
_MAX_AGE = 600.0


class Receiver:
    """The wire and who is at its end: a link in memory."""

    window = 4

    def __init__(self, *, strict: bool) -> None:
        self.pacing = Pacing(0.5, 0.01, strict=strict)
        self.up = asyncio.Event()
        self.fault: Fault = "none"
        self.got: list[bytes] = []
        self.cuts = 0
        self._over: asyncio.Future[str]

    async def connect(self, _epoch: str) -> str:
        await self.up.wait()
        self._over = asyncio.get_running_loop().create_future()
        return "in memory"

    def fits(self, message: Message) -> bool:
        return len(message.payload) < 20_000

    async def send(self, message: Message) -> Outcome:
        await asyncio.sleep(0)
        if self._over.done():
            return Outcome(Verdict.RETRY, CLOSED, "cut")
        fault, self.fault = self.fault, "none"
        match fault:
            case "lost":
                self.cut()
            case "unheard":
                self.got.append(message.payload)
                self.cut()
            case "refused":
                return Outcome(Verdict.REJECTED, "refused", "not wanted")
            case "too_large":
                return Outcome(Verdict.REJECTED, TOO_LARGE, "too large")
            case "later":
                return Outcome(Verdict.RETRY, "busy", "busy")
            case "none":
                self.got.append(message.payload)
                return DELIVERED
        return Outcome(Verdict.RETRY, CLOSED, "cut")

    def cut(self) -> None:
        self.cuts += 1
        if not self._over.done():
            self._over.set_result("cut")

    async def announce(self) -> None:
        pass

    async def report(self) -> None:
        pass

    async def lost(self) -> str:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        if not self._over.done():
            self._over.set_result("closed")


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
        self.got: list[bytes] = []
        self.replayed = self.was_late = False
        self.cuts = 0
        self.owed = -1
        """The disk refused a repair after so many commits: until the next one has made up for it, nothing is changed."""
        self.lanes: set[bool] = set()
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
        self.link = Receiver(strict=self.strict)
        self.lanes.add(self.strict)
        if self.up:
            self.link.up.set()
        forwarder = Forwarder("cloud", CONNECTOR.encoder(mqtt, context), self.link, self.buffer)
        self.forwarding = asyncio.create_task(forwarder.run())

    async def stop(self) -> None:
        self.forwarding.cancel()
        await asyncio.wait([self.forwarding])
        await self.buffer.stop()
        self.got += self.link.got
        self.cuts += self.link.cuts

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
        self.was_late = self.was_late or fault in {"later", "too_large"}

    @rule()
    def receiver_goes(self) -> None:
        self.up = False
        self.link.up.clear()
        if hasattr(self.link, "_over"):
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
        self.replayed = self.replayed or work in {"replay", "retry"}
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
        progress = Progress()
        while not progress.over:
            progress = await self.buffer.change(steps[work](progress))

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
        assert self.buffer.stats().stored == self.put + self.noise
        await self.stop()

    def judge(self) -> None:
        audit, values = Audit(), Counter[int]()
        payloads: list[dict[str, Any]] = [orjson.loads(text) for text in self.got]
        for payload in payloads:
            if audit.take(payload):
                numbers = {value for value in payload["values"].values() if type(value) is int}
                values.update(numbers)
                if self.lanes == {False} and numbers and not payload.get("replay"):
                    assert (payload["lane"] == "priority") == (numbers <= self.first)
        assert self.account.pending == 0
        lost = set(range(1, self.put + 1)) - set(values)
        given_up = self.account.dead + self.account.evicted
        assert len(lost - self.old) <= given_up, (lost, self.account)
        assert len(lost) <= given_up + self.account.expired
        assert set(values) <= set(range(1, self.put + 1))
        if not self.replayed:
            assert max(values.values(), default=1) == 1
        assert audit.readings >= self.account.delivered, "more was confirmed than has come"
        # A dead letter that was sent again comes under another number: the old one stays missing.
        assert audit.missing == [] or given_up or self.replayed
        assert audit.duplicates <= self.cuts * Receiver.window
        assert audit.out_of_order == 0 or self.was_late or len(self.lanes) > 1


def main(examples: int) -> None:
    """Run it under the faulty disk."""
    run_state_machine_as_test(
        Gateway,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
