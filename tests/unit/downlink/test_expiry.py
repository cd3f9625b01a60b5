"""Until when a command may be carried out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.downlink.api import Command
from edged.downlink.expiry import LONGEST, Due, Now, deadline_of
from edged.errors import PermanentError

SECOND = 1_000_000
WALL = 1_800_000_000 * SECOND


def command(**given: object) -> Command:
    return Command(id="1", device="d", point="p", value=1, **given)  # type: ignore[arg-type]  # as Command has them


def now(seconds: float = 0, *, trusted: bool = True, boot: str = "a", boottime: int = 0, wall: int = WALL) -> Now:
    return Now(wall + round(seconds * SECOND), trusted, boottime + round(seconds * SECOND), boot)


def test_a_command_must_say_until_when() -> None:
    with pytest.raises(PermanentError, match="message expiry") as caught:
        deadline_of(command(), now())
    assert caught.value.reason == "expiry"


def test_the_senders_clock_counts_only_where_ours_is_set() -> None:
    with pytest.raises(PermanentError) as caught:
        deadline_of(command(expires=WALL + SECOND, valid_for=1), now(trusted=False))
    assert caught.value.reason == "clock"
    assert deadline_of(command(valid_for=1), now(trusted=False)).due(now(trusted=False)) is Due.YES


def test_nothing_may_wait_longer_than_its_id_is_remembered() -> None:
    with pytest.raises(PermanentError, match="31 days"):
        deadline_of(command(valid_for=LONGEST + 1), now())
    assert deadline_of(command(valid_for=LONGEST + 1, expires=WALL + SECOND), now()).due(now()) is Due.YES


@pytest.mark.parametrize("span", [math.nan, math.inf, -math.inf, 1e308, -1e308])
def test_a_span_that_is_no_time_is_refused(span: float) -> None:
    with pytest.raises(PermanentError) as caught:
        deadline_of(command(valid_for=span), now())
    assert caught.value.reason == "expiry"


@given(st.floats(0.001, 86_400), st.floats(0, 200_000), st.booleans())
def test_within_a_boot_the_span_counts_whatever_the_wall_clock_does(span: float, later: float, trusted: bool) -> None:
    deadline = deadline_of(command(valid_for=span), now())
    moment = now(later, trusted=trusted, wall=WALL - 10**15)
    late = moment.boottime >= round(span * 1e6)
    assert deadline.due(moment) is (Due.TOO_LATE if late else Due.YES)


@given(st.integers(1, 10**12), st.integers(-(10**12), 10**12))
def test_a_moment_is_kept_by_both_clocks(left: int, step: int) -> None:
    deadline = deadline_of(command(expires=WALL + left), now())
    stepped = Now(WALL + step, trusted=True, boottime=1, boot="a")
    assert deadline.due(stepped) is (Due.TOO_LATE if step >= left or left <= 1 else Due.YES)
    assert deadline.due(Now(WALL - 10**15, trusted=True, boottime=left, boot="a")) is Due.TOO_LATE


def test_after_another_boot_only_a_trusted_clock_can_tell() -> None:
    deadline = deadline_of(command(valid_for=60), now())
    assert deadline.due(now(5, boot="b", trusted=False)) is Due.UNKNOWN
    assert deadline.due(now(5, boot="b")) is Due.YES
    assert deadline.due(now(60, boot="b")) is Due.TOO_LATE


def test_a_command_whose_age_nobody_can_know_is_too_late() -> None:
    deadline = deadline_of(command(valid_for=60), now(trusted=False))
    assert deadline.due(now(1, boot="b")) is Due.TOO_LATE


@given(
    st.none() | st.integers(-5, 100), st.none() | st.floats(0.001, 100), st.integers(-200, 200), st.integers(-200, 200),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_what_is_left_agrees_with_whether_it_is_due(
    expires: int | None, span: float | None, wall: int, later: int, first: bool, then: bool, rebooted: bool
) -> None:  # fmt: skip
    if expires is None and span is None:
        return
    given = command(expires=None if expires is None else WALL + expires * SECOND, valid_for=span)
    deadline = deadline_of(given, now(trusted=first or expires is not None))
    moment = Now(WALL + wall * SECOND, then, max(0, later) * SECOND, "b" if rebooted else "a")
    due = deadline.due(moment)
    if due is not Due.UNKNOWN:
        assert (deadline.left(moment) > 0) == (due is Due.YES)
    if not rebooted and span is not None:
        assert deadline.left(moment) <= span - max(0, later) + 1e-6
