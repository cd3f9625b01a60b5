"""What mqtt-in makes of topics, paths, times and values, without a broker."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.adapter import ConfigError, LinearMap
from edged_mqtt import MQTT_IN, times, topics
from edged_mqtt.config import MqttBus, endpoint
from edged_mqtt.device import Device
from edged_mqtt.ledger import HOLD, Ledger, Ticket
from edged_mqtt.listener import KEPT, Listener, MqttJob, Packet
from edged_mqtt.path import ABSENT, Place, nested
from edged_mqtt.point import MqttPoint
from edged_mqtt.presets import PRESETS
from edged_mqtt.values import UndecodableError, read, sent
from tests.support.mqttdevices import device

NOW = 1_790_000_000_000_000
DAY = 86_400_000_000


@pytest.mark.parametrize(("path", "found"), [
    ("a", 1), ("b.c", 2), ("b.d.1", 4), ("b.d.2", ABSENT), ("x", ABSENT), ("a.b", ABSENT), ("dot.ted", 5),
    ("dot.ted.deep", ABSENT), ("/dot.ted", 5), ("/b/d/0", 3), ("/b/d/-1", ABSENT), ("/sl~1ash", 6), ("n", None),
    ("b.d.x", ABSENT), ("switch:0.on", True), ("", ...),
])  # fmt: skip
def test_where_a_value_is(path: str, found: Any) -> None:
    root = {
        "a": 1, "b": {"c": 2, "d": [3, 4]}, "dot.ted": 5, "sl/ash": 6, "n": None, "switch:0": {"on": True},
        "dot": {"other": 0},
    }  # fmt: skip
    assert Place.parse(path).find(root) is (root if found is ... else found)


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)), st.text())
def test_no_message_and_no_path_breaks_the_look(root: Any, path: str) -> None:
    try:
        place = Place.parse(path)
    except ValueError:
        return
    place.find(root)


@given(st.lists(st.from_regex(r"[a-z]{1,3}", fullmatch=True), min_size=1, max_size=5), st.integers())
def test_what_is_sent_is_found_again(steps: list[str], value: int) -> None:
    assert Place.parse(".".join(steps)).find(nested(steps, value)) == value


@pytest.mark.parametrize(("said", "microseconds"), [
    ("1970-01-01T00:00:01Z", 1_000_000),
    ("1970-01-01T02:00:01.123456789+02:00", 1_123_456),
    ("1970-01-01 00:00:00.5-0100", 3_600_500_000),
    ("2022-07-18T09:34:15.775023242+00:00", 1_658_136_855_775_023),
    (1_700_000_000, 1_700_000_000_000_000),
    (1_700_000_000.25, 1_700_000_000_250_000),
    (1_700_000_000_250, 1_700_000_000_250_000),
    (1_700_000_000_250_000, 1_700_000_000_250_000),
    (1_700_000_000_250_000_000, 1_700_000_000_250_000),
    ("2022-07-18T09:34:15", None), ("2022-13-18T09:34:15Z", None), ("09:34", None), (0, None), (-5, None), (True, None),
    (math.nan, None), (math.inf, None), (None, None), ([1], None), (10**400, None), (-(10**400), None), (1e300, None),
])  # fmt: skip
def test_times_as_they_are_written(said: Any, microseconds: int | None) -> None:
    assert times.parse(said) == microseconds


@pytest.mark.parametrize(("ago", "options", "shift", "quality"), [
    (0, {}, 0, None),
    (3600_000_000, {}, 3600_000_000, None),
    (30 * DAY, {"waited": True}, 30 * DAY, None),
    (32 * DAY, {}, 0, times.CLOCK),
    (-59_000_000, {}, 0, None),
    (-61_000_000, {}, 0, times.CLOCK),
    (None, {}, 0, None),
    (None, {"waited": True}, 0, times.CLOCK),
    (None, {"retained": True}, 0, times.STALE),
    (3600_000_000, {"retained": True}, 3600_000_000, times.STALE),
])  # fmt: skip
def test_which_times_are_believed(ago: int | None, options: dict[str, bool], shift: int, quality: Any) -> None:
    said = None if ago is None else (NOW - ago) / 1e6
    moment, found = times.judge(said, NOW, **options)
    assert abs(moment - (NOW - shift)) < 2
    assert found == quality


@pytest.mark.parametrize(("wanted", "topic", "fits"), [
    ("a/b", "a/b", True), ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/#", "a/b/c", True), ("a/#", "a", True),
    ("#", "a/b", True), ("#", "$SYS/x", False), ("+/x", "$SYS/x", False), ("a/b", "a", False), ("+", "", True),
    ("a/+/c", "a//c", True),
])  # fmt: skip
def test_topics_of_a_filter(wanted: str, topic: str, *, fits: bool) -> None:
    assert topics.matches(wanted.split("/"), topic.split("/")) is fits


@pytest.mark.parametrize(("point", "raw", "value"), [
    (MqttPoint(), 1.5, 1.5), (MqttPoint(), "1.5", None), (MqttPoint(), True, None), (MqttPoint(), None, None),
    (MqttPoint(), [1], None), (MqttPoint(), {}, None), (MqttPoint(invalid=(-127,)), -127.0, None),
    (MqttPoint(type="integer"), 3, 3), (MqttPoint(type="integer"), 3.0, 3), (MqttPoint(type="integer"), 3.5, None),
    (MqttPoint(type="digits"), " -1.5e1", -15), (MqttPoint(type="digits"), "1_000", None),
    (MqttPoint(type="digits"), "nan", None), (MqttPoint(type="digits"), "0x10", None), (MqttPoint(type="digits"), 2, 2),
    (MqttPoint(type="digits"), "\u0661", None), (MqttPoint(type="digits"), " +12345678901234567 ", 12345678901234567),
    (MqttPoint(type="digits"), "-9223372036854775809", -(2.0**63)), (MqttPoint(type="digits"), "1" * 5000, None),
    (MqttPoint(type="digits"), "1e999", None), (MqttPoint(type="digits"), "1e300", 1e300),
    (MqttPoint(), 10**400, None), (MqttPoint(), -(10**400), None), (MqttPoint(type="digits"), 10**400, None),
    (MqttPoint(type="integer"), 10**400, None), (MqttPoint(type="integer"), 1e300, None),
    (MqttPoint(type="integer"), math.inf, None), (MqttPoint(type="integer"), 2**64 - 1, 2**64 - 1),
    (MqttPoint(invalid=(-127,)), 10**400, None), (MqttPoint(type="boolean"), 10**400, None),
    (MqttPoint(type="boolean"), True, True), (MqttPoint(type="boolean"), 1, None),
    (MqttPoint(type="boolean"), "true", None),
    (MqttPoint(type="boolean", words=("OFF", "ON")), "ON", True),
    (MqttPoint(type="boolean", words=("OFF", "ON")), "on", None),
    (MqttPoint(type="text"), "x", "x"), (MqttPoint(type="text"), 1, None), (MqttPoint(type="text"), "x" * 5000, None),
    (MqttPoint(type="integer", enum={"1": "on"}), 1, "on"), (MqttPoint(type="integer", enum={"1": "on"}), 2, None),
])  # fmt: skip
def test_values_are_read_strictly(point: MqttPoint, raw: Any, value: Any) -> None:
    if value is None:
        with pytest.raises(UndecodableError):
            read(point, raw)
    else:
        assert read(point, raw) == value
        assert type(read(point, raw)) is type(value)


@pytest.mark.parametrize(("point", "value", "wanted"), [
    (MqttPoint(), 1.5, 1.5), (MqttPoint(scale=0.1), 2.5, 25), (MqttPoint(scale=0.1, offset=-40), 20, 600),
    (MqttPoint(map=LinearMap(raw=(4, 20), to=(0, 10))), 5, 12), (MqttPoint(type="digits"), 2.5, "2.5"),
    (MqttPoint(type="boolean"), True, True), (MqttPoint(type="boolean", words=("OFF", "ON")), False, "OFF"),
    (MqttPoint(type="text"), "x", "x"), (MqttPoint(type="integer", enum={"3": "on"}), "on", 3),
    (MqttPoint(type="text", enum={"heat": "on"}), "on", "heat"),
])  # fmt: skip
def test_values_are_sent_as_the_device_wants_them(point: MqttPoint, value: Any, wanted: Any) -> None:
    assert sent(point, value) == wanted
    assert type(sent(point, value)) is type(wanted)


@pytest.mark.parametrize(("point", "value"), [
    (MqttPoint(), "1"), (MqttPoint(), True), (MqttPoint(), None), (MqttPoint(), math.nan),
    (MqttPoint(range=(0, 1)), 2), (MqttPoint(type="boolean"), 1), (MqttPoint(type="text"), 1),
    (MqttPoint(type="integer"), 1.5), (MqttPoint(type="text", enum={"a": "b"}), "a"),
])  # fmt: skip
def test_values_that_fit_nothing_are_not_sent(point: MqttPoint, value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        sent(point, value)


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=20)
@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
).map(lambda found: json.dumps(found).encode()))  # fmt: skip
def test_no_message_breaks_a_preset(preset: Any, payload: bytes) -> None:
    bus = MqttBus(adapter="mqtt-in", url="mqtt://x", preset=preset)
    points = {"a": MqttPoint(), "b": MqttPoint(field="@rssi"), "c": MqttPoint(field="$.a.0", type="text")}
    made = Device("0123456789abcdef", device(points, topic="t" if preset == "json" else ""), PRESETS[preset](bus))
    for wanted in made.filters:
        message = made.read(wanted.replace("+", "x").replace("#", "y"), payload)
        if message is not None:
            found = made.found(message)
            assert all(found.values[name] is None for name in found.quality)


@pytest.mark.parametrize(("preset", "given_settings", "said"), [
    ("chirpstack", {"id": "cellar"}, "must be the DevEUI"),
    ("chirpstack", {"id": "24e124136b50221z"}, "must be the DevEUI"),
    ("zigbee2mqtt", {"topic": "a"}, "`topic` has no meaning"),
    ("tasmota", {"codec": "/x.js"}, "`codec` has no meaning"),
    ("shelly", {"ports": (1,)}, "`ports` has no meaning"),
    ("json", {}, "needs a `topic`"),
    ("json", {"topic": "a", "confirmed": True}, "`confirmed` has no meaning"),
])  # fmt: skip
def test_devices_that_do_not_fit_their_bus(preset: Any, given_settings: dict[str, Any], said: str) -> None:
    bus = MqttBus(adapter="mqtt-in", url="mqtt://x", preset=preset)
    with pytest.raises(ConfigError, match=said):
        MQTT_IN.open("bus", bus, {"dev": device(**given_settings)})


def test_where_brokers_are() -> None:
    assert endpoint("mqtts://[::1]:8884").port == 8884
    assert endpoint("wss://host/x") == endpoint("wss://host:443/x")


# -- what is kept ------------------------------------------------------------------------------------------------------


def packet(number: int, *points: str, ticket: Ticket | None = None) -> Packet:
    return Packet(number, number, number, dict.fromkeys(points, number), {}, None, ticket)


def test_the_broker_forgets_a_message_when_all_its_devices_are_done_and_some_time_has_passed() -> None:
    ledger = Ledger()
    ticket = ledger.take(7, 2, 0)
    ledger.release(ticket, 1)
    assert not ledger.due(100)
    ledger.release(ticket, 100)
    assert not ledger.due(100 + HOLD - 0.1)
    assert ledger.due(100 + HOLD) == [7]
    assert not ledger.due(200)


def test_where_many_wait_the_oldest_are_acknowledged_at_once() -> None:
    ledger = Ledger()
    for number in range(15):
        ledger.release(ledger.take(number, 1, 0), 0)
    assert ledger.due(0) == [0, 1, 2, 3, 4]
    assert ledger.due(HOLD) == list(range(5, 15))
    assert ledger.open == 0


def test_what_concerns_nobody_is_acknowledged_too() -> None:
    ledger = Ledger()
    ledger.take(7, 0, 0)
    assert ledger.due(HOLD) == [7]


def test_what_the_broker_sends_again_is_known_and_acknowledged_when_it_is_done() -> None:
    ledger = Ledger()
    ledger.begin(1, resumed=False)
    done, pending = ledger.take(1, 1, 0), ledger.take(2, 1, 0)
    ledger.release(done, 0)
    ledger.begin(2, resumed=True)
    assert ledger.known(1, 10)
    assert ledger.known(2, 10)
    assert not ledger.known(2, 10)
    assert not ledger.known(3, 10)
    assert ledger.due(10 + HOLD) == [1]
    ledger.release(pending, 20)
    assert ledger.due(20 + HOLD) == [2]


def test_a_session_that_the_broker_forgot_leaves_nothing() -> None:
    ledger = Ledger()
    ticket = ledger.take(1, 1, 0)
    ledger.begin(2, resumed=False)
    assert not ledger.known(1, 0)
    other = ledger.take(1, 1, 0)
    ledger.release(ticket, 0)
    assert not ledger.due(HOLD)
    ledger.release(other, 0)
    assert ledger.due(HOLD) == [1]


@given(st.lists(st.sampled_from(["a", "b", "ab", "fetch-a", "fetch-b", "fetch-thin"]), max_size=60))
def test_every_job_gets_every_packet_once_and_every_ticket_comes_back(steps: list[str]) -> None:
    released: list[Any] = []
    listener = Listener(released.append)
    jobs = {"fetch-a": MqttJob("d", ("a",), thin=False), "fetch-b": MqttJob("d", ("a", "b"), thin=False),
            "fetch-thin": MqttJob("d", ("a", "b"), thin=True)}  # fmt: skip
    listener.jobs.update(jobs.values())
    got: dict[str, list[int]] = {name: [] for name in jobs}
    sent: list[Packet] = []
    for step in [*steps, *jobs]:
        if step in jobs:
            got[step] += [one.number for one in listener.fetch(jobs[step])]
        else:
            sent.append(packet(len(sent) + 1, *step, ticket=Ticket(1, len(sent))))
            listener.hear(sent[-1])
    assert got["fetch-a"] == [one.number for one in sent if "a" in one.values]
    assert got["fetch-b"] == [one.number for one in sent]
    newest = {point: max((one.number for one in sent if point in one.values), default=0) for point in "ab"}
    assert {one for one in newest.values() if one} <= set(got["fetch-thin"])
    assert got["fetch-thin"] == sorted(set(got["fetch-thin"]))
    assert sorted(one.number for one in released) == [one.ticket.number for one in sent if one.ticket]


def test_who_only_looks_takes_nothing_from_the_broker() -> None:
    released: list[Any] = []
    listener = Listener(released.append)
    looking = MqttJob("d", ("a",), thin=False, delivered=10)
    for jobs in ((), (looking,)):
        listener.jobs.update(jobs)
        for number in range(1, KEPT + 101):
            listener.hear(packet(number, "a", ticket=Ticket(1, number, 1)))
        assert not released


def test_what_nobody_fetches_has_a_bound_and_is_counted() -> None:
    listener = Listener(lambda _: None)
    job = MqttJob("d", ("a",), thin=False)
    listener.jobs.add(job)
    for number in range(1, KEPT + 101):
        listener.hear(packet(number, "a"))
    assert job.lost == 100
    assert [one.number for one in listener.fetch(job)] == list(range(101, KEPT + 101))
