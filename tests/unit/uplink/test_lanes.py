from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import PRIORITY, Batch
from edged.buffer.cursor import Intervals
from edged.model import Sample
from edged.uplink.api import Chunk, Lane
from edged.uplink.lanes import Chain, Route, halves, plan, plan_beside, plan_strict


def chunk(first: int, last: int) -> Chunk:
    return Chunk(first, [Sample(f"d{seq}", seq, 0, ("u",), [seq]) for seq in range(first, last + 1)], last - first + 1)


def test_each_message_follows_the_one_before_it() -> None:
    chain = Chain()
    befores = []
    for seq in (10, 20, 30):
        befores.append(chain.before(seq - 9))
        chain.add(seq)
    assert befores == [0, 10, 20]


def test_the_last_message_of_an_earlier_run_precedes_the_first_of_this_one() -> None:
    assert Chain(40).before(41) == 40
    assert Chain(40).before(31) == 0  # sent again although a later one was confirmed: what preceded it is not known


def test_a_message_sent_again_follows_the_same_one_as_before() -> None:
    chain = Chain()
    for seq in (10, 20, 30):
        chain.add(seq)
    chain.drop(20)
    chain.drop(25)
    assert chain.before(11) == 10
    chain.add(20)
    assert (chain.before(21), chain.before(31), chain.last) == (20, 30, 30)


def test_the_chain_stays_small() -> None:
    chain = Chain()
    for seq in range(1, 50_000):
        chain.add(seq)
    assert chain.before(50_000) == 49_999
    assert len(chain._seqs) < 10_000


def test_halves_hold_the_same_samples() -> None:
    whole = chunk(5, 9)
    left, right = halves(whole)
    assert [*left.samples, *right.samples] == list(whole.samples)
    assert (left.first, left.last, right.first, right.last) == (5, 6, 7, 9)
    assert left.readings + right.readings == whole.readings


def test_after_a_short_blip_everything_goes_on_live() -> None:
    (route,) = plan(Intervals(7), 20, [7])
    assert (route.lane, route.after, route.through) == (Lane.LIVE, 7, None)


def test_after_an_outage_the_live_lane_begins_at_the_head_and_the_rest_is_historical() -> None:
    live, old = plan(Intervals(7), 20, [])
    assert (live.lane, live.after) == (Lane.LIVE, 20)
    assert (old.lane, old.after, old.through) == (Lane.HISTORICAL, 7, 20)


def test_a_blip_while_the_backlog_drains_does_not_make_fresh_readings_historical() -> None:
    live, old = plan(Intervals(7, [(15, 18)]), 20, [18])
    assert (live.after, old.after, old.through) == (18, 7, 18)


def test_the_live_lane_begins_with_the_first_that_is_fresh() -> None:
    (live,) = plan(Intervals(7, [(15, 18)]), 20, [18, 7])
    assert (live.lane, live.after, live.through) == (Lane.LIVE, 7, None)


def test_a_connection_that_is_up_to_date_has_only_a_live_lane() -> None:
    (route,) = plan(Intervals(20), 20, [])
    assert (route.lane, route.after) == (Lane.LIVE, 20)


@given(st.sets(st.integers(1, 30)), st.integers(1, 30), st.booleans(), st.lists(st.integers(1, 6), min_size=1))
def test_the_lanes_together_send_exactly_what_is_not_settled_and_nothing_twice(
    settled: set[int], head: int, fresh: bool, sizes: list[int]
) -> None:
    settled = {seq for seq in settled if seq <= head}
    intervals = Intervals(0, [(seq, seq) for seq in sorted(settled)])
    low, islands = intervals.low, intervals.islands
    ends = [low, islands[-1][1] if islands else low]
    routes = plan(intervals, head, ends if fresh else [])
    sent: list[int] = []
    for route in routes:
        first = 1
        while first <= head:
            last = min(first + sizes[first % len(sizes)] - 1, head)
            parts = route.unsettled(chunk(first, last), intervals.missing)
            sent += [seq for part in parts for seq in range(part.first, part.last + 1)]
            first = last + 1
    assert sorted(sent) == [seq for seq in range(1, head + 1) if seq not in settled]


@given(st.sets(st.integers(1, 30)), st.integers(1, 30), st.lists(st.integers(1, 6), min_size=1))
def test_in_strict_order_one_lane_sends_all_that_is_not_settled_oldest_first(
    settled: set[int], head: int, sizes: list[int]
) -> None:
    intervals = Intervals(0, [(seq, seq) for seq in sorted(settled)])
    (route,) = plan_strict(intervals.low)
    sent: list[int] = []
    first = route.after + 1
    while first <= head:
        last = min(first + sizes[first % len(sizes)] - 1, head)
        target = ("", PRIORITY, "cloud")[first % 3]
        assert route.takes(Batch(first, (), "", 0, target))
        for one in route.unsettled(chunk(first, last), intervals.missing):
            sent += range(one.first, one.last + 1)
        first = last + 1
    assert route.lane is Lane.LIVE
    assert sent == [seq for seq in range(1, head + 1) if seq not in settled]


def test_each_batch_is_for_one_lane() -> None:
    routes = [*plan(Intervals(7), 20, []), *plan_beside("cloud", 7, 12)]
    taken = {
        target: [route.lane for route in routes if route.takes(Batch(8, (), "", 0, target))]
        for target in ("", PRIORITY, "cloud", "other")
    }
    assert taken == {"": [Lane.LIVE, Lane.HISTORICAL], PRIORITY: [Lane.PRIORITY], "cloud": [Lane.REPLAY], "other": []}
    assert [(route.lane, route.after) for route in routes[2:]] == [(Lane.PRIORITY, 12), (Lane.REPLAY, 7)]


def test_a_lane_has_passed_what_it_walked_over_since_it_began() -> None:
    route = Route(Lane.LIVE, 10)
    route.reached = 20
    assert [route.has_passed(chunk(*span)) for span in ((9, 9), (10, 11), (11, 12), (19, 20), (20, 21))] == [
        False, False, True, True, False,
    ]  # fmt: skip
    beside = Route(Lane.PRIORITY, 10, target=PRIORITY)
    beside.reached = 20
    assert not beside.has_passed(chunk(11, 12))


def test_the_parts_of_a_chunk_with_priority_follow_each_other_without_a_gap() -> None:
    whole = replace(chunk(11, 14), priority=True, since=5)
    left, right = halves(whole)
    assert [(one.since, one.first, one.last) for one in (left, right)] == [(5, 11, 12), (13, 13, 14)]


def test_a_chunk_that_was_cut_otherwise_before_is_trimmed() -> None:
    settled = Intervals(4, [(7, 8)])
    parts = list(Route(Lane.LIVE, 4).unsettled(chunk(3, 10), settled.missing))
    assert [(part.first, part.last, part.readings) for part in parts] == [(5, 6, 2), (9, 10, 2)]
    assert [one.time for one in parts[1].samples] == [9, 10]
