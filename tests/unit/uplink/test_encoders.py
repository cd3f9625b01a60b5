from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

from edged.config.types import Name
from edged.errors import PermanentError
from edged.model import GOOD, Quality, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.encoders import encode_columns, encode_sample
from edged.uplink.payload import schema

ENVELOPE = Envelope("e1", 12, 9, Lane.LIVE)


def closed(node: Any) -> Any:
    """The same schema without room for keys that it does not name."""
    if isinstance(node, dict):
        more = {"additionalProperties": False} if "properties" in node and "additionalProperties" not in node else {}
        return {key: closed(value) for key, value in node.items()} | more
    return [closed(item) for item in node] if isinstance(node, list) else node


DEFINITIONS = closed(schema()["$defs"])
COLUMNS = Draft202012Validator({"$defs": DEFINITIONS, "$ref": "#/$defs/Columns"})
ONE_SAMPLE = Draft202012Validator({"$defs": DEFINITIONS, "$ref": "#/$defs/OneSample"})


def sample(values: Any, quality: dict[int, Quality] | None = None, device: str = "m1", time: int = 5) -> Sample:
    return Sample(device, time, 0, tuple(f"p{i}" for i in range(len(values))), values, quality or {})


def chunk(*samples: Sample) -> Chunk:
    return Chunk(12 - len(samples) + 1, samples, sum(len(one.points) for one in samples))


def columns(*samples: Sample) -> dict[str, Any]:
    message: dict[str, Any] = orjson.loads(encode_columns(chunk(*samples), ENVELOPE, "plant-7"))
    COLUMNS.validate(message)
    return message


def one(*samples: Sample) -> dict[str, Any]:
    message: dict[str, Any] = orjson.loads(encode_sample(chunk(*samples), ENVELOPE, "plant-7"))
    ONE_SAMPLE.validate(message)
    return message


def test_columns_keep_samples_of_the_same_shape_together() -> None:
    a = Sample("m1", 1, 0, ("u", "i"), (230.1, 5))
    b = Sample("s1", 2, 0, ("open",), [True])
    c = Sample("m2", 3, 0, ("u", "i"), [229.5, 6])
    assert columns(a, b, c) == {
        "v": 1,
        "gateway": "plant-7",
        "epoch": "e1",
        "lane": "live",
        "first": 10,
        "seq": 12,
        "prev": 9,
        "readings": 5,
        "tables": [
            {"points": ["u", "i"], "devices": ["m1", "m2"], "times": [1, 3], "values": [[230.1, 5], [229.5, 6]]},
            {"points": ["open"], "devices": ["s1"], "times": [2], "values": [[True]]},
        ],
    }


def test_columns_say_the_quality_of_what_is_not_good() -> None:
    first = sample([1, None, 3], {1: bad("timeout"), 2: Quality("uncertain", "clock"), 0: GOOD})
    (table,) = columns(sample([1, 2, 3]), first)["tables"]
    assert table["values"] == [[1, 2, 3], [1, None, 3]]
    assert table["quality"] == [[1, 1, "bad(timeout)"], [1, 2, "uncertain(clock)"]]


def test_one_sample_says_the_quality_of_what_is_not_good() -> None:
    assert one(sample([1.5, None], {1: bad("timeout")})) == {
        "v": 1,
        "gateway": "plant-7",
        "epoch": "e1",
        "lane": "live",
        "seq": 12,
        "prev": 9,
        "device": "m1",
        "time": 5,
        "values": {"p0": 1.5, "p1": None},
        "quality": {"p1": "bad(timeout)"},
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**64, -(2**63) - 1, "\ud800", None, b"x"])
def test_a_value_that_json_does_not_have_is_bad_and_null_never_null_alone(value: Any) -> None:
    (table,) = columns(sample([1, value, 3]), sample([4, 5, 6]))["tables"]
    assert table["values"] == [[1, None, 3], [4, 5, 6]]
    assert table["quality"] == [[0, 1, "bad(decode)"]]
    assert one(sample([1, value]))["quality"] == {"p1": "bad(decode)"}


