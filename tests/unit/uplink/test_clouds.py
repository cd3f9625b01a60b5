"""Whatever a cloud sends, its dialect answers, refuses or ignores; none of it may end the session's work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Name
from edged.downlink.api import Command, CommandResult, Dialect, Incoming, Refused, State
from edged.errors import EdgedError
from edged.uplink.api import Message
from edged.uplink.dialects.aws import Credentials, Shadow, ShadowCommands, refusal, thing_of
from edged.uplink.dialects.azure import Identity, Twin, answer_of
from edged.uplink.dialects.azure_commands import AzureCommands
from edged.uplink.dialects.azure_dps import assignment
from edged.uplink.dialects.clouds import Unretained
from edged.uplink.dialects.homeassistant import HomeAssistantCommands
from edged.uplink.dialects.homeassistant import Names as HaNames
from edged.uplink.dialects.sparkplug import Node
from edged.uplink.dialects.sparkplug_commands import SparkplugCommands
from edged.uplink.dialects.thingsboard import RpcCommands
from edged.uplink.dialects.twins import Limits
from edged.uplink.dialects.watson import Names, WatsonCommands
from edged.uplink.json_commands import JsonCommands

DEVICES = {"chiller": DeviceConfig(bus=Name("line"), points={Name("setpoint"): PointConfig(writable=True)})}

WORDS = st.sampled_from(
    [
        "state", "desired", "reported", "delta", "metadata", "timestamp", "version", "clientToken", "code", "message",
        "$version", "$metadata", "$lastUpdated", "chiller", "setpoint", "value", "expires", "point",
        "chiller/setpoint", "d", "id", "status", "operationId", "registrationState", "assignedHub", "deviceId",
        "edged:gateway", "thingName", "ttl",
    ]
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS | st.sampled_from(["2026-11-21T12:00:00Z", "assigned", "assigning", "9999-12-31T23:59:59+00:00", ""])
)  # fmt: skip
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=20
)


@st.composite
def nested(draw: st.DrawFn) -> bytes:
    """As deep as a parser may just take it, below keys that a dialect looks at."""
    before = draw(st.sampled_from(DOCUMENTS))
    left, right = draw(st.sampled_from([(b"[", b"]"), (b'{"a": ', b"}"), (b'{"chiller": ', b"}")]))
    depth = draw(st.sampled_from([100, 240, 300, 500, 900, 1000, 1020, 2000]))
    return before.replace(b"@", left * depth + b"1" + right * depth)


DOCUMENTS = [
    b"@", b'{"d": @}', b'{"d": {"value": @}}',
    b'{"point": @, "value": 1}', b'{"point": "chiller/setpoint", "value": @}',
    b'{"version": 1, "state": @, "metadata": @}', b'{"version": 1, "state": {"chiller": {"setpoint": @}}}',
    b'{"version": 1, "state": {"delta": {"chiller": {"setpoint": 1}}}, "metadata": {"desired": @}}',
    b'{"version": 1, "state": {"chiller": {"setpoint": 1}}, "metadata": {"chiller": {"setpoint": @}}}',
    b'{"desired": {"chiller": {"setpoint": @}}, "reported": @}', b'{"desired": @, "reported": @}',
    b'{"chiller": {"setpoint": @}, "$version": 2}', b'{"chiller": {"setpoint": {"value": 1, "expires": @}}}',
    b'{"device": "chiller", "data": {"id": 1, "method": @, "params": 1}}',
    b'{"device": "chiller", "data": {"id": @, "method": "setpoint", "params": 1}}',
    b'{"device": @, "data": {"id": 1, "method": "setpoint", "params": 1}}',
    b'{"device": "chiller", "data": {"id": 1, "method": "write", "params": {"point": @, "value": 1}}}',
    b'{"device": "chiller", "data": {"id": 1, "method": "write", "params": {"point": "setpoint", "value": @}}}',
    b'{"id": @, "point": "chiller/setpoint", "value": 1, "ttl": 5, "time": "2026-11-21T12:00:00Z"}',
]  # fmt: skip
PAYLOADS = JSON.map(orjson.dumps) | st.binary(max_size=20) | nested()
PREFIX = "$aws/things/plant-7/shadow"
TOPICS = st.sampled_from(
    [
        f"{PREFIX}/update/delta", f"{PREFIX}/get/accepted", f"{PREFIX}/get/rejected", f"{PREFIX}/update/accepted",
        f"{PREFIX}/update/rejected", "$iothub/twin/res/200/?$rid=1", "$iothub/twin/res/x", "$iothub/methods/POST/write",
        "$iothub/methods/POST/write/?$rid=%ff", "$iothub/twin/PATCH/properties/desired/?$version=1",
        "devices/plant-7/messages/devicebound/", "devices/plant-7/messages/devicebound/%24.mid=x&%24.exp=y&&=",
        "iot-2/type/edged-device/id/chiller/cmd/write/fmt/json", "iot-2/cmd/x", "iot-2/type/edged/id/%/cmd//fmt/", "x",
        "v1/gateway/rpc", "edged/plant-7/ha/set/chiller/setpoint", "edged/plant-7/ha/set/%/+",
        "edged/plant-7/ha/set/%ff/%ED%A0%80", "iot-2/type/edged-device/id/%ff/cmd/write/fmt/json",
        "iot-2/type/edged-device/id/%ED%A0%80/cmd/%fe/fmt/json", "spBv1.0/edged/DCMD/plant-7/%ff",
        "edged/plant-7/command",
        "spBv1.0/edged/DCMD/plant-7/chiller", "spBv1.0/edged/DCMD/plant-7/#",
    ]
)  # fmt: skip


def dialects() -> Sequence[Dialect]:
    shadow = Shadow("", Limits(8192))
    shadow.belong_to("plant-7")
    return (
        ShadowCommands(shadow, 60.0, lambda: True),
        AzureCommands(Identity("hub", "plant-7"), "plant-7", "cloud", 30.0, run="run", twin=Twin()),
        WatsonCommands(Names("o", "edged", "plant-7", "edged-device"), "plant-7", "cloud", valid_for=30.0, run="run"),
        RpcCommands(DEVICES, str, 30.0, "run"),
        HomeAssistantCommands(HaNames("homeassistant", "edged/plant-7/ha"), DEVICES, 30.0, "run"),
        SparkplugCommands(Node("edged", "plant-7", lambda: DEVICES), 30.0, "scada"),
        JsonCommands("plant-7", "cloud", command_topic="edged/plant-7/command", result_topic="edged/plant-7/result"),
    )


DEEP = b"[" * 300 + b"1" + b"]" * 300


@given(TOPICS, PAYLOADS)
@example("v1/gateway/rpc", b'{"device": "chiller", "data": {"id": 1, "method": [1], "params": 1}}')
@example("v1/gateway/rpc", b'{"device": "chiller", "data": {"id": %b, "method": "setpoint", "params": 1}}' % DEEP)
@example("edged/plant-7/ha/set/%ff/%ED%A0%80", b"1")
@example("iot-2/type/edged-device/id/chiller/cmd/write/fmt/json", b'{"d": {"value": %b}}' % DEEP)
@example("iot-2/type/edged-device/id/%ED%A0%80/cmd/x/fmt/json", b'{"d": {"value": 1}}')
@example(f"{PREFIX}/update/delta", b'{"version": 1, "state": {"chiller": {"setpoint": %b}}}' % DEEP)
@example("$iothub/methods/POST/write/?$rid=1", b'{"point": "chiller/setpoint", "value": %b}' % DEEP)
@example("edged/plant-7/command", b'{"id": "1", "point": "chiller/setpoint", "value": 1, "ttl": 1e305, "time": 1e15}')
def test_any_message_is_commands_or_refused_and_every_result_can_be_told(topic: str, payload: bytes) -> None:
    for dialect in dialects():
        try:
            commands: Sequence[Command] = dialect.decode(Incoming(topic=topic, payload=payload))
        except Refused as exc:
            reply = exc.reply
            result = CommandResult(id=exc.id, device="", point="", state=State.REJECTED, reason=exc.reason, reply=reply)
            assert all(message.topic for message in dialect.encode(result))
            continue
        for one in commands:
            assert isinstance(one.device, str)
            assert one.expires is not None or one.valid_for is not None
            for state in State:
                told = CommandResult(id=one.id, device=one.device, point=one.point, state=state, reply=one.reply)
                for message in dialect.encode(told):
                    assert orjson.loads(message.payload)


@given(TOPICS, PAYLOADS)
def test_any_answer_is_understood_or_ignored(topic: str, payload: bytes) -> None:
    shadow = Shadow("", Limits(8192))
    shadow.belong_to("plant-7")
    shadow.take(Incoming(topic=topic, payload=payload))
    shadow.update({"chiller": {"setpoint": 1}}, "t")
    answer = answer_of(Incoming(topic=topic, payload=payload))
    if answer is not None:
        with contextlib.suppress(EdgedError):
            assignment(answer)
    twin = Twin()
    with contextlib.suppress(ValueError):
        twin.adopt(payload)
    twin.update({"chiller": {"setpoint": 1}}, "t")
    for read in (Credentials.load, thing_of):
        with contextlib.suppress(ValueError):
            read(payload)
    assert str(refusal("provision", payload))


class _Told:
    def greeting(self, epoch: str, time: int) -> list[Message]:
        return [Message("status", b"online", retain=True), Message("metadata/gone", b"", retain=True)]

    def health(self, epoch: str, time: int) -> Message:
        return Message("health", b"{}", retain=True)

    will = farewell = health


def test_nothing_is_retained_where_that_is_not_wanted() -> None:
    told = Unretained(_Told())
    found: list[Any] = [*told.greeting("e", 1), told.health("e", 1), told.will("e", 1), told.farewell("e", 1)]
    assert [(one.topic, one.retain) for one in found] == [("status", False), *[("health", False)] * 3]


@pytest.mark.parametrize("dialect", dialects(), ids=lambda one: type(one).__name__)
def test_what_is_for_somebody_else_is_ignored(dialect: Dialect) -> None:
    assert list(dialect.decode(Incoming(topic="edged/plant-8/command", payload=b"{}"))) == []
