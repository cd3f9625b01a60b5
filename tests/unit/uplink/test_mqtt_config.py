from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types
from pydantic import TypeAdapter, ValidationError

from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import GatewayConfig, SiteConfig
from edged.config.types import Name
from edged.errors import ConfigError, PermanentError
from edged.model import Sample
from edged.uplink.api import ConnectionContext, Envelope, Lane
from edged.uplink.brokers import Endpoint
from edged.uplink.connectors.mqtt import CONNECTOR, Announcements, JsonEncoder, MqttConnection
from edged.uplink.payload import schema


def config(**settings: Any) -> MqttConnection:
    return TypeAdapter(MqttConnection).validate_python({"connector": "mqtt", "url": "mqtt://b", **settings})


def context(**site: str) -> ConnectionContext:
    devices = {
        "m1": DeviceConfig(
            bus=Name("line"),
            labels={"room": "plant"},
            points={Name("u"): PointConfig(unit="V", writable=True), Name("i"): PointConfig()},
        ),
        "off": DeviceConfig(bus=Name("line"), enabled=False),
    }
    return ConnectionContext("cloud", GatewayConfig(id=Name("plant-7"), site=SiteConfig(**site)), devices, lambda _: "")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("mqtt://b", Endpoint("mqtt", "b", 1883, "/mqtt")),
        ("mqtts://broker.example.com", Endpoint("mqtts", "broker.example.com", 8883, "/mqtt")),
        ("mqtt://[fe80::1]:1884", Endpoint("mqtt", "fe80::1", 1884, "/mqtt")),
        ("ws://b", Endpoint("ws", "b", 80, "/mqtt")),
        ("wss://b:9001/broker/x", Endpoint("wss", "b", 9001, "/broker/x")),
    ],
)
def test_urls(url: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(url) == endpoint


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "broker.example.com"}, "mqtts://broker.example.com for TLS"),
        ({"url": "ssl://b"}, "write mqtts://"),
        ({"url": "ftp://b"}, "use mqtt://"),
        ({"url": "mqtt://"}, "names no host"),
        ({"url": "mqtt://b:99999"}, "is no URL"),
        ({"url": "mqtt://b:0"}, "port 0"),
        ({"url": "mqtt://b/path"}, "more than scheme"),
        ({"url": "mqtt://[::1"}, "is no URL"),
        ({"url": "mqtt://me:secret@b"}, "put them into"),
        ({"ca": "/ca.pem"}, "only with TLS"),
        ({"url": "mqtts://b", "key": "/k.pem"}, "needs the `certificate`"),
        ({"password": "x"}, "needs a `username`"),
        ({"qos": 0}, "`qos` can only be 1"),
        ({"qos": 2}, "`qos` can only be 1"),
        ({"topic": "edged/+/x"}, "wildcard"),
        ({"topic": "edged/{device}"}, "layout: samples"),
        ({"status_topic": "edged/{lane}"}, "uses {lane}"),
        ({"topic": "a", "status_topic": "a"}, "must differ"),
        ({"window": 0}, "`window`"),
        ({"max_readings": 99}, "`max_readings`"),
        ({"max_message": "10B"}, "`max_message`"),
        ({"historical_share": 1}, "`historical_share`"),
        ({"keepalive": "0.5s"}, "`keepalive`"),
        ({"keepalive": 30}, "needs a unit"),
        ({"ack_timeout": "0s"}, "at least 100ms"),
        ({"protocol": "4"}, "3.1.1"),
        ({"tpoic": "x"}, "tpoic"),
        ({"url": "mqtts://b", "alpn": [""]}, "1 to 255"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    assert complaint in str(caught.value)
    assert "secret@" not in str(caught.value).split("[type=")[0]


def test_a_topic_that_uses_a_name_which_is_not_set_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"uses \{building\}, but it is not set"):
        JsonEncoder(config(topic="{building}/data"), context())
    with pytest.raises(ConfigError, match="tenant"):
        Announcements(config(status_topic="{tenant}/s"), context())


def test_metadata_can_have_a_message_for_each_device() -> None:
    announcements = Announcements(config(metadata_topic="edged/{gateway}/metadata/{device}"), context())
    birth, metadata = announcements.greeting("e1", 17)
    assert birth.topic == "edged/plant-7/status"
    assert metadata.topic == "edged/plant-7/metadata/m1"
    assert list(orjson.loads(metadata.payload)["devices"]) == ["m1"]


def test_metadata_follows_devices_that_a_reload_changes() -> None:
    known = context()
    devices = dict(known.devices)
    announcements = Announcements(
        config(metadata_topic="edged/{gateway}/metadata/{device}"), replace(known, devices=devices)
    )
    announcements.greeting("e1", 17)
    devices["m2"] = devices.pop("m1")
    _, there, gone = announcements.greeting("e1", 18)
    assert (there.topic, list(orjson.loads(there.payload)["devices"])) == ("edged/plant-7/metadata/m2", ["m2"])
    assert (gone.topic, gone.payload, gone.retain) == ("edged/plant-7/metadata/m1", b"", True)


