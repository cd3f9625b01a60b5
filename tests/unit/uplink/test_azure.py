"""Azure IoT Hub and DPS: tokens, topics, twin, methods and messages, one golden exchange for each message."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import Batch
from edged.config.types import Duration, Secret
from edged.downlink.api import CommandResult, Incoming, Refused, Reply, State
from edged.errors import ConfigError, PermanentError, TransientError
from edged.model import Sample
from edged.uplink.api import Envelope, Lane
from edged.uplink.connectors.azure_iot_hub import CONNECTOR, AzureConnection
from edged.uplink.dialects.azure import (
    Answer,
    Identity,
    Twin,
    answer_of,
    bag,
    derived_key,
    properties_of,
    token,
)
from edged.uplink.dialects.azure_commands import AzureCommands
from edged.uplink.dialects.azure_dps import Assigning, Enrolment, assignment
from edged.uplink.dialects.twins import OWN
from tests.support.forwarding import context_of

HUB = Identity("contoso.azure-devices.net", "plant-7")
KEY = "Zm9vYmFy"


def test_a_token_is_signed_as_azure_documents_it() -> None:
    """The signature was made by `openssl dgst -sha256 -hmac foobar`."""
    assert token("myhub.azure-devices.net/devices/d1", KEY, 1_700_000_000) == (
        "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fd1"
        "&sig=O6C%2BkDfDjXPTRS1Qb9DYYuxs89WV6zI5nJOF6An759E%3D&se=1700000000"
    )
    assert token("scope/registrations/d1", KEY, 1_700_000_000, "registration").endswith(
        "&se=1700000000&skn=registration"
    )


def test_a_connection_string_has_the_key_in_it() -> None:
    whole = f"HostName=myhub.azure-devices.net;DeviceId=d1;SharedAccessKey={KEY}"
    assert token("x", whole, 1) == token("x", KEY, 1)
    assert token("x", f"SharedAccessKey={KEY};GatewayHostName=y", 1) == token("x", KEY, 1)


def test_a_device_of_a_group_has_a_key_of_its_own() -> None:
    """Made by `openssl dgst -sha256 -hmac foobar` of the registration."""
    assert derived_key(KEY, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6") == "d9Q/iDyFA8z1xC2zHom8XvFJM1snwjAT6YAd3GLUhPM="


@pytest.mark.parametrize("key", ["not base 64", "Zm9vYmF", "ä"])
def test_a_key_that_is_none_is_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="Base64") as caught:
        token("x", key, 1)
    assert key not in str(caught.value)


def test_names_and_topics() -> None:
    assert HUB.username == "contoso.azure-devices.net/plant-7/?api-version=2021-04-12"
    assert HUB.events(**{"$.ct": "application/json", "a b": "ü&="}) == (
        "devices/plant-7/messages/events/$.ct=application%2Fjson&a%20b=%C3%BC%26%3D"
    )
    assert Identity("h", "a#b").bound == "devices/a%23b/messages/devicebound/"


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_properties_come_out_as_they_went_in(properties: dict[str, str]) -> None:
    text = bag(properties)
    assert properties_of(text) == properties
    assert not set(text) & set("/#+? ")


def telemetry(**settings: Any) -> Any:
    config = AzureConnection(
        connector="azure-iot-hub",
        url="mqtts://contoso.azure-devices.net",
        shared_access_key=Secret(text="x"),
        **settings,
    )
    return CONNECTOR.encoder(config, context_of())


def test_telemetry_says_what_it_is_and_where_it_belongs() -> None:
    samples = (Sample("chiller", 1_700_000_000_123_456, 0, ("supply",), (21.5,)),)
    encoder = telemetry()
    (chunk,) = encoder.split(Batch(7, samples, "boot", 1))
    message = encoder.encode(chunk, Envelope("e1", 7, 6, Lane.HISTORICAL, flow="hot"))
    prefix, _, text = message.topic.rpartition("/")
    assert prefix == "devices/plant-7/messages/events"
    assert {key: value[0] for key, value in parse_qs(text).items()} == {
        "$.ct": "application/json", "$.ce": "utf-8", "$.mid": "e1-7-hot", "$.ctime": "2023-11-14T22:13:20.123456Z",
        "type": "data", "gateway": "plant-7", "readings": "1", "epoch": "e1", "lane": "historical", "first": "7",
        "seq": "7", "prev": "6", "flow": "hot",
    }  # fmt: skip
    assert orjson.loads(message.payload)["tables"][0]["values"] == [[21.5]]
    assert not message.retain


def test_other_layouts_say_their_type_and_device() -> None:
    samples = (Sample("chiller", 1_700_000_000_123_456, 0, ("supply",), (21.5,)),)
    for layout, kind in (
        ("samples", "application/json"),
        ("influx", "text/plain"),
        ("senml", "application/senml+json"),
    ):
        encoder = telemetry(layout=layout, compression="gzip")
        (chunk,) = encoder.split(Batch(1, samples, "boot", 1))
        known = parse_qs(encoder.encode(chunk, Envelope("e1", 1, 0, Lane.LIVE)).topic.rpartition("/")[2])
        assert (known["$.ct"][0].partition(";")[0], known["$.ce"]) == (kind, ["gzip"])
        assert known.get("device") == (["chiller"] if layout == "samples" else None)


# -- the twin ----------------------------------------------------------------------------------------------------------


def test_the_twin_is_asked_for_and_changed_by_differences() -> None:
    twin = Twin()
    assert (twin.request("1").topic, twin.request("1").payload) == ("$iothub/twin/GET/?$rid=1", b"")
    body = b'{"desired": {"$version": 1}, "reported": {"chiller": {"a": 1, "b": 2}, "$version": 3}}'
    answer = answer_of(Incoming(topic="$iothub/twin/res/200/?$rid=1", payload=body))
    assert answer == Answer(200, "1", body)
    twin.adopt(body)
    update = twin.update({"chiller": {"a": 1, "c": 3}}, "2")
    assert update is not None
    assert update[0].topic == "$iothub/twin/PATCH/properties/reported/?$rid=2"
    assert orjson.loads(update[0].payload) == {"chiller": {"b": None, "c": 3}}
    twin.known = update[1]
    assert twin.update({"chiller": {"a": 1, "c": 3}}, "3") is None
    assert answer_of(Incoming(topic="$iothub/twin/res/204/?$rid=2&$version=4", payload=b"")) == Answer(204, "2", b"")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"reported": 5}'])
def test_what_is_no_twin_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match="no device twin"):
        Twin().adopt(body)
    assert answer_of(Incoming(topic="$iothub/twin/res/x/?$rid=1", payload=b"")) is None
    assert answer_of(Incoming(topic="$iothub/other", payload=b"")) is None


def commands() -> AzureCommands:
    return AzureCommands(HUB, "plant-7", "cloud", 30.0, run="run", twin=Twin())


def desired(version: int = 8, **document: Any) -> Incoming:
    topic = f"$iothub/twin/PATCH/properties/desired/?$version={version}"
    return Incoming(topic=topic, payload=orjson.dumps({**document, "$version": version}))


def test_a_desired_property_is_a_command_that_has_not_waited() -> None:
    of = commands()
    assert [topic for topic, _ in of.topics()] == [
        "devices/plant-7/messages/devicebound/#", "$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#",
    ]  # fmt: skip
    (command,) = of.decode(desired(chiller={"setpoint": 21}))
    assert (command.address, command.value, command.valid_for, command.expires) == ("chiller/setpoint", 21, 30.0, None)
    assert of.decode(desired(chiller={"setpoint": 21})) == [], "redelivered"
    assert [one.id for one in commands().decode(desired(chiller={"setpoint": 21}))] == [command.id], "after a restart"
    assert len(of.decode(desired(9, chiller={"setpoint": 21}))) == 1, "wished again"


def twin_answer(wanted: object, is_so: object) -> Incoming:
    body = orjson.dumps({"desired": wanted, "reported": is_so})
    return Incoming(topic="$iothub/twin/res/200/?$rid=edged-1", payload=body)


def test_what_was_desired_before_counts_only_as_long_as_it_is_known_how_old_it_is() -> None:
    is_so = {"chiller": {"pump": True}, "$version": 3}
    wanted: dict[str, Any] = {"chiller": {"setpoint": 21, "pump": True}, "$version": 8}
    (command,) = commands().decode(twin_answer(wanted, is_so))
    assert (command.address, command.expires) == ("chiller/setpoint", 1), "nobody knows how old it is"
    wanted["$metadata"] = {"chiller": {"setpoint": {"$lastUpdated": "2023-11-14T22:13:20.0000000Z"}}}
    (command,) = commands().decode(twin_answer(wanted, is_so))
    assert command.expires == 1_700_000_030_000_000
    wanted = {"chiller": {"setpoint": {"value": 21, "expires": "2023-11-14T22:13:20Z"}}, "$version": 9}
    (command,) = commands().decode(twin_answer(wanted, is_so))
    assert (command.value, command.expires) == (21, 1_700_000_000_000_000)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"desired": 5}'])
def test_what_is_no_twin_is_no_command(payload: bytes) -> None:
    for topic in ("$iothub/twin/res/200/?$rid=1", "$iothub/twin/PATCH/properties/desired/?$version=1", "other"):
        assert list(commands().decode(Incoming(topic=topic, payload=payload))) == []


# -- methods and messages ----------------------------------------------------------------------------------------------


def method(name: str, payload: bytes, number: str = "1a") -> Incoming:
    return Incoming(topic=f"$iothub/methods/POST/{name}/?$rid={number}", payload=payload)


def result(command_id: str, reply: Reply, state: State, **more: Any) -> CommandResult:
    return CommandResult(id=command_id, device="chiller", point="setpoint", state=state, reply=reply, **more)


def test_a_method_is_a_command_and_is_answered_with_a_status() -> None:
    of = commands()
    (command,) = of.decode(method("write", b'{"point": "chiller/setpoint", "value": 21}'))
    assert (command.address, command.value, command.valid_for) == ("chiller/setpoint", 21, 30.0)
    (second,) = of.decode(method("Write", b'{"point": "chiller/setpoint", "value": 21}'))
    assert second.id != command.id, "numbers of requests begin anew with each session"
    (named,) = of.decode(method("write", b'{"point": "chiller/setpoint", "value": 21, "id": "mine"}'))
    assert named.id == "mine"
    assert of.encode(result(command.id, command.reply, State.ACCEPTED)) == []
    (answer,) = of.encode(result(command.id, command.reply, State.VERIFIED, value=21))
    assert (answer.topic, orjson.loads(answer.payload)) == (
        "$iothub/methods/res/200/?$rid=1a", {"id": command.id, "state": "verified", "value": 21},
    )  # fmt: skip
    of.renew()
    assert of.encode(result(command.id, command.reply, State.VERIFIED)) == [], "the hub has given up"


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        (State.REJECTED, "range", 400), (State.REJECTED, "unknown", 404), (State.REJECTED, "not-writable", 403),
        (State.REJECTED, "full", 429), (State.EXPIRED, "", 408), (State.FAILED, "unknown", 500),
        (State.EXECUTED, "", 200),
    ],
)  # fmt: skip
def test_a_method_s_status_says_what_became_of_it(state: State, reason: str, status: int) -> None:
    of = commands()
    (command,) = of.decode(method("write", b'{"point": "chiller/setpoint", "value": 21}'))
    (answer,) = of.encode(result(command.id, command.reply, state, reason=reason))
    assert answer.topic == f"$iothub/methods/res/{status}/?$rid=1a"


@pytest.mark.parametrize(
    ("message", "reason", "status"),
    [
        (method("reboot", b"{}"), "method", 404), (method("write", b""), "malformed", 400),
        (method("write", b'{"point": "x"}'), "malformed", 400), (method("write", b'{"vlaue": 1}'), "malformed", 400),
    ],
)  # fmt: skip
def test_what_is_no_method_is_answered_too(message: Incoming, reason: str, status: int) -> None:
    of = commands()
    with pytest.raises(Refused) as caught:
        of.decode(message)
    assert caught.value.reason == reason
    (answer,) = of.encode(result("", caught.value.reply, State.REJECTED, reason=reason))
    assert answer.topic == f"$iothub/methods/res/{status}/?$rid=1a"


def bound(properties: str, payload: bytes) -> Incoming:
    return Incoming(topic=f"devices/plant-7/messages/devicebound/{properties}", payload=payload)


def test_a_message_is_a_command_with_the_hub_s_id_and_expiry() -> None:
    of = commands()
    topic = "%24.mid=m-1&%24.to=%2Fdevices%2Fplant-7&%24.exp=2023-11-14T22%3A13%3A20.0000000Z"
    (command,) = of.decode(bound(topic, b'{"point": "chiller/setpoint", "value": 21}'))
    assert (command.id, command.expires) == ("m-1", 1_700_000_000_000_000)
    (told,) = of.encode(result("m-1", command.reply, State.VERIFIED, value=21))
    known = parse_qs(told.topic.rpartition("/")[2])
    assert (known["type"], known["$.cid"]) == (["result"], ["m-1"])
    assert orjson.loads(told.payload).items() >= {"id": "m-1", "state": "verified", "value": 21}.items()
    (own,) = of.decode(bound("", b'{"id": "a", "point": "a/b", "value": 1, "expires": 1700000000000000}'))
    assert (own.id, own.expires) == ("a", 1_700_000_000_000_000)
    with pytest.raises(Refused):
        of.decode(bound("", b"nothing"))


def test_the_last_word_on_a_desired_property_is_reported() -> None:
    of = commands()
    (command,) = of.decode(desired(chiller={"setpoint": 21}))
    (told,) = of.encode(result(command.id, command.reply, State.EXPIRED))
    assert told.topic == "$iothub/twin/PATCH/properties/reported/?$rid=result"
    assert orjson.loads(told.payload)[OWN]["command"]["state"] == "expired"


# -- provisioning ------------------------------------------------------------------------------------------------------


def test_registration_with_dps() -> None:
    enrolment = Enrolment("0ne00000001", "plant-7")
    assert enrolment.username == "0ne00000001/registrations/plant-7/api-version=2019-03-31"
    register, poll = enrolment.register("1"), enrolment.poll("2", "4.a b")
    assert (register.topic, orjson.loads(register.payload)) == (
        "$dps/registrations/PUT/iotdps-register/?$rid=1", {"registrationId": "plant-7"},
    )  # fmt: skip
    assert (poll.topic, poll.payload) == (
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=4.a%20b", b"",
    )  # fmt: skip
    body = b'{"operationId": "4.a", "status": "assigning"}'
    answer = answer_of(
        Incoming(topic="$dps/registrations/res/202/?$rid=1&retry-after=5", payload=body), "$dps/registrations/res/"
    )
    assert answer is not None
    assert assignment(answer) == Assigning("4.a", 5.0)
    state = {"assignedHub": "contoso.azure-devices.net", "deviceId": "d", "status": "assigned"}
    done = orjson.dumps({"operationId": "4.a", "status": "assigned", "registrationState": state})
    assert assignment(Answer(200, "2", done)) == Identity("contoso.azure-devices.net", "d")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Answer(401, "1", b'{"errorCode": 401002, "message": "Unauthorized"}'), PermanentError, "401 Unauthorized"),
        (Answer(429, "1", b""), TransientError, "429"),
        (Answer(500, "1", b"{"), TransientError, "500"),
        (
            Answer(200, "1", b'{"status": "failed", "registrationState": {"errorMessage": "no hub"}}'),
            PermanentError,
            "no hub",
        ),
        (Answer(200, "1", b'{"status": "disabled", "operationId": "x"}'), PermanentError, "disabled"),
        (Answer(200, "1", b""), PermanentError, "no reason"),
        (Answer(200, "1", b'{"status": [null]}'), PermanentError, "None"),
    ],
)
def test_a_registration_that_fails_says_why(answer: Answer, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        assignment(answer)


def test_websockets_have_the_hub_s_own_path_and_no_mqtt_5() -> None:
    def broker(url: str) -> Any:
        config = AzureConnection(connector="azure-iot-hub", url=url, shared_access_key=Secret(text="x"))
        link: Any = CONNECTOR.link(config, context_of())
        return link._broker  # what goes on the wire

    assert broker("wss://contoso.azure-devices.net").websocket_path == "/$iothub/websocket"
    assert broker("wss://contoso.azure-devices.net/other").websocket_path == "/other"
    assert (broker("mqtts://h").websocket_path, broker("mqtts://h").protocol) == ("", "3.1.1")
    settings: dict[str, Any] = {"id_scope": "0ne", "group_key": Secret(text="x"), "keepalive": Duration(60)}
    config = AzureConnection(connector="azure-iot-hub", url="mqtts://h", **settings)
    with pytest.raises(ConfigError, match="no folder"):
        CONNECTOR.link(config, context_of())