def test_a_bad_value_is_never_shown_even_if_there_is_one() -> None:
    (table,) = columns(sample([1, 99, math.nan], {1: bad("range")}))["tables"]
    assert table["values"] == [[1, None, None]]
    assert table["quality"] == [[0, 1, "bad(range)"], [0, 2, "bad(decode)"]]


def test_text_that_looks_like_null_is_text() -> None:
    odd = Sample("null", 1, 0, ("nullleiter", "null"), ["a,null", ":null"])
    assert one(odd)["values"] == {"nullleiter": "a,null", "null": ":null"}
    assert "quality" not in columns(odd)["tables"][0]
    assert one(sample(["null", None], {1: bad("timeout")}))["values"] == {"p0": "null", "p1": None}


def test_names_from_the_configuration_and_other_sequences_can_be_encoded() -> None:
    odd = Sample(Name("m1"), 1, 0, (Name("u"), Name("i")), array("d", [1.0, 2.0]))
    assert one(odd)["values"] == {"u": 1.0, "i": 2.0}
    assert columns(odd)["tables"][0]["values"] == [[1.0, 2.0]]


def test_of_a_sample_that_thinning_has_emptied_only_the_number_is_left() -> None:
    assert one(sample([]))["values"] == {}
    message = columns(sample([]), sample([7]), sample([]))
    assert [table["values"] for table in message["tables"]] == [[[7]]]
    assert (message["seq"] - message["first"], message["readings"]) == (2, 1)
    assert one(sample([]), sample([7]))["values"] == {"p0": 7}


def test_what_is_sent_once_more_says_so_and_that_it_is_historical() -> None:
    again = replace(chunk(sample([7])), replay=True)
    for encode in (encode_columns, encode_sample):
        message = orjson.loads(encode(again, ENVELOPE, "plant-7"))
        assert (message["lane"], message["replay"]) == ("historical", True)
        assert "replay" not in orjson.loads(encode(chunk(sample([7])), ENVELOPE, "plant-7"))


def test_what_cannot_be_encoded_at_all_is_refused_with_a_reason() -> None:
    with pytest.raises(PermanentError) as caught:
        encode_columns(chunk(sample([1], device="\ud800")), ENVELOPE, "plant-7")
    assert caught.value.reason == "unencodable"


VALUES = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(st.characters(exclude_categories=[]), max_size=8)
)
QUALITIES = st.sampled_from([GOOD, bad("timeout"), Quality("uncertain", "clock")])


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    values: list[Any] = draw(st.lists(VALUES, max_size=5))
    quality = {i: draw(QUALITIES) for i in range(len(values)) if draw(st.booleans())}
    for i, one in quality.items():
        if one.status == "bad":
            values[i] = None
    return sample(values, quality, draw(st.sampled_from(["a", "b"])), draw(st.integers(0, 2**60)))


@given(st.lists(samples(), min_size=1, max_size=6))
def test_every_value_arrives_as_it_was_or_is_bad(given: list[Sample]) -> None:
    by_shape: dict[tuple[str, ...], list[Sample]] = {}
    for one_sample in filter(lambda one: one.points, given):
        by_shape.setdefault(one_sample.points, []).append(one_sample)
    for table, expected in zip(columns(*given)["tables"], by_shape.values(), strict=True):
        odd = {(row, column): text for row, column, text in table.get("quality", [])}
        assert table["times"] == [one.time for one in expected]
        for row, (was, values) in enumerate(zip(expected, table["values"], strict=True)):
            for column, (before, after) in enumerate(zip(was.values, values, strict=True)):
                quality = odd.get((row, column), "good")
                assert (after is None) == quality.startswith("bad")
                if after is not None:
                    assert (type(after), after) == (type(before), before)
                    assert quality == str(was.quality.get(column, GOOD))
