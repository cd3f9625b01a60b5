"""The Watson IoT Platform's topic scheme: golden exchanges after IBM's pages on gateways and devices."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edged.buffer.batch import Batch
from edged.downlink.api import CommandResult, Incoming, Refused, State
from edged.errors import PermanentError
from edged.model import Reason, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.dialects.watson import EventEncoder, Names, WatsonCommands

GATEWAY = Names("abc123", "edged", "plant-7", "edged-device")
DEVICE = Names("abc123", "edged", "plant-7")


def test_names_of_a_gateway_and_of_a_device() -> None:
    assert GATEWAY.client_id == "g:abc123:edged:plant-7"
    assert DEVICE.client_id == "d:abc123:edged:plant-7"
    assert GATEWAY.event("data", "chiller") == "iot-2/type/edged-device/id/chiller/evt/data/fmt/json"
    assert GATEWAY.status_topic == "iot-2/type/edged/id/plant-7/evt/status/fmt/json"
    assert DEVICE.event("data", "chiller") == "iot-2/evt/data/fmt/json"
    assert GATEWAY.commands == [
        "iot-2/type/edged/id/plant-7/cmd/+/fmt/+", "iot-2/type/edged-device/id/+/cmd/+/fmt/+",
    ]  # fmt: skip
    assert DEVICE.commands == ["iot-2/cmd/+/fmt/+"]


def test_an_event_has_its_values_under_d_and_says_where_it_belongs() -> None:
    sample = Sample("chiller", 1_700_000_000_123_456, 0, ("supply", "ret"), (21.5, None), {1: bad(Reason.TIMEOUT)})
    empty = Sample("chiller", 1, 0, (), ())
    encoder = EventEncoder("plant-7", GATEWAY, "data")
    first, second, third = encoder.split(Batch(5, (sample, empty, sample, empty), "boot", 4))
    assert [(one.first, one.last, one.readings) for one in (first, second, third)] == [(5, 5, 2), (6, 7, 2), (8, 8, 0)]
    message = encoder.encode(second, Envelope("e1", 7, 5, Lane.LIVE, flow="hot"))
    assert message.topic == "iot-2/type/edged-device/id/chiller/evt/data/fmt/json"
    assert orjson.loads(message.payload) == {
        "d": {"supply": 21.5, "ret": None}, "ts": "2023-11-14T22:13:20.123456Z",
        "edged": {
            "v": 1, "gateway": "plant-7", "epoch": "e1", "lane": "live", "first": 6, "seq": 7, "prev": 5,
            "device": "chiller", "time": 1_700_000_000_123_456, "quality": {"ret": "bad(timeout)"}, "flow": "hot",
        },
    }  # fmt: skip
    assert orjson.loads(encoder.encode(third, Envelope("e1", 8, 7, Lane.LIVE)).payload)["d"] == {}
    with pytest.raises(PermanentError, match="one sample"):
        encoder.encode(Chunk(1, (sample, sample), 4), Envelope("e1", 2, 0, Lane.LIVE))


def commands(names: Names = GATEWAY) -> WatsonCommands:
    return WatsonCommands(names, "plant-7", "cloud", valid_for=30.0, run="run")


def sent(topic: str, document: object, **more: Any) -> Incoming:
    return Incoming(topic=topic, payload=orjson.dumps(document), **more)


CHILLER = "iot-2/type/edged-device/id/chiller/cmd"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (GATEWAY, sent(f"{CHILLER}/write/fmt/json", {"d": {"point": "setpoint", "value": 21}})),
        (GATEWAY, sent(f"{CHILLER}/write/fmt/json", {"point": "chiller/setpoint", "value": 21})),
        (GATEWAY, sent(f"{CHILLER}/setpoint/fmt/json", {"d": {"value": 21}})),
        (GATEWAY, sent("iot-2/type/edged/id/plant-7/cmd/write/fmt/json", {"point": "chiller/setpoint", "value": 21})),
        (DEVICE, sent("iot-2/cmd/write/fmt/json", {"point": "chiller/setpoint", "value": 21})),
    ],
)
def test_a_command_names_its_point_in_one_of_several_ways(names: Names, message: Incoming) -> None:
    of = commands(names)
    (command,) = of.decode(message)
    assert (command.address, command.value, command.valid_for) == ("chiller/setpoint", 21, 30.0)
    assert of.decode(message)[0].id != command.id
    told = CommandResult(id="1", device="chiller", point="setpoint", state=State.VERIFIED, reply=command.reply)
    (answer,) = of.encode(told)
    assert answer.topic.endswith("/evt/result/fmt/json")
    assert orjson.loads(answer.payload).items() >= {"id": "1", "state": "verified", "point": "chiller/setpoint"}.items()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Incoming(topic=f"{CHILLER}/write/fmt/json", payload=b"{"), "malformed"),
        (sent(f"{CHILLER}/write/fmt/json", [1]), "malformed"),
        (sent(f"{CHILLER}/write/fmt/json", {"value": 1}), "malformed"),
        (sent(f"{CHILLER}/write/fmt/json", {"point": 5, "value": 1}), "malformed"),
        (sent(f"{CHILLER}/setpoint/fmt/json", {"value": 1}, retained=True), "retained"),
    ],
)
def test_what_is_no_command_is_refused(message: Incoming, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        commands().decode(message)
    assert caught.value.reason == reason
    assert caught.value.reply.topic == "iot-2/type/edged-device/id/chiller/evt/result/fmt/json"
    assert commands().decode(sent("iot-2/type/edged-device/id/chiller/mon", {})) == []
    assert commands().decode(sent("x", {})) == []
