"""An edge node of Sparkplug B with a real buffer and a real broker, judged by hosts: one of ours, and npm's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.publish as paho_publish
import pytest

from edged.clock import mono_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Duration, Name
from edged.downlink.api import Change, TwinPoint, TwinValue
from edged.model import GOOD, Quality, Reason, Sample, bad
from edged.testing.proxy import FaultProxy
from edged.uplink.api import Chunk, Envelope, Lane, Message, Verdict
from edged.uplink.connectors import load_forwarding
from edged.uplink.connectors.sparkplug import SparkplugConnection
from tests.support.forwarding import POINTS, WINDOW, Gateway, context_of, gateway, through_an_outage
from tests.support.mosquitto import Mosquitto
from tests.support.plant import plant
from tests.support.sparkplug import Host, javascript_host
from tests.support.subscriber import Subscriber, subscribed
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto

TOPICS = tuple(f"spBv1.0/edged/{kind}/#" for kind in ("NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "NDATA", "DDATA"))


def devices(count: int = 10, points: tuple[str, ...] = POINTS) -> dict[str, DeviceConfig]:
    shared = {Name(point): PointConfig(unit="V") for point in points}
    return {f"d{i}": DeviceConfig(bus=Name("line"), points=shared) for i in range(count)}


@asynccontextmanager
async def node(
    folder: Path, port: int, known: Mapping[str, DeviceConfig] | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    async with gateway(
        folder / "buffer.db", port, connector="sparkplug",
        context=context_of(devices=known if known is not None else devices()), **settings,
    ) as one:  # fmt: skip
        yield one


def judged(subscriber: Subscriber) -> Host:
    host = Host()
    for message in subscriber.messages:
        host.take(message.topic, message.payload)
    return host


async def arrived(subscriber: Subscriber, readings: int) -> Host:
    """Wait until so many different readings have arrived, and a moment for what should not come."""
    async with asyncio.timeout(25):
        while judged(subscriber).audit.readings < readings:  # what comes is another thread's
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)
    return judged(subscriber)


async def asked_for_birth(port: int) -> None:
    """What a host does that has missed something, as npm's packages encode it."""
    rebirth = bytes.fromhex("08011219") + b"\x0a\x14Node Control/Rebirth" + b"\x20\x0b\x70\x01"
    rebirth = rebirth.replace(b"\x12\x19", b"\x12" + bytes([2 + 20 + 2 + 2]))
    await asyncio.to_thread(paho_publish.single, "spBv1.0/edged/NCMD/plant-7", rebirth, hostname="127.0.0.1", port=port)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_session_is_a_birth_data_and_a_death_with_numbers_without_a_gap(tmp_path: Path, protocol: str) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port, protocol=protocol) as one:
            await until(lambda: one.forwarder.state().connected)
            one.poll(40)
            await one.drained()
            host = await arrived(subscriber, 40 * 500)
            assert (await one.saved()) == {"delivered": 20_000, "pending": 0, "dead": 0}
        await until(lambda: subscriber.messages[-1].topic.split("/")[2] == "NDEATH")
    host = judged(subscriber)
    assert host.errors == []
    assert host.kinds[:11] == ["NBIRTH", *(f"DBIRTH/d{i}" for i in range(10))]
    assert set(host.kinds[11:-1]) == {f"DDATA/d{i}" for i in range(10)}
    assert host.kinds[-1] == "NDEATH"
    assert len(host.kinds) > 256 + 11, "the numbers have come round"
    assert (host.audit.missing, host.audit.duplicates, host.audit.out_of_order) == ([], 0, 0)
    assert host.current["d3", "p7"] == 40.0
    assert not any(message.retained for message in subscriber.messages)
    values = [value for device, name, _, value, _ in host.readings if (device, name) == ("d3", "p7")]
    assert values == [float(poll) for poll in range(1, 41)]


