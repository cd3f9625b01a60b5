"""The clock: when it is trusted, what becomes of times before that, and steps."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.model import ClockConfig
from edged.model import GOOD, Quality, Sample, bad
from edged.timesync import Evidence
from edged.wallclock import LONGEST_REPEAT, UNCERTAIN, Clock, Era, Machine, corrected, flagged

S = 1_000_000
HOUR = 3600 * S
NOW = 1_795_000_000 * S
"""In November 2026."""


class Board:
    """A machine whose clocks obey the test."""

    def __init__(self, root: Path, *, wall: int = 0, boot: str = "b1", slept: int = 0) -> None:
        self.mono = 10 * S
        self.offset = wall - self.mono
        self.boot = boot
        self.slept = slept
        self.synchronised = False
        self.machine = Machine(
            wall=lambda: self.mono + self.offset,
            mono=lambda: self.mono,
            boottime=lambda: self.mono + self.slept,
            boot=lambda: self.boot,
            evidence=Evidence(root, lambda: self.synchronised, "armv7l"),
        )

    def sample(self, *values: float) -> Sample:
        self.mono += S
        values = values or (1.0, 2.0)
        return Sample("d", self.mono + self.offset, self.mono, tuple(f"p{i}" for i in range(len(values))), values)

    def set_to(self, wall: int) -> None:
        self.offset = wall - self.mono


def qualities(sample: Sample) -> list[str]:
    return [str(sample.quality.get(i, GOOD)) for i in range(len(sample.values))]


def sent(clock: Clock, *samples: Sample, boot: str = "b1") -> list[tuple[int, set[str]]]:
    """Time and qualities on the wire."""
    return [(sample.time, set(qualities(sample))) for sample in clock.settled(samples, boot)]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


async def started(board: Board, file: Path | None = None, **config: str) -> Clock:
    clock = Clock(ClockConfig(**config), file, board.machine)  # type: ignore[arg-type]  # checked by the class
    await clock.start()
    return clock


# evidence


def machine(root: Path, **given: object) -> Evidence:
    return replace(Evidence(root, lambda: False, "aarch64"), **given)  # type: ignore[arg-type]  # names of its fields


def test_a_date_before_edged_was_made_is_never_trusted(tmp_path: Path) -> None:
    assert machine(tmp_path, kernel=lambda: True).source(1_000_000 * S, 5 * S) == ""


def test_a_clock_nobody_vouches_for_is_not_trusted(tmp_path: Path) -> None:
    assert machine(tmp_path).source(NOW, 5 * S) == ""


def test_the_kernel_is_asked_first(tmp_path: Path) -> None:
    assert machine(tmp_path, kernel=lambda: True).source(NOW, 5 * S) == "kernel"


def test_timesyncd_tells_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    assert machine(tmp_path).source(NOW, 5 * S) == "timesyncd"


@pytest.mark.parametrize(("age", "source"), [(60, "ntp"), (7200, ""), (-60, "")])
def test_a_drift_file_counts_when_written_in_this_boot(tmp_path: Path, age: int, source: str) -> None:
    file = tmp_path / "var/lib/chrony/chrony.drift"
    file.parent.mkdir(parents=True)
    file.touch()
    os.utime(file, ns=((NOW - age * S) * 1000, (NOW - age * S) * 1000))
    assert machine(tmp_path).source(NOW, 3600 * S) == source


@pytest.mark.parametrize(
    ("shown", "source"), [(NOW // S + 3, "rtc"), (NOW // S - 4000, ""), (946_684_800, ""), ("", "")]
)
def test_a_clock_chip_counts_when_it_agrees(tmp_path: Path, shown: object, source: str) -> None:
    (tmp_path / "sys/class/rtc/rtc0").mkdir(parents=True)
    (tmp_path / "sys/class/rtc/rtc0/since_epoch").write_text(f"{shown}\n")
    assert machine(tmp_path).source(NOW, 5 * S) == source


def test_a_pc_starts_with_the_time(tmp_path: Path) -> None:
    assert machine(tmp_path, machine="x86_64").source(NOW, 5 * S) == "pc"


# before the clock is set


async def test_what_a_wrong_clock_stamped_is_flagged_before_and_right_after(board: Board) -> None:
    clock = await started(board)
    assert not clock.trusted
    first, second = clock.stamp(board.sample()), clock.stamp(board.sample())
    assert sent(clock, first) == [(S, {"uncertain(clock)"})]
    assert set(qualities(clock.shown(first))) == {"uncertain(clock)"}
    board.set_to(NOW)
    board.synchronised = True
    between = clock.stamp(board.sample())
    await clock.check()
    assert clock.trusted
    assert clock.state().source == "kernel"
    expected = [(NOW - S, {"good"}), (NOW, {"good"}), (NOW + S, {"good"})]
    assert sent(clock, first, second, between) == expected
    assert sent(clock, first, second, between) == expected  # again: the same
    after = [clock.stamp(board.sample())]
    assert clock.settled(after, "b1") is after


async def test_a_clock_that_showed_the_future_is_corrected_too(board: Board) -> None:
    board.set_to(NOW + 1000 * HOUR)
    clock = await started(board)
    sample = clock.stamp(board.sample())
    board.set_to(NOW)
    board.synchronised = True
    await clock.check()
    assert sent(clock, sample) == [(NOW, {"good"})]
    assert qualities(clock.stamp(board.sample())) == [
        "good",
        "good",
    ]  # what came before was flagged, so nothing repeats


async def test_bad_values_stay_bad(board: Board) -> None:
    clock = await started(board)
    sample = replace(board.sample(), values=(1.0, None), quality={0: Quality("uncertain", "x"), 1: bad("timeout")})
    (shown,) = clock.settled([sample], "b1")
    assert qualities(shown) == ["uncertain(clock)", "bad(timeout)"]


async def test_always_trusts_at_once(board: Board) -> None:
    clock = await started(board, trust="always")
    assert (clock.trusted, clock.state().source) == (True, "config")


async def test_hold_waits_for_the_clock_but_not_for_earlier_boots(board: Board) -> None:
    clock = await started(board, untrusted="hold")
    async with asyncio.timeout(5):
        await clock.ready("an earlier boot")
    waiting = asyncio.create_task(clock.ready("b1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    board.set_to(NOW)
    board.synchronised = True
    await clock.check()
    async with asyncio.timeout(5):
        await waiting


async def test_mark_does_not_wait(board: Board) -> None:
    clock = await started(board)
    async with asyncio.timeout(5):
        await clock.ready("b1")


async def test_times_before_a_suspension_stay_uncertain(board: Board) -> None:
    """The monotonic clock stood still meanwhile, so how long ago they were read is not known."""
    clock = await started(board)
    before = clock.stamp(board.sample())
    board.slept += HOUR
    board.offset += HOUR
    after = clock.stamp(board.sample())
    assert clock.state().steps == 0
    board.set_to(NOW)
    board.synchronised = True
    await clock.check()
    assert sent(clock, before, after) == [(before.time, {"uncertain(clock)"}), (NOW, {"good"})]


async def test_it_is_said_once(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = await started(board)
    for _ in range(5):
        board.mono += S
        await clock.check()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# other boots


async def test_an_earlier_boot_that_was_set_is_corrected_and_another_is_not(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "state" / "clock.json"
    clock = await started(board, file)
    sample = clock.stamp(board.sample())
    board.set_to(NOW)
    board.synchronised = True
    await clock.check()
    await clock.stop()
    board.boot, board.synchronised = "b2", False
    board.set_to(0)
    later = await started(board, file)
    assert not later.trusted
    assert sent(later, sample) == [(NOW, {"good"})]
    assert sent(later, sample, boot="b0") == [(sample.time, {"uncertain(clock)"})]


async def test_a_restart_in_the_same_boot_keeps_the_trust(board: Board, tmp_path: Path) -> None:
    board.set_to(NOW)
    board.synchronised = True
    clock = await started(board, tmp_path / "clock.json")
    samples = [clock.stamp(board.sample())]
    board.synchronised = False  # the network is gone
    again = await started(board, tmp_path / "clock.json")
    assert again.trusted
    assert again.settled(samples, "b1") is samples


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"boots": {"b1": [1]}}', b'{"boots": 1}', b'{"latest": "x"}'])
async def test_a_damaged_file_only_leaves_times_uncertain(board: Board, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock.json").write_bytes(content)
    clock = await started(board, tmp_path / "clock.json")
    assert not clock.trusted


async def test_a_folder_that_cannot_be_written_is_said_once(
    board: Board, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    board.set_to(NOW)
    board.synchronised = True
    clock = await started(board, tmp_path / "file" / "clock.json")
    await clock.stop()
    assert clock.trusted
    assert sum("cannot be written" in record.message for record in caplog.records) == 1


# steps


async def set_clock(board: Board, file: Path | None = None) -> Clock:
    board.set_to(NOW)
    board.synchronised = True
    return await started(board, file)


async def test_a_clock_set_back_flags_what_it_shows_twice(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    clock = await set_clock(board)
    before = clock.stamp(board.sample())
    board.offset -= 3 * S
    stamped = [clock.stamp(board.sample()) for _ in range(5)]
    assert [set(qualities(sample)) for sample in stamped] == [{"uncertain(clock)"}] * 3 + [{"good"}] * 2
    good = [before, *stamped[3:]]
    assert [sample.time for sample in good] == sorted(sample.time for sample in good)
    assert sent(clock, before) == [(before.time, {"good"})]
    assert (clock.state().steps, clock.state().last_step) == (1, -3.0)
    assert sum("set by -3.000 s" in record.message for record in caplog.records) == 1


async def test_nonsense_flags_no_longer_than_a_day(board: Board) -> None:
    clock = await set_clock(board)
    board.offset += 100_000 * HOUR
    clock.stamp(board.sample())
    board.offset -= 100_000 * HOUR
    assert qualities(clock.stamp(board.sample()))[0] == "uncertain(clock)"
    board.mono += LONGEST_REPEAT
    assert qualities(clock.stamp(board.sample()))[0] == "good"


async def test_a_clock_set_forward_by_a_time_service_corrects_what_waits(board: Board) -> None:
    clock = await set_clock(board)
    waiting = clock.stamp(board.sample())
    board.offset += HOUR
    at_once = clock.stamp(board.sample())
    await clock.check()
    assert sent(clock, waiting, at_once) == [(waiting.time + HOUR, {"good"}), (at_once.time, {"good"})]


async def test_a_clock_set_forward_by_nobody_knows_whom_corrects_nothing_until_confirmed(board: Board) -> None:
    clock = await set_clock(board)
    waiting = clock.stamp(board.sample())
    board.synchronised = False
    board.offset += HOUR
    await clock.check()
    assert sent(clock, waiting) == [(waiting.time, {"good"})]
    board.synchronised = True
    await clock.check()
    assert sent(clock, waiting) == [(waiting.time + HOUR, {"good"})]


async def test_jitter_is_no_step(board: Board) -> None:
    clock = await set_clock(board)
    sample = board.sample()
    late = replace(sample, mono=sample.mono + 200_000)  # interrupted between the two clocks
    assert clock.stamp(late) is late
    assert clock.state().steps == 0


async def test_a_clock_set_back_while_edged_was_not_running_flags_too(board: Board, tmp_path: Path) -> None:
    clock = await set_clock(board, tmp_path / "clock.json")
    before = clock.stamp(board.sample())
    await clock.stop()
    board.boot = "b2"
    board.offset -= 10 * S
    again = await started(board, tmp_path / "clock.json")
    stamped = [again.stamp(board.sample()) for _ in range(12)]
    good = [sample.time for sample in stamped if not sample.quality]
    assert good
    assert min(good) >= before.time
    assert stamped[0].quality


steps = st.lists(
    st.tuples(st.sampled_from(["poll", "poll", "poll", "step", "sync", "send"]), st.integers(-2 * HOUR, 2 * HOUR)),
    max_size=40,
)


@given(steps, st.booleans())
def test_good_times_on_the_wire_never_go_backwards(actions: list[tuple[str, int]], begins_right: bool) -> None:
    async def scenario() -> None:
        board = Board(Path("/nonexistent"))
        if begins_right:
            board.set_to(NOW)
            board.synchronised = True
        clock = await started(board)
        waiting: list[Sample] = []
        wire: list[Sample] = []
        for action, number in [*actions, ("send", 0)]:
            if action == "poll":
                waiting.append(clock.stamp(board.sample()))
            elif action == "step":
                board.offset += number
            elif action == "sync":
                board.synchronised = True
                if board.offset < NOW - HOUR * 1000:
                    board.set_to(NOW)
            else:
                await clock.check()
                wire += clock.settled(waiting, "b1")
                waiting = []
        good = [sample.time for sample in wire if not sample.quality]
        assert good == sorted(good)

    asyncio.run(scenario())


@given(st.integers(0, 10**12), st.integers(-(10**15), 10**15), st.integers(0, 10**12), st.integers(0, 10**12))
def test_correcting_twice_is_correcting_once(mono: int, own: int, trusted: int, more: int) -> None:
    era = Era(trusted, 0, trusted + more, NOW, NOW)
    once = corrected(Sample("d", mono + own, mono, ("p",), (1,)), era)
    assert corrected(once, era) == once
    assert set(flagged(once).quality.values()) == {UNCERTAIN}
