"""Samples out of the reads of one poll."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.model import ALL_GOOD, GOOD, bad
from edged_modbus.gather import Gathering


def same(points: tuple[str, ...]) -> tuple[str, ...]:
    return points


def test_one_good_block_passes_through_without_a_copy() -> None:
    gathering = Gathering("m", same)
    points, values = ("a", "b"), (1, 2)
    gathering.add((10, 20), points, values, ALL_GOOD)
    (sample,) = gathering.samples((0, 0))
    assert (sample.device, sample.time, sample.mono) == ("m", 10, 20)
    assert sample.points is points
    assert sample.values is values
    assert sample.quality is ALL_GOOD


def test_blocks_within_ten_milliseconds_share_a_sample_and_later_ones_do_not() -> None:
    gathering = Gathering("m", same)
    for n, mono in enumerate((0, 9_999, 10_000, 10_001, 20_001, 20_002)):
        gathering.add((mono + 5, mono), (f"p{n}",), (n,), ALL_GOOD)
    samples = gathering.samples((0, 0))
    assert [sample.values for sample in samples] == [(0, 1, 2), (3, 4), (5,)]
    assert [(sample.time, sample.mono) for sample in samples] == [(5, 0), (10_006, 10_001), (20_007, 20_002)]


def test_a_clock_that_is_set_back_between_two_reads_tears_no_sample_apart() -> None:
    gathering = Gathering("m", same)
    gathering.add((1_700_000_000_000_000, 100), ("a",), (1,), ALL_GOOD)
    gathering.add((0, 200), ("b",), (2,), ALL_GOOD)
    assert len(gathering.samples((0, 0))) == 1


def test_what_is_missing_goes_with_the_last_read_or_alone() -> None:
    gathering = Gathering("m", same)
    gathering.missing(("x", "y"), bad("timeout"))
    (alone,) = gathering.samples((7, 8))
    assert (alone.time, alone.points, alone.values) == (7, ("x", "y"), (None, None))
    assert alone.quality == {0: bad("timeout"), 1: bad("timeout")}
    gathering = Gathering("m", same)
    gathering.missing(("x",), bad("timeout"))
    gathering.add((10, 10), ("a",), (1,), ALL_GOOD)
    (sample,) = gathering.samples((7, 8))
    assert (sample.points, sample.values, sample.quality) == (("a", "x"), (1, None), {1: bad("timeout")})


blocks = st.lists(
    st.tuples(
        st.integers(0, 50_000),
        st.lists(st.one_of(st.integers(), st.none()), min_size=1, max_size=5),
    ),
    max_size=8,
)


@given(blocks)
def test_every_value_keeps_its_name_and_quality(reads: list[tuple[int, list[int | None]]]) -> None:
    gathering = Gathering("m", same)
    expected: dict[str, tuple[object, object]] = {}
    mono = 0
    for n, (gap, values) in enumerate(reads):
        mono += gap
        names = tuple(f"{n}.{i}" for i in range(len(values)))
        quality = {i: bad("decode") for i, value in enumerate(values) if value is None}
        gathering.add((mono, mono), names, values, quality or ALL_GOOD)
        expected |= {
            name: (value, quality.get(i, GOOD)) for i, (name, value) in enumerate(zip(names, values, strict=True))
        }
    got = {
        reading.point: (reading.value, reading.quality)
        for sample in gathering.samples((0, 0))
        for reading in sample.readings()
    }
    assert got == expected
