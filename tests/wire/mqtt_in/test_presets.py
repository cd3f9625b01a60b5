"""Messages of the published forms, through a real broker, to samples."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edged.adapter import PermanentError, Sample, TransientError
from edged_mqtt.point import MqttPoint
from tests.support.mosquitto import Mosquitto
from tests.support.mqttdevices import Publisher, device, fetch, hearing, qualities, values

pytestmark = pytest.mark.mosquitto

EUI = "24e124136b502217"
UP = f"application/8d4a0c52-2c0f-4a4e-9f1b-7e1d3a0b5c6d/device/{EUI}/event/up"
LPP = bytes.fromhex("016700D7026850")


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def uplink(seconds: float = 30, **changes: Any) -> dict[str, Any]:
    return {
        "deduplicationId": "57433366-50a6-4dc2-8145-2df1bbc70d9e",
        "time": ago(seconds),
        "deviceInfo": {"applicationName": "plant", "deviceName": "cellar", "devEui": EUI, "tags": {}},
        "devAddr": "00189440",
        "dr": 5,
        "fCnt": 41,
        "fPort": 85,
        "confirmed": False,
        "data": b64encode(LPP).decode(),
        "object": {"temperature": 21.5, "humidity": 40},
        "rxInfo": [{"gatewayId": "a", "rssi": -101, "snr": 2.5}, {"gatewayId": "b", "rssi": -57, "snr": 9.8}],
        **changes,
    }


LORA = {
    "temperature": MqttPoint(unit="°C"),
    "humidity": MqttPoint(),
    "rssi": MqttPoint(field="@rssi"),
    "gateways": MqttPoint(field="@gateways"),
    "counter": MqttPoint(field="$.fCnt", type="integer"),
}


async def test_an_uplink_of_chirpstack(broker: Mosquitto, devices: Publisher) -> None:
    async with hearing(broker.port, "chirpstack", {"cellar": device(LORA, id=EUI.upper())}) as (bus, jobs):
        before = time.time()
        devices.say(UP, uplink(30))
        (sample,) = await fetch(bus, jobs["cellar"])
    assert values([sample]) == [{"temperature": 21.5, "humidity": 40, "rssi": -57, "gateways": 2, "counter": 41}]
    assert not sample.quality
    assert before - 31 < sample.time / 1e6 < before - 25, "the time is the message's own"
    assert abs((sample.time - sample.mono) - (time.time_ns() - time.monotonic_ns()) // 1000) < 100_000


async def test_a_codec_of_our_own_decodes_what_chirpstack_did_not(broker: Mosquitto, devices: Publisher) -> None:
    points = {"temperature": MqttPoint(field="temperature_1"), "rssi": MqttPoint(field="@rssi")}
    spec = device(points, id=EUI, codec="/nowhere/cayenne-lpp.js")
    async with hearing(broker.port, "chirpstack", {"cellar": spec}) as (bus, jobs):
        devices.say(UP, uplink(object=None))
        devices.say(UP, uplink(data=b64encode(b"\x01\x67\x00").decode()))
        good, bad = await fetch(bus, jobs["cellar"], 2)
    assert values([good]) == [{"temperature": 21.5, "rssi": -57}]
    assert qualities(bad) == {"temperature": "bad(decode)", "rssi": "good"}


async def test_what_nobody_decodes_is_bad_and_said_once(broker: Mosquitto, devices: Publisher) -> None:
    async with hearing(broker.port, "chirpstack", {"cellar": device(id=EUI)}) as (bus, jobs):
        for _ in range(2):
            devices.say(UP, uplink(object=None))
        devices.say(UP, b"\xff not JSON")
        notes: list[str] = []
        samples: list[Sample] = []
        while len(samples) < 3:
            result = await bus.poll(jobs["cellar"])
            samples += result.samples
            notes += result.notes
            await asyncio.sleep(0.02)
    assert [qualities(one) for one in samples] == [{"temperature": "bad(decode)"}] * 3
    assert sum("codec" in note for note in notes) == 1
    assert sum("is no JSON" in note for note in notes) == 1


async def test_an_empty_uplink_and_other_ports_only_show_that_it_is_there(
    broker: Mosquitto, devices: Publisher
) -> None:
    async with hearing(broker.port, "chirpstack", {"cellar": device(id=EUI, ports=(85,))}) as (bus, jobs):
        devices.say(UP, uplink(data="", object=None, fPort=0))
        devices.say(UP, uplink(fPort=10, object={"temperature": 99}))
        devices.say(UP, uplink())
        samples = await fetch(bus, jobs["cellar"])
    assert values(samples) == [{"temperature": 21.5}]


@pytest.mark.parametrize("when", ["1970-01-01T00:00:12Z", "2099-01-01T00:00:00Z", "yesterday", 12])
async def test_a_time_that_cannot_be_is_replaced_and_flagged(broker: Mosquitto, devices: Publisher, when: Any) -> None:
    async with hearing(broker.port, "chirpstack", {"cellar": device(id=EUI)}) as (bus, jobs):
        devices.say(UP, uplink(time=when))
        (sample,) = await fetch(bus, jobs["cellar"])
    assert abs(sample.time / 1e6 - time.time()) < 10
    assert qualities(sample) == {"temperature": "good" if when == "yesterday" else "uncertain(clock)"}


async def test_an_uplink_of_the_things_stack_but_none_that_was_simulated(broker: Mosquitto, devices: Publisher) -> None:
    message = {
        "end_device_ids": {"device_id": "cellar", "application_ids": {"application_id": "plant"}},
        "received_at": ago(10),
        "uplink_message": {
            "f_port": 1,
            "f_cnt": 7,
            "frm_payload": "AQI=",
            "decoded_payload": {"temperature": 4.5},
            "rx_metadata": [{"gateway_ids": {"gateway_id": "g"}, "rssi": -80, "snr": 4}],
            "received_at": ago(11),
        },
    }
    points = {"temperature": MqttPoint(), "rssi": MqttPoint(field="@rssi")}
    async with hearing(broker.port, "thethingsstack", {"cellar": device(points)}) as (bus, jobs):
        devices.say("v3/plant@ttn/devices/cellar/up", {**message, "simulated": True})
        devices.say("v3/plant@ttn/devices/cellar/up", message)
        samples = await fetch(bus, jobs["cellar"])
    assert values(samples) == [{"temperature": 4.5, "rssi": -80}]
    assert "protocol name 'MQTT' (p2" not in broker.log


async def test_zigbee2mqtt_with_availability(broker: Mosquitto, devices: Publisher) -> None:
    points = {
        "temperature": MqttPoint(),
        "on": MqttPoint(field="state", type="boolean", words=("OFF", "ON")),
        "mode": MqttPoint(type="text", enum={"0": "idle", "heat": "heating"}),
    }
    specs = {"lamp": device(points, id="hall/lamp"), "other": device()}
    async with hearing(broker.port, "zigbee2mqtt", specs) as (bus, jobs):
        devices.say("zigbee2mqtt/hall/lamp", {"temperature": 20, "state": "ON", "mode": "heat", "last_seen": ago(5)})
        devices.say("zigbee2mqtt/hall/lamp", {"temperature": "20", "state": "Open", "mode": "cool"})
        good, bad = await fetch(bus, jobs["lamp"], 2)
        assert values([good]) == [{"temperature": 20, "on": True, "mode": "heating"}]
        assert set(qualities(bad).values()) == {"bad(decode)"}
        devices.say("zigbee2mqtt/hall/lamp/availability", {"state": "offline"})
        assert (await failure(bus, jobs["lamp"])).reason == "offline"
        assert not (await bus.poll(jobs["other"])).samples, "the other one is there"
        devices.say("zigbee2mqtt/hall/lamp/availability", "online")
        await recovered(bus, jobs["lamp"])
        devices.say("zigbee2mqtt/bridge/state", {"state": "offline"}, retain=True)
        assert (await failure(bus, jobs["other"])).reason == "unreachable"


async def test_tasmota(broker: Mosquitto, devices: Publisher) -> None:
    points = {
        "temperature": MqttPoint(field="AM2301.Temperature"),
        "signal": MqttPoint(field="Wifi.Signal"),
        "on": MqttPoint(field="POWER", type="boolean", words=("OFF", "ON")),
        "relay": MqttPoint(field="", topic="POWER", type="boolean", words=("OFF", "ON")),
    }
    async with hearing(broker.port, "tasmota", {"plug": device(points, id="tasmota_A1B2C3")}) as (bus, jobs):
        sensor = {"Time": "2021-01-01T00:00:00", "AM2301": {"Temperature": 21.4, "Humidity": 41}, "TempUnit": "C"}
        devices.say("tele/tasmota_A1B2C3/SENSOR", sensor)
        devices.say("tele/tasmota_A1B2C3/STATE", {"POWER": "ON", "Wifi": {"RSSI": 80, "Signal": -60}})
        devices.say("stat/tasmota_A1B2C3/POWER", "OFF")
        samples = await fetch(bus, jobs["plug"], 3)
        assert values(samples) == [{"temperature": 21.4}, {"signal": -60, "on": True}, {"relay": False}]
        assert not any(sample.quality for sample in samples)
        assert abs(samples[0].time / 1e6 - time.time()) < 10, "a time without a zone could be anywhere"
        devices.say("tele/tasmota_A1B2C3/LWT", "Offline", retain=True)
        assert (await failure(bus, jobs["plug"])).reason == "offline"


async def test_shelly_of_both_generations(broker: Mosquitto, devices: Publisher) -> None:
    points = {
        "on": MqttPoint(field="switch:0.output", type="boolean"),
        "power": MqttPoint(field="switch:0.apower"),
        "old": MqttPoint(field="", topic="relay/0/power"),
        "relay": MqttPoint(field="", topic="relay/0", type="boolean", words=("off", "on")),
    }
    async with hearing(broker.port, "shelly", {"plug": device(points, id="shellyplus1pm-a8")}) as (bus, jobs):
        notify = {"ts": time.time() - 20, "switch:0": {"id": 0, "apower": 8.9}}
        devices.say("shellyplus1pm-a8/events/rpc", {"src": "x", "method": "NotifyStatus", "params": notify})
        devices.say("shellyplus1pm-a8/events/rpc", {"src": "x", "method": "NotifyEvent", "params": {"events": []}})
        devices.say("shellyplus1pm-a8/status/switch:0", {"id": 0, "output": True, "apower": 9.0})
        devices.say("shellies/shellyplus1pm-a8/relay/0/power", "12.34")
        devices.say("shellies/shellyplus1pm-a8/relay/0", "on")
        samples = await fetch(bus, jobs["plug"], 4)
        assert values(samples) == [{"power": 8.9}, {"on": True, "power": 9.0}, {"old": 12.34}, {"relay": True}]
        assert time.time() - 22 < samples[0].time / 1e6 < time.time() - 19
        devices.say("shellyplus1pm-a8/online", "false", retain=True)
        assert (await failure(bus, jobs["plug"])).reason == "offline"


async def test_json_and_bare_values_on_any_topic(broker: Mosquitto, devices: Publisher) -> None:
    points = {
        "temperature": MqttPoint(field="sensors.0.t"),
        "dotted": MqttPoint(field="/a.b"),
        "bare": MqttPoint(field="", topic="plant/{id}/bare"),
    }
    spec = device(points, id="oven", topic="plant/{id}/+/state", time="ts", availability="plant/{id}/lwt")
    async with hearing(broker.port, "json", {"oven": spec}) as (bus, jobs):
        devices.say("plant/oven/x/state", {"ts": time.time() - 5, "sensors": [{"t": 181.25}], "a.b": 1})
        devices.say("plant/oven/bare", "17")
        devices.say("plant/stove/x/state", {"sensors": [{"t": 1}]})
        devices.say("plant/oven/lwt", "offline")
        samples = await fetch(bus, jobs["oven"], 2)
        assert values(samples) == [{"temperature": 181.25, "dotted": 1}, {"bare": 17}]
        assert (await failure(bus, jobs["oven"])).reason == "offline"


async def test_frames_on_a_topic_are_decoded_by_a_codec(broker: Mosquitto, devices: Publisher) -> None:
    spec = device({"t": MqttPoint(field="temperature_1")}, topic="meter/+", codec="/nowhere/cayenne-lpp.js")
    async with hearing(broker.port, "json", {"meter": spec}) as (bus, jobs):
        devices.say("meter/1", LPP)
        assert values(await fetch(bus, jobs["meter"])) == [{"t": 21.5}]


# -- writing -----------------------------------------------------------------------------------------------------------


async def test_zigbee2mqtt_is_written_and_read_back(broker: Mosquitto, devices: Publisher) -> None:
    points = {"on": MqttPoint(field="state", type="boolean", words=("OFF", "ON"), writable=True), "t": MqttPoint()}
    devices.listen("zigbee2mqtt/lamp/set")
    devices.answer = lambda _topic, payload: ("zigbee2mqtt/lamp", payload)
    async with hearing(broker.port, "zigbee2mqtt", {"lamp": device(points)}) as (bus, jobs):
        await bus.write("lamp", "on", True)
        again = bus.prepare("lamp", ["on"])
        assert values(await fetch(bus, again)) == [{"on": True}]
        assert values(await fetch(bus, jobs["lamp"])) == [{"on": True}]
        with pytest.raises(PermanentError, match="neither true nor false"):
            await bus.write("lamp", "on", "ON")
        with pytest.raises(PermanentError, match="not writable"):
            await bus.write("lamp", "t", 1)
    assert devices.told(1) == [("zigbee2mqtt/lamp/set", b'{"state":"ON"}')]


async def test_tasmota_and_old_shellies_are_written(broker: Mosquitto, devices: Publisher) -> None:
    tasmota = {
        "on": MqttPoint(field="POWER", type="boolean", words=("OFF", "ON"), writable=True),
        "dim": MqttPoint(field="Dimmer", scale=0.1, writable=True),
    }
    devices.listen("cmnd/#", "shellies/#")
    async with hearing(broker.port, "tasmota", {"plug": device(tasmota)}) as (bus, _):
        await bus.write("plug", "on", False)
        await bus.write("plug", "dim", 4.2)
    old = {"relay": MqttPoint(field="", topic="relay/0", type="boolean", words=("off", "on"), writable=True)}
    async with hearing(broker.port, "shelly", {"plug": device(old)}, client_id="another") as (bus, _):
        await bus.write("plug", "relay", True)
    assert devices.told(3) == [
        ("cmnd/plug/POWER", b"OFF"),
        ("cmnd/plug/Dimmer", b"42"),
        ("shellies/plug/relay/0/command", b"on"),
    ]


async def test_a_shelly_answers_a_write_or_refuses_it(broker: Mosquitto, devices: Publisher) -> None:
    def rpc(_topic: str, payload: bytes) -> tuple[str, bytes]:
        call = json.loads(payload)
        assert call["method"] == "Switch.Set"
        said = (
            {"result": {"was_on": False}} if call["params"]["id"] == 0 else {"error": {"code": -105, "message": "no"}}
        )
        return f"{call['src']}/rpc", json.dumps({"id": call["id"], "src": "plug", **said}).encode()

    points = {
        name: MqttPoint(field=f"switch:{name[-1]}.output", type="boolean", writable=True) for name in ("out0", "out1")
    }
    points["power"] = MqttPoint(field="switch:0.apower", writable=True)
    devices.listen("plug/rpc")
    devices.answer = rpc
    async with hearing(broker.port, "shelly", {"plug": device(points)}) as (bus, _):
        await bus.write("plug", "out0", True)
        with pytest.raises(PermanentError, match="refuses: no"):
            await bus.write("plug", "out1", True)
        with pytest.raises(PermanentError, match="cannot be written"):
            await bus.write("plug", "power", 1)


@pytest.mark.parametrize(("preset", "topic", "content"), [
    ("chirpstack", f"application/plant/device/{EUI}/command/down",
     {"devEui": EUI, "confirmed": True, "fPort": 1, "data": "AgP/ag=="}),
    ("thethingsstack", f"v3/plant/devices/{EUI}/down/push",
     {"downlinks": [{"f_port": 1, "frm_payload": "AgP/ag==", "priority": "NORMAL", "confirmed": True}]}),
])  # fmt: skip
async def test_a_downlink_is_encoded_by_the_codec(
    broker: Mosquitto, devices: Publisher, preset: str, topic: str, content: Any
) -> None:
    points = {"valve": MqttPoint(field="analog_out_2", writable=True, range=(-400, 400)), "t": MqttPoint(writable=True)}
    spec = device(points, id=EUI, codec="/nowhere/cayenne-lpp.js", confirmed=True)
    devices.listen("application/#", "v3/#")
    async with hearing(broker.port, preset, {"valve": spec}, application="plant") as (bus, _):
        await bus.write("valve", "valve", -1.5)
        with pytest.raises(PermanentError, match="cannot be written"):
            await bus.write("valve", "t", 1)
        with pytest.raises(PermanentError, match="must lie between"):
            await bus.write("valve", "valve", 399.0)
    assert [(where, json.loads(what)) for where, what in devices.told(1)] == [(topic, content)]


async def test_a_downlink_to_an_application_that_is_not_known(broker: Mosquitto) -> None:
    spec = device(
        {"valve": MqttPoint(field="switch_1", type="boolean", writable=True)}, id=EUI, codec="/x/cayenne-lpp.js"
    )
    async with hearing(broker.port, "chirpstack", {"valve": spec}) as (bus, _):
        with pytest.raises(PermanentError, match="set `application`"):
            await bus.write("valve", "valve", True)


# -- small things ------------------------------------------------------------------------------------------------------


async def failure(bus: Any, job: Any) -> TransientError:
    """Poll until it fails."""
    while True:
        try:
            await fetch(bus, job, seconds=0.05)
        except TransientError as exc:
            return exc
        except TimeoutError:
            continue


async def recovered(bus: Any, job: Any) -> None:
    """Poll until it does not fail."""
    while True:
        await asyncio.sleep(0.02)
        with contextlib.suppress(TransientError):
            await bus.poll(job)
            return
