"""What ThingsBoard is told, and how its RPC is read: golden exchanges after its gateway API's reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import GatewayConfig
from edged.config.types import Name
from edged.downlink.api import CommandResult, Incoming, Refused, Reply, State
from edged.errors import PermanentError
from edged.model import Quality, Reason, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.connectors.thingsboard import ThingsBoardConnection
from edged.uplink.dialects.thingsboard import Announcements, RpcCommands, TelemetryEncoder

DEVICES = {
    "chiller": DeviceConfig(
        bus=Name("line"), profile="acme", labels={"room": "plant"},
        points={Name("setpoint"): PointConfig(unit="°C", writable=True)},
    )
}  # fmt: skip


def named(device: str) -> str:
    return f"plant-7 {device}"


def encoder() -> TelemetryEncoder:
    return TelemetryEncoder("plant-7", 500, named)


def telemetry(of: TelemetryEncoder, *samples: Sample) -> Any:
    chunk = Chunk(1, samples, sum(len(one.points) for one in samples))
    message = of.encode(chunk, Envelope("e1", chunk.last, 0, Lane.LIVE))
    assert message.topic == "v1/gateway/telemetry"
    assert message.properties["seq"] == str(chunk.last)
    return orjson.loads(message.payload)


def test_telemetry_has_devices_with_times_in_milliseconds() -> None:
    a = Sample("chiller", 1_700_000_000_123_456, 0, ("supply", "pump"), (21.5, True))
    b = Sample("meter", 1_700_000_000_200_000, 0, ("power",), ["off"])
    assert telemetry(encoder(), a, b, a) == {
        "plant-7 chiller": [{"ts": 1_700_000_000_123, "values": {"supply": 21.5, "pump": True}}] * 2,
        "plant-7 meter": [{"ts": 1_700_000_000_200, "values": {"power": "off"}}],
    }


def test_a_value_that_is_not_good_is_left_out_or_marked_until_it_is_good_again() -> None:
    of = encoder()
    points = ("x", "y")

    def values(value: float | None, *quality: Quality) -> Any:
        sample = Sample("d", 1000, 0, points, (value, 2), dict(enumerate(quality)))
        return telemetry(of, sample)["plant-7 d"][0]["values"]

    assert values(1.0) == {"x": 1.0, "y": 2}
    assert values(None, bad(Reason.TIMEOUT)) == {"x.quality": "bad(timeout)", "y": 2}
    assert values(3.0, Quality("uncertain", "clock")) == {"x": 3.0, "x.quality": "uncertain(clock)", "y": 2}
    assert values(4.0) == {"x": 4.0, "x.quality": "good", "y": 2}
    assert values(5.0) == {"x": 5.0, "y": 2}
    assert values(float("nan")) == {"x.quality": "bad(decode)", "y": 2}


def test_what_json_cannot_say_is_a_dead_letter() -> None:
    with pytest.raises(PermanentError, match="JSON"):
        telemetry(encoder(), Sample("d", 0, 0, ("x",), [2**70]))


def test_devices_are_connected_described_and_disconnected() -> None:
    known = dict(DEVICES)
    made = Announcements(GatewayConfig(id=Name("plant-7")), known, lambda: {"read": 7}, named)
    first = [(message.topic, orjson.loads(message.payload)) for message in made.greeting("e1", 0)]
    assert first[0] == ("v1/gateway/connect", {"device": "plant-7 chiller", "type": "acme"})
    assert first[1] == (
        "v1/gateway/attributes",
        {
            "plant-7 chiller": {
                "label_room": "plant", "points": {"setpoint": {"unit": "°C", "description": "", "writable": True}},
            }
        },
    )  # fmt: skip
    assert first[2][0] == "v1/devices/me/attributes"
    known.clear()
    gone = made.greeting("e1", 0)[0]
    assert (gone.topic, orjson.loads(gone.payload)) == (
        "v1/gateway/disconnect",
        {"device": "plant-7 chiller"},
    )
    assert orjson.loads(made.health("e1", 0).payload) == {"readings_read": 7}


def rpc(method: str, params: Any, device: str = "plant-7 chiller", number: int = 5) -> Incoming:
    document = {"device": device, "data": {"id": number, "method": method, "params": params}}
    return Incoming(topic="v1/gateway/rpc", payload=orjson.dumps(document))


def dialect() -> RpcCommands:
    return RpcCommands(DEVICES, named, 30.0, "run")


@pytest.mark.parametrize(
    "message",
    [
        rpc("write", {"point": "setpoint", "value": 21}),
        rpc("setpoint", 21),
        rpc("set", {"point": "setpoint", "value": 21}),
    ],
)
def test_rpc_is_a_command_and_its_answer_goes_to_the_same_request(message: Incoming) -> None:
    of = dialect()
    (command,) = of.decode(message)
    assert (command.address, command.value, command.valid_for) == ("chiller/setpoint", 21, 30.0)
    assert of.decode(message)[0].id != command.id, "numbers of requests begin anew with each session"
    result = CommandResult(
        id=command.id, device="chiller", point="setpoint", state=State.VERIFIED, value=21, reply=command.reply
    )
    (answer,) = of.encode(result)
    assert (answer.topic, orjson.loads(answer.payload)) == (
        "v1/gateway/rpc",
        {"device": "plant-7 chiller", "id": 5, "data": {"success": True, "state": "verified", "value": 21}},
    )


def test_only_the_last_word_is_an_answer_and_a_failure_says_why() -> None:
    reply = Reply(correlation=orjson.dumps(["plant-7 chiller", 5]))
    accepted = CommandResult(id="1", device="chiller", point="setpoint", state=State.ACCEPTED, reply=reply)
    failed = CommandResult(
        id="1",
        device="chiller",
        point="setpoint",
        state=State.FAILED,
        reason="timeout",
        detail="no answer",
        reply=reply,
    )
    assert dialect().encode(accepted) == []
    assert orjson.loads(dialect().encode(failed)[0].payload)["data"] == {
        "success": False, "state": "failed", "reason": "timeout", "error": "no answer",
    }  # fmt: skip


def test_a_request_that_thingsboard_keeps_can_say_until_when_it_counts() -> None:
    (command,) = dialect().decode(rpc("write", {"point": "setpoint", "value": 21, "expires": "2026-11-21T12:00:00Z"}))
    assert (command.expires, command.valid_for) == (1_795_262_400_000_000, 30.0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (rpc("write", {"point": "setpoint", "value": 1, "expires": "soon"}), "malformed"),
        (rpc("write", {"point": "setpoint", "value": 1, "expires": None}), "malformed"),
        (rpc("write", {"point": "setpoint", "value": 1, "expiry": 5}), "malformed"),
        (replace(rpc("setpoint", 21), retained=True), "retained"),
        (rpc("setpoint", 1, device="other"), "unknown-point"),
        (rpc("reboot", {}), "unknown-point"),
        (rpc("setpoint", {"a": 1}), "malformed"),
        (rpc("write", {"point": ["setpoint"], "value": 1}), "unknown-point"),
        (Incoming(topic="v1/gateway/rpc", payload=b"{"), "malformed"),
        (Incoming(topic="v1/gateway/rpc", payload=b"[]"), "malformed"),
        (Incoming(topic="v1/gateway/rpc", payload=b'{"device": "x", "data": 5}'), "malformed"),
    ],
)
def test_what_is_no_command_is_refused(message: Incoming, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        dialect().decode(message)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"device_name": "x"}, "must contain"), ({"max_readings": 0}, "between 1"), ({"device_name": "{x}"}, "uses")],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ThingsBoardConnection(connector="thingsboard", url="mqtt://b", **settings)
