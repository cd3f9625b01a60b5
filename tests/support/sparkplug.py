"""Sparkplug B as others read it: Google's protobuf with the schema of the specification, and a host made of npm's
`sparkplug-payload`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import (  # type: ignore[import-untyped]  # it has no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from edged.testing.audit import Audit
from edged.uplink.dialects.sparkplug import provenance

PACKAGES = ("sparkplug-payload@1.0.3", "mqtt@4.3.8")

# Eclipse Sparkplug 3.0.0, 6.4.1: (number, name, type) of the fields in use; "*" is repeated.
_SCHEMA = {
    "Payload": [(1, "timestamp", "uint64"), (2, "metrics", "*Metric"), (3, "seq", "uint64"), (4, "uuid", "string"),
                (5, "body", "bytes")],
    "Metric": [(1, "name", "string"), (2, "alias", "uint64"), (3, "timestamp", "uint64"), (4, "datatype", "uint32"),
               (5, "is_historical", "bool"), (6, "is_transient", "bool"), (7, "is_null", "bool"),
               (9, "properties", "PropertySet"), (10, "int_value", "uint32"), (11, "long_value", "uint64"),
               (12, "float_value", "float"), (13, "double_value", "double"), (14, "boolean_value", "bool"),
               (15, "string_value", "string")],
    "PropertySet": [(1, "keys", "*string"), (2, "values", "*PropertyValue")],
    "PropertyValue": [(1, "type", "uint32"), (2, "is_null", "bool"), (3, "int_value", "uint32"),
                      (4, "long_value", "uint64"), (5, "float_value", "float"), (6, "double_value", "double"),
                      (7, "boolean_value", "bool"), (8, "string_value", "string")],
}  # fmt: skip
_TYPES = {"double": 1, "float": 2, "uint64": 4, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}
_MESSAGE = 11


@cache
def payload_class() -> Any:
    """The class of payloads, made from the schema."""
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="tahu", syntax="proto2")
    for name, columns in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, field, kind in columns:
            plain = kind.removeprefix("*")
            added = message.field.add(name=field, number=number, label=3 if kind != plain else 1)
            added.type = _TYPES.get(plain, _MESSAGE)
            if plain not in _TYPES:
                added.type_name = f".tahu.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tahu.Payload"))


def parsed(content: bytes) -> Any:
    """A payload as protobuf reads it. Fails if there is anything in it that the schema does not have."""
    payload = payload_class().FromString(content)
    again = payload_class().FromString(payload.SerializeToString())
    again.DiscardUnknownFields()
    assert again.SerializeToString() == payload.SerializeToString(), "unknown fields"
    return payload


_FIELDS = {4: "long_value", 8: "long_value", 10: "double_value", 11: "boolean_value", 12: "string_value"}


def value_of(metric: Any) -> Any:
    """The value of a metric, of the type that it says."""
    if metric.is_null:
        return None
    field = _FIELDS[metric.datatype]
    assert metric.HasField(field)
    value = getattr(metric, field)
    return value - 2**64 if metric.datatype == 4 and value >= 2**63 else value


def properties_of(metric: Any) -> dict[str, Any]:
    """The properties of a metric."""
    names = {3: "int_value", 6: "double_value", 11: "boolean_value", 10: "double_value", 12: "string_value"}
    pairs = zip(metric.properties.keys, metric.properties.values, strict=True)
    return {key: getattr(value, names[value.type]) for key, value in pairs}


class Host:
    """What a host application makes of the messages of one edge node: it knows births, checks `seq`, keeps values."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        """The message types that came, in order, with the device: `DDATA/d1`."""
        self.readings: list[tuple[str, str, int, Any, bool]] = []
        """(device, metric, milliseconds, value, historical) of all data."""
        self.current: dict[tuple[str, str], Any] = {}
        self.errors: list[str] = []
        self.audit = Audit()
        self._seq: int | None = None
        self._bdseq: int | None = None
        self._names: dict[int, tuple[str, str, int]] = {}
        self._alive: set[str] = set()

    def take(self, topic: str, content: bytes) -> None:
        """A message, in the order in which they came."""
        _, _, kind, node, *rest = topic.split("/")
        device = rest[0] if rest else ""
        payload = parsed(content)
        self.kinds.append(f"{kind}/{device}" if device else kind)
        if kind == "NDEATH":
            assert not payload.HasField("seq")
            if payload.metrics[0].long_value == self._bdseq:
                self._seq, self._alive = None, set()
            return
        if kind == "NBIRTH":
            assert payload.seq == 0
            names = {metric.name: value_of(metric) for metric in payload.metrics}
            self._bdseq, self._seq, self._alive, self._names = names["bdSeq"], 0, set(), {}
            assert names["Node Control/Rebirth"] is False
            return
        if self._seq is None or payload.seq != (self._seq + 1) % 256:
            self.errors.append(f"{kind}/{device}: seq {payload.seq} after {self._seq}")
        self._seq = payload.seq
        if kind == "DBIRTH":
            self._birth(device, payload)
        elif kind == "DDEATH":
            self._alive.discard(device)
        elif kind in {"DDATA", "NDATA"}:
            self._data(device, node, payload)

    def _birth(self, device: str, payload: Any) -> None:
        self._alive.add(device)
        for metric in payload.metrics:
            other = self._names.get(metric.alias)
            if other and other[:2] != (device, metric.name):
                self.errors.append(f"alias {metric.alias} is {other} and {device}/{metric.name}")
            self._names[metric.alias] = device, metric.name, metric.datatype
            self.current[device, metric.name] = value_of(metric)

    def _data(self, device: str, node: str, payload: Any) -> None:
        if device and device not in self._alive:
            self.errors.append(f"DDATA of {device}, which is not born")
        if payload.body and self.audit.take(provenance(payload.body.decode(), node)):
            for metric in payload.metrics:
                owner, name, kind = self._names.get(metric.alias, ("", "", 0))
                if owner != device or kind != metric.datatype:
                    self.errors.append(f"metric {metric.alias} of {device} as {metric.datatype} was not born so")
                value = value_of(metric)
                self.readings.append((device, name, metric.timestamp, value, metric.is_historical))
                if not metric.is_historical:
                    self.current[device, name] = value


# -- npm's -------------------------------------------------------------------------------------------------------------

_SCRIPT = """
const mqtt = require('mqtt'), { encodePayload, decodePayload } = require('sparkplug-payload').get('spBv1.0');
const client = mqtt.connect('mqtt://127.0.0.1:' + process.argv.at(-1), { clean: true });
const plain = (key, value) => value && value.low !== undefined && value.unsigned !== undefined
  ? Number(BigInt(value.high >>> 0) << 32n | BigInt(value.low >>> 0)) : value;
