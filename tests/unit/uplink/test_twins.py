"""The documents that clouds keep: what goes in, what has changed, and what is wished."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged.downlink.api import Reply, TwinPoint, TwinValue
from edged.model import Quality, Reason, Value, bad
from edged.uplink.dialects.twins import (
    OWN,
    Limits,
    Wish,
    Wishes,
    chosen,
    difference,
    merged,
    moment,
    reported,
    wishes_in,
)
from edged.uplink.moments import text_of

LIMITS = Limits(4096)


def known(value: Value, quality: Quality | None = None) -> TwinPoint:
    return TwinPoint(TwinValue(value, 1, quality) if quality else TwinValue(value, 1))


def test_points_that_are_written_or_watched_are_chosen_unless_patterns_say_otherwise() -> None:
    points = {
        Name("setpoint"): PointConfig(writable=True), Name("alarm"): PointConfig(monitor=True),
        Name("flow"): PointConfig(),
    }  # fmt: skip
    devices = {
        "chiller": DeviceConfig(bus=Name("b"), points=points),
        "off": DeviceConfig(bus=Name("b"), points=points, enabled=False),
    }
    assert chosen(devices, []) == {"chiller": ("setpoint", "alarm")}
    assert chosen(devices, ["*/flow"]) == {"chiller": ("flow",)}
    assert chosen(devices, ["meter/*"]) == {}


def test_a_value_that_is_bad_or_cannot_be_said_is_missing_and_its_quality_says_why() -> None:
    twin = {
        "supply": known(21.5), "ret": known(7.0, bad(Reason.TIMEOUT)), "odd": known(float("nan")),
        "old": known(3, Quality("uncertain", "stale")), "word": known("x" * 5000), "none": TwinPoint(),
        "big": known(2**60),
    }  # fmt: skip
    document, left_out = reported({"a.b": twin}, Limits(4096, largest=2**52 - 1, dots=False))
    assert left_out == 0
    assert document == {
        "a%2Eb": {"supply": 21.5, "old": 3},
        OWN: {
            "quality": {
                "a%2Eb/ret": "bad(timeout)", "a%2Eb/odd": "bad(decode)", "a%2Eb/old": "uncertain(stale)",
                "a%2Eb/word": "bad(decode)", "a%2Eb/big": "bad(decode)",
            }
        },
    }  # fmt: skip


_QUALITIES = st.none() | st.sampled_from([Quality("uncertain", "stale"), bad(Reason.TIMEOUT)])
_NAMES = st.text("ab.", min_size=1, max_size=40)


@given(
    st.dictionaries(_NAMES, st.dictionaries(_NAMES, st.tuples(st.floats(), _QUALITIES), max_size=20), max_size=4),
    st.integers(512, 4096),
)
def test_a_document_never_grows_beyond_its_limit_and_has_all_there_is_room_for(
    values: dict[str, Any], size: int
) -> None:
    twin = {device: {name: known(*one) for name, one in points.items()} for device, points in values.items()}
    count = sum(map(len, values.values()))
    for limit in (size, 10**6):
        document, left_out = reported(twin, Limits(limit, dots=False))
        told = {(device, point) for device, points in document.items() if device != OWN for point in points}
        told |= {tuple(one.split("/")) for one in document.get(OWN, {}).get("quality", {})}
        assert len(orjson.dumps(document)) <= limit
        assert len(told) + left_out == count
        assert left_out == 0 or limit == size


_JSON = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, min_size=1, max_size=3),
    max_leaves=8,
)
_DOCUMENT = st.dictionaries(st.text(max_size=2), _JSON, max_size=4)


@given(_DOCUMENT, _DOCUMENT)
def test_the_difference_makes_one_document_of_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    def plain(document: object) -> object:
        """Without what has become empty, which the clouds drop as well."""
        if not isinstance(document, dict):
            return document
        inner = {key: plain(value) for key, value in document.items()}
        return {key: value for key, value in inner.items() if value != {}}

    result = merged(old, difference(old, new))
    assert orjson.dumps(plain(result), option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        plain(new), option=orjson.OPT_SORT_KEYS
    )
    assert difference(new, new) == {}


def test_true_and_one_are_not_the_same() -> None:
    assert difference({"d": {"p": 1}}, {"d": {"p": True}}) == {"d": {"p": True}}


def test_only_points_are_wishes() -> None:
    document = {
        "chiller%2E1": {"a": 1, "gone": None, "$x": 1},
        "$metadata": {"a": {"b": 1}},
        OWN: {"command": 1},
        "n": 5,
    }
    assert list(wishes_in(document, Limits(1, dots=False))) == [("chiller.1", "a", 1)]
    assert list(wishes_in([1], LIMITS)) == []


def wishes() -> Wishes:
    return Wishes(60.0, "cloud", Reply())


def wish(given: object, mark: str = "1", **more: Any) -> Wish:
    return Wish("chiller", "setpoint", given, mark, **more)


def test_a_wish_is_a_command_once_and_says_until_when_it_counts() -> None:
    of = wishes()
    command = of.command(wish(21, since=1_000_000))
    assert command is not None
    assert (command.address, command.value, command.expires, command.valid_for) == (
        "chiller/setpoint", 21, 61_000_000, None,
    )  # fmt: skip
    assert of.command(wish(21, since=1_000_000)) is None, "it comes again with every change of the document"
    again = wishes().command(wish(21, since=1_000_000))
    assert again is not None
    assert again.id == command.id, "also after a restart"


def test_wishes_that_alternate_within_a_second_are_different_commands() -> None:
    of = wishes()
    found = [of.command(wish(value, since=1_000_000)) for value in (1, 2, 1, 1, True)]
    ids = [one.id for one in found if one is not None]
    assert [one.value if one else None for one in found] == [1, 2, 1, None, True]
    assert len(set(ids)) == 4
    assert of.command(wish({"value": True}, since=1_000_000)) is None, "the same, in another form"
    assert of.command(wish({"value": 1}, since=1_000_000)) is not None, "one is not true"


@pytest.mark.parametrize(
    ("what", "expires", "valid_for"),
    [
        (wish(1, fresh=True), None, 60.0),
        (wish(1), 1, None),
        (wish({"value": 1, "expires": "2026-11-21T12:00:00Z"}), 1_795_262_400_000_000, None),
        (wish({"value": 1, "expires": "nonsense"}, fresh=True), 1, None),
    ],
)
def test_what_does_not_say_how_old_it_is_has_expired(what: Wish, expires: int | None, valid_for: float | None) -> None:
    command = wishes().command(what)
    assert command is not None
    assert (command.value, command.expires, command.valid_for) == (1, expires, valid_for)


def test_what_is_no_value_is_left_to_the_judgement_of_all_commands() -> None:
    for odd in ([1], {"value": [1]}, {"other": 1}):
        command = wishes().command(wish(odd))
        assert command is not None
        assert command.value is None


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_are_read_as_they_are_written(time: int) -> None:
    assert moment(text_of(time)) == time


def test_what_is_no_time_is_none() -> None:
    assert [moment(one) for one in ("2026-11-21", True, 1.5, None, "x")] == [None] * 5
    assert moment("2023-03-30T09:15:42.2952664Z") == 1_680_167_742_295_266
