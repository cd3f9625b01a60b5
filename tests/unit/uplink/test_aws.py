"""AWS IoT Core: topics, shadow documents and provisioning, one golden exchange for each message of its guide."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from edged.downlink.api import CommandResult, Incoming, Reply, State
from edged.errors import ConfigError, PermanentError, TransientError
from edged.uplink.connectors.aws_iot import CONNECTOR, AwsConnection
from edged.uplink.dialects.aws import (
    CREATE,
    SHADOW,
    Credentials,
    Shadow,
    ShadowCommands,
    check_topic,
    refusal,
    registration,
    thing_of,
)
from edged.uplink.dialects.clouds import Both
from edged.uplink.dialects.twins import OWN, Limits
from edged.uplink.json_commands import JsonCommands
from tests.support.forwarding import context_of

PREFIX = "$aws/things/plant-7/shadow/name/points"


def shadow(name: str = "points") -> Shadow:
    made = Shadow(name, Limits(8192))
    made.belong_to("plant-7")
    return made


def said(topic: str, document: object) -> Incoming:
    return Incoming(topic=f"{PREFIX}/{topic}", payload=orjson.dumps(document))


def test_a_shadow_has_a_name_or_is_the_classic_one() -> None:
    assert shadow("").request("t").topic == "$aws/things/plant-7/shadow/get"
    message = shadow().request("t")
    assert (message.topic, message.payload) == (f"{PREFIX}/get", b'{"clientToken":"t"}')


def test_only_changes_are_reported_and_they_name_the_version_that_they_are_of() -> None:
    of = shadow()
    found = {"state": {"reported": {"chiller": {"a": 1, "b": 2}}}, "version": 7, "clientToken": "t-1"}
    assert of.take(said("get/accepted", found)) == ("t-1", None)
    message = of.update({"chiller": {"a": 1, "c": 3}}, "t-2")
    assert message is not None
    assert (message.topic, orjson.loads(message.payload)) == (
        f"{PREFIX}/update",
        {"state": {"reported": {"chiller": {"b": None, "c": 3}}}, "version": 7, "clientToken": "t-2"},
    )
    changes = {"chiller": {"b": None, "c": 3}}
    assert of.take(said("update/accepted", {"state": {"reported": changes}, "version": 8, "clientToken": "t-2"})) == (
        "t-2",
        None,
    )
    assert of.update({"chiller": {"a": 1, "c": 3}}, "t-3") is None
    older = {"state": {"reported": {"chiller": {"a": 5}}}, "version": 7}
    of.take(said("update/accepted", older))
    assert of.update({"chiller": {"a": 1, "c": 3}}, "t-3") is None, "an older message says nothing"
    foreign = {"state": {"reported": {"chiller": {"a": 9}}}, "version": 9, "clientToken": "somebody"}
    of.take(said("update/accepted", foreign))
    repaired = of.update({"chiller": {"a": 1, "c": 3}}, "t-3")
    assert repaired is not None
    assert orjson.loads(repaired.payload)["state"] == {"reported": {"chiller": {"a": 1}}}


def test_a_shadow_that_does_not_exist_yet_is_created_without_a_version() -> None:
    of = shadow()
    token, refused = of.take(said("get/rejected", {"code": 404, "message": "No shadow", "clientToken": "t"})) or (
        "",
        None,
    )
    assert (token, refused is not None and refused.missing) == ("t", True)
    of.forget()
    message = of.update({"chiller": {"a": 1}}, "t")
    assert message is not None
    assert "version" not in orjson.loads(message.payload)


@pytest.mark.parametrize(
    ("code", "conflict", "passing"), [(409, True, False), (429, False, True), (500, False, True), (413, False, False)]
)
def test_refusals_say_whether_they_pass(code: int, *, conflict: bool, passing: bool) -> None:
    document = {"code": code, "message": "x", "timestamp": 1, "clientToken": "t"}
    _, refused = shadow().take(said("update/rejected", document)) or ("", None)
    assert refused is not None
    assert (refused.conflict, refused.passing, str(refused)) == (conflict, passing, f"{code} x")


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"state": 5, "version": "x"}', b'{"code": null}'])
def test_what_is_no_answer_changes_nothing(payload: bytes) -> None:
    of = shadow()
    for topic in of.topics.answers:
        of.take(Incoming(topic=topic, payload=payload))
    assert (of.known, of.version) == ({}, None)


def commands(*, trusted: bool = True) -> ShadowCommands:
    return ShadowCommands(shadow(), 60.0, lambda: trusted)


DELTA = {
    "state": {"chiller": {"setpoint": 21, "pump": True}},
    "metadata": {"chiller": {"setpoint": {"timestamp": 1_700_000_000}, "pump": {"timestamp": 1_700_000_005}}},
    "version": 12, "timestamp": 1_700_000_006,
}  # fmt: skip


def test_a_delta_is_commands_as_old_as_its_metadata() -> None:
    of = commands()
    assert list(of.topics()) == [(f"{PREFIX}/update/delta", 1)]
    found = of.decode(said("update/delta", DELTA))
    assert [(one.address, one.value, one.expires) for one in found] == [
        ("chiller/setpoint", 21, 1_700_000_060_000_000),
        ("chiller/pump", True, 1_700_000_065_000_000),
    ]
    assert of.decode(said("update/delta", {**DELTA, "version": 13})) == [], "the same wish, sent with another change"
    assert of.decode(said("update/delta", {**DELTA, "version": 11, "state": {"chiller": {"pump": 0}}})) == []


def test_the_document_says_what_was_desired_while_the_gateway_was_away() -> None:
    whole = {
        "state": {
            "desired": DELTA["state"], "reported": {"chiller": {"pump": True}}, "delta": {"chiller": {"setpoint": 21}},
        },
        "metadata": {"desired": DELTA["metadata"], "reported": {}}, "version": 12,
    }  # fmt: skip
    assert [one.address for one in commands().decode(said("get/accepted", whole))] == ["chiller/setpoint"]
    assert commands(trusted=False).decode(said("get/accepted", whole)) == [], "it is asked for when the clock is set"


@pytest.mark.parametrize("payload", [b"{", b"[]", b"{}", b'{"version": 1, "state": []}'])
def test_what_is_no_delta_is_no_command(payload: bytes) -> None:
    assert commands().decode(Incoming(topic=f"{PREFIX}/update/delta", payload=payload)) == []
    assert commands().decode(Incoming(topic="edged/plant-7/command", payload=payload)) == []


def result(state: State, **more: Any) -> CommandResult:
    return CommandResult(id="i", device="chiller", point="setpoint", state=state, reply=Reply(SHADOW), **more)


def test_the_last_word_on_a_wish_is_reported_beside_the_values() -> None:
    of = commands()
    assert of.encode(result(State.ACCEPTED)) == []
    (message,) = of.encode(result(State.REJECTED, reason="range", detail="too much", time=5))
    assert (message.topic, orjson.loads(message.payload)) == (
        f"{PREFIX}/update",
        {
            "state": {
                "reported": {
                    OWN: {
                        "command": {
                            "point": "chiller/setpoint", "id": "i", "state": "rejected", "time": 5, "reason": "range",
                            "detail": "too much", "value": None,
                        }
                    }
                }
            },
            "clientToken": "result",
        },
    )  # fmt: skip


def test_commands_of_both_kinds_get_their_own_answers() -> None:
    both = Both(commands(), SHADOW, JsonCommands("plant-7", "cloud", command_topic="c", result_topic="r"))
    assert [topic for topic, _ in both.topics()] == ["c", f"{PREFIX}/update/delta"]
    assert both.decode(said("update/delta", DELTA))[0].requester == "AWS shadow"
    document = {"id": "1", "point": "a/b", "value": 1, "expires": 2_000_000_000_000_000}
    assert both.decode(Incoming(topic="c", payload=orjson.dumps(document)))[0].address == "a/b"
    assert both.encode(result(State.VERIFIED))[0].topic == f"{PREFIX}/update"
    plain = CommandResult(id="1", device="a", point="b", state=State.VERIFIED)
    assert both.encode(plain)[0].topic == "r"


# -- provisioning ------------------------------------------------------------------------------------------------------

CREATED = {
    "certificateId": "abc", "certificatePem": "-----BEGIN CERTIFICATE-----", "privateKey": "-----BEGIN RSA…",
    "certificateOwnershipToken": "token",
}  # fmt: skip


def test_what_was_created_is_registered_and_neither_key_nor_token_is_shown() -> None:
    assert CREATE == "$aws/certificates/create/json"
    one = Credentials.load(orjson.dumps(CREATED))
    message = registration(one, "fleet", {"SerialNumber": "plant-7"})
    assert (message.topic, orjson.loads(message.payload)) == (
        "$aws/provisioning-templates/fleet/provision/json",
        {"certificateOwnershipToken": "token", "parameters": {"SerialNumber": "plant-7"}},
    )
    assert thing_of(b'{"deviceConfiguration": {}, "thingName": "thing-7"}') == "thing-7"
    assert Credentials.load(one.dump()) == one
    assert "token" not in repr(one)
    assert "RSA" not in repr(one)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", orjson.dumps({**CREATED, "privateKey": 5}),
                                  orjson.dumps({**CREATED, "certificateOwnershipToken": ""})])  # fmt: skip
def test_credentials_that_are_not_whole_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="credentials of AWS") as caught:
        Credentials.load(data)
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"thingName": 5}', b'{"thingName": ""}', b'{"thingName": "a/+"}'])
def test_a_thing_needs_a_name(data: bytes) -> None:
    with pytest.raises(ValueError, match="thing"):
        thing_of(data)


@pytest.mark.parametrize(
    ("document", "kind", "reason"),
    [
        (
            {"statusCode": 400, "errorCode": "InvalidCertificateOwnershipToken", "errorMessage": "x"},
            PermanentError,
            "token",
        ),
        ({"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "x"}, PermanentError, "provisioning"),
        ({"statusCode": 429, "errorCode": "Throttled", "errorMessage": "x"}, TransientError, "provisioning"),
        ({"statusCode": 500, "errorCode": "Internal", "errorMessage": "x"}, TransientError, "provisioning"),
        ({}, TransientError, "provisioning"),
    ],
)
def test_a_refusal_says_whether_to_try_again(document: object, kind: type[Exception], reason: str) -> None:
    error: Any = refusal("provision", orjson.dumps(document))
    assert (type(error), error.reason) == (kind, reason)


# -- the rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["edged/plant-7/data", "a/b/c/d/e/f/g/h", "$aws/rules/store/edged/a/b/c/d/e/f/g"])
def test_topics_that_aws_takes(topic: str) -> None:
    check_topic(topic)


@pytest.mark.parametrize(
    ("topic", "complaint"),
    [
        ("a/b/c/d/e/f/g/h/i", "8 slashes"), ("x" * 257, "257 bytes"), ("ä" * 129, "258 bytes"),
        ("$aws/things/x", "reserves"),
        ("$aws/rules/store", "reserves"), ("$aws/rules/store/a/b/c/d/e/f/g/h/i", "8 slashes"),
    ],
)  # fmt: skip
def test_topics_that_aws_does_not_take(topic: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_topic(topic)


def config(**settings: Any) -> AwsConnection:
    known = {"connector": "aws-iot", "url": "mqtts://a.iot.eu-central-1.amazonaws.com", "certificate": "/c.pem"}
    return AwsConnection(**{**known, **settings})


def test_port_443_is_chosen_by_alpn_and_the_thing_is_the_client() -> None:
    link: Any = CONNECTOR.link(config(url="mqtts://a.iot.eu-central-1.amazonaws.com:443"), context_of())
    assert (link._broker.tls.alpn, link._broker.client_id) == (("x-amzn-mqtt-ca",), "plant-7")  # what goes on the wire
    link = CONNECTOR.link(config(thing="gateway-7"), context_of())
    assert (link._broker.tls.alpn, link._broker.client_id) == ((), "gateway-7")


def test_a_topic_that_is_too_long_with_the_names_of_this_gateway_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="AWS takes 256"):
        CONNECTOR.encoder(config(topic="{gateway}/" + "x" * 250), context_of())
    with pytest.raises(ConfigError, match="no folder"):
        CONNECTOR.link(config(certificate="", provisioning_template="t", claim_certificate="/c"), context_of())