client.on('connect', () => client.subscribe('spBv1.0/#', { qos: 1 }, () => console.log('{}')));
client.on('message', (topic, content) =>
  console.log(JSON.stringify({ topic, payload: topic.includes('/STATE/') ? {} : decodePayload(content) }, plain)));
require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const order = JSON.parse(line);
  client.publish(order.topic, encodePayload(order.payload), { qos: 0 });
});
"""


def node_modules() -> Path:
    """A folder with the packages, installed once. Skips the test, with the reason, where that is not possible."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no Node.js: sudo apt install nodejs npm")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edged-tests" / "sparkplug"
    if not (folder / "node_modules" / "sparkplug-payload").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=45)  # our own command
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not get the packages of the Sparkplug host within 45 s")
        if done.returncode:
            pytest.skip(f"npm cannot get the packages of the Sparkplug host: {done.stderr[-200:]}")
    return folder / "node_modules"


class JavaScriptHost:
    """A host that others wrote: it decodes all messages, and sends commands."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.messages: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """The payload of the next message of this type."""
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                message = json.loads(line)
                self.messages.append(message)
                if message.get("topic", "").split("/")[2:3] == [kind]:
                    payload: dict[str, Any] = message["payload"]
                    return payload
        raise AssertionError("the host ended")

    async def send(self, topic: str, payload: dict[str, Any]) -> None:
        """Publish a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"topic": topic, "payload": payload}).encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def javascript_host(port: int) -> AsyncIterator[JavaScriptHost]:
    """A host at work, subscribed."""
    modules = await asyncio.to_thread(node_modules)
    process = await asyncio.create_subprocess_exec(
        "node", "-e", _SCRIPT, "--", str(port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(modules)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"{}\n"
        yield JavaScriptHost(process)
    finally:
        process.kill()
        await process.wait()
