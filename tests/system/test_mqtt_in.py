"""Devices behind a broker, as a technician and a receiver see them: the real daemon, mosquitto, paho, and QuickJS."""

from __future__ import annotations

import json
import signal
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.adapter import ConfigError
from edged.cli import main
from edged_mqtt import MQTT_IN
from edged_mqtt.config import MqttBus
from edged_mqtt.point import MqttPoint
from edged_mqtt.presets import PRESETS
from tests.support.checker import rows
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto
from tests.support.mqttdevices import device, fetch, hearing, publisher
from tests.support.subscriber import subscribed
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "adapters/edged_mqtt/profiles").glob("*.yaml"))
EUIS = {"good": "24e1240000000001", "loops": "24e1240000000002", "eats": "24e1240000000003"}
CODECS = {
    "good": "function decodeUplink(i) { return {data: {n: i.bytes[0] << 8 | i.bytes[1]}}; }",
    "loops": "function decodeUplink(i) { return {data: {n: new Array(4294967295).join('x').length}}; }",
    "eats": "function decodeUplink(i) { let a = []; for (;;) a.push(new Array(1000).fill(1)); }",
}
PROFILE = """\
profile: sensor
title: A sensor
source: "made up"
device: {codec: sensor.js}
points:
  n: {description: A number}
tests:
  - {name: two bytes, fport: 1, hex: 01 02, values: {n: 258}}
"""


