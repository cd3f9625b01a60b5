"""Layouts beside edged's own: read back by other parsers, and golden."""

from __future__ import annotations

import json
import re
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.model import Quality, Sample, Value, bad
from edged.uplink.layouts import influx, senml, template

TIME = 1_795_219_200_250_000
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=20),
)  # fmt: skip
SAMPLES = st.lists(
    st.lists(VALUES, min_size=1, max_size=4).map(
        lambda values: Sample("d-1", TIME, 0, tuple(f"p{i}" for i in range(len(values))), values)
    ),
    min_size=1, max_size=4,
)  # fmt: skip
ONE = Sample(
    "chiller 1",
    TIME,
    0,
    ("supply", "on", "text", "gone"),
    [21.5, True, 'a "b"', None],
    {3: bad("timeout"), 0: Quality("uncertain", "clock")},
)
LABELS = {-2: "bn", -3: "bt", 0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb"}


def values_of(records: list[dict[str, Any]]) -> list[Value]:
    return [one[key] for one in records for key in ("v", "vs", "vb") if key in one]


@given(SAMPLES)
def test_senml_is_read_back_from_json_and_cbor(samples: list[Sample]) -> None:
    records = list(senml.records(samples, "plant-7", {}))
    put_in = [value for sample in samples for value in sample.values]
    from_cbor = [
        {LABELS[key]: one for key, one in record.items()} for record in cbor2.loads(senml.encode_cbor(records))
    ]
    assert from_cbor == records == json.loads(senml.encode_json(records))
    assert values_of(from_cbor) == put_in
    assert [type(one) for one in values_of(from_cbor)] == [type(one) for one in put_in]


def test_senml_golden() -> None:
    assert list(senml.records([ONE], "plant-7", {("chiller 1", "supply"): "°C"})) == [
        {"bn": "plant-7:chiller 1/", "bt": 1795219200.25, "n": "supply", "u": "Cel", "v": 21.5},
        {"n": "supply/quality", "vs": "uncertain(clock)"},
        {"n": "on", "vb": True},
        {"n": "text", "vs": 'a "b"'},
        {"n": "gone/quality", "vs": "bad(timeout)"},
    ]


def test_line_protocol_golden() -> None:
    assert list(influx.lines([ONE], "plant,7", lambda *_: False)) == [
        (
            r'chiller\ 1,gateway=plant\,7 supply=21.5,supply_quality="uncertain(clock)",on=true,text="a \"b\"",'
            r'gone_quality="bad(timeout)" 1795219200250000000'
        )
    ]


def field(text: str) -> Value:
    """What InfluxDB makes of a field's value."""
    if text.startswith('"'):
        return re.sub(r'\\(["\\])', r"\1", text[1:-1])
    if text in {"true", "false"}:
        return text == "true"
    return int(text[:-1]) if text[-1] in "iu" else float(text)


@given(VALUES)
def test_line_protocol_keeps_values_and_types(value: Value) -> None:
    (line,) = influx.lines([Sample("d", TIME, 0, ("p",), [value])], "g", lambda *_: True)
    head, _, stamp = line.rpartition(" ")
    found = field(head.removeprefix("d,gateway=g p="))
    assert (found, type(found), int(stamp)) == (value, type(value), TIME * 1000)


@given(VALUES)
def test_a_field_of_line_protocol_has_one_type_whatever_comes_first(value: Value) -> None:
    """InfluxDB refuses a float where an integer came first, with all that is in the same request."""
    (line,) = influx.lines([Sample("d", TIME, 0, ("p",), [value])], "g", lambda *_: False)
    found = field(line.rpartition(" ")[0].removeprefix("d,gateway=g p="))
    assert found == value
    if not isinstance(value, str | bool) and value is not None and abs(value) <= 2**53:
        assert isinstance(found, float)


@given(st.text(st.characters(codec="utf-8"), max_size=20), VALUES)
def test_a_template_of_json_is_json_whatever_the_names_and_values(name: str, value: Value) -> None:
    text = '{"d": "{device}", "p": "{point}", "v": {value}, "u": "{unit|location|\'none\'}", "t": {time}}'
    template.check(text)
    (line,) = template.lines(text, [Sample(name, TIME, 0, (name,), [value])], {"location": ""}, {})
    assert json.loads(line) == {"d": name, "p": name, "v": value, "u": "none", "t": TIME}


@pytest.mark.parametrize("text", ["", "{device}", "{devcie} {value}", "{value|nothing}"])
def test_a_template_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        template.check(text)
