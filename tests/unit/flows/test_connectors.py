"""Flows to every connector that sends: what goes out is what the flow leaves, and says which flow it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edged.buffer.batch import Batch
from edged.config.flowing import bind, make
from edged.config.load import load
from edged.flows.encoder import FlowEncoder
from edged.model import Sample
from edged.uplink.api import ConnectionContext, Message
from edged.uplink.connectors import load_forwarding
from edged.uplink.rehearsal import rehearse

CONNECTIONS = {
    "aws-iot": {"url": "mqtts://a1b2c3-ats.iot.eu-central-1.amazonaws.com", "certificate": "c.pem", "key": "k.pem"},
    "azure-iot-hub": {"url": "mqtts://contoso.azure-devices.net", "certificate": "c.pem", "key": "k.pem"},
    "file": {"path": "readings.jsonl", "layout": "columns"},
    "homeassistant": {"url": "mqtt://b"},
    "http": {"url": "https://api.example.com/readings"},
    "mqtt": {"url": "mqtt://b"},
    "sparkplug": {"url": "mqtt://b"},
    "thingsboard": {"url": "mqtt://b"},
    "thingworx": {"url": "https://thingworx.example.com", "app_key": "plain"},
    "watson-iot": {"url": "mqtts://abc123.messaging.example.com", "organization": "abc123"},
}
FLOWS = {
    "hot": {
        "match": [{"key": "chiller/supply"}],
        "steps": [{"filter": "supply > 50"}, {"map": {"rename": {"supply": "flow_temp"}}}],
        "connections": {"cloud": {}},
    },
    "minutes": {"steps": [{"aggregate": {"every": "1m", "functions": ["avg"]}}], "connections": {"cloud": {}}},
}


def messages(folder: Path, connector: str, flow: str) -> list[Message]:
    """What a flow sends of three seconds of two devices."""
    path = folder / "edged.yaml"
    points = {"supply": {"unit": "°C"}, "ret": {"unit": "°C"}}
    document = {
        "gateway": {"id": "plant-7"},
        "buses": {"lab": {"adapter": "sim"}},
        "devices": {name: {"bus": "lab", "points": points} for name in ("chiller", "boiler")},
        "connections": {"cloud": {"connector": connector, **CONNECTIONS[connector]}},
        "flows": {flow: FLOWS[flow]},
    }
    path.write_text(json.dumps(document))
    loaded = load(path)
    config = loaded.config
    assert config is not None, [problem.render() for problem in loaded.problems]
    chosen = config.flows[flow]
    connection = bind(config.connections["cloud"], chosen, "cloud")
    context = ConnectionContext("cloud", config.gateway, config.devices, lambda _: "")
    encoder = FlowEncoder(flow, make(chosen, config), load_forwarding(connector).encoder(connection, context))
    samples = tuple(
        Sample(device, second * 1_000_000, 0, ("supply", "ret"), [value, 20.0])
        for second, value in enumerate((40.0, 60.0, 80.0))
        for device in ("chiller", "boiler")
    )
    return [message for message in rehearse(encoder, Batch(1, samples, "", 12)) if isinstance(message, Message)]


def told(message: Message) -> str:
    """All that a message says, whether as text or not."""
    return f"{message.topic} {message.payload.decode('latin-1')} {dict(message.properties)}"


@pytest.mark.parametrize("connector", CONNECTIONS)
def test_what_goes_out_is_what_the_flow_leaves(connector: str, tmp_path: Path) -> None:
    sent = messages(tmp_path, connector, "hot")
    assert sent
    for message in sent:
        assert "hot" in told(message)
        assert "chiller" in told(message)
        assert "boiler" not in told(message)
        assert "supply" not in told(message)
        assert "flow_temp" in told(message) or connector == "sparkplug"  # which has named it in the birth


@pytest.mark.parametrize("connector", [one for one in CONNECTIONS if one != "homeassistant"])
def test_an_interval_is_worked_out_of_all_its_readings(connector: str, tmp_path: Path) -> None:
    sent = messages(tmp_path, connector, "minutes")
    text = " ".join(map(told, sent))
    assert "minutes" in text
    if connector != "sparkplug":
        assert "supply_avg" in text
        assert "60.0" in text  # of 40, 60 and 80, however the interval is divided
        assert "70.0" not in text
        assert "50.0" not in text
