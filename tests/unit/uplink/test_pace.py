"""The backlog's pace against simulated links: a rate, a delay, and a queue that hides what is too much."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.uplink.pace import SPAN, TOLERATED, Pace


def drain(pace: Pace, seconds: float, *, each: float, delay: float, begin: float = 0.0) -> tuple[int, float]:
    """Keep the link as full as the pace allows; `each` message takes so long on it, and `delay` on the way.

    Returns how many messages came through, and the time within which 95 % of them did.
    """
    now, free = begin, begin
    times: list[float] = []
    under_way: list[tuple[float, float]] = []
    while now < begin + seconds:
        while len(under_way) < pace.slots:
            free = max(free, now) + each
            heapq.heappush(under_way, (free + delay, now))
        now, sent_at = heapq.heappop(under_way)
        pace.heard(now, now - sent_at)
        times.append(now - sent_at)
    return len(times), sorted(times)[len(times) * 95 // 100]


@given(st.floats(0.02, 3), st.floats(0.0, 1.0), st.integers(1, 500))
def test_messages_take_little_more_than_twice_as_long_as_on_an_idle_link(each: float, delay: float, most: int) -> None:
    _, p95 = drain(Pace(most), 300, each=each, delay=delay)
    assert p95 <= max(2.3 * (each + delay), each + delay + 2 * TOLERATED)


@pytest.mark.parametrize("each", [0.02, 0.1, 1.0])
def test_the_link_is_kept_busy(each: float) -> None:
    sent, _ = drain(Pace(100), 600, each=each, delay=0.05)
    assert sent > 0.8 * 600 / each


def test_on_a_fast_link_all_may_be_under_way_at_once() -> None:
    pace = Pace(32)
    drain(pace, 2, each=0.001, delay=0.02)
    assert pace.slots == 32


def test_a_link_that_became_slower_for_good_is_measured_anew() -> None:
    pace = Pace(32)
    drain(pace, 10, each=0.001, delay=0.02)
    drain(pace, SPAN, each=0.001, delay=0.8, begin=10)
    sent, _ = drain(pace, SPAN, each=0.001, delay=0.8, begin=10 + SPAN)
    assert sent > 20 * SPAN / 0.8


def test_there_is_always_one() -> None:
    pace = Pace(1)
    for second in range(100):
        pace.heard(second, second + 1.0)
        assert pace.slots == 1