@pytest.mark.mosquitto
async def test_uplinks_reach_the_cloud_over_kill_9_and_bad_codecs_harm_nobody_else(tmp_path: Path) -> None:
    count, half = 120, 60
    for name, source in CODECS.items():
        (tmp_path / "edge").mkdir(exist_ok=True)
        (tmp_path / "edge" / f"{name}.js").write_text(source)
    with Mosquitto(tmp_path / "site") as site, Mosquitto(tmp_path / "cloud") as cloud:
        config: dict[str, Any] = {
            "gateway": {"id": "plant-7"},
            "buses": {"lora": {"adapter": "mqtt-in", "url": f"mqtt://127.0.0.1:{site.port}", "preset": "chirpstack"}},
            "devices": {
                name: {"bus": "lora", "id": eui, "codec": f"{name}.js", "points": {"n": {}}}
                for name, eui in EUIS.items()
            },
            "connections": {"up": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{cloud.port}"}},
        }
        gateway = Gateway(tmp_path / "edge", config)
        with subscribed(cloud.port, "edged/#") as receiver, publisher(site.port) as servers:

            def send(name: str, number: int) -> None:
                frame = b64encode(number.to_bytes(2, "big")).decode()
                content = {"time": iso(), "deviceInfo": {"devEui": EUIS[name]}, "fPort": 1, "data": frame}
                servers.say(f"application/a/device/{EUIS[name]}/event/up", content)

            def arrived() -> set[int]:
                return {value for one in receiver.messages for value in good(one.payload)}

            async with running(gateway):
                await until(lambda: "SUBACK to edged" in site.log, 30)
                for number in range(half):
                    send("good", number)
                    if number < 1:
                        send("loops", number)
                        send("eats", number)
                await until(lambda: len(arrived()) > 5, 30)
                await gateway.stop(signal.SIGKILL)
            for number in range(half, count):
                send("good", number)
            async with running(gateway):
                await until(lambda: arrived() >= set(range(count)), 40)
                for said in ("ran too long and was stopped", "needs too much memory"):
                    await until(lambda: said in gateway.lines())  # noqa: B023  # used up in this round
                state = await gateway.status()
        assert arrived() == set(range(count))
        assert {one["device"]: one["health"] for one in state["buses"][0]["devices"]}["good"] == "ok"


def good(payload: bytes) -> set[int]:
    """The values of the good device in a message."""
    content = json.loads(payload)
    found = rows(content) if isinstance(content, dict) and "tables" in content else ()
    return {values["n"] for name, _, values in found if name == "good" and values["n"] is not None}


def iso() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def profiles(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["profiles", *arguments, "--config", str(folder / "edged.yaml")])
    return result.exit_code, result.output


def package(folder: Path, codec: str = CODECS["good"], examples: Any = None) -> Path:
    """A profile with a codec and its vectors, in the folder `profiles` beside a configuration."""
    (folder / "edged.yaml").write_text("gateway: {id: g}\n")
    (folder / "profiles").mkdir()
    (folder / "profiles/sensor.yaml").write_text(PROFILE)
    (folder / "profiles/sensor.js").write_text(codec)
    if examples is not None:
        (folder / "profiles/sensor.examples.json").write_text(json.dumps(examples))
    return folder / "profiles/sensor.yaml"


VECTOR = {"type": "uplink", "description": "one", "input": {"bytes": "0001", "fPort": 1}, "output": {"data": {"n": 1}}}


def test_a_package_is_tested_with_the_vectors_of_profile_and_codec(tmp_path: Path) -> None:
    package(tmp_path, examples=[VECTOR])
    assert profiles(tmp_path, "test", "sensor") == (0, "1 profile: no errors\n")


@pytest.mark.parametrize(("codec", "examples", "said"), [
    (CODECS["good"].replace("8", "4"), [VECTOR], "is 18, and the vector expects 258"),
    (CODECS["good"], [VECTOR, {**VECTOR, "output": {"data": {"n": 2}}}], "data.n is 1, and the vector expects 2"),
    (CODECS["eats"], [], "nothing comes of these bytes"),
    (CODECS["eats"], [VECTOR], "needs too much memory"),
    (CODECS["good"], {"x": 1}.items(), None),
])  # fmt: skip
def test_what_a_package_does_not_fulfil_is_said(tmp_path: Path, codec: str, examples: Any, said: str | None) -> None:
    package(tmp_path, codec, list(examples))
    code, output = profiles(tmp_path, "test", "sensor")
    assert (code, "sensor.yaml:" in output) == ((1, True) if said else (0, True)), output
    assert (said or "has no examples as a codec's are written") in output


@pytest.mark.parametrize(
    "profile", sorted((ROOT / "adapters/edged_mqtt/profiles").glob("*.yaml")), ids=lambda one: one.stem
)
def test_a_shipped_profile_fulfils_its_vectors(profile: Path, tmp_path: Path) -> None:
    assert profiles(tmp_path, "test", profile.stem, "--strict") == (0, "1 profile: no errors\n")


def test_a_profile_is_begun(tmp_path: Path) -> None:
    (tmp_path / "edged.yaml").write_text("gateway: {id: g}\n")
    assert profiles(tmp_path, "new", "thing", "--adapter", "mqtt")[0] == 0
    assert profiles(tmp_path, "test", "thing") == (0, "1 profile: no errors\n")


# -- the simulator -----------------------------------------------------------------------------------------------------

POINTS = {
    "t": MqttPoint(field="em.t", unit="°C"),
    "on": MqttPoint(type="boolean", words=("OFF", "ON")),
    "mode": MqttPoint(type="text", enum={"a": "eco"}),
    "count": MqttPoint(type="integer", scale=0.1),
}


@pytest.mark.mosquitto
@pytest.mark.parametrize("preset", PRESETS)
async def test_what_is_simulated_is_read(tmp_path: Path, preset: Any) -> None:
    spec = device(POINTS, id=EUIS["good"], topic="sim/{id}" if preset == "json" else "")
    with Mosquitto(tmp_path) as broker:
        config = MqttBus(adapter="mqtt-in", url=f"mqtt://127.0.0.1:{broker.port}", preset=preset)
        async with (
            hearing(broker.port, preset, {"thing": spec}) as (bus, jobs),
            MQTT_IN.simulate({"bus": (config, {"thing": spec})}) as simulator,
        ):
            (sample,) = (await fetch(bus, jobs["thing"]))[:1]
            assert simulator.endpoints == {"bus": config.url}
            assert simulator.state()["messages"] > 0
    assert not sample.quality
    assert set(sample.points) == set(POINTS)


@pytest.mark.parametrize(("url", "settings", "said"), [
    ("mqtt://192.0.2.1", {}, "only for a broker on this machine"),
    ("mqtt://127.0.0.1:1", {}, "a broker must run there"),
    ("mqtt://127.0.0.1:1", {"codec": "/x.js"}, "nobody knows the bytes"),
    ("mqtt://127.0.0.1:1", {"topic": "a/#"}, "stands for many"),
])  # fmt: skip
async def test_what_cannot_be_simulated_is_said(url: str, settings: dict[str, Any], said: str) -> None:
    config = MqttBus(adapter="mqtt-in", url=url, preset="json")
    with pytest.raises(ConfigError, match=said):
        async with MQTT_IN.simulate({"bus": (config, {"thing": device(**{"topic": "a", **settings})})}):
            pass
