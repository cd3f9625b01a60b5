"""What ThingWorx is told: golden requests after its REST API."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name, Secret
from edged.errors import ConfigError, PermanentError
from edged.model import Quality, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.connectors.thingworx import CONNECTOR, ThingWorxConnection
from tests.support.forwarding import context_of

TIME = 1_795_219_200_250_000
SHAPE = (
    b'{"fieldDefinitions":{"name":{"name":"name","baseType":"STRING","ordinal":0},'
    b'"value":{"name":"value","baseType":"VARIANT","ordinal":1},"time":{"name":"time","baseType":"DATETIME","ordinal":2},'
    b'"quality":{"name":"quality","baseType":"STRING","ordinal":3}}}'
)


def config(**settings: Any) -> ThingWorxConnection:
    known = {"connector": "thingworx", "url": "https://twx.example.com", "app_key": Secret("key"), **settings}
    return ThingWorxConnection(**known)


def message(*samples: Sample, **settings: Any) -> Message:
    made = CONNECTOR.encoder(config(**settings), context_of())
    chunk = Chunk(8, samples, sum(len(one.points) for one in samples))
    return made.encode(chunk, Envelope("0123456789abcdef", chunk.last, 4, Lane.LIVE))


def rows(*samples: Sample, **settings: Any) -> Any:
    return orjson.loads(message(*samples, **settings).payload)["values"]["rows"]


def test_a_request_to_the_byte() -> None:
    made = message(Sample("chiller", TIME, 0, ("supply", "pump"), (21.5, True)), thing="{gateway}.{device}")
    assert made.topic == "https://twx.example.com/Thingworx/Things/plant-7.chiller/Services/UpdatePropertyValues"
    assert made.payload == (
        b'{"values":{"dataShape":' + SHAPE + b',"rows":['
        b'{"name":"supply","value":{"value":21.5,"baseType":"NUMBER"},"time":1795219200250,"quality":"GOOD"},'
        b'{"name":"pump","value":{"value":true,"baseType":"BOOLEAN"},"time":1795219200250,"quality":"GOOD"}]}}'
    )
    assert made.content_type == "application/json"
    assert (made.properties["edged-seq"], made.properties["edged-prev"]) == ("8", "4")
    assert "Idempotency-Key" not in made.properties


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (21.5, "NUMBER"), (7, "NUMBER"), (-(2**53), "NUMBER"), (2**53 + 1, "LONG"), (-(2**62), "LONG"),
        (2**63, "NUMBER"), (True, "BOOLEAN"), ("on", "STRING"),
    ],
)  # fmt: skip
def test_values_have_their_base_type(value: Any, kind: str) -> None:
    (row,) = rows(Sample("d", TIME, 0, ("p",), [value]))
    assert row["value"] == {"value": value, "baseType": kind}


def test_what_is_bad_is_left_out_and_what_is_uncertain_says_so() -> None:
    sample = Sample(
        "d", TIME, 0, ("a", "b", "c"), [None, 2.0, float("nan")], {0: bad("timeout"), 1: Quality("uncertain", "clock")}
    )
    assert [(row["name"], row["quality"]) for row in rows(sample)] == [("b", "UNCERTAIN")]
    told = {row["name"]: row["value"]["value"] for row in rows(sample, quality_property="{point}_quality")}
    assert told == {"a_quality": "bad(timeout)", "b": 2.0, "b_quality": "uncertain(clock)", "c_quality": "bad(decode)"}
    assert message(Sample("d", TIME, 0, ("a",), [None], {0: bad("timeout")})).skip


def test_samples_keep_their_own_times() -> None:
    later = Sample("d", TIME + 1_000_000, 0, ("p",), [2])
    assert [row["time"] for row in rows(Sample("d", TIME, 0, ("p",), [1]), later)] == [1795219200250, 1795219201250]


def test_names_are_such_as_thingworx_takes() -> None:
    assert [row["name"] for row in rows(Sample("d", TIME, 0, ("a-b.c", "1st"), [1, 2]))] == ["a_b_c", "p_1st"]
    devices = {Name("d"): DeviceConfig(bus=Name("b"), points={Name("a-b"): PointConfig(), Name("a.b"): PointConfig()})}
    with pytest.raises(ConfigError, match=r"d/a-b and d/a\.b would both be the property 'a_b'"):
        CONNECTOR.encoder(config(), context_of(devices=devices))


def test_a_thing_with_odd_characters_stays_one_level() -> None:
    assert "/Things/a%2Fb%20c/Services/" in message(Sample("a/b c", TIME, 0, ("p",), [1])).topic


def test_what_cannot_be_one_request_is_divided_or_a_dead_letter() -> None:
    with pytest.raises(PermanentError, match="one thing"):
        message(Sample("a", TIME, 0, ("p",), [1]), Sample("b", TIME, 0, ("p",), [1]))
    with pytest.raises(PermanentError, match="JSON"):
        message(Sample("a", TIME, 0, ("p",), [2**70]))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "https://h/{device}"}, "is that of the platform"),
        ({"thing": "x"}, "must contain {device}"),
        ({"thing": "{x}"}, "uses {x}"),
        ({"property_name": "x"}, "must contain {point}"),
        ({"quality_property": "x"}, "must contain {point}"),
        ({"quality_property": "{point}"}, "must differ"),
        ({"max_readings": 0}, "between 1"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(**settings)


def test_a_thing_that_needs_a_name_which_is_not_set_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="`thing`"):
        CONNECTOR.encoder(config(thing="{building}-{device}"), context_of())
