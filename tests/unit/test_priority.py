from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged.model import Quality, Sample, bad
from edged.priority import Priorities

NAMES = ["a", "b", "c", "d"]


def devices(high: set[str]) -> dict[str, DeviceConfig]:
    points = {Name(name): PointConfig(priority="high" if name in high else "normal") for name in NAMES}
    return {"pump": DeviceConfig(bus=Name("x"), points=points)}


def sample(*values: float, points: tuple[str, ...] = tuple(NAMES), bad_ones: tuple[int, ...] = ()) -> Sample:
    quality: dict[int, Quality] = {i: bad("timeout") for i in bad_ones}
    return Sample("pump", 1, 2, points[: len(values)], list(values), quality)


@given(st.sets(st.sampled_from(NAMES)), st.permutations(NAMES), st.sets(st.integers(0, 3)))
def test_each_reading_goes_one_way_with_its_quality(high: set[str], order: list[str], bad_ones: set[int]) -> None:
    given_sample = sample(1, 2, 3, 4, points=tuple(order), bad_ones=tuple(bad_ones))
    first, others, _ = Priorities(devices(high)).split(given_sample)
    assert {reading.point for reading in first.readings()} == high if first else not high
    assert {reading.point for reading in others.readings()} == set(NAMES) - high if others else len(high) == 4
    together = [reading for part in (first, others) if part for reading in part.readings()]
    assert sorted(map(str, together)) == sorted(map(str, given_sample.readings()))


def test_only_another_value_or_quality_is_a_change() -> None:
    priorities = Priorities(devices({"a"}))
    seen = [
        priorities.split(one).changed
        for one in (
            sample(0, 1),
            sample(0, 2),
            sample(1, 2),
            sample(1, 2, bad_ones=(0,)),
            sample(1, 2, bad_ones=(0, 1)),
        )
    ]
    assert seen == [True, False, True, True, False]


def test_a_device_without_points_of_priority_is_left_as_it_is() -> None:
    priorities = Priorities(devices(set()))
    one = sample(1, 2)
    assert priorities.split(one).others is one
    priorities.renew(devices({"b"}))
    assert priorities.split(one).others is not one
    whole = sample(2, points=("b",))
    assert priorities.split(whole).first is whole
