"""What Home Assistant is told. Its templates are evaluated by Jinja itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import orjson
import pytest

from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name
from edged.downlink.api import Incoming, Refused, TwinPoint, TwinValue
from edged.errors import PermanentError
from edged.model import Reason, Sample, bad
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.connectors.homeassistant import HomeAssistantConnection
from edged.uplink.dialects.homeassistant import (
    Discovery,
    HomeAssistantCommands,
    Names,
    StateEncoder,
    key_of,
    snapshot,
)
from edged_modbus.point import ModbusPoint

NAMES = Names("homeassistant", "edged/plant-7/ha")
POINTS: dict[str, PointConfig] = {
    "supply": ModbusPoint(holding=1, type="float32", unit="°C", decimals=1),
    "energy": ModbusPoint(holding=3, type="uint32", unit="kWh"),
    "level": ModbusPoint(holding=5, unit="%"),
    "mode": ModbusPoint(holding=6, type="uint16", enum={0: "off", 1: "on"}),
    "alarm": ModbusPoint(discrete=1),
    "setpoint": ModbusPoint(holding=7, type="int16", scale=0.1, unit="°C", range=(5, 30), writable=True),
    "count": ModbusPoint(holding=8, type="uint16", writable=True),
    "pump": ModbusPoint(coil=1, writable=True),
    "program": ModbusPoint(holding=9, type="uint16", enum={0: "day", 1: "night"}, writable=True),
    "label": ModbusPoint(holding=10, type="string", length=4, writable=True),
}


def devices(points: dict[str, PointConfig]) -> dict[str, DeviceConfig]:
    named = {Name(name): one for name, one in points.items()}
    return {"chiller": DeviceConfig(bus=Name("line"), points=named, profile="acme-c1", labels={"room": "plant"})}


def discovery(*, commands: bool = True) -> dict[str, dict[str, Any]]:
    made = Discovery(GatewayConfig(id=Name("plant-7")), NAMES, devices(POINTS), commands)
    messages = made.messages()
    assert all(message.retain for message in messages)
    return {message.topic.removeprefix("homeassistant/"): orjson.loads(message.payload) for message in messages}


def test_each_point_is_the_entity_that_it_can_be() -> None:
    assert sorted(discovery()) == sorted(
        [
            "binary_sensor/edged_plant-7/connected/config",
            "sensor/edged_plant-7/chiller_supply/config",
            "sensor/edged_plant-7/chiller_energy/config",
            "sensor/edged_plant-7/chiller_level/config",
            "sensor/edged_plant-7/chiller_mode/config",
            "binary_sensor/edged_plant-7/chiller_alarm/config",
            "number/edged_plant-7/chiller_setpoint/config",
            "number/edged_plant-7/chiller_count/config",
            "switch/edged_plant-7/chiller_pump/config",
            "select/edged_plant-7/chiller_program/config",
            "text/edged_plant-7/chiller_label/config",
        ]
    )


def test_without_commands_nothing_can_be_written() -> None:
    found = discovery(commands=False)
    assert not any("command_topic" in config for config in found.values())
    assert {topic.split("/")[0] for topic in found} == {"sensor", "binary_sensor"}


def test_a_sensor_says_all_that_is_known_of_it() -> None:
    config = discovery()["sensor/edged_plant-7/chiller_supply/config"]
    assert config.pop("origin")["name"] == "edged"
    templates = [config.pop("value_template"), config["availability"][1].pop("value_template")]
    assert all("supply" in template for template in templates)
    assert config == {
        "name": "supply",
        "unique_id": "edged_plant-7_chiller_supply",
        "object_id": "edged_plant-7_chiller_supply",
        "default_entity_id": "sensor.edged_plant_7_chiller_supply",
        "state_topic": "edged/plant-7/ha/state/chiller",
        "availability_mode": "all",
        "availability": [{"topic": "edged/plant-7/ha/status"}, {"topic": "edged/plant-7/ha/state/chiller"}],
        "device": {
            "identifiers": ["edged_plant-7_chiller"], "name": "chiller", "via_device": "edged_plant-7",
            "model": "acme-c1", "suggested_area": "plant",
        },
        "unit_of_measurement": "°C",
        "device_class": "temperature",
        "state_class": "measurement",
        "suggested_display_precision": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("sensor/edged_plant-7/chiller_energy", {"device_class": "energy", "state_class": "total_increasing"}),
        ("sensor/edged_plant-7/chiller_level", {"unit_of_measurement": "%", "state_class": "measurement"}),
        ("sensor/edged_plant-7/chiller_mode", {"device_class": "enum", "options": ["off", "on"]}),
        (
            "number/edged_plant-7/chiller_setpoint",
            {
                "min": 5, "max": 30, "step": 0.1, "mode": "box", "device_class": "temperature",
                "command_topic": "edged/plant-7/ha/set/chiller/setpoint", "qos": 1,
            },
        ),
        ("number/edged_plant-7/chiller_count", {"min": 0, "step": 1}),
        ("switch/edged_plant-7/chiller_pump", {"payload_on": "ON", "state_off": "OFF"}),
        ("select/edged_plant-7/chiller_program", {"options": ["day", "night"]}),
    ],
)  # fmt: skip
def test_units_ranges_and_words_count(topic: str, said: dict[str, Any]) -> None:
    config = discovery()[f"{topic}/config"]
    assert {key: config[key] for key in said} == said


def rendered(template: str, shown: str = "before", /, **value: Any) -> str:
    """What a template makes of a state message; `this.state` is what Home Assistant shows until then."""
    made = jinja2.Environment(autoescape=False).from_string(template)  # noqa: S701  # it makes no HTML
    text: str = made.render(value_json={"values": value}, this={"state": shown})
    return text


@pytest.mark.parametrize("entity", ["sensor/{}supply", "sensor/{}level", "number/{}setpoint", "select/{}program"])
def test_what_is_shown_in_another_unit_is_never_taken_for_a_new_value(entity: str) -> None:
    """A person may have chosen °F: then `this.state` is 70.7, and as a value it would be 70.7 °C."""
    config = discovery()[entity.format("edged_plant-7/chiller_") + "/config"]
    assert rendered(config["value_template"], "70.7", other=1) == "", "Home Assistant ignores what is empty"
    assert rendered(config["value_template"], "unknown", other=1) == ""


def test_a_text_that_is_not_in_a_state_stays_as_it_is() -> None:
    found = discovery()
    mode = found["sensor/edged_plant-7/chiller_mode/config"]["value_template"]
    label = found["text/edged_plant-7/chiller_label/config"]["value_template"]
    assert rendered(mode, "on", other=1) == "on"
    assert rendered(mode, "unavailable", other=1) == "None", "it is not one of the options"
    assert rendered(mode, "on", mode="off") == "off"
    assert rendered(label, "hi", other=1) == "hi"


def test_entities_are_named_in_both_ways_that_home_assistant_has_had() -> None:
    for topic, config in discovery().items():
        component, name = config["default_entity_id"].split(".")
        assert component == topic.split("/")[0]
        assert name == config["object_id"].replace("-", "_")
        assert name.isidentifier()


def test_the_templates_find_the_value_and_whether_there_is_one() -> None:
    found = discovery()
    supply = found["sensor/edged_plant-7/chiller_supply/config"]
    pump = found["switch/edged_plant-7/chiller_pump/config"]
    assert rendered(supply["value_template"], supply=21.5) == "21.5"
    assert rendered(supply["value_template"], other=1) == "", "a sample need not have all points"
    assert rendered(pump["value_template"], pump=True) == "ON"
    assert rendered(pump["value_template"], pump=False) == "OFF"
    assert rendered(pump["value_template"], pump=None) == ""
    available = supply["availability"][1]["value_template"]
    assert rendered(available, supply=0.0) == "online"
    assert rendered(available, supply=None) == "offline", "a bad value is never shown"
    assert rendered(available, other=1) == ""


def test_a_name_can_be_anything() -> None:
    made = Discovery(
        GatewayConfig(id=Name("plant-7")), NAMES, devices({"it's 5 \\ 6/7": PointConfig(unit="V")}), commands=False
    )
    (_, message) = made.messages()
    config = orjson.loads(message.payload)
    assert rendered(config["value_template"], **{"it's 5 \\ 6/7": 3}) == "3"
    assert message.topic.count("/") == 4


def test_different_names_never_become_the_same_key() -> None:
    assert key_of("a", "b") == "a_b"
    assert len({key_of("a b"), key_of("a_b"), key_of("a/b"), key_of("ä b")}) == 4


def test_what_is_gone_is_taken_back() -> None:
    known = devices(POINTS)
    made = Discovery(GatewayConfig(id=Name("plant-7")), NAMES, known, commands=False)
    before = {message.topic for message in made.messages()}
    known.clear()
    assert {message.topic for message in made.messages() if not message.payload} == {
        topic for topic in before if "chiller" in topic
    }


# -- states ----------------------------------------------------------------------------------------------------------


def state(lane: Lane, *, replay: bool = False) -> Message:
    sample = Sample("chiller", 5, 0, ("supply", "flow"), (21.5, None), {1: bad(Reason.TIMEOUT)})
    return StateEncoder("plant-7", NAMES).encode(Chunk(7, [sample], 2, replay=replay), Envelope("e1", 7, 6, lane))


def test_a_state_says_values_and_where_it_belongs() -> None:
    message = state(Lane.LIVE)
    assert (message.topic, message.retain) == ("edged/plant-7/ha/state/chiller", False)
    said = orjson.loads(message.payload)
    assert (said["values"], said["quality"]) == ({"supply": 21.5, "flow": None}, {"flow": "bad(timeout)"})
    assert (said["epoch"], said["seq"], said["prev"], said["lane"]) == ("e1", 7, 6, "live")


@pytest.mark.parametrize("message", [state(Lane.HISTORICAL), state(Lane.LIVE, replay=True)])
def test_the_past_is_never_shown_as_the_present(message: Message) -> None:
    assert message.topic == "edged/plant-7/ha/history/chiller"


def test_samples_that_thinning_has_emptied_go_with_the_next_one() -> None:
    empty, full = Sample("a", 1, 0, (), ()), Sample("b", 2, 0, ("x",), (1,))
    encoder = StateEncoder("plant-7", NAMES)
    chunks = list(encoder.split(Batch(1, (empty, full, empty, full, empty), "boot", 2)))
    assert [(chunk.first, chunk.last) for chunk in chunks] == [(1, 3), (4, 5)]
    for chunk in chunks:
        said = orjson.loads(encoder.encode(chunk, Envelope("e", chunk.last, 0, Lane.LIVE)).payload)
        assert (said["device"], said["values"], said["seq"]) == ("b", {"x": 1}, chunk.last)


def test_several_samples_are_never_one_state() -> None:
    one = Sample("a", 1, 0, ("x",), (1,))
    with pytest.raises(PermanentError, match="one sample"):
        StateEncoder("plant-7", NAMES).encode(Chunk(1, [one, one], 2), Envelope("e", 2, 0, Lane.LIVE))


def test_a_snapshot_has_what_is_known_and_nothing_that_is_bad() -> None:
    known = {
        "supply": TwinPoint(TwinValue(21.5, 1)),
        "flow": TwinPoint(TwinValue(3.0, 1, bad(Reason.TIMEOUT))),
        "never": TwinPoint(),
    }
    message = snapshot(NAMES, "chiller", known)
    assert message is not None
    assert orjson.loads(message.payload)["values"] == {"supply": 21.5, "flow": None}
    assert snapshot(NAMES, "chiller", {}) is None


# -- commands --------------------------------------------------------------------------------------------------------


def dialect() -> HomeAssistantCommands:
    return HomeAssistantCommands(NAMES, devices(POINTS), 30.0, "run")


def order(point: str, payload: bytes, **settings: Any) -> Incoming:
    return Incoming(topic=f"edged/plant-7/ha/set/chiller/{point}", payload=payload, **settings)


@pytest.mark.parametrize(
    ("point", "payload", "value"),
    [
        ("setpoint", b"21.5", 21.5), ("count", b"7.0", 7), ("pump", b"ON", True), ("pump", b"OFF", False),
        ("program", b"night", "night"), ("label", b"12", "12"),
    ],
)  # fmt: skip
def test_a_command_is_the_bare_value(point: str, payload: bytes, value: Any) -> None:
    of = dialect()
    (first,), (second,) = of.decode(order(point, payload)), of.decode(order(point, payload))
    assert (first.address, first.value, type(first.value)) == (f"chiller/{point}", value, type(value))
    assert (first.valid_for, first.expires) == (30.0, None)
    assert first.id != second.id, "pressed twice is two commands"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (order("setpoint", b"warm"), "malformed"),
        (order("setpoint", b"1_0"), "malformed"),
        (order("setpoint", "\u0663".encode()), "malformed"),
        (order("setpoint", b"nan"), "malformed"),
        (order("setpoint", b"\xff"), "malformed"),
        (order("nothing", b"1"), "unknown-point"),
        (order("setpoint", b"1", retained=True), "retained"),
    ],
)
def test_what_is_no_command_is_refused(message: Incoming, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        dialect().decode(message)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"lanes": "strict"}, "old readings as fresh"),
        ({"command_timeout": Duration(0)}, "longer than 0"),
        ({"topic": "a/#"}, "wildcard"),
    ],
)
def test_what_cannot_work_is_refused_with_advice(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        HomeAssistantConnection(connector="homeassistant", url="mqtt://b", **settings)


# -- Home Assistant itself -------------------------------------------------------------------------------------------


@pytest.mark.skipif("EDGED_HOMEASSISTANT" not in os.environ, reason="EDGED_HOMEASSISTANT names no Python that has it")
def test_home_assistant_s_own_schemas_accept_what_it_is_told() -> None:
    """With e.g. EDGED_HOMEASSISTANT=/srv/homeassistant/bin/python; it cannot be installed beside edged."""
    found = [*discovery(commands=True).items(), *discovery(commands=False).items()]
    lines = b"".join(orjson.dumps([f"homeassistant/{topic}", config]) + b"\n" for topic, config in found)
    program = Path(__file__).parents[2] / "support" / "homeassistant_schema.py"
    done = subprocess.run(
        [os.environ["EDGED_HOMEASSISTANT"], program], input=lines, capture_output=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == len(found)
