from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.cursor import Intervals, common

LIMIT = 60
spans = st.tuples(st.integers(1, LIMIT), st.integers(1, LIMIT)).map(lambda pair: (min(pair), max(pair)))


def members(intervals: Intervals) -> set[int]:
    found = set(range(1, intervals.low + 1))
    for first, last in intervals.islands:
        found |= set(range(first, last + 1))
    return found


def numbers(parts: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in parts for n in range(first, last + 1)}


@given(st.integers(0, 20), st.lists(spans))
def test_intervals_are_a_set(low: int, additions: list[tuple[int, int]]) -> None:
    intervals, model = Intervals(low), set(range(1, low + 1))
    for first, last in additions:
        span = set(range(first, last + 1))
        assert numbers(intervals.missing(first, last)) == span - model
        islands, grows = len(intervals), intervals.would_grow(first, last)
        new = intervals.add(first, last)
        assert numbers(new) == span - model
        assert sum(b - a + 1 for a, b in new) == len(span - model)
        model |= span
        assert members(intervals) == model
        assert grows == (len(intervals) > islands)
        assert intervals.low + 1 not in model
        assert intervals.settled_beyond() == len({n for n in model if n > intervals.low})
        edges = [intervals.low, *(edge for island in intervals.islands for edge in island)]
        assert all(a + 1 < b for a, b in zip(edges[::2], edges[1::2], strict=False))  # ascending, nothing adjacent


@given(st.integers(0, 20), st.lists(spans))
def test_order_and_repetition_make_no_difference(low: int, additions: list[tuple[int, int]]) -> None:
    forward, backward = Intervals(low), Intervals(low)
    for span in additions:
        forward.add(*span)
    for span in [*reversed(additions), *additions]:
        backward.add(*span)
    assert (forward.low, forward.islands) == (backward.low, backward.islands)
    rebuilt = Intervals(forward.low, forward.islands)
    assert (rebuilt.low, rebuilt.islands) == (forward.low, forward.islands)


@given(st.lists(st.tuples(st.integers(0, 20), st.lists(spans)), min_size=1, max_size=4))
def test_common_is_the_intersection(contents: list[tuple[int, list[tuple[int, int]]]]) -> None:
    sets = [Intervals(low, islands) for low, islands in contents]
    low, beyond = common(sets)
    expected = set.intersection(*map(members, sets))
    assert set(range(1, low + 1)) | numbers(beyond) == expected


def test_nothing_is_common_to_no_connection() -> None:
    assert common([]) == (0, [])


@pytest.mark.parametrize("span", [(0, 3), (5, 4), (-1, -1)])
def test_what_is_no_range_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Intervals().add(*span)
