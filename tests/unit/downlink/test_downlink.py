"""The way down with a real scheduler, a real store, and a bus without a wire."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edged.adapter import BusConfig, DeviceConfig, Duration, Name, PointConfig, TransientError, Value
from edged.downlink.api import Command, CommandResult, State
from edged.downlink.downlink import LOCAL, Downlink, Surroundings
from edged.downlink.store import KEPT, Desired, read_offline
from edged.model import Sample
from edged.polling import Assignment, BusPoller
from edged.testing.bus import FakeBus, FakeDevice
from tests.support.waiting import until

if TYPE_CHECKING:
    import pytest

POINT = PointConfig(writable=True, range=(0, 1e9))


class WrittenBus(FakeBus):
    """Notes what was written, and fails as told."""

    def __init__(self, devices: Mapping[str, FakeDevice]) -> None:
        super().__init__(devices)
        self.written: list[tuple[str, Value]] = []
        self.fail: Callable[[], None] = lambda: None
        self.follows = True
        self.before: Callable[[], Awaitable[None]] | None = None
        """What a write does before anything is on the wire."""

    async def write(self, device: str, point: str, value: Value) -> None:
        if self.before is not None:
            await self.before()
        self.written.append((device, value))
        self.fail()
        if self.follows:
            await super().write(device, point, value)


@dataclass
class Stand:
    """A downlink at work, with devices `a` and `b` that have one bus each."""

    downlink: Downlink
    buses: dict[str, WrittenBus]
    samples: list[Sample] = field(default_factory=list)
    desired: list[Desired] = field(default_factory=list)
    trusted: bool = True
    barred: set[str] = field(default_factory=set)
    """Connections that may bring no commands any more."""

    async def send(
        self, ident: str, value: Value = 1, *, device: str = "a", entrance: str = "cloud", **more: float
    ) -> CommandResult:
        command = Command(id=ident, device=device, point="p", value=value, **{"valid_for": 30.0, **more})  # type: ignore[arg-type]  # as Command has them
        return await self.downlink.entrance(entrance).submit(command)

    async def end(self, ident: str) -> CommandResult:
        async with asyncio.timeout(20):
            while True:
                rows = await self.downlink.store.newest(1, ident=ident)
                if rows and rows[0].state not in {"accepted", "executing"}:
                    return rows[0].result()
                await asyncio.sleep(0.005)


@asynccontextmanager
async def stand(
    folder: Path, *, silent: str = "", every: float = 0.02, trusted: bool = True, most: int = 10_000
) -> AsyncIterator[Stand]:
    buses = {name: WrittenBus({name: FakeDevice(silent=name == silent, seconds=0.001)}) for name in "ab"}
    devices = {name: DeviceConfig(bus=Name(name), points={Name("p"): POINT}) for name in "ab"}
    config = BusConfig(adapter="fake", retry_min=Duration(0.05), retry_max=Duration(0.1))
    samples: list[Sample] = []
    desired: list[Desired] = []
    here: Stand

    def opener(name: str) -> Callable[[], WrittenBus]:
        return lambda: buses[name]

    pollers = {
        name: BusPoller(name, opener(name), config, [Assignment(name, ["p"], every)], samples.append) for name in "ab"
    }
    around = Surroundings(
        devices, pollers.get, lambda: here.trusted, desired.append, lambda name: name not in here.barred
    )
    here = Stand(Downlink(folder / "commands.db", around, most), buses, samples, desired, trusted)
    tasks = [asyncio.create_task(poller.run()) for poller in pollers.values()]
    tasks.append(asyncio.create_task(here.downlink.run()))
    try:
        await here.downlink.ready()
        async with asyncio.timeout(10):
            while not all(poller.answers(name) for name, poller in pollers.items() if name != silent):
                await asyncio.sleep(0.005)
        yield here
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_value_is_written_read_back_and_desired(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        assert (await here.send("1", 7)).state is State.ACCEPTED
        done = await here.end("1")
        assert (done.state, done.value) == (State.VERIFIED, 7)
        assert here.buses["a"].written == [("a", 7)]
        assert [(one.device, one.point, one.value) for one in here.desired] == [("a", "p", 7)]


async def test_a_device_that_confirms_and_does_not_follow_is_found_out(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.buses["a"].follows = False
        await here.send("1", 7)
        done = await here.end("1")
        assert (done.state, done.reason, done.value) == (State.FAILED, "mismatch", 1)
        assert not here.desired


async def test_a_command_that_expires_while_the_bus_is_busy_is_not_written(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        bus = here.buses["a"]
        bus.devices["a"].seconds = 1.0  # a poll takes longer than the command may wait
        polls = len(bus.devices["a"].polls)
        await until(lambda: len(bus.devices["a"].polls) > polls)
        assert (await here.send("late", 7, valid_for=0.3)).state is State.ACCEPTED
        assert (await here.end("late")).state is State.EXPIRED
        assert not bus.written


async def test_a_write_that_does_not_come_about_in_time_is_given_up(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        bus, begun = here.buses["a"], asyncio.Event()

        async def never() -> None:
            begun.set()
            await asyncio.sleep(30)  # such as a radio that looks for its device

        bus.before = never
        await here.send("late", 7, valid_for=1.0)
        late = await here.end("late")
        assert (late.state, late.reason, late.value) == (State.FAILED, "timeout", 1)
        assert begun.is_set()


async def test_a_write_without_an_answer_is_not_repeated(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        bus = here.buses["a"]

        def lose() -> None:
            bus.devices["a"].value = 9  # it was carried out
            raise TransientError("no answer")

        bus.fail = lose
        await here.send("took", 9)
        assert (await here.end("took")).state is State.VERIFIED
        await here.send("lost", 8)
        lost = await here.end("lost")
        assert (lost.state, lost.reason, lost.value) == (State.FAILED, "timeout", 9)
        assert [value for _, value in bus.written] == [9, 8]


async def test_a_fault_in_one_adapter_ends_one_command_and_nothing_else(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        nothing: dict[str, None] = {}
        here.buses["a"].fail = lambda: nothing["there"]
        await here.send("bad", 7)
        await here.send("good", 7, device="b")
        fault = await here.end("bad")
        assert (fault.state, fault.reason) == (State.FAILED, "error")
        assert "KeyError" in fault.detail
        assert (await here.end("good")).state is State.VERIFIED
        here.buses["a"].fail = lambda: None
        await here.send("again", 8)
        assert (await here.end("again")).state is State.VERIFIED


async def test_a_silent_device_gets_the_newest_only_and_holds_up_nobody(tmp_path: Path) -> None:
    async with stand(tmp_path, silent="a") as here:
        for i in range(200):
            await here.send(str(i), i)
        await here.send("brief", 1, valid_for=0.01)
        await here.send("b", 5, device="b")
        assert (await here.end("b")).state is State.VERIFIED
        assert (await here.end("198")).reason == "superseded"
        assert (await here.end("brief")).state is State.EXPIRED
        assert not here.buses["a"].written
        await here.send("last", 200)
        here.buses["a"].devices["a"].silent = False
        assert (await here.end("last")).state is State.VERIFIED
        assert (await here.end("199")).reason == "superseded"
        assert [value for _, value in here.buses["a"].written] == [200]


async def test_a_connection_whose_leave_is_taken_writes_nothing_more(tmp_path: Path) -> None:
    async with stand(tmp_path, silent="a") as here:
        await here.send("short", 6, valid_for=1.0, entrance="gone")
        await here.send("older", 7, entrance="other")
        await here.send("newer", 8, entrance="gone")
        here.barred.add("gone")
        assert (await here.end("short")).state is State.EXPIRED
        here.buses["a"].devices["a"].silent = False
        assert (await here.end("older")).state is State.VERIFIED, "what may not go takes nobody's place"
        await here.send("local", 9, entrance=LOCAL)
        assert (await here.end("local")).state is State.VERIFIED
        assert [value for _, value in here.buses["a"].written] == [7, 9]
        assert here.downlink.state().waiting == 0, "a newer one has taken its place"


async def test_a_leave_that_comes_back_lets_what_waited_go(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.barred.add("cloud")
        await here.send("1", 7)
        await here.send("2", 8, entrance="other")
        assert (await here.end("2")).state is State.VERIFIED
        here.barred.clear()
        await here.send("3", 9)
        assert (await here.end("3")).state is State.VERIFIED
        assert [value for _, value in here.buses["a"].written] == [8, 9]


async def test_polls_keep_their_turns_beside_a_flood(tmp_path: Path) -> None:
    async with stand(tmp_path, every=0.001) as here:
        before = len(here.buses["a"].devices["a"].polls)
        await asyncio.gather(*(here.send(str(i), i) for i in range(300)))
        await here.end("299")
        # each command is a write and a read; polls that are due stand between them
        polls = len(here.buses["a"].devices["a"].polls) - before - 300
        assert polls >= 300
        assert [value for _, value in here.buses["a"].written] == list(range(300))


async def test_an_untrusted_clock_rejects_what_relies_on_it(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.trusted = False
        assert (await here.send("1", expires=2**60)).reason == "clock"
        assert (await here.send("2")).state is State.ACCEPTED


async def test_what_waits_survives_another_boot_only_by_a_clock_that_is_set(tmp_path: Path) -> None:
    async with stand(tmp_path, silent="a") as here:
        await here.send("kept", 3)
        await here.send("other", 4, device="b")
        await here.end("other")
    assert here.buses["b"].written == [("b", 4)]
    with sqlite3.connect(tmp_path / "commands.db") as db:
        db.execute("UPDATE command SET boot = 'another', state = 'accepted'")
    async with stand(tmp_path, trusted=False) as here:
        await here.send("new", 6)
        assert (await here.end("new")).state is State.VERIFIED
        assert (await here.end("kept")).reason == "superseded"  # never after what is newer
        await asyncio.sleep(0.6)
        assert not here.buses["b"].written  # nobody knows how old it is
        here.trusted = True
        assert (await here.end("other")).state is State.VERIFIED


async def test_results_are_told_until_somebody_took_them(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        await here.send("1", 7)
        await here.end("1")
    async with stand(tmp_path) as here:
        entrance = here.downlink.entrance("cloud")
        async with asyncio.timeout(5):
            async for result in entrance.results():
                assert (result.id, result.state) == ("1", State.VERIFIED)
                break
            async for result in entrance.results():  # it was not told
                entrance.told(result)
                break
        await here.downlink.stop(1)
    async with stand(tmp_path) as here:
        await here.send("2", 8)
        async with asyncio.timeout(5):
            async for result in here.downlink.entrance("cloud").results():
                assert result.id == "2"
                break


async def test_a_repeated_id_is_told_again_but_not_carried_out(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        await here.send("1", 7)
        await here.end("1")
        assert (await here.send("1", 7)).state is State.VERIFIED
        assert (await here.send("1", 8)).reason == "id"
        assert len(here.buses["a"].written) == 1


async def test_a_sender_cannot_write_lines_of_its_own_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with stand(tmp_path) as here:
        assert (await here.send("1\n12:00:00 ERROR all is lost")).reason == "id"
        assert (await here.send("2", requester="mara\r\n\x1b[31m")).reason == "malformed"  # type: ignore[arg-type]  # a text
        assert (await here.send("3", requester="Jürgen 🔧")).state is State.ACCEPTED  # type: ignore[arg-type]  # likewise
        await here.end("3")
        assert (await here.send("4", device="a\n12:00:00 ERROR")).reason == "unknown"
    assert not [text for text in caplog.messages if not text.isprintable()]


async def test_a_line_for_people_stays_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with stand(tmp_path) as here:
        with caplog.at_level("INFO", logger="edged.commands"):
            await here.send("long", "x" * 4000)
            await here.end("long")
        said = [record.getMessage() for record in caplog.records if "long" in record.getMessage()]
        assert said
        assert all(len(line) < 500 for line in said)
        (row,) = await here.downlink.store.newest(1)
    assert row.command.value == "x" * 4000, "the audit log has it whole"


async def test_the_log_keeps_the_newest_and_what_may_come_again(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        await here.send("first", 1, valid_for=0.001)
        await asyncio.gather(*(here.send(f"short {i}", valid_for=0.001) for i in range(1500)))
        await here.send("long", 2, valid_for=1000)
        await here.end("long")
        await asyncio.gather(*(here.send(f"more {i}", valid_for=0.001) for i in range(1500)))
        await here.end("more 1499")
        await asyncio.gather(*(here.send(f"last {i}", valid_for=0.001) for i in range(200)))
        rows = await here.downlink.store.newest(10_000)
        assert KEPT < len(rows) <= KEPT + 201
        assert "long" in {row.command.id for row in rows}
        assert "first" not in {row.command.id for row in rows}
    assert len(read_offline(tmp_path / "commands.db", 5)) == 5


async def test_a_full_queue_rejects(tmp_path: Path) -> None:
    async with stand(tmp_path, silent="a", most=10) as here:
        found = [await here.send(str(i), i) for i in range(12)]
        assert found[-1].reason == "full"


async def test_a_disk_that_fails_rejects_and_writes_nothing(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        await here.downlink.store.do(lambda db: db.execute("DROP TABLE command").rowcount)
        assert (await here.send("1", 7)).reason == "storage"
        assert not here.buses["a"].written


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "commands.db").write_bytes(b"this is no database, but long enough to be looked at" * 100)
    async with stand(tmp_path) as here:
        await here.send("1", 7)
        assert (await here.end("1")).state is State.VERIFIED
    assert (tmp_path / "commands.db.damaged").exists()


async def test_a_command_can_be_taken_back(tmp_path: Path) -> None:
    async with stand(tmp_path, silent="a") as here:
        await here.send("1", 7)
        assert await here.downlink.cancel(["1", "2"]) == 1
        assert (await here.end("1")).reason == "cancelled"
