"""What stops the feeding of the watchdog, and what must never do so."""

from __future__ import annotations

import asyncio
import math
import socket
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import BusConfig, Job, Plan, PollResult
from edged.buffer.log import Buffer
from edged.clock import mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.errors import TransientError
from edged.media import FrameRing
from edged.model import Sample
from edged.polling import Assignment, BusPoller
from edged.uplink.api import DELIVERED, Lane, Message, Outcome, Pacing, Verdict
from edged.uplink.connectors import load_forwarding
from edged.uplink.connectors.mqtt import MqttConnection
from edged.uplink.forwarder import Forwarder
from edged.uplink.window import Window
from edged.watchdog import LIMIT, Watchdog, Work, interval, limit_for, stalled
from tests.support.forwarding import context_of
from tests.support.waiting import until

MOMENTS = st.floats(0, 1e9, allow_nan=False)


# -- the rule ----------------------------------------------------------------------------------------------------------


@given(MOMENTS, st.floats(0, 1e6), st.floats(0.1, 1e6))
def test_work_is_stalled_after_its_limit_and_not_before(since: float, age: float, limit: float) -> None:
    found = stalled([Work("a poll", since, limit)], since + age)
    assert bool(found) == (since + age - since - limit > 0)


def test_nothing_to_do_is_no_stall() -> None:
    assert stalled([], math.inf) == {}


def test_one_stalled_part_is_enough_and_is_named() -> None:
    work = [Work("bus a: a poll", 0, 10), Work("bus b: a poll", 95, 10)]
    assert list(stalled(work, 100)) == ["bus a: a poll"]


def test_a_configured_timeout_of_an_hour_is_waited_for() -> None:
    assert limit_for(3600.0, 20.0) > 3 * 3600 + LIMIT


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 10.0),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "6000000"}, 2.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, 10.0),  # meant for another process
        ({"WATCHDOG_USEC": "soon"}, 10.0),
    ],
)
def test_it_looks_often_enough_for_systemds_watchdog(environment: dict[str, str], seconds: float) -> None:
    assert interval(environment, 42) == seconds


# -- feeding -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[socket.socket]:
    """The other end of sd_notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield end


async def heard(end: socket.socket, seconds: float = 0.3) -> list[str]:
    """What is said from now on, for so long."""
    said: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                said.append((await asyncio.get_running_loop().sock_recv(end, 4096)).decode())
    except TimeoutError:
        return said


async def test_it_feeds_while_all_goes_well_stops_at_a_stall_and_goes_on_after_it(systemd: socket.socket) -> None:
    work: list[Work] = [Work("bus a: a poll", mono_us() / 1e6, 60)]
    task = asyncio.create_task(Watchdog(lambda: work).run())
    assert set(await heard(systemd)) == {"WATCHDOG=1"}
    work[:] = [Work("bus a: a poll", 0, 1)]
    await heard(systemd)
    assert all(word.startswith("STATUS=bus a: a poll has shown no progress") for word in await heard(systemd))
    work.clear()
    await heard(systemd)
    assert set(await heard(systemd)) == {"WATCHDOG=1"}
    task.cancel()


# -- the parts that say what they do ----------------------------------------------------------------------------------


class OneJob:
    device, points = "meter", ("voltage",)


class Wire:
    """A bus whose answers the test decides."""

    concurrency = 1

    def __init__(self) -> None:
        self.rings = [FrameRing()]
        self.answers: asyncio.Queue[PollResult | TransientError] = asyncio.Queue()
        self.polls = 0

    def prepare(self, _device: str, _points: Sequence[str]) -> Job:
        return OneJob()

    def plan(self, _job: Job) -> Plan:
        return Plan()

    async def poll(self, _job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:
        self.polls += 1
        answer = await self.answers.get()
        if isinstance(answer, TransientError):
            raise answer
        return answer

    async def write(self, device: str, point: str, value: object) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        return


def poller(wire: Wire) -> BusPoller:
    return BusPoller("line", lambda: wire, BusConfig(adapter="test"), [Assignment("meter", ("voltage",), 0.01)], _drop)


def _drop(_sample: Sample) -> None:
    return


async def test_a_poll_that_never_returns_is_seen_from_its_beginning() -> None:
    wire = Wire()
    bus = poller(wire)
    task = asyncio.create_task(bus.run())
    await until(lambda: wire.polls)
    since = bus.polling_since()
    assert since is not None
    assert not stalled([Work("bus line", since, LIMIT)], since + LIMIT - 1), "slow, but legal"
    assert stalled([Work("bus line", since, LIMIT)], since + LIMIT + 1)
    await asyncio.sleep(0.01)
    assert bus.polling_since() == since, "nothing but progress moves it"
    task.cancel()
    await asyncio.wait({task})
    assert bus.polling_since() is None, "a bus that is closed does nothing"


async def test_a_long_poll_that_goes_on_asking_is_alive() -> None:
    wire = Wire()
    bus = poller(wire)
    task = asyncio.create_task(bus.run())
    await until(lambda: wire.polls)
    began = bus.polling_since()
    wire.rings[0].add(mono_us() + 50_000_000, "rx", b"noise")
    assert bus.polling_since() == began, "what others send shows nothing"
    wire.rings[0].add(mono_us() + 100_000_000, "tx", b"next block")
    asked = bus.polling_since()
    assert began is not None
    assert asked is not None
    assert asked > began + 99
    task.cancel()


async def test_a_device_that_is_dead_for_ever_never_looks_stalled() -> None:
    wire = Wire()
    bus = poller(wire)
    task = asyncio.create_task(bus.run())
    await until(lambda: wire.polls)
    last = 0.0
    for _ in range(2):
        wire.answers.put_nowait(TransientError("no answer", reason="timeout"))
        await until(lambda: bus.polling_since() is None)  # it pauses before it asks again
        await until(lambda: bus.polling_since() is not None)
        since = bus.polling_since()
        assert since is not None
        assert since > last, "each probe is a piece of work of its own"
        last = since
    task.cancel()


async def test_a_commit_that_hangs_is_seen_from_its_beginning(tmp_path: Path) -> None:
    """Another process holds SQLite's lock, so that the real writer waits, as it would for a disk that hangs."""
    buffer = Buffer(tmp_path / "buffer.db", BufferConfig(), ["cloud"], boot="boot")
    await buffer.start()
    assert not buffer.at_work()
    buffer.count(read=1, suppressed=1)
    connection = sqlite3.connect(tmp_path / "buffer.db")
    try:
        connection.execute("BEGIN IMMEDIATE")
        flushing = asyncio.create_task(buffer.flush())
        await until(lambda: "commit" in buffer.at_work())
        since = buffer.at_work()["commit"]
        assert stalled([Work("buffer: a commit", since, LIMIT)], since + LIMIT + 1)
        assert not stalled([Work("buffer: a commit", since, LIMIT)], mono_us() / 1e6)
    finally:
        connection.rollback()
        connection.close()
    await flushing
    await until(lambda: not buffer.at_work())
    await buffer.stop()


