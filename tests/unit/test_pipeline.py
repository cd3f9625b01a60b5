"""The pipeline: what is computed, what is left out, and that nothing changes that should not."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.config.base import DeviceConfig, LinearMap, PointConfig
from edged.config.types import Duration, Name
from edged.model import ALL_GOOD, Quality, Reason, Sample, Value, bad
from edged.pipeline import DevicePipeline, Pipeline

SECOND = 1_000_000


def one_point(**settings: Any) -> DevicePipeline:
    return DevicePipeline({"p": PointConfig(**settings)})


POINTS = ("p",)


def sample(
    value: Value, *, at: float = 0.0, quality: Quality | None = None, points: tuple[str, ...] = POINTS
) -> Sample:
    mono = round(at * SECOND)
    return Sample("d", 10**15 + mono, mono, points, (value,), {0: quality} if quality else ALL_GOOD)


def through(pipeline: DevicePipeline, *samples: Sample) -> list[Value | str]:
    """What comes out, one entry a sample: the value, the quality if it is not good, or 'suppressed'."""
    out: list[Value | str] = []
    for one in samples:
        result = pipeline.process(one)
        if result is None:
            out.append("suppressed")
        else:
            out.append(str(result.quality[0]) if result.quality else result.values[0])
    return out


def test_a_sample_whose_points_need_nothing_passes_untouched() -> None:
    given_sample = sample(42)
    assert one_point().process(given_sample) is given_sample


@pytest.mark.parametrize(
    ("settings", "raw", "expected"),
    [
        ({"scale": 0.1}, 2301, 230.1),
        ({"scale": 0.001}, 12345, 12.345),
        ({"scale": 0.1}, -7, -0.7),
        ({"scale": -0.1}, 7, -0.7),
        ({"scale": 10}, 7, 70),
        ({"scale": 2.5}, 4, 10.0),
        ({"scale": 0.3}, 10, 3.0),
        ({"offset": -40}, 50, 10),
        ({"scale": 0.1, "offset": -40}, 500, 10.0),
        ({"map": LinearMap(raw=(4, 20), to=(0, 10))}, 4, 0.0),
        ({"map": LinearMap(raw=(4, 20), to=(0, 10))}, 20, 10.0),
        ({"map": LinearMap(raw=(0, 27648), to=(-50, 150))}, 13824, 50.0),
        ({"decimals": 1}, 230.17, 230.2),
        ({"scale": 0.01, "decimals": 1}, 23017, 230.2),
        ({"range": (0.0, 10.0)}, 10, 10),
        ({"range": (0.0, 10.0)}, 11, "bad(range)"),
        ({"range": (0.0, 10.0), "scale": 0.1}, 100, 10.0),
        ({"scale": 1e300}, 1e300, "bad(range)"),
    ],
)
def test_computing(settings: dict[str, Any], raw: float, expected: float | str) -> None:
    assert through(one_point(**settings), sample(raw)) == [expected]


def test_an_integer_scaled_by_an_integer_stays_an_integer() -> None:
    (value,) = through(one_point(scale=10, offset=-1), sample(7))
    assert value == 69
    assert isinstance(value, int)


@given(st.integers(-(2**31), 2**31), st.sampled_from([0.1, 0.01, 0.001, 0.5, 0.25, 0.2]))
def test_a_decimal_scale_gives_the_decimal_a_person_expects(raw: int, scale: float) -> None:
    (value,) = through(one_point(scale=scale), sample(raw))
    assert value == float(f"{raw * round(scale * 1000)}e-3")


def test_a_bad_value_is_not_computed_and_keeps_its_quality() -> None:
    pipeline = one_point(scale=0.1, offset=1, range=(0.0, 1.0), decimals=1)
    assert through(pipeline, sample(None, quality=bad(Reason.TIMEOUT))) == ["bad(timeout)"]


@pytest.mark.parametrize(("decimals", "value"), [(-3, 400), (0, 10.4), (-1, -4)])
def test_a_value_out_of_range_is_not_rounded_into_it(decimals: int, value: float) -> None:
    assert through(one_point(range=(0.0, 10.0), decimals=decimals), sample(value)) == ["bad(range)"]


def test_a_range_that_is_open_lets_no_overflow_through() -> None:
    pipeline = one_point(range=(0.0, math.inf), scale=1e10)
    assert through(pipeline, sample(5), sample(1e308)) == [5e10, "bad(range)"]


def test_absolute_deadband_compares_with_the_last_value_sent() -> None:
    pipeline = one_point(deadband=1.0)
    values = [10, 10.5, 10.9, 11.0, 10.5, 9.9]
    out = through(pipeline, *(sample(value, at=i) for i, value in enumerate(values)))
    assert out == [10, "suppressed", "suppressed", 11.0, "suppressed", 9.9]


def test_percent_deadband() -> None:
    pipeline = one_point(deadband="10%")
    assert through(pipeline, *(sample(v) for v in (100, 109, 110, 99.5, 98))) == [
        100,
        "suppressed",
        110,
        "suppressed",
        98,
    ]


def test_a_deadband_of_zero_reports_on_change() -> None:
    pipeline = one_point(deadband=0)
    assert through(pipeline, *(sample(v) for v in (1, 1, 2, 2, 1))) == [1, "suppressed", 2, "suppressed", 1]


def test_text_and_truth_values_report_on_change() -> None:
    pipeline = one_point(deadband=0.5)
    values: list[Value] = ["on", "on", "off", True, True, False]
    out = through(pipeline, *(sample(v) for v in values))
    assert out == ["on", "suppressed", "off", True, "suppressed", False]


def test_heartbeat_sends_a_steady_value() -> None:
    pipeline = one_point(deadband=1.0, heartbeat=Duration(60))
    out = through(pipeline, *(sample(5, at=at) for at in (0, 30, 59.9, 60, 61, 120)))
    assert out == [5, "suppressed", "suppressed", 5, "suppressed", 5]


def test_the_heartbeat_goes_by_the_monotonic_clock() -> None:
    pipeline = one_point(deadband=1.0, heartbeat=Duration(60))
    stepped = Sample("d", 0, 61 * SECOND, POINTS, (5,))  # the wall clock fell back to 1970
    assert through(pipeline, sample(5), stepped) == [5, 5]


def test_a_repeated_failure_is_told_once_and_then_by_heartbeat() -> None:
    pipeline = one_point(heartbeat=Duration(60))
    failure = bad(Reason.TIMEOUT)
    out = through(pipeline, *(sample(None, at=at, quality=failure) for at in (0, 1, 59, 60)))
    assert out == ["bad(timeout)", "suppressed", "suppressed", "bad(timeout)"]


def test_another_reason_is_told_at_once() -> None:
    pipeline = one_point()
    out = through(pipeline, sample(None, quality=bad(Reason.TIMEOUT)), sample(None, quality=bad(Reason.UNREACHABLE)))
    assert out == ["bad(timeout)", "bad(unreachable)"]


@pytest.mark.parametrize("settings", [{}, {"deadband": 1.0}])
def test_the_first_value_after_a_failure_is_told_even_within_the_deadband(settings: dict[str, Any]) -> None:
    pipeline = one_point(**settings)
    failure = bad(Reason.TIMEOUT)
    out = through(
        pipeline,
        sample(5), sample(None, quality=failure), sample(None, quality=failure), sample(5),
        sample(None, quality=failure),
    )  # fmt: skip
    assert out == [5, "bad(timeout)", "suppressed", 5, "bad(timeout)"]


UNCERTAIN = Quality("uncertain", "clock")


def test_values_that_are_uncertain_are_no_failures_and_all_come_through() -> None:
    pipeline = one_point()
    out = [pipeline.process(sample(value, at=value, quality=UNCERTAIN)) for value in (1, 2, 2, 3)]
    assert [one and (list(one.values), one.quality[0]) for one in out] == [
        ([value], UNCERTAIN) for value in (1, 2, 2, 3)
    ]


def test_a_deadband_goes_for_uncertain_values_too_and_a_change_of_quality_is_told() -> None:
    pipeline = one_point(deadband=1.0)
    steps = [(5, UNCERTAIN), (5.5, UNCERTAIN), (6, UNCERTAIN), (6, None), (6.5, None), (6, UNCERTAIN)]
    out = [pipeline.process(sample(value, quality=why)) for value, why in steps]
    assert [one and (one.values[0], one.quality.get(0)) for one in out] == [
        (5, UNCERTAIN), None, (6, UNCERTAIN), (6, None), None, (6, UNCERTAIN),
    ]  # fmt: skip


def test_a_failure_after_an_uncertain_value_is_a_new_one() -> None:
    failure = bad(Reason.TIMEOUT)
    steps = [(None, failure), (5, UNCERTAIN), (None, failure), (None, failure)]
    pipeline = one_point()
    out = [pipeline.process(sample(value, quality=why)) for value, why in steps]
    assert [one and one.quality[0] for one in out] == [failure, UNCERTAIN, failure, None]


def test_partial_suppression_keeps_the_others_with_their_quality() -> None:
    pipeline = DevicePipeline({"a": PointConfig(deadband=1.0), "b": PointConfig(), "c": PointConfig()})
    points = ("a", "b", "c")
    first = Sample("d", 1, 1, points, (1, 2, 3))
    second = Sample("d", 2, 2, points, (1, 2, None), {2: bad(Reason.RANGE)})
    assert pipeline.process(first) is first
    out = pipeline.process(second)
    assert out is not None
    assert (out.points, list(out.values), dict(out.quality)) == (("b", "c"), [2, None], {1: bad(Reason.RANGE)})


def test_equal_subsets_share_their_tuple_of_names() -> None:
    pipeline = DevicePipeline({"a": PointConfig(deadband=1.0), "b": PointConfig()})
    points = ("a", "b")
    results = [pipeline.process(Sample("d", i, i, points, (1, i))) for i in range(3)]
    assert results[1] is not None
    assert results[2] is not None
    assert results[1].points is results[2].points


def test_a_look_remembers_nothing() -> None:
    pipeline = one_point(scale=0.1, deadband=1.0)
    assert pipeline.compute(sample(100)).values[0] == 10.0
    assert through(pipeline, sample(100)) == [10.0]


values = st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))


@given(
    st.lists(st.lists(values, min_size=3, max_size=3), max_size=20),
    st.sampled_from([None, 0, 1.5, "5%"]),
    st.sampled_from([1.0, 0.1, 3.0, 1e10]),
)
def test_read_is_stored_plus_suppressed_and_no_value_is_infinite(
    rows: list[list[Value]], deadband: float | str | None, scale: float
) -> None:
    pipeline = DevicePipeline({name: PointConfig(deadband=deadband, scale=scale) for name in "abc"})
    points = ("a", "b", "c")
    for at, row in enumerate(rows):
        quality = {i: bad(Reason.DECODE) for i, value in enumerate(row) if value is None}
        out = pipeline.process(Sample("d", at, at * SECOND, points, row, quality))
        if out is None:
            continue
        assert set(out.points) <= set(points)
        assert len(out.values) == len(out.points)
        for i, value in enumerate(out.values):
            assert (value is None) == (i in out.quality)
            assert not isinstance(value, float) or math.isfinite(value)


qualities = st.sampled_from([None, UNCERTAIN, Quality("uncertain", "stale")])
readings = st.one_of(
    st.tuples(st.integers(-3, 3), qualities),
    st.tuples(st.none(), st.sampled_from([bad(Reason.TIMEOUT), bad(Reason.DECODE)])),
)


@given(
    st.lists(st.tuples(readings, st.integers(0, 40)), max_size=40),
    st.sampled_from([None, 0, 2, "50%"]),
    st.sampled_from([0, 60]),
)
def test_what_is_left_out_is_exactly_what_was_just_told(
    steps: list[tuple[tuple[int | None, Quality | None], int]], deadband: float | str | None, heartbeat: int
) -> None:
    """Against the plain rule for one point, which remembers everything."""
    pipeline = one_point(deadband=deadband, heartbeat=Duration(heartbeat))
    now, told = 0, None
    for (value, why), pause in steps:
        now += pause
        out = pipeline.process(sample(value, at=now, quality=why))
        repeats = told is not None and told[1] == why and now - told[2] < heartbeat
        if repeats and value is not None:
            assert told is not None
            known = told[0]
            width = abs(known or 0) / 2 if isinstance(deadband, str) else deadband
            repeats = width is not None and known is not None and (value == known or abs(value - known) < width)
        assert (out is None) == repeats
        if not repeats:
            told = value, why, now


def test_a_new_configuration_lets_go_of_the_samples_before_it() -> None:
    """Each reload opens buses anew, which have tuples of their own for the same points."""
    device = DeviceConfig(bus=Name("b"), points={Name("p"): PointConfig(deadband=1.0)})
    pipeline = Pipeline({"d": device})
    points, others = (tuple(name for name in ["p"]) for _ in range(2))
    free = sys.getrefcount(points)
    assert pipeline.process(sample(5, points=points))
    held = sys.getrefcount(points)
    pipeline.renew({"d": device}, ())
    assert held > sys.getrefcount(points) == free
    assert pipeline.process(sample(5.5, points=others)) is None, "what was told last is not forgotten"


@given(
    st.integers(-(10**14), 10**14),
    st.sampled_from([0.001, 0.01, 0.1, 0.5, 2.0, 10.0, -0.1]),
    st.sampled_from([0.0, -40.0, 3.5, 273.15]),
)
@example(1_234_567_890_123, 0.001, 0.0)
@example(1, 0.1, -40.0)
def test_a_whole_raw_number_comes_back_from_what_the_pipeline_makes_of_it(
    raw: int, scale: float, offset: float
) -> None:
    """All of its digits: what is written must be what was meant, and no neighbour of it."""
    point = PointConfig(scale=scale, offset=offset)
    (value,) = DevicePipeline({"p": point}).compute(sample(raw)).values
    assert isinstance(value, int | float)
    assert point.unscaled(value) == raw


def test_a_raw_number_that_is_not_whole_stays_so() -> None:
    assert PointConfig(scale=0.1).unscaled(21.53) == pytest.approx(215.3)
    assert PointConfig(scale=1e-300).unscaled(1e300) == math.inf
