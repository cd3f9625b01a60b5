"""What HTTP's answers mean, what is signed, and what an `http` connection sends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import Batch
from edged.config.model import GatewayConfig, SiteConfig
from edged.config.types import Name, Secret
from edged.errors import ConfigError, PermanentError
from edged.model import Sample
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.connectors.http import CONNECTOR, HmacConfig, HttpConnection, HttpEncoder
from edged.uplink.dialects.http import (
    LONGEST_PAUSE,
    Doubt,
    Meaning,
    Origin,
    Reply,
    canonical,
    fill_url,
    meaning,
    refusal,
    retry_after,
    signature,
    target,
)
from tests.support.forwarding import context_of

ENVELOPE = Envelope("0123456789abcdef", 8, 4, Lane.LIVE)
SAMPLES = (Sample("chiller", 1_795_219_200_250_000, 0, ("supply", "pump"), (21.5, True)),)


def config(**settings: Any) -> HttpConnection:
    return HttpConnection(**{"connector": "http", "url": "https://api.example.com/in", **settings})


def encoded(chunk: Chunk | None = None, envelope: Envelope = ENVELOPE, **settings: Any) -> Message:
    return HttpEncoder(config(**settings), context_of()).encode(chunk or Chunk(8, SAMPLES, 2), envelope)


# -- statuses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "means"),
    [
        ([200, 201, 202, 204, 207], Meaning.DELIVERED),
        ([400, 412, 414, 422, 499], Meaning.REFUSED),
        ([413], Meaning.TOO_LARGE),
        ([408, 423, 425, 429, 502, 503, 504, 507, 520], Meaning.WAIT),
        ([409, 424, 500], Meaning.AGAIN),
        ([301, 302, 303, 304, 307, 308, 401, 402, 403, 407, 415, 431, 501, 511], Meaning.US),
    ],
)
def test_each_status_speaks_of_the_server_of_the_message_or_of_us(statuses: list[int], means: Meaning) -> None:
    assert {status: meaning(status, own_address=True) for status in statuses} == dict.fromkeys(statuses, means)


@pytest.mark.parametrize("status", [404, 405, 410])
def test_an_address_that_is_wrong_is_the_messages_only_where_each_has_its_own(status: int) -> None:
    assert meaning(status, own_address=True) is Meaning.REFUSED
    assert meaning(status, own_address=False) is Meaning.US


@given(st.integers(100, 999), st.booleans())
def test_every_status_has_a_meaning_and_only_2xx_is_delivered(status: int, own: bool) -> None:
    assert (meaning(status, own_address=own) is Meaning.DELIVERED) == (200 <= status < 300)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "99999999999999999999"}, LONGEST_PAUSE),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "1.5"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "٣"}, 0),
        ({}, 0),
        ({"retry-after": "Sat, 21 Nov 2026 06:01:00 GMT"}, 60),
        ({"retry-after": "Saturday, 21-Nov-26 06:01:00 GMT"}, 60),
        ({"retry-after": "Sat Nov 21 06:01:00 2026"}, 60),
        ({"retry-after": "Sat, 21 Nov 2026 05:00:00 GMT"}, 0),
        ({"retry-after": "Sat, 21 Nov 2199 05:00:00 GMT"}, LONGEST_PAUSE),
        ({"retry-after": "Sat, 21 Nov 2026 06:01:00 GMT", "date": "Sat, 21 Nov 2026 06:00:50 GMT"}, 10),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(Reply(503, headers=headers), 1_795_240_800.0) == seconds


@given(st.text(), st.text(), st.floats(0, 4e9))
def test_no_retry_after_can_stop_us_for_longer_than_an_hour(text: str, date: str, now: float) -> None:
    assert 0 <= retry_after(Reply(503, headers={"retry-after": text, "date": date}), now) <= LONGEST_PAUSE


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(401, "Unauthorized", body=b"\n\nexpired\x1b[31m key\nmore"), "expired [31m key): check `bearer`"),
        (
            Reply(301, "Moved", {"location": "https://new.example.com/in"}),
            "moved to https://new.example.com/in: change",
        ),
        (
            Reply(302, "Found", {"location": "http://login/"}),
            "sends us to http://login/ (302 Found), and edged does not",
        ),
        (Reply(307), "sends us to nowhere"),
        (Reply(404, "Not Found"), "check the path of `url`"),
        (Reply(418, "Teapot"), "does not like how we ask"),
    ],
)
def test_a_person_is_told_what_to_do(reply: Reply, says: str) -> None:
    said = str(refusal(reply, "https://api.example.com", "POST", "`bearer`"))
    assert says in said
    assert said.isprintable()


# -- doubt -------------------------------------------------------------------------------------------------------------


def test_a_message_is_guilty_when_others_are_taken_meanwhile_and_only_then() -> None:
    doubt = Doubt()
    assert [doubt.convicts("m", 3) for _ in range(5)] == [False] * 5
    doubt.delivered("other")
    assert doubt.convicts("m", 3)
    assert not doubt.convicts("m", 3), "it begins anew"
    doubt.delivered("m")
    assert [doubt.convicts("m", 3) for _ in range(2)] == [False] * 2


def test_we_are_suspected_when_nothing_is_taken_between_two_refusals() -> None:
    doubt = Doubt()
    assert not doubt.suspects_us()
    doubt.delivered("other")
    assert not doubt.suspects_us()
    assert doubt.suspects_us()
    doubt.begin()
    assert not doubt.suspects_us()


def test_doubt_does_not_grow_without_bound() -> None:
    doubt = Doubt()
    for number in range(5000):
        doubt.convicts(str(number), 3)
    assert len(doubt._blamed) <= 1000


# -- addresses and signatures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("https://api.example.com/in", Origin("https", "api.example.com", 443), "api.example.com"),
        ("http://192.0.2.7:8080/a?b=c", Origin("http", "192.0.2.7", 8080), "192.0.2.7:8080"),
        ("https://[2001:db8::1]/", Origin("https", "2001:db8::1", 443), "[2001:db8::1]"),
    ],
)
def test_where_a_server_is(url: str, origin: Origin, host: str) -> None:
    assert (Origin.parse(url), Origin.parse(url).authority) == (origin, host)


def test_names_cannot_change_the_structure_of_a_url() -> None:
    url = fill_url("https://h/{gateway}/x?d={device}", {"gateway": "../a b?/#", "device": "ü&e=1"})
    assert url == "https://h/..%2Fa%20b%3F%2F%23/x?d=%C3%BC%26e%3D1"
    assert target(url) == "/..%2Fa%20b%3F%2F%23/x?d=%C3%BC%26e%3D1"
    assert target("https://h") == "/"


def test_the_signature_of_the_how_to() -> None:
    """The vector of docs/how-to/http.md, made with `openssl dgst -sha256 -hmac`."""
    body = b'{"p":"chiller/supply","v":21.5}'
    signed = ("POST", "/v1/readings?site=b25", "1795219200", body)
    assert canonical(*signed).decode() == (
        "POST\n/v1/readings?site=b25\n1795219200\ne52b4caf33c0bdbcdf22f28be6ad43d821d802f5bcbb33eb4b8b2da159e72d05"
    )
    assert signature("correct horse battery staple", *signed) == (
        "06ef931d85d9fd5f5b98526c0614b4f10a213a144497ce9cca4ccdbecd236a72"
    )


# -- messages ----------------------------------------------------------------------------------------------------------

ABOUT = {
    "edged-gateway": "plant-7", "edged-readings": "2", "edged-epoch": "0123456789abcdef", "edged-lane": "live",
    "edged-first": "8", "edged-seq": "8", "edged-prev": "4", "Idempotency-Key": '"plant-7/0123456789abcdef/8-8"',
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "content_type", "body"),
    [
        (
            {}, "application/json",
            (b'{"v":1,"gateway":"plant-7","epoch":"0123456789abcdef","lane":"live","first":8,"seq":8,"prev":4,"readings":2,'
            b'"tables":[{"points":["supply","pump"],"devices":["chiller"],"times":[1795219200250000],'
            b'"values":[[21.5,true]]}]}'),
        ),
        (
            {"layout": "samples"}, "application/json",
            (b'{"v":1,"gateway":"plant-7","epoch":"0123456789abcdef","lane":"live","seq":8,"prev":4,"device":"chiller",'
            b'"time":1795219200250000,"values":{"supply":21.5,"pump":true}}'),
        ),
        (
            {"layout": "senml"}, "application/senml+json",
            b'[{"bn":"plant-7:chiller/","bt":1795219200.25,"n":"supply","v":21.5},{"n":"pump","vb":true}]',
        ),
        (
            {"layout": "influx"}, "text/plain", b"chiller,gateway=plant-7 supply=21.5,pump=true 1795219200250000000",
        ),
        (
            {"layout": "template", "template": '{"p":"{device}/{point}","v":{value}}'}, "text/plain",
            b'{"p":"chiller/supply","v":21.5}\n{"p":"chiller/pump","v":true}',
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)  # fmt: skip
def test_golden_messages(settings: dict[str, Any], content_type: str, body: bytes) -> None:
    message = encoded(**settings)
    assert (message.topic, message.content_type, message.payload) == ("https://api.example.com/in", content_type, body)
    assert message.properties == ABOUT


def test_a_flow_and_a_replay_are_told_and_tell_messages_apart() -> None:
    flow = encoded(envelope=Envelope("e", 8, 4, Lane.PRIORITY, "hot"))
    assert (flow.properties["edged-flow"], flow.properties["Idempotency-Key"]) == ("hot", '"plant-7/hot/e/8-8"')
    again = encoded(Chunk(8, SAMPLES, 2, replay=True), url="https://h/{lane}")
    assert (again.topic, again.properties["edged-lane"]) == ("https://h/historical", "historical")
    assert again.properties["edged-replay"] == "true"


def test_the_key_of_a_message_is_the_same_on_whatever_lane_it_comes() -> None:
    keys = {encoded(envelope=Envelope("e", 8, 4, lane)).properties["Idempotency-Key"] for lane in Lane}
    assert keys == {'"plant-7/e/8-8"'}
    assert "Idempotency-Key" not in encoded(idempotency_header="").properties


@pytest.mark.parametrize(("compression", "coding"), [("gzip", "gzip"), ("zlib", "deflate")])
def test_compression_has_its_name_in_http(compression: str, coding: str) -> None:
    message = encoded(compression=compression)
    assert message.properties["Content-Encoding"] == coding
    assert message.payload != encoded().payload


def test_a_message_of_one_device_may_have_its_own_address() -> None:
    assert encoded(layout="samples", url="https://h/{device}").topic == "https://h/chiller"
    long = (Sample("x" * 9000, 0, 0, ("p",), [1]),)
    with pytest.raises(PermanentError, match="8000 are safe"):
        encoded(Chunk(1, long, 1), layout="samples", url="https://h/{device}")


def test_nothing_to_say_is_not_sent() -> None:
    assert encoded(Chunk(8, (Sample("d", 0, 0, (), ()),), 0), layout="influx").skip


def test_what_cannot_be_made_with_these_names_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"uses \{building\}, but it is not set"):
        HttpEncoder(config(url="https://h/{building}"), context_of())
    for settings in ({"headers": {"X-Site": "{building}"}}, {"headers": {"X-Site": "{location}"}}):
        with pytest.raises(ConfigError, match=r"not set|printable ASCII"):
            CONNECTOR.link(
                config(**settings), context_of(gateway=GatewayConfig(id=Name("g"), site=SiteConfig(location="Köln")))
            )


SECRET = Secret("x")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "api.example.com"}, "write https://api"),
        ({"url": "ftp://h"}, "cannot begin with ftp"),
        ({"url": "https://me:pw@h"}, "holds a user name"),
        ({"url": "https:///x"}, "names no host"),
        ({"url": "https://h/#x"}, "fragment"),
        ({"url": "https://h:0"}, "port 0"),
        ({"url": "https://h:x"}, "is no URL"),
        ({"url": "https://h/{nix}"}, "uses {nix}"),
        ({"url": "https://h/{device}"}, "layout: samples"),
        ({"url": "https://{lane}.h/"}, "only in its path"),
        ({"headers": {"X Y": "z"}}, "no name of a header"),
        ({"headers": {"X-Y": "a\r\nEvil: 1"}}, "printable ASCII"),
        ({"headers": {"Content-Length": "1"}}, "set by edged itself"),
        ({"headers": {"Edged-Seq": "1"}}, "set by edged itself"),
        ({"headers": {"authorization": "x"}, "bearer": SECRET}, "set twice"),
        ({"secret_headers": {"X-Signature": SECRET}, "hmac": HmacConfig(secret=SECRET)}, "set twice"),
        ({"bearer": SECRET, "username": "u"}, "use one of them"),
        ({"password": SECRET}, "needs a `username`"),
        ({"url": "https://h/x?code=a", "secret_query": {"code": SECRET}}, "which is in `url` already"),
        ({"username": "a:b"}, "colon"),
        ({"url": "http://h", "ca": "x.pem"}, "only with TLS"),
        ({"window": 0}, "`window`"),
        ({"response_timeout": 0.01}, "at least 100ms"),
        ({"max_message": 1}, "between 1KiB"),
        ({"probe": "health"}, "is a path"),
        ({"max_readings": 1}, "between 100"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(**settings)


def test_a_batch_is_covered_by_its_messages() -> None:
    whole = Batch(1, tuple(SAMPLES[0] for _ in range(300)), "", 600)
    chunks = list(HttpEncoder(config(max_readings=100), context_of()).split(whole))
    assert [(one.first, one.last) for one in chunks] == [(at, at + 49) for at in range(1, 300, 50)]
    assert orjson.loads(encoded(chunks[1]).payload)["first"] == 51
