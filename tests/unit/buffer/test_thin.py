"""Thinning keeps of each point and interval what a curve needs, and says so."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.buffer.codec import decode_batch, encode_batch
from edged.buffer.thin import THINNED, thin
from edged.model import GOOD, Quality, Reading, Sample, Value, bad

MINUTE = 60_000_000
Key = tuple[str, str, int]

VALUES = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.text("abc", max_size=2), st.just(None)
)


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    result, time = [], draw(st.integers(-MINUTE, MINUTE))
    for _ in range(draw(st.integers(1, 30))):
        time += draw(st.integers(-2, MINUTE // 4))
        points = tuple(draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=4)))
        values = [draw(VALUES) for _ in points]
        quality: dict[int, Quality] = {i: bad("timeout") for i, value in enumerate(values) if value is None}
        for i in range(len(points)):
            if i not in quality and draw(st.integers(0, 9)) == 0:
                quality[i] = Quality("uncertain", "clock")
        result.append(Sample(draw(st.sampled_from(["one", "two"])), time, time - 5, points, values, quality))
    return result


def by_interval(many: list[Sample]) -> dict[Key, list[Reading]]:
    found: dict[Key, list[Reading]] = defaultdict(list)
    for one in many:
        for reading in one.readings():
            found[one.device, reading.point, one.time // MINUTE].append(reading)
    return found


def numbers(readings: list[Reading]) -> list[float]:
    return [r.value for r in readings if type(r.value) in {int, float} and abs(r.value) <= 2**1023]  # type: ignore[misc, arg-type]  # numbers


def rank(quality: Quality) -> int:
    return 0 if quality == THINNED else ["good", "uncertain", "bad"].index(quality.status)


def same(one: Value, other: Value) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@settings(max_examples=50)
@given(samples())
def test_what_stays_of_each_point_and_interval(given_samples: list[Sample]) -> None:
    reduced = thin(given_samples, MINUTE)
    assert len(reduced) == len(given_samples)
    before, after = by_interval(given_samples), by_interval(reduced)
    assert before.keys() == after.keys()
    for key, old in before.items():
        new = after[key]
        assert len(new) <= 5
        assert same(new[-1].value, old[-1].value)
        assert new[-1].time == old[-1].time
        if numbers(old):
            assert min(numbers(old)) == min(numbers(new))
            assert max(numbers(old)) == max(numbers(new))
        assert max(rank(one.quality) for one in old) == max(rank(one.quality) for one in new)
        assert any(one.value is not None for one in old) == any(one.value is not None for one in new)
        for one in new:  # nothing is made up: each was there, at this time, and as good or better
            assert any(
                was.time == one.time
                and same(was.value, one.value)
                and one.quality in {was.quality, THINNED if was.quality == GOOD else was.quality}
                for was in old
            )
            assert (one.quality == GOOD) <= (len(new) == len(old))


@settings(max_examples=50)
@given(samples())
def test_each_sample_keeps_its_place_and_device(given_samples: list[Sample]) -> None:
    for old, new in zip(given_samples, thin(given_samples, MINUTE), strict=True):
        if new.points:
            assert (new.device, new.time, new.mono) == (old.device, old.time, old.mono)
            assert set(new.points) <= set(old.points)


@settings(max_examples=50)
@given(samples())
def test_thinning_twice_changes_nothing_more(given_samples: list[Sample]) -> None:
    once = thin(given_samples, MINUTE)
    assert repr(by_interval(thin(once, MINUTE))) == repr(by_interval(once))


@settings(max_examples=50)
@given(samples())
def test_a_thinned_batch_can_be_stored(given_samples: list[Sample]) -> None:
    reduced = thin(given_samples, MINUTE)
    batch = decode_batch(encode_batch(reduced), 1, "boot", 0)
    assert repr([list(one.readings()) for one in batch.samples]) == repr([list(one.readings()) for one in reduced])
    assert len(batch.samples) == len(reduced)


def test_what_is_alone_in_its_interval_stays_as_it_is() -> None:
    one = Sample("d", 5, 5, ("a", "b"), [1, 2])
    assert thin([one], MINUTE) == [one]


def test_an_hour_of_a_point_becomes_three_values_a_minute() -> None:
    many = [Sample("d", s * 1_000_000, s, ("a",), [s % 60]) for s in range(3600)]
    reduced = thin(many, MINUTE)
    assert sum(len(one.points) for one in reduced) == 60 * 2  # the last is the highest
    assert all(one.quality == {0: THINNED} for one in reduced if one.points)