async def test_a_broker_that_is_stopped_and_started_costs_nothing_and_what_waited_is_historical(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port) as one:
            await through_an_outage(one, broker, before=2, after=4)
            host = await arrived(subscriber, 16 * 500)
            assert (await one.saved()) == {"delivered": 8000, "pending": 0, "dead": 0}
    assert host.errors == []
    assert host.audit.missing == []
    assert host.audit.duplicates <= WINDOW
    assert host.kinds.count("NBIRTH") == 2
    old = {value for *_, value, historical in host.readings if historical}
    assert old >= {float(poll) for poll in range(3, 13)}
    assert host.current["d0", "p0"] == 16.0, "nothing historical takes the place of what is fresh"


async def test_connections_cut_again_and_again_lose_nothing_and_every_session_is_sound(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with FaultProxy("127.0.0.1", broker.port) as proxy:
            proxy.delay = 0.005
            async with node(tmp_path, proxy.port) as one:
                cuts = 0
                for step in range(30):
                    one.poll(1)
                    await asyncio.sleep(0.04)
                    if step % 6 == 5:
                        proxy.reset()
                        cuts += 1
                await one.drained()
                host = await arrived(subscriber, 30 * 500)
                assert (await one.saved()) == {"delivered": 15_000, "pending": 0, "dead": 0}
    assert host.errors == []
    assert host.audit.missing == []
    assert host.audit.duplicates <= cuts * WINDOW
    assert host.kinds.count("NBIRTH") >= 2
    deaths = host.kinds.count("NDEATH")
    assert deaths >= host.kinds.count("NBIRTH") - 1, "each session that broke has its death by the will"


async def test_a_host_that_asks_gets_a_birth_and_the_data_go_on(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port) as one:
            await until(lambda: one.forwarder.state().connected)
            for step in range(20):
                one.poll(1)
                await asyncio.sleep(0.02)
                if step == 10:
                    await asked_for_birth(broker.port)
            await one.drained()
            host = await arrived(subscriber, 20 * 500)
            await until(lambda: judged(subscriber).kinds.count("NBIRTH") == 2)
    assert host.errors == []
    assert host.audit.missing == []
    assert host.kinds.count("NDEATH") == 0
    again = judged(subscriber).kinds
    begin = len(again) - 1 - again[::-1].index("NBIRTH")
    assert again[begin + 1 : begin + 11] == [f"DBIRTH/d{i}" for i in range(10)], "nothing comes between births"


async def test_a_device_that_does_not_answer_dies_and_is_born_again(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port, devices(2, ("x",))) as one:
            await until(lambda: one.forwarder.state().connected)

            def put(value: float | None, number: int) -> None:
                quality = {} if value is not None else {0: bad(Reason.TIMEOUT)}
                one.buffer.count(read=1)
                assert one.buffer.put(Sample("d0", wall_us() + number, mono_us(), ("x",), [value], quality))

            for number, value in enumerate([1.0, None, 2.0]):
                put(value, number)
                await one.drained()
            host = await arrived(subscriber, 3)
    assert host.errors == []
    assert host.kinds[:8] == [
        "NBIRTH", "DBIRTH/d0", "DBIRTH/d1", "DDATA/d0", "DDATA/d0", "DDEATH/d0", "DBIRTH/d0", "DDATA/d0",
    ]  # fmt: skip
    assert [value for *_, value, _ in host.readings] == [1.0, None, 2.0]


class Known:
    """A twin of devices with the quality that their points have now."""

    def __init__(self, **quality: Quality) -> None:
        self.quality = quality

    async def device(self, name: str) -> Mapping[str, TwinPoint]:
        return {"x": TwinPoint(TwinValue(1.0, 1, self.quality[name]))}

    async def changes(self) -> AsyncIterator[Change]:
        await asyncio.Event().wait()
        yield Change("", "", TwinValue(0, 0))


async def test_a_device_that_does_not_answer_is_not_alive_after_a_birth_or_because_of_its_past(tmp_path: Path) -> None:
    connector = load_forwarding("sparkplug")
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        config = SparkplugConnection(connector="sparkplug", url=f"mqtt://127.0.0.1:{broker.port}")
        twin = Known(d0=bad(Reason.TIMEOUT), d1=GOOD)
        context = context_of(devices=devices(2, ("x",)), twin=twin)
        encoder, link = connector.encoder(config, context), connector.link(config, context)
        await link.connect("e1")

        def past(first: int) -> Message:
            chunk = Chunk(first, [Sample("d0", first * 1000, 0, ("x",), [1.0])], 1)
            return encoder.encode(chunk, Envelope("e1", first, first - 1, Lane.HISTORICAL))

        await link.announce()
        for first in (1, 2):
            assert (await link.send(past(first))).verdict is Verdict.DELIVERED
        await link.report()
        await link.report()
        twin.quality["d0"] = GOOD
        await link.announce()
        await link.close()
        await until(lambda: judged(subscriber).kinds[-1:] == ["NDEATH"])
        host = judged(subscriber)
    assert host.errors == []
    births = ["NBIRTH", "DBIRTH/d0", "DBIRTH/d1"]
    assert host.kinds == [
        *births, "DDEATH/d0", *births, "DDEATH/d0", "DBIRTH/d0", "DDATA/d0", "DDATA/d0", "NDATA", "DDEATH/d0", "NDATA",
        *births, "NDEATH",
    ]  # fmt: skip


async def test_devices_that_a_reload_changes_are_born_or_die(tmp_path: Path) -> None:
    known = devices(2, ("x",))
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port, known) as one:
            await until(lambda: one.forwarder.state().connected)
            del known["d0"]
            known |= {"new": DeviceConfig(bus=Name("line"), points={Name("y"): PointConfig()})}
            one.forwarder.announce()
            await until(lambda: "DBIRTH/new" in judged(subscriber).kinds)
    host = judged(subscriber)
    assert host.errors == []
    assert host.kinds[:7] == [
        "NBIRTH", "DBIRTH/d0", "DBIRTH/d1", "DDEATH/d0", "NBIRTH", "DBIRTH/d1", "DBIRTH/new",
    ]  # fmt: skip