def test_an_unchecked_certificate_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    CONNECTOR.link(config(url="mqtts://b", insecure=True), context())
    assert "not checked" in caplog.text


def batch(*sizes: int, first: int = 1) -> Batch:
    samples = [Sample(f"d{i}", i, 0, tuple(f"p{j}" for j in range(n)), list(range(n))) for i, n in enumerate(sizes)]
    return Batch(first, tuple(samples), "boot", sum(sizes))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.integers(100, 600), st.integers(1, 10**9))
def test_chunks_cover_the_batch_in_order_and_are_as_large_as_they_may(sizes: list[int], limit: int, first: int) -> None:
    whole = batch(*sizes, first=first)
    chunks = list(JsonEncoder(config(max_readings=limit), context()).split(whole))
    assert [sample for chunk in chunks for sample in chunk.samples] == list(whole.samples)
    at = first
    for i, chunk in enumerate(chunks):
        assert chunk.first == at
        assert chunk.readings == sum(len(sample.points) for sample in chunk.samples)
        assert chunk.readings <= limit or len(chunk.samples) == 1
        if i + 1 < len(chunks):
            assert chunk.readings + len(chunks[i + 1].samples[0].points) > limit
        at = chunk.last + 1


def test_the_layout_samples_makes_one_message_of_each_sample_that_is_not_empty() -> None:
    encoder = JsonEncoder(config(layout="samples", topic="x/{device}/{lane}"), context())
    chunks = list(encoder.split(batch(2, 0, 3)))
    assert [(chunk.first, len(chunk.samples)) for chunk in chunks] == [(1, 1), (2, 2)]
    message = encoder.encode(chunks[1], Envelope("e", 3, 2, Lane.HISTORICAL))
    assert message.topic == "x/d2/historical"
    assert orjson.loads(message.payload)["device"] == "d2"


def test_the_topic_is_made_of_the_gateways_names_escaped() -> None:
    encoder = JsonEncoder(
        config(topic="{tenant}/{building}/{gateway}/{connection}/{lane}"), context(tenant="a/b", building="#1")
    )
    (chunk,) = encoder.split(batch(1))
    assert encoder.encode(chunk, Envelope("e", 1, 0, Lane.LIVE)).topic == "a%2Fb/%231/plant-7/cloud/live"


def test_a_device_name_that_makes_the_topic_too_long_concerns_only_its_message() -> None:
    encoder = JsonEncoder(config(layout="samples", topic="{device}"), context())
    long = Batch(1, (Sample("x" * 70_000, 1, 0, ("u",), [1]),), "boot", 1)
    (chunk,) = encoder.split(long)
    with pytest.raises(PermanentError, match="65535"):
        encoder.encode(chunk, Envelope("e", 1, 0, Lane.LIVE))


@pytest.mark.parametrize(("compression", "expand"), [("zlib", zlib.decompress), ("gzip", gzip.decompress)])
def test_compressed_payloads_say_so_and_are_the_same_each_time(compression: str, expand: Any) -> None:
    (chunk,) = JsonEncoder(config(), context()).split(batch(50))
    envelope = Envelope("e", 1, 0, Lane.LIVE)
    plain = JsonEncoder(config(), context()).encode(chunk, envelope)
    packed = JsonEncoder(config(compression=compression), context()).encode(chunk, envelope)
    assert expand(packed.payload) == plain.payload
    assert packed == JsonEncoder(config(compression=compression), context()).encode(chunk, envelope)
    assert packed.properties == {"content-encoding": compression}
    assert plain.properties == {}


def test_status_and_metadata_are_as_published() -> None:
    announcements = Announcements(config(), context(tenant="fabrikam", timezone="Europe/Berlin"))
    birth, metadata = announcements.greeting("e1", 17)
    will, farewell = announcements.will("e1", 17), announcements.farewell("e1", 18)
    definitions = schema()["$defs"]
    for message, model in [(birth, "GatewayStatus"), (will, "GatewayStatus"), (metadata, "GatewayMetadata")]:
        Draft202012Validator({"$defs": definitions, "$ref": f"#/$defs/{model}"}).validate(orjson.loads(message.payload))
    states = [orjson.loads(message.payload) for message in (birth, will, farewell)]
    assert [one["status"] for one in states] == ["online", "offline", "offline"]
    assert [one["reason"] for one in states] == ["connected", "lost", "stopped"]
    assert {message.topic for message in (birth, will, farewell)} == {"edged/plant-7/status"}
    assert all(message.retain for message in (birth, will, farewell, metadata))
    assert orjson.loads(metadata.payload) == {
        "v": 1,
        "gateway": "plant-7",
        "site": {"tenant": "fabrikam", "building": "", "location": "", "timezone": "Europe/Berlin"},
        "devices": {"m1": {"labels": {"room": "plant"}, "points": {"u": {"unit": "V", "writable": True}, "i": {}}}},
    }
