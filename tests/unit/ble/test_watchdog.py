from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edged_ble.watchdog import RAREST, Step, Watchdog


def silence(dog: Watchdog, since: float, until: float) -> list[tuple[float, Step]]:
    """The steps of a silence, each at its moment."""
    steps, now = [], since
    while (now := max(dog.due(), now)) <= until:
        step = dog.step(now)
        assert step is not None
        steps.append((now - since, step))
    return steps


def test_a_silence_is_met_with_a_ladder_and_then_ever_more_rarely() -> None:
    dog = Watchdog(0.0, at_least=30)
    for second in range(300):
        dog.heard(float(second))
    steps = silence(dog, 299.0, 299.0 + 86400)
    assert steps[:3] == [(30, Step.RESTART), (60, Step.POWER), (90, Step.REPORT)]
    assert [step for _, step in steps].count(Step.REPORT) == 1, "a person is told once"
    gaps = [b[0] - a[0] for a, b in pairwise(steps[2:])]
    assert gaps == sorted(gaps)
    assert gaps[-1] == RAREST
    assert len(steps) < 40


def test_a_quiet_place_teaches_it_patience() -> None:
    dog = Watchdog(0.0, at_least=30)
    now = 0.0
    taken: list[tuple[float, Step]] = []
    for _ in range(100):
        taken += silence(dog, now, now + 59.9)
        now += 60
        dog.heard(now)
    assert dog.patience == 300
    assert len(taken) <= 3, "what it did before it had learnt"


def test_a_busy_place_makes_it_quick_again() -> None:
    dog = Watchdog(0.0, at_least=30)
    for minute in range(10):
        dog.heard(60.0 * minute)
    assert dog.patience == 300
    for second in range(3600):
        dog.heard(600.0 + second)
    assert dog.patience == 30


def test_what_a_step_cured_is_not_taken_for_a_usual_silence() -> None:
    dog = Watchdog(0.0, at_least=30)
    for second in range(100):
        dog.heard(float(second))
    assert dog.step(99.0 + 400) is Step.RESTART
    dog.heard(99.0 + 400.2)
    for second in range(100):
        dog.heard(500.0 + second)
    assert dog.patience == 30


def test_a_report_ends_when_something_is_heard() -> None:
    dog = Watchdog(0.0)
    silence(dog, 0.0, 1000.0)
    assert dog.reported
    dog.heard(1001.0)
    assert not dog.reported
    assert silence(dog, 1001.0, 1001.0 + 3600)[0][1] is Step.RESTART


def test_time_spent_on_a_connection_is_no_silence() -> None:
    dog = Watchdog(0.0, at_least=30)
    for second in range(10):
        dog.heard(float(second))
    dog.excuse(20.0, 29.0)
    assert dog.step(40.0) is None
    assert dog.due() == 59.0
    dog.excuse(1000.0, 50.0)
    assert dog.due() == 80.0, "no excuse reaches beyond now"


def test_a_radio_that_returns_starts_at_the_bottom() -> None:
    dog = Watchdog(0.0, at_least=30)
    dog.heard(1.0)
    silence(dog, 1.0, 500.0)
    dog.restarted(500.0)
    assert silence(dog, 500.0, 2000.0)[0][1] is Step.RESTART


@given(st.lists(st.floats(0.001, 2000), max_size=60), st.floats(1, 700))
def test_never_a_step_before_it_is_due_and_always_one_in_the_end(gaps: list[float], at_least: float) -> None:
    dog = Watchdog(0.0, at_least=at_least)
    now = 0.0
    for gap in gaps:
        now += gap
        if now < dog.due():
            assert dog.step(now) is None
        dog.heard(now)
        assert at_least <= dog.patience <= max(600, at_least)
    assert dog.due() <= now + 600 + at_least
    assert dog.step(dog.due()) is Step.RESTART
