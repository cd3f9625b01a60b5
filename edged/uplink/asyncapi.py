"""The published documents: an AsyncAPI 3.0 description of the topics and the JSON Schema of the payloads.

Both come from the models in `edged.uplink.payload` and the defaults of the `mqtt` connector. `python -m
edged.uplink.asyncapi FOLDER` writes them anew. The daemon never imports this module.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from edged.uplink.connectors.mqtt import MqttConnection
from edged.uplink.payload import MESSAGES, VERSION, schema

_PARAMETERS = {
    "gateway": "The id of the gateway (`gateway: id` of its configuration), escaped like a URL.",
    "device": "The name of a device, escaped like a URL.",
    "point": "The name of a point, escaped like a URL.",
}
_CHANNELS = {
    "readings": (
        "topic",
        ("columns", "samples"),
        "Readings, not retained, QoS 1: with `layout: columns`, the default, they have `tables`.",
    ),
    "status": (
        "status_topic",
        ("status",),
        "Whether the gateway is connected. Retained, QoS 1; also the will of the session.",
    ),
    "health": (
        "health_topic",
        ("health",),
        "What became of all readings. Retained, QoS 1; published once a minute.",
    ),
    "metadata": (
        "metadata_topic",
        ("metadata",),
        "Devices, labels, points and units. Retained, QoS 1; published at the beginning of each session.",
    ),
    "commands": (
        "command_topic",
        ("command",),
        "Commands, never retained, QoS 1: with `commands: true` the gateway takes them from here.",
    ),
    "results": (
        "result_topic",
        ("result",),
        "What became of commands that name no response topic of their own. Not retained, QoS 1.",
    ),
    "changes": (
        "monitor_topic",
        ("change",),
        "Changes of points with `monitor: true`, as they come. Not retained, QoS 1; not repeated after an outage.",
    ),
}
_RETAINED = frozenset({"status", "health", "metadata"})


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    definitions = _moved(schema()["$defs"])
    topics = {field.name: field.default for field in fields(MqttConnection)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Messages of edged",
            "version": f"{VERSION}.0.0",
            "description": "What an edged gateway publishes by MQTT with the connector `mqtt` and its default topics. "
            "How to receive it without loss is described in docs/reference/mqtt.md.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            channel: {
                "address": topics[setting],
                "description": text,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "parameters": {
                    name: {"description": what}
                    for name, what in _PARAMETERS.items()
                    if f"{{{name}}}" in str(topics[setting])
                },
                "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
            }
            for channel, (setting, messages, text) in _CHANNELS.items()
        },
        "operations": {
            f"{_VERBS[_action(channel)]}{channel.title()}": {
                "action": _action(channel),
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
                "bindings": {"mqtt": {"qos": 1, "retain": channel in _RETAINED, "bindingVersion": "0.2.0"}},
            }
            for channel, (_, messages, _) in _CHANNELS.items()
        },
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "title": model.__name__,
                    "summary": definitions[model.__name__]["description"],
                    "contentType": "application/json",
                    "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                }
                for name, model in MESSAGES.items()
            },
            "schemas": definitions,
        },
    }


_VERBS = {"send": "publish", "receive": "take"}


def _action(channel: str) -> str:
    """What the gateway does there."""
    return "receive" if channel == "commands" else "send"


def _moved(node: Any) -> Any:
    """The same with references to where the AsyncAPI document has the schemas."""
    if isinstance(node, Mapping):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_moved(item) for item in node]
    return node


def files() -> dict[str, str]:
    """The documents by file name."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    text.write("# Generated by `python -m edged.uplink.asyncapi docs/reference`; do not edit.\n")
    yaml.dump(document(), text)
    return {
        "asyncapi.yaml": text.getvalue(),
        "payload.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
    }


def main(arguments: Sequence[str]) -> None:
    """Write the documents into the folder given."""
    (folder,) = arguments
    for name, text in files().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
