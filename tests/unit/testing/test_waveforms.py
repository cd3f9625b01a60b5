"""Waveforms: bounded, deterministic, and of the promised shape."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.testing.waveforms import KINDS, Kind, seed_of, waveform

kinds = st.sampled_from(KINDS)
numbers = st.floats(-1e6, 1e6)
times = st.floats(0, 4e9)


@given(kinds, numbers, st.floats(1e-3, 1e6), st.floats(0.01, 1e5), st.integers(0, 2**32), times)
def test_a_waveform_stays_in_its_range(kind: Kind, low: float, span: float, period: float, seed: int, t: float) -> None:
    high = low + span
    if not low < high:
        return
    value = waveform(kind, low, high, period=period, seed=seed)(t)
    assert low <= value <= high + abs(high) * 1e-12


@given(kinds, st.integers(0, 2**32), times)
def test_the_same_seed_and_time_give_the_same_value(kind: Kind, seed: int, t: float) -> None:
    assert waveform(kind, 0, 100, seed=seed)(t) == waveform(kind, 0, 100, seed=seed)(t)


def test_seeds_are_the_same_in_every_process() -> None:
    assert seed_of("plc", "chiller", "supply") == 3_263_405_994
    assert seed_of("a", "bc") != seed_of("ab", "c")


def test_another_seed_gives_another_curve() -> None:
    assert waveform("sine", 0, 1, seed=1)(5.0) != waveform("sine", 0, 1, seed=2)(5.0)


def test_a_counter_counts_by_ones_and_rolls_over() -> None:
    count = waveform("counter", 0, 9, period=1, seed=3)
    values = [count(float(t)) for t in range(25)]
    assert all((b - a) % 10 == 1 for a, b in itertools.pairwise(values))
    assert set(values) == set(range(10))


def test_a_square_knows_only_its_two_ends() -> None:
    assert {waveform("square", 2, 5, period=4)(t / 10) for t in range(80)} == {2, 5}


def test_a_random_walk_does_not_jump() -> None:
    walk = waveform("random-walk", 0, 100, period=60, seed=9)
    values = [walk(t / 10) for t in range(3000)]
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) < 2
    assert max(values) - min(values) > 10


@pytest.mark.parametrize(
    ("low", "high", "period"), [(1, 1, 1), (2, 1, 1), (0, math.inf, 1), (0, 1, 0), (0, 1, math.nan)]
)
def test_an_empty_range_or_period_is_refused(low: float, high: float, period: float) -> None:
    with pytest.raises(ValueError, match=r"range|period"):
        waveform("sine", low, high, period=period)
