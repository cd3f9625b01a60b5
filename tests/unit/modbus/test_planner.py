"""The planner: every point once, nothing forbidden, and never a dearer plan than the best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_modbus.planner import (
    MAX_BITS,
    MAX_REGISTERS,
    Block,
    Costs,
    Limits,
    Span,
    Table,
    bisect,
    line_costs,
    network_costs,
    plan,
    unread,
)

HOLDING = Table.HOLDING
spans = st.builds(Span, st.sampled_from([HOLDING, Table.COIL]), st.integers(0, 40), st.integers(1, 5))
points = st.dictionaries(st.sampled_from("abcdefg"), spans, max_size=7)
# powers of two, so that sums are exact and the best plan is the best to the last bit
costs = st.builds(
    Costs,
    request=st.sampled_from([0.0, 0.25, 1.0, 4.0, 16.0]),
    register=st.sampled_from([0.0, 0.25, 1.0]),
    bit=st.sampled_from([0.0, 0.125]),
)
limits = st.builds(
    Limits,
    max_registers=st.integers(3, 30),
    max_coils=st.integers(3, 30),
    one_request_per_point=st.booleans(),
    avoid=st.lists(spans, max_size=2).map(tuple),
    dead=st.frozensets(st.tuples(st.just(HOLDING), st.integers(0, 45)), max_size=3),
)


def allowed(span: Span, limit: Limits) -> bool:
    cap = limit.max_coils if span.table.is_bits else limit.max_registers
    return (
        span.count <= cap
        and not any(span.overlaps(a) for a in limit.avoid)
        and not any(span.overlaps(Span(table, cell, 1)) for table, cell in limit.dead)
    )


def partitions(names: Sequence[str]) -> Iterator[list[list[str]]]:
    if not names:
        yield []
        return
    for rest in partitions(names[1:]):
        yield [[names[0]], *rest]
        for i in range(len(rest)):
            yield [*rest[:i], [names[0], *rest[i]], *rest[i + 1 :]]


def hull(group: Sequence[Span]) -> Span:
    start = min(span.start for span in group)
    return Span(group[0].table, start, max(span.end for span in group) - start)


def brute_force(wanted: Mapping[str, Span], cost: Costs, limit: Limits) -> float:
    total = 0.0
    for table in Table:
        names = [name for name, span in wanted.items() if span.table == table and allowed(span, limit)]
        candidates = [
            [hull([wanted[name] for name in group]) for group in partition] for partition in partitions(names)
        ]
        total += min(sum(map(cost.of, blocks)) for blocks in candidates if all(allowed(b, limit) for b in blocks))
    return total


@given(points, costs, limits)
def test_every_readable_point_is_read_once_and_nothing_forbidden_is_touched(
    wanted: dict[str, Span], cost: Costs, limit: Limits
) -> None:
    planned = plan(wanted, cost, limit)
    read = [name for block in planned.blocks for name in block.points]
    assert sorted(read) == sorted(name for name, span in wanted.items() if allowed(span, limit))
    assert set(planned.unreadable) == set(wanted) - set(read)
    for block in planned.blocks:
        assert allowed(block.span, limit)
        for name in block.points:
            assert wanted[name].table == block.table
            assert block.start <= wanted[name].start
            assert wanted[name].end <= block.span.end
        keys = [(wanted[name].start, -wanted[name].count) for name in block.points]
        assert keys == sorted(keys)


@given(points, costs, limits)
def test_no_set_of_blocks_is_cheaper(wanted: dict[str, Span], cost: Costs, limit: Limits) -> None:
    if limit.one_request_per_point:
        limit = Limits(limit.max_registers, limit.max_coils, avoid=limit.avoid, dead=limit.dead)
    planned = plan(wanted, cost, limit)
    assert sum(cost.of(block.span) for block in planned.blocks) == brute_force(wanted, cost, limit)


@given(points, costs, limits)
def test_one_request_per_point_reads_exactly_the_addresses_of_the_points(
    wanted: dict[str, Span], cost: Costs, limit: Limits
) -> None:
    limit = Limits(limit.max_registers, limit.max_coils, one_request_per_point=True, avoid=limit.avoid)
    planned = plan(wanted, cost, limit)
    assert all(wanted[name] == block.span for block in planned.blocks for name in block.points)
    assert len({block.span for block in planned.blocks}) == len(planned.blocks)


def test_a_gap_is_read_when_it_is_cheaper_than_another_request() -> None:
    wanted = {"a": Span(HOLDING, 0, 2), "b": Span(HOLDING, 12, 2)}
    assert len(plan(wanted, Costs(request=10, register=1, bit=1), Limits()).blocks) == 1
    assert len(plan(wanted, Costs(request=9, register=1, bit=1), Limits()).blocks) == 2


def test_a_slow_line_skips_gaps_that_a_network_reads() -> None:
    wanted = {"a": Span(HOLDING, 0, 2), "b": Span(HOLDING, 60, 2)}
    assert len(plan(wanted, line_costs(9600), Limits()).blocks) == 2
    assert len(plan(wanted, network_costs(), Limits()).blocks) == 1


@pytest.mark.parametrize(("table", "cap"), [(HOLDING, MAX_REGISTERS), (Table.DISCRETE, MAX_BITS)])
def test_a_long_run_is_cut_at_the_limit_of_the_protocol(table: Table, cap: int) -> None:
    planned = plan({f"p{i}": Span(table, i, 1) for i in range(3 * cap)}, network_costs(), Limits())
    assert [block.count for block in planned.blocks] == [cap, cap, cap]


def test_a_point_that_would_be_cut_moves_into_the_next_block_whole() -> None:
    wanted = {f"p{i}": Span(HOLDING, i, 2) for i in range(0, 250, 2)}
    planned = plan(wanted, network_costs(), Limits())
    assert sum(block.count for block in planned.blocks) == 250
    assert [block.count % 2 for block in planned.blocks] == [0, 0, 0]


def test_the_last_addresses_can_be_read_and_none_beyond() -> None:
    wanted = {"last": Span(HOLDING, 65535, 1), "beyond": Span(HOLDING, 65535, 2)}
    planned = plan(wanted, network_costs(), Limits())
    assert planned.blocks == (Block(HOLDING, 65535, 1, ("last",)),)
    assert "outside" in planned.unreadable["beyond"]


def test_what_cannot_be_read_says_why() -> None:
    limit = Limits(max_registers=4, avoid=(Span(HOLDING, 10, 5),), dead=frozenset({(HOLDING, 21)}))
    wanted = {"long": Span(HOLDING, 0, 5), "avoided": Span(HOLDING, 9, 2), "dead": Span(HOLDING, 20, 2)}
    assert plan(wanted, network_costs(), limit).unreadable == {
        "long": "holding 0-4 is longer than the 4 that the device allows in one request",
        "avoided": "holding 9-10 lies in `avoid: holding 10-14`",
        "dead": "the device refused holding register 21",
    }


def test_ten_thousand_points_and_a_full_table_of_coils_are_planned_in_linear_steps() -> None:
    wanted = {f"r{i}": Span(HOLDING, 6 * i, 1 + i % 4) for i in range(10_000)}
    wanted |= {f"c{i}": Span(Table.COIL, i, 1) for i in range(20_000)}
    planned = plan(wanted, line_costs(19_200), Limits())
    assert sum(len(block.points) for block in planned.blocks) == 30_000


# --- bisection --------------------------------------------------------------------------------------------------------


def refusing(block: Block, wanted: Mapping[str, Span], dead: frozenset[int]) -> tuple[list[Block], list[Block], int]:
    """Read the block from a device that refuses reads touching `dead`, splitting as long as it refuses."""
    good: list[Block] = []
    lost: list[Block] = []
    requests = 0
    tries = [block]
    while tries:
        block = tries.pop()
        requests += 1
        if dead.isdisjoint(range(block.start, block.span.end)):
            good.append(block)
        elif halves := bisect(block, wanted):
            tries += halves
        else:
            lost.append(block)
    return good, lost, requests


@given(
    st.dictionaries(st.sampled_from("abcdefghij"), spans.filter(lambda s: s.table is HOLDING), min_size=1), st.data()
)
def test_bisection_ends_with_exactly_the_points_the_device_refuses(
    wanted: dict[str, Span], data: st.DataObject
) -> None:
    dead = data.draw(st.frozensets(st.integers(0, 45), max_size=3))
    for block in plan(wanted, network_costs(), Limits()).blocks:
        good, lost, _ = refusing(block, wanted, dead)
        read = [name for part in good for name in part.points]
        refused = [name for part in lost for name in part.points]
        assert sorted([*read, *refused]) == sorted(block.points)
        assert all(dead.isdisjoint(range(wanted[name].start, wanted[name].end)) for name in read)
        assert all(not dead.isdisjoint(range(wanted[name].start, wanted[name].end)) for name in refused)


def test_one_dead_register_among_125_is_found_with_few_requests() -> None:
    wanted = {f"p{i}": Span(HOLDING, i, 1) for i in range(125)}
    (block,) = plan(wanted, network_costs(), Limits()).blocks
    for dead in range(125):
        good, lost, requests = refusing(block, wanted, frozenset({dead}))
        assert [part.points for part in lost] == [(f"p{dead}",)]
        assert requests <= 15
        assert unread(block.span, [part.span for part in good]) == {(HOLDING, dead)}


def test_a_dead_register_in_a_gap_is_not_read_again_and_costs_no_point() -> None:
    wanted = {"a": Span(HOLDING, 0, 2), "b": Span(HOLDING, 6, 2), "c": Span(HOLDING, 8, 1)}
    (block,) = plan(wanted, network_costs(), Limits()).blocks
    good, lost, _ = refusing(block, wanted, frozenset({3}))
    assert lost == []
    dead = unread(block.span, [part.span for part in good])
    assert (HOLDING, 3) in dead
    again = plan(wanted, network_costs(), Limits(dead=dead))
    assert again.unreadable == {}
    assert [block.points for block in again.blocks] == [("a",), ("b", "c")]


def test_points_with_the_same_addresses_stay_together() -> None:
    wanted = {f"bit{i}": Span(HOLDING, 7, 1) for i in range(16)}
    (block,) = plan(wanted, network_costs(), Limits(one_request_per_point=True)).blocks
    assert len(block.points) == 16
    assert bisect(block, wanted) == ()


# --- spans and costs --------------------------------------------------------------------------------------------------


@given(st.builds(Span, st.sampled_from(Table), st.integers(0, 65000), st.integers(1, 500)))
def test_a_span_reads_back_what_it_prints(span: Span) -> None:
    assert Span.parse(str(span)) == span


@pytest.mark.parametrize(
    "text", ["", "holding", "holding 9-4", "holding -4", "holding 4-", "register 4", "input 65536", "4-9", "input a-b"]
)
def test_a_range_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write `holding 40-49`|addresses go from 0 to 65535"):
        Span.parse(text)


@given(spans, spans)
def test_spans_overlap_if_they_share_an_address(a: Span, b: Span) -> None:
    shared = set(itertools.product([a.table], range(a.start, a.end))) & set(
        itertools.product([b.table], range(b.start, b.end))
    )
    assert a.overlaps(b) == bool(shared)


def test_a_line_costs_what_its_characters_take() -> None:
    # 13 characters of frame and 2 of data, 11 bits each, two silences of 3.5 characters
    assert line_costs(9600, turnaround=0).of(Span(HOLDING, 0, 1)) == pytest.approx((13 + 2 + 7) * 11 / 9600)
    assert line_costs(115_200, turnaround=0).request == pytest.approx(13 * 11 / 115_200 + 2 * 0.00175)