# -- a connection ------------------------------------------------------------------------------------------------------


class Deaf:
    """A link that opens, and whose messages get no verdict: as a lost wake-up in a library would have it."""

    pacing = Pacing(retry_max=1.0)
    window = 4

    def __init__(self) -> None:
        self.sent = 0
        self.verdicts: asyncio.Queue[Outcome] = asyncio.Queue()

    async def connect(self, epoch: str) -> str:
        return f"deaf since {epoch}"

    def fits(self, message: Message) -> bool:
        return bool(message.payload)

    async def send(self, message: Message) -> Outcome:
        self.sent += len(message.payload) > 0
        return await self.verdicts.get()

    async def announce(self) -> None:
        return

    async def report(self) -> None:
        return

    async def lost(self) -> str:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def close(self) -> None:
        return


async def test_a_session_whose_messages_get_no_verdict_is_stuck_and_each_verdict_is_a_sign_of_life(
    tmp_path: Path,
) -> None:
    link, context = Deaf(), context_of()
    encoder = load_forwarding("mqtt").encoder(MqttConnection(connector="mqtt", url="mqtt://127.0.0.1"), context)
    buffer = Buffer(tmp_path / "buffer.db", BufferConfig(), ["cloud"], boot="boot")
    await buffer.start()
    forwarder = Forwarder("cloud", encoder, link, buffer)
    task = asyncio.create_task(forwarder.run())
    await until(lambda: forwarder.state().connected)
    assert forwarder.stuck_since() is None, "nothing to send is no stall"
    buffer.count(read=1)
    buffer.put(Sample("meter", wall_us(), mono_us(), ("voltage",), [1.0], {}))
    await buffer.flush()
    await until(lambda: link.sent)
    first = forwarder.stuck_since()
    assert first is not None
    assert stalled([Work("connection cloud: a message", first, LIMIT)], first + LIMIT + 1)
    link.verdicts.put_nowait(Outcome(Verdict.RETRY, "quota", "not now"))
    await until(lambda: link.sent == 2)
    second = forwarder.stuck_since()
    assert second is not None
    assert second > first, "a receiver that says `not now` is no stall"
    link.verdicts.put_nowait(DELIVERED)
    await until(lambda: forwarder.stuck_since() is None)
    task.cancel()
    await asyncio.wait({task})
    assert forwarder.stuck_since() is None
    await buffer.stop()


async def test_a_lane_that_waits_for_a_slot_for_ever_is_stuck() -> None:
    window = Window(2, 0.5, lambda: 2)  # confirmed, but never saved
    taking = asyncio.create_task(window.take(Lane.LIVE))
    await until(lambda: window.busy_since() is not None)
    since = window.busy_since()
    window.changed()
    await asyncio.sleep(0.01)
    assert window.busy_since() == since, "to look again in vain is no progress"
    taking.cancel()
    await asyncio.wait({taking})
    assert window.busy_since() is None


async def test_every_attempt_to_connect_is_work_of_its_own_and_waiting_for_the_next_is_none(tmp_path: Path) -> None:
    """A broker that accepts and says nothing: an attempt is seen; each new one begins anew, so none is ever stalled."""
    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: silent.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = MqttConnection(
        connector="mqtt", url=f"mqtt://127.0.0.1:{port}", connect_timeout=Duration(0.5), retry_max=Duration(0.3)
    )
    connector, context = load_forwarding("mqtt"), context_of()
    buffer = Buffer(tmp_path / "buffer.db", BufferConfig(), ["cloud"], boot="boot")
    await buffer.start()
    forwarder = Forwarder("cloud", connector.encoder(config, context), connector.link(config, context), buffer)
    assert forwarder.dialling_since() is None
    task = asyncio.create_task(forwarder.run())
    await until(lambda: silent)
    first = forwarder.dialling_since()
    assert first is not None
    assert stalled([Work("connection cloud: connecting", first, LIMIT)], first + LIMIT + 1)
    await until(lambda: forwarder.dialling_since() is None)
    await until(lambda: forwarder.dialling_since() is not None)
    second = forwarder.dialling_since()
    assert second is not None
    assert second > first
    task.cancel()
    await asyncio.wait({task})
    assert forwarder.dialling_since() is None
    await buffer.stop()
    for writer in silent:
        writer.close()
    server.close()
