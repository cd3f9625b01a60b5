"""`edged try`: what a flow makes of a sample, step by step, to the bytes that would be sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged import paths
from edged.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from edged.config.flows import FlowConfig, StepConfig
    from edged.config.model import Config
    from edged.flows.flow import Flow
    from edged.model import Sample

_SHOWN = 4000
"""Bytes of a payload that are shown as text."""


@click.command("try", short_help="Show step by step what a flow makes of a sample.")
@click.argument("flow")
@click.argument("sample")
@click.option("--config", metavar="FILE", help="The configuration that has the flow.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def try_(flow: str, sample: str, config: str | None, as_json: bool) -> None:  # one parameter an option
    """Show step by step what FLOW makes of SAMPLE, with the exact bytes and the topic. Nothing is sent.

    SAMPLE is JSON, the name of a file of JSON, `-` for standard input, or the name of one of the flow's tests. One
    sample or a list: {"device": "chiller", "values": {"supply": 61.5, "ret": null}, "time": 1795219200}. `null` is a
    bad value, `time` is in seconds since 1970.
    """
    from edged.config.flowing import make  # `edged --help` must not pay for it
    from edged.config.load import load

    path = paths.config_path(config)
    loaded = load(path)
    whole = loaded.config
    if whole is None:
        raise ConfigError(f"{path} has errors: `edged check {path}` shows them")
    if flow not in whole.flows:
        raise ConfigError(f"there is no flow {flow!r} in {path}; there are: {', '.join(whole.flows) or 'none'}")
    chosen = whole.flows[flow]
    given = _given(sample, chosen)
    made = make(chosen, whole)
    stages: list[list[Sample]] = []
    result = made.apply(given, stages.append)
    total = sum(len(one.points) for one in given)
    record = {
        "flow": flow,
        "steps": [
            {"step": step, "samples": [_plain(one) for one in stage]}
            for step, stage in zip(["match", *map(_said, chosen.steps)], stages, strict=True)
        ],
        "counted": {"in": total, "filtered": result.left_out, "errors": made.errors.count},
        "last_error": made.errors.last,
        "unknown": sorted({one.device for one in given} - set(whole.devices)),
        "sent": [_sent(flow, made, whole, target, given) for target in chosen.connections],
    }
    click.echo(json.dumps(record, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(record)))


def _given(text: str, flow: FlowConfig) -> list[Sample]:
    """The samples that a person gave. Raises ConfigError."""
    from edged.config.flowing import given_sample  # as above
    from edged.config.flows import LATEST

    if text in flow.tests:
        return [given_sample(one.device, one.values, one.time) for one in flow.tests[text].given]
    try:
        if text == "-":
            text = sys.stdin.read()
        elif not text.lstrip().startswith(("{", "[")):
            text = Path(text).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"SAMPLE is neither JSON, nor a file of it, nor a test of the flow: {exc}") from exc
    samples = []
    for one in found if isinstance(found, list) else [found]:
        if not (isinstance(one, dict) and isinstance(one.get("device"), str) and isinstance(one.get("values"), dict)):
            raise ConfigError('a sample is {"device": "…", "values": {"point": 1.5}}')
        if not all(value is None or isinstance(value, bool | int | float | str) for value in one["values"].values()):
            raise ConfigError("a value is a number, a text, true, false or null")
        if any(isinstance(value, int) and abs(value) > sys.float_info.max for value in one["values"].values()):
            raise ConfigError("a number with more than 308 digits is not meant seriously")
        time = one.get("time", 0)
        if isinstance(time, bool) or not isinstance(time, int | float) or not abs(time) < LATEST:
            raise ConfigError("`time` is a number of seconds since 1970")
        samples.append(given_sample(one["device"], one["values"], float(time)))
    return samples


def _said(step: StepConfig) -> str:
    from edged.config.plain import dump  # as above

    return json.dumps(dump(step), ensure_ascii=False)


def _plain(sample: Sample) -> dict[str, Any]:
    qualities = {sample.points[i]: str(one) for i, one in sorted(sample.quality.items())}
    plain = {
        "device": sample.device, "time": sample.time / 1e6,
        "values": dict(zip(sample.points, sample.values, strict=True)),
    }  # fmt: skip
    return {**plain, "quality": qualities} if qualities else plain


def _sent(name: str, made: Flow, config: Config, target: str, given: list[Sample]) -> dict[str, Any]:
    """What would go to a connection."""
    from edged.buffer.batch import Batch  # as above
    from edged.config.flowing import bind
    from edged.flows.encoder import FlowEncoder
    from edged.flows.flow import output_units
    from edged.uplink.api import ConnectionContext
    from edged.uplink.connectors import load_forwarding
    from edged.uplink.rehearsal import rehearse

    connection = bind(config.connections[target], config.flows[name], target)
    shared = {"units": partial(output_units, config.flows[name])}
    context = ConnectionContext(target, config.gateway, config.devices, lambda _: "", shared=shared)
    encoder = FlowEncoder(name, made, load_forwarding(connection.connector).encoder(connection, context))
    batch = Batch(1, tuple(given), "", sum(len(one.points) for one in given))
    messages: list[dict[str, Any]] = []
    for message in rehearse(encoder, batch):
        if isinstance(message, PermanentError):
            messages.append({"refused": str(message)})
            continue
        messages.append(
            {
                "topic": message.topic, "content_type": message.content_type, "bytes": len(message.payload),
                **_payload(message.payload), "properties": dict(message.properties),
            }
        )  # fmt: skip
    return {"connection": target, "messages": messages}


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"hex": payload.hex()}


def _lines(record: dict[str, Any]) -> Iterator[str]:
    for device in record["unknown"]:
        yield f"the configuration has no device {device!r}: it has no labels, units and adapter here"
    for number, step in enumerate(record["steps"]):
        yield f"{number}. {step['step']}"
        yield from (f"     {json.dumps(one, ensure_ascii=False)}" for one in step["samples"])
        if not step["samples"]:
            yield "     nothing is left"
    counted = record["counted"]
    errors = f", {counted['errors']} errors ({record['last_error']})" if counted["errors"] else ""
    yield f"{counted['in']} readings in, {counted['filtered']} filtered{errors}"
    for target in record["sent"]:
        yield f"{target['connection']}: {len(target['messages']) or 'no'} message{'s' * (len(target['messages']) != 1)}"
        for message in target["messages"]:
            if "refused" in message:
                yield f"     refused: {message['refused']}"
                continue
            yield f"     {message['topic']}  ({message['bytes']} bytes, {message['content_type']})"
            yield from (f"     {line}" for line in message.get("payload", message.get("hex", ""))[:_SHOWN].split("\n"))
            if message["properties"]:
                yield f"     {', '.join(f'{name}={text}' for name, text in message['properties'].items())}"
