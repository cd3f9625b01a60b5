"""Reading all of an unknown device: exactly what it has, whatever it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_modbus.planner import Span, Table
from edged_modbus.sweep import Sweep

Answer = Callable[[Span], list[int] | int | None]


def run(sweep: Sweep, answer: Answer) -> int:
    """Read it all; returns how many requests that took."""
    requests = 0
    before = sweep.left
    while (span := sweep.next()) is not None:
        requests += 1
        got = answer(span)
        if got is None:
            sweep.silent(span)
        elif isinstance(got, int):
            sweep.refused(span, got)
        else:
            sweep.got(span, got)
        assert sweep.left <= before
        before = sweep.left
    assert sweep.left == 0
    return requests


def device(there: set[int], longest: int = 125, missing: int | None = 2) -> Answer:
    """Register n holds n. Refuses blocks that are too long, or have an address that it lacks."""

    def answer(span: Span) -> list[int] | int | None:
        if span.count > longest:
            return 3
        cells = list(range(span.start, span.end))
        return cells if there.issuperset(cells) else missing

    return answer


@given(st.sets(st.integers(0, 300)), st.integers(1, 125))
def test_what_is_read_is_exactly_what_the_device_has(there: set[int], longest: int) -> None:
    sweep = Sweep([Span(Table.HOLDING, 0, 301)])
    assert sweep.total == 301
    requests = run(sweep, device(there, longest))
    assert sweep.words.get(Table.HOLDING, {}) == {address: address for address in there}
    refused = {cell for span in sweep.refusals for cell in range(span.start, span.end)}
    assert refused == set(range(301)) - there
    assert requests <= 2 * 301 + 3


def test_a_device_that_has_everything_takes_few_requests() -> None:
    assert run(Sweep([Span(Table.INPUT, 0, 1000)]), device(set(range(1000)))) == 8


def test_a_device_that_refuses_long_blocks_is_asked_for_shorter_ones_from_then_on() -> None:
    assert run(Sweep([Span(Table.INPUT, 0, 1000)]), device(set(range(1000)), longest=20)) <= 1000 / 15 + 15


def test_a_table_that_the_device_does_not_know_costs_one_request() -> None:
    sweep = Sweep([Span(Table.INPUT, 0, 1000), Span(Table.HOLDING, 0, 10)])
    known = device(set(range(10)))
    assert run(sweep, lambda span: 1 if span.table is Table.INPUT else known(span)) == 2
    assert len(sweep.words[Table.HOLDING]) == 10
    assert sweep.refusals == [Span(Table.INPUT, 0, 1000)]


def test_addresses_that_it_keeps_silent_about_are_found_out_like_refused_ones() -> None:
    sweep = Sweep([Span(Table.HOLDING, 0, 32)])
    run(sweep, device({*range(3), *range(5, 32)}, missing=None))
    assert set(sweep.words[Table.HOLDING]) == {*range(3), *range(5, 32)}
    assert not sweep.gave_up


def test_a_table_is_given_up_after_some_silences_in_a_row() -> None:
    sweep = Sweep([Span(Table.INPUT, 0, 1000), Span(Table.HOLDING, 0, 10)])
    known = device(set(range(10)))
    assert run(sweep, lambda span: None if span.table is Table.INPUT else known(span)) < 12
    assert sweep.gave_up == [Table.INPUT]
    assert len(sweep.words[Table.HOLDING]) == 10


def test_what_is_to_be_avoided_is_never_asked_for() -> None:
    avoid = [Span(Table.HOLDING, 10, 5), Span(Table.HOLDING, 90, 50), Span(Table.INPUT, 0, 100)]
    sweep = Sweep([Span(Table.HOLDING, 0, 100)], avoid=avoid, most=7)
    asked: set[int] = set()

    def answer(span: Span) -> list[int]:
        asked.update(range(span.start, span.end))
        assert span.count <= 7
        return [0] * span.count

    run(sweep, answer)
    assert asked == set(range(90)) - set(range(10, 15))


def test_an_answer_to_something_else_is_a_mistake_of_the_caller() -> None:
    sweep = Sweep([Span(Table.HOLDING, 0, 10)])
    sweep.next()
    with pytest.raises(ValueError, match="not what"):
        sweep.got(Span(Table.HOLDING, 1, 1), [0])
