"""Commands in JSON: whatever comes is a command or is refused, never anything else."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

from edged.downlink.api import Change, Command, CommandResult, Incoming, Refused, Reply, State, TwinValue
from edged.model import bad
from edged.uplink.json_commands import JsonCommands, change_message, parse_command
from edged.uplink.payload import MESSAGES, schema

TIME = 1_795_262_400_000_000
GOOD = {"id": "1", "point": "d/p", "value": 1, "time": TIME, "ttl": 10}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def parsed(**document: Any) -> Command:
    return parse_command(Incoming(topic="t", payload=orjson.dumps(document)))


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$defs": schema()["$defs"], "$ref": f"#/$defs/{MESSAGES[name].__name__}"})


def valid(name: str, payload: bytes) -> None:
    validator(name).validate(orjson.loads(payload))


@given(st.binary())
def test_any_bytes_are_refused_or_a_command(payload: bytes) -> None:
    with pytest.raises(Refused):
        parse_command(Incoming(topic="t", payload=payload))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "expires", "raw", "confirm", "requester", "x"], JSON)))
def test_any_object_is_refused_or_a_command(document: dict[str, Any]) -> None:
    try:
        payload = orjson.dumps({**GOOD, **document})
    except TypeError:
        return  # no JSON of ours: an integer beyond 64 bits, a lone surrogate
    with suppress(Refused):
        command = parse_command(Incoming(topic="t", payload=payload))
        assert command.expires is not None
        valid("command", payload)


@pytest.mark.parametrize(
    ("more", "expires"),
    [
        ({}, TIME + 10_000_000),
        ({"ttl": "1m30s"}, TIME + 90_000_000),
        ({"time": "2026-11-21T12:00:00Z"}, TIME + 10_000_000),
        ({"time": "2026-11-21T13:00:00+01:00"}, TIME + 10_000_000),
        ({"expires": TIME + 1}, TIME + 1),
        ({"expires": TIME + 10**9}, TIME + 10_000_000),
    ],
)
def test_the_earliest_expiry_counts(more: dict[str, Any], expires: int) -> None:
    assert parsed(**{**GOOD, **more}).expires == expires


@pytest.mark.parametrize("ttl", [1e12, 1e300, 1e308, "1e308", "9" * 400 + "s", 0, -1, True])
@pytest.mark.parametrize("more", [{}, {"expires": TIME + 1}])
def test_a_time_that_nobody_can_mean_is_refused(ttl: object, more: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        parsed(**{**GOOD, "ttl": ttl, **more})
    assert caught.value.reason == "malformed"


def test_a_ttl_also_bounds_what_a_sender_from_the_future_sends() -> None:
    assert parsed(**GOOD).valid_for == 10


def test_message_expiry_is_enough_and_shortens_a_ttl() -> None:
    payload = orjson.dumps({"id": "1", "point": "d/p", "value": 1})
    assert parse_command(Incoming(topic="t", payload=payload, expiry=7)).valid_for == 7
    payload = orjson.dumps({"id": "1", "point": "d/p", "value": 1, "ttl": 60})
    command = parse_command(Incoming(topic="t", payload=payload, expiry=7))
    assert (command.expires, command.valid_for) == (None, 7)


def test_the_correlation_data_name_a_command_without_an_id() -> None:
    payload = orjson.dumps({key: value for key, value in GOOD.items() if key != "id"})
    assert parse_command(Incoming(topic="t", payload=payload, reply=Reply("r", b"\x01\xff"))).id == "01ff"
    with pytest.raises(Refused, match="`id` is missing"):
        parse_command(Incoming(topic="t", payload=payload))


def test_a_retained_command_is_refused_and_an_emptied_topic_is_none() -> None:
    dialect = JsonCommands("g", "c", command_topic="t", result_topic="r")
    with pytest.raises(Refused) as caught:
        dialect.decode(Incoming(topic="t", payload=orjson.dumps(GOOD), retained=True))
    assert (caught.value.reason, caught.value.id) == ("retained", "1")
    assert not dialect.decode(Incoming(topic="t", payload=b"", retained=True))
    assert not dialect.decode(Incoming(topic="else", payload=b"{"))


@pytest.mark.parametrize("state", State)
def test_results_and_changes_are_as_published(state: State) -> None:
    dialect = JsonCommands("g", "c", command_topic="t", result_topic="r")
    result = CommandResult(id="1", device="d", point="p", state=state, reason="x", detail="y", value=1.5, time=TIME)
    (message,) = dialect.encode(result)
    valid("result", message.payload)
    assert (message.topic, message.retain) == ("r", False)
    change = Change("d", "p", TwinValue(None, TIME, bad("timeout")))
    message = change_message("g", "m/{device}/{point}", {}, change)
    valid("change", message.payload)
    assert (message.topic, orjson.loads(message.payload)["quality"]) == ("m/d/p", "bad(timeout)")