async def test_a_value_of_another_type_is_preceded_by_a_birth(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(tmp_path, broker.port, devices(1, ("x",))) as one:
            await until(lambda: one.forwarder.state().connected)
            for value in (1.5, "open", 2**60, None):
                one.buffer.count(read=1)
                quality = {0: bad(Reason.DECODE)} if value is None else {}
                assert one.buffer.put(Sample("d0", wall_us(), mono_us(), ("x",), [value], quality))
                await one.drained()
            host = await arrived(subscriber, 4)
    assert host.errors == []
    assert [value for *_, value, _ in host.readings] == [1.5, "open", str(2**60), None]


async def test_without_its_primary_host_everything_waits(tmp_path: Path) -> None:
    def state(*, online: bool, time: int) -> None:
        said = json.dumps({"online": online, "timestamp": time})
        paho_publish.single("spBv1.0/STATE/scada", said, qos=1, retain=True, hostname="127.0.0.1", port=broker.port)

    with Mosquitto(tmp_path) as broker, subscribed(broker.port, *TOPICS) as subscriber:
        async with node(
            tmp_path, broker.port, primary_host="scada", connect_timeout=Duration(0.4), retry_max=Duration(0.1)
        ) as one:
            one.poll(2)
            await until(lambda: "'scada' is not online" in one.forwarder.state().last_error)
            assert [message.topic for message in subscriber.messages if "BIRTH" in message.topic] == []
            await asyncio.to_thread(state, online=True, time=2000)
            host = await arrived(subscriber, 2 * 500)
            assert host.errors == []
            await asyncio.to_thread(state, online=False, time=1000)
            await asyncio.sleep(0.2)
            assert one.forwarder.state().connected, "what is older than the last word says nothing"
            await asyncio.to_thread(state, online=False, time=3000)
            await until(lambda: not one.forwarder.state().connected)
            await until(lambda: subscriber.messages[-1].topic.split("/")[2] == "NDEATH")
            one.poll(2)
            await one.buffer.flush()
            assert one.forwarder.state().pending == 1000
            await asyncio.to_thread(state, online=True, time=4000)
            host = await arrived(subscriber, 4 * 500)
    assert host.errors == []
    assert host.audit.missing == []


async def test_a_host_that_others_wrote_understands_us_and_is_understood(tmp_path: Path) -> None:
    known = {"meter": DeviceConfig(bus=Name("line"), points={Name("power"): PointConfig(unit="kW")})}
    with Mosquitto(tmp_path) as broker:
        async with javascript_host(broker.port) as host, node(tmp_path, broker.port, known) as one:
            birth = await host.next("NBIRTH")
            assert birth["seq"] == 0
            names = {metric["name"]: metric for metric in birth["metrics"]}
            assert (names["bdSeq"]["value"], names["Node Control/Rebirth"]["value"]) == (0, False)
            (born,) = (await host.next("DBIRTH"))["metrics"]
            assert (born["name"], born["type"], born["value"]) == ("power", "Double", None)
            assert born["properties"]["engUnit"] == {"type": "String", "value": "kW"}
            assert born["properties"]["Quality"] == {"type": "Int32", "value": 500}

            now = wall_us()
            for value, quality in ((1.25, {}), (None, {0: bad(Reason.EXCEPTION)})):
                one.buffer.count(read=1)
                assert one.buffer.put(Sample("meter", now, mono_us(), ("power",), [value], quality))
                await one.drained()
            first, second = await host.next("DDATA"), await host.next("DDATA")
            (good,), (broken,) = first["metrics"], second["metrics"]
            assert (good["alias"], good["type"], good["value"]) == (born["alias"], "Double", 1.25)
            assert (good["timestamp"], first["seq"], second["seq"]) == (now // 1000, 2, 3)
            assert (broken["value"], broken["properties"]["Quality"]["value"]) == (None, 0)

            rebirth = {"name": "Node Control/Rebirth", "type": "Boolean", "value": True}
            await host.send("spBv1.0/edged/NCMD/plant-7", {"timestamp": now // 1000, "metrics": [rebirth]})
            assert (await host.next("NBIRTH"))["seq"] == 0
            assert (await host.next("DBIRTH"))["seq"] == 1


async def test_a_host_writes_a_point_and_sees_what_became_of_it(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        settings = {"connector": "sparkplug", "url": f"mqtt://127.0.0.1:{broker.port}"}
        async with javascript_host(broker.port) as host, plant(tmp_path / "gateway", **settings):
            metrics = {metric["name"]: metric for metric in (await host.next("DBIRTH"))["metrics"]}
            assert {name: metric["type"] for name, metric in metrics.items()} == {
                "setpoint": "Int64", "pump": "Boolean", "flow": "Double",
            }  # fmt: skip
            assert metrics["setpoint"]["properties"]["readOnly"]["value"] is False
            assert metrics["flow"]["properties"]["readOnly"]["value"] is True
            write = {"alias": metrics["setpoint"]["alias"], "type": "Int64", "value": 42, "timestamp": 1}
            await host.send("spBv1.0/edged/DCMD/plant-7/chiller", {"timestamp": 1, "metrics": [write]})
            async with asyncio.timeout(20):
                seen: list[Any] = []
                while 42 not in seen:
                    data = (await host.next("DDATA"))["metrics"]
                    seen += [one["value"] for one in data if one["alias"] == write["alias"]]
            await host.send(
                "spBv1.0/edged/NCMD/plant-7",
                {"timestamp": 2, "metrics": [{"name": "Node Control/Rebirth", "type": "Boolean", "value": True}]},
            )
            born = {metric["name"]: metric["value"] for metric in (await host.next("DBIRTH"))["metrics"]}
            assert born == {"setpoint": 42, "pump": False, "flow": 0.9}
