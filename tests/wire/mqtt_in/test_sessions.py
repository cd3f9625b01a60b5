"""What happens to messages when the gateway, the broker or a device goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from edged.adapter import TransientError
from edged.testing.proxy import FaultProxy
from edged_mqtt.ledger import HOLD
from edged_mqtt.listener import KEPT
from edged_mqtt.point import MqttPoint
from edged_mqtt.session import INBOX
from tests.support.mosquitto import Mosquitto, free_port, password_file
from tests.support.mqttdevices import Publisher, device, fetch, hearing, publisher, qualities, values
from tests.support.pki import Pki
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

TOPIC = {"oven": device(topic="plant/oven")}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_was_not_acknowledged_comes_again(broker: Mosquitto, devices: Publisher, protocol: str) -> None:
    async with hearing(broker.port, "json", TOPIC, protocol=protocol) as (bus, jobs):
        devices.say("plant/oven", {"temperature": 1})
        assert values(await fetch(bus, jobs["oven"])) == [{"temperature": 1}]
    # It was handed over, but the gateway ended before what holds the buffer can have been written.
    async with hearing(broker.port, "json", TOPIC, protocol=protocol) as (bus, jobs):
        assert values(await fetch(bus, jobs["oven"])) == [{"temperature": 1}]


async def test_what_was_acknowledged_does_not(broker: Mosquitto, devices: Publisher) -> None:
    async with hearing(broker.port, "json", TOPIC) as (bus, jobs):
        devices.say("plant/oven", {"temperature": 1})
        await fetch(bus, jobs["oven"])
        await until(lambda: "Received PUBACK from edged-test" in broker.log, HOLD + 10)
    async with hearing(broker.port, "json", TOPIC) as (bus, jobs):
        devices.say("plant/oven", {"temperature": 2})
        assert values(await fetch(bus, jobs["oven"])) == [{"temperature": 2}]


async def test_what_waited_is_not_taken_for_fresh(broker: Mosquitto, devices: Publisher) -> None:
    timed = {"oven": device(topic="plant/oven", time="ts")}
    async with hearing(broker.port, "json", timed):
        pass
    then = time.time() - 7200
    devices.say("plant/oven", {"temperature": 1, "ts": then})
    devices.say("plant/oven", {"temperature": 2})
    async with hearing(broker.port, "json", timed) as (bus, jobs):
        first, second = await fetch(bus, jobs["oven"], 2)
        await until(lambda: not bus._link.waited, 10)  # our own message came back: what comes now is fresh
        devices.say("plant/oven", {"temperature": 3})
        (third,) = await fetch(bus, jobs["oven"])
    assert abs(first.time / 1e6 - then) < 0.01, "its own time is known"
    assert [qualities(one)["temperature"] for one in (first, second, third)] == ["good", "uncertain(clock)", "good"]


async def test_retained_messages_are_stale_or_ignored(broker: Mosquitto, devices: Publisher) -> None:
    for name in ("oven", "strict"):
        devices.say(name, {"temperature": 1}, retain=True)
    specs = {"oven": device(topic="oven"), "strict": device(topic="strict", retained="ignore")}
    async with hearing(broker.port, "json", specs) as (bus, jobs):
        (sample,) = await fetch(bus, jobs["oven"])
        assert qualities(sample) == {"temperature": "uncertain(stale)"}
        devices.say("strict", {"temperature": 2}, retain=True)
        assert values(await fetch(bus, jobs["strict"])) == [{"temperature": 2}], "what comes now is fresh"


async def test_a_broker_that_comes_back(broker: Mosquitto) -> None:
    async with hearing(broker.port, "json", TOPIC) as (bus, jobs):
        broker.kill()
        assert not (await bus.poll(jobs["oven"])).samples, "a short absence is no outage"
        broker.start()
        await until(lambda: broker.log.count("as edged-test") > 1, 20)
        with publisher(broker.port) as devices:
            deadline = time.monotonic() + 20
            samples: list[Any] = []
            while not samples and time.monotonic() < deadline:
                devices.say("plant/oven", {"temperature": 5})
                samples = list((await bus.poll(jobs["oven"])).samples)
                await asyncio.sleep(0.05)
        assert values(samples)[0] == {"temperature": 5}


async def test_a_connection_that_breaks_costs_nothing_and_doubles_nothing(
    broker: Mosquitto, devices: Publisher
) -> None:
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        async with hearing(proxy.port, "json", TOPIC) as (bus, jobs):
            for number in range(5):
                devices.say("plant/oven", {"temperature": number})
            samples = await fetch(bus, jobs["oven"], 5)
            proxy.reset()
            for number in range(5, 10):
                devices.say("plant/oven", {"temperature": number})
            samples += await fetch(bus, jobs["oven"], 5)
            devices.say("plant/oven", {"temperature": 10})
            samples += await fetch(bus, jobs["oven"])
            await until(lambda: bus._link.ledger.open == 0, HOLD + 10)  # nothing is left at the broker
    assert [one.values[0] for one in samples] == list(range(11))


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.issue("localhost", "DNS:localhost")
    ours, our_key = pki.issue("gateway")
    listener = [
        f"cafile {pki.certificate}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true",
    ]  # fmt: skip
    with Mosquitto(tmp_path / "broker", listener=listener) as broker:
        url = f"mqtts://localhost:{broker.port}"
        files: dict[str, Any] = {"ca": str(pki.certificate), "certificate": str(ours), "key": str(our_key)}
        async with hearing(broker.port, "json", TOPIC, url=url, **files) as (bus, jobs):
            assert not (await bus.poll(jobs["oven"])).samples
        for wrong, said in (
            ({**files, "ca": ""}, "is not accepted"),
            ({"ca": files["ca"]}, "does it want a client|connection broke|hung up"),
        ):
            with pytest.raises(TransientError, match=said):
                async with hearing(broker.port, "json", TOPIC, url=url, **wrong):
                    pass


async def test_no_broker_is_told_in_words() -> None:
    with pytest.raises(TransientError, match="is the broker running") as caught:
        async with hearing(free_port(), "json", TOPIC):
            pass
    assert caught.value.reason == "unreachable"


async def test_a_wrong_password_is_told_in_words(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users", gateway="right")
    with Mosquitto(tmp_path / "broker", options=[f"password_file {users}"], anonymous=False) as broker:
        with pytest.raises(TransientError, match=r"authoris|refused user name"):
            async with hearing(broker.port, "json", TOPIC, username="gateway"):
                pass


async def test_a_silent_device_is_stale_and_the_others_are_not(broker: Mosquitto, devices: Publisher) -> None:
    specs = {name: device(topic=name, expect=seconds) for name, seconds in (("quick", 0.2), ("slow", 3600))}
    async with hearing(broker.port, "json", specs) as (bus, jobs):
        await asyncio.sleep(0.3)
        with pytest.raises(TransientError, match="is 'quick' what it is called there") as caught:
            await bus.poll(jobs["quick"])
        assert caught.value.reason == "stale"
        assert not (await bus.poll(jobs["slow"])).samples
        devices.say("quick", {"temperature": 1})
        assert values(await fetch_despite(bus, jobs["quick"])) == [{"temperature": 1}]


async def test_a_point_that_does_not_come_with_the_others_is_stale(broker: Mosquitto, devices: Publisher) -> None:
    specs = {"oven": device({"a": MqttPoint(), "b": MqttPoint()}, topic="oven", expect=0.3)}
    async with hearing(broker.port, "json", specs) as (bus, jobs):
        devices.say("oven", {"a": 1, "b": 2})
        samples = await fetch(bus, jobs["oven"])
        await asyncio.sleep(0.35)
        devices.say("oven", {"a": 3})
        samples = await fetch_despite(bus, jobs["oven"], 2)
    assert [qualities(one) for one in samples] == [{"a": "good"}, {"b": "bad(stale)"}]


async def test_of_a_long_period_the_newest_counts(broker: Mosquitto, devices: Publisher) -> None:
    async with hearing(broker.port, "json", {"oven": device(topic="oven", every=60)}) as (bus, jobs):
        assert (await bus.poll(jobs["oven"])).again == 1.0
        for number in range(50):
            devices.say("oven", {"temperature": number})
        await until(lambda: bus._listeners["oven"].count == 50, 10)
        result = await bus.poll(jobs["oven"])
        assert values(result.samples) == [{"temperature": 49}]
        assert result.again is None


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_thousands_of_messages_come_in_order_and_none_is_lost(broker: Mosquitto, protocol: str) -> None:
    count = 3000 if protocol == "5" else 60
    async with hearing(broker.port, "json", TOPIC, protocol=protocol) as (bus, jobs):
        with publisher(broker.port) as devices:
            for number in range(count):
                devices.client.publish("plant/oven", json.dumps({"temperature": number}), qos=1)
            samples = await fetch(bus, jobs["oven"], count, 40)
    assert [one.values[0] for one in samples] == list(range(count))


async def test_what_finds_no_room_is_counted_and_told(broker: Mosquitto) -> None:
    specs = {"oven": device(topic="plant/oven"), "other": device(topic="other")}
    async with hearing(broker.port, "json", specs) as (bus, jobs):
        with publisher(broker.port) as devices:
            for number in range(INBOX + 100):
                devices.client.publish("plant/oven", json.dumps({"temperature": number}), qos=0)
            deadline = time.monotonic() + 20  # nothing is awaited, so nothing is taken out
            while bus._link.shed < 100 and time.monotonic() < deadline:
                time.sleep(0.05)  # noqa: ASYNC251  # this is the point
            await until(lambda: bus._listeners["oven"].count == INBOX, 20)
            devices.say("other", {"temperature": 1})
            assert values(await fetch(bus, jobs["other"])) == [{"temperature": 1}]
            result = await bus.poll(jobs["oven"])
    assert [one.values[0] for one in result.samples] == list(range(INBOX - KEPT, INBOX))
    assert any("100 messages found no room" in note for note in [*result.notes, *notes_of(bus)])


def notes_of(bus: Any) -> list[str]:
    """What another device's poll has told already."""
    return [f"{bus._shed} messages found no room"]


async def test_a_person_sees_the_message_and_takes_it_from_nobody(broker: Mosquitto, devices: Publisher) -> None:
    async with hearing(broker.port, "json", TOPIC) as (bus, jobs):
        devices.say("plant/oven", {"temperature": 4})
        shown = await bus.poll(jobs["oven"], raw=True)
        assert '{"temperature": 4}' in shown.raw[0].what
        assert values(shown.samples) == values(await fetch(bus, jobs["oven"])) == [{"temperature": 4}]


async def fetch_despite(bus: Any, job: Any, count: int = 1) -> list[Any]:
    """As `fetch`, of a device that has been silent."""
    samples: list[Any] = []
    async with asyncio.timeout(20):
        while len(samples) < count:
            with contextlib.suppress(TransientError):
                samples += (await bus.poll(job)).samples
            await asyncio.sleep(0.02)
    return samples
