"""The published documents are those that the code would make now, and their examples are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types

from edged.uplink import asyncapi
from edged.uplink.connectors.mqtt import MqttConnection
from edged.uplink.links.reasons import PUBACK
from edged.uplink.payload import MESSAGES, schema

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = (REFERENCE / "mqtt.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["asyncapi.yaml", "payload.schema.json"])
def test_the_documents_are_current(name: str) -> None:
    current = (REFERENCE / name).read_text(encoding="utf-8")
    assert current == asyncapi.files()[name], "run: python -m edged.uplink.asyncapi docs/reference"


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.document()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                target: Any = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(document)
    assert {channel["address"] for channel in document["channels"].values()} == {
        MqttConnection.topic,
        MqttConnection.status_topic,
        MqttConnection.health_topic,
        MqttConnection.metadata_topic,
        MqttConnection.command_topic,
        MqttConnection.result_topic,
        MqttConnection.monitor_topic,
    }


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_examples_on_the_page_are_valid(name: str) -> None:
    definitions = schema()["$defs"]
    (example,) = re.findall(rf"```json {name}\n(.*?)```", PAGE, re.DOTALL)
    payload = orjson.loads(example)
    Draft202012Validator({"$defs": definitions, "$ref": f"#/$defs/{MESSAGES[name].__name__}"}).validate(payload)
    assert set(payload) <= set(definitions[MESSAGES[name].__name__]["properties"])


def test_the_page_says_what_the_code_makes_of_reason_codes() -> None:
    rows = re.findall(r"^\| 0x(..) \| (.*?) \| (\w+)", PAGE, re.MULTILINE)
    assert [(int(code, 16), meaning, verdict) for code, meaning, verdict in rows] == [
        (code, meaning, verdict.value) for code, (verdict, _, meaning) in PUBACK.items()
    ]


def test_the_page_names_the_default_topics() -> None:
    addresses = {f"`{channel['address']}`" for channel in asyncapi.document()["channels"].values()}
    assert addresses
    assert not {address for address in addresses if address not in PAGE}
