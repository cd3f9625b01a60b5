"""The backlog's pace against simulated links: a rate, a delay, and a queue that hides what is too much."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.uplink.pace import SPAN, TOLERATED, Pace


def drain(pace: Pace, seconds: float, *, each: float, delay: float, begin: float = 0.0) -> tuple[int, float]:
    """Keep the link as full as the pace allows; `each` message takes so long on it, and `delay` on the way.

    Returns how many messages came through, and the longest time one took, the first tenth of the time aside.
    """
    now, free, sent, worst = begin, begin, 0, 0.0
    under_way: list[tuple[float, float]] = []
    while now < begin + seconds:
        while len(under_way) < pace.slots:
            free = max(free, now) + each
            heapq.heappush(under_way, (free + delay, now))
        now, sent_at = heapq.heappop(under_way)
        pace.heard(now, now - sent_at)
        sent += 1
        if now > begin + seconds / 10:
            worst = max(worst, now - sent_at)
    return sent, worst


@given(st.floats(0.02, 3), st.floats(0.0, 1.0), st.integers(1, 500))
def test_no_queue_grows_beyond_what_is_tolerated(each: float, delay: float, most: int) -> None:
    _, worst = drain(Pace(most), 300, each=each, delay=delay)
    alone = each + delay
    assert worst <= 2.01 * (alone + max(alone, TOLERATED))  # for moments; then the pace has learnt


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
