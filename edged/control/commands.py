"""Writing through the local API, the audit log, and the twin.

POST /v1/write/DEVICE/POINT   write a value and wait for the result (JSON); ?value=JSON or raw=HEX, valid_for=SECONDS
                              &confirm=0&id=&requester=
GET  /v1/commands             the audit log, newest first (JSON); ?limit=&device=
POST /v1/commands/cancel      take commands back that wait (JSON); ?id=
GET  /v1/twin, /v1/twin/DEVICE
                              the last reported and the desired value of each point (JSON)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from edged.clock import iso
from edged.downlink.api import Command, CommandResult, Twin, TwinValue
from edged.downlink.downlink import Downlink, new_id
from edged.downlink.store import Row
from edged.model import Value

Options = Mapping[str, Sequence[str]]

VALID_FOR = 10.0
"""Seconds that a command may wait when it does not say so."""
_MOST = 1000
_MARGIN = 5.0
"""Seconds to wait for the result beyond the expiry."""


def value_of(text: str) -> Value:
    """A value as it is typed: a JSON number, `true`, `false` or a JSON string; anything else is a text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def command_from(device: str, point: str, options: Options, peer: str) -> Command:
    """The command that the options ask for. Raises ValueError."""
    given = {key: values[0] for key, values in options.items() if values}
    if ("value" in given) == ("raw" in given):
        raise ValueError("give either `value` or `raw`")
    try:
        raw = bytes.fromhex(given["raw"]) if "raw" in given else None
    except ValueError:
        raise ValueError(f"`raw` is written in hexadecimal, such as 00FF, not {given['raw']!r}") from None
    try:
        valid_for = float(given.get("valid_for", VALID_FOR))
    except ValueError:
        raise ValueError("`valid_for` is a number of seconds") from None
    return Command(
        id=given.get("id") or new_id(), device=device, point=point,
        value=value_of(given["value"]) if "value" in given else None, raw=raw, valid_for=valid_for,
        confirm=given.get("confirm", "1") != "0", requester=" ".join(filter(None, (peer, given.get("requester")))),
    )  # fmt: skip


async def write(downlink: Downlink, command: Command) -> dict[str, Any]:
    """Carry it out, or wait until it has expired."""
    return result_record(await downlink.perform(command, min(command.valid_for or 0.0, 3600.0) + _MARGIN))


def result_record(result: CommandResult) -> dict[str, Any]:
    """A result as one JSON object."""
    return {
        "id": result.id,
        "point": f"{result.device}/{result.point}",
        "state": result.state.value,
        "reason": result.reason,
        "detail": result.detail,
        "value": result.value,
        "time": iso(result.time),
    }


def row_record(row: Row) -> dict[str, Any]:
    """An entry of the audit log as one JSON object."""
    command = row.command
    return {
        "id": command.id,
        "time": iso(row.received),
        "requester": command.requester,
        "entrance": row.entrance,
        "point": command.address,
        "value": command.value,
        "raw": command.raw.hex() if command.raw is not None else None,
        "state": row.state,
        "reason": row.reason,
        "detail": row.detail,
        "read": row.was,
        "changed": iso(row.changed),
    }


async def listing(downlink: Downlink, options: Options) -> list[dict[str, Any]]:
    """The audit log. Raises TransientError, ValueError."""
    limit = min(int(next(iter(options.get("limit", ())), "20")), _MOST)
    device = next(iter(options.get("device", ())), "")
    return [row_record(row) for row in await downlink.store.newest(limit, device)]


async def twin_record(twin: Twin, device: str) -> dict[str, Any]:
    """What is known of a device."""
    return {
        point: {"reported": _known(one.reported), "desired": _known(one.desired)}
        for point, one in (await twin.device(device)).items()
    }


def _known(value: TwinValue | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return asdict(value) | {"time": iso(value.time), "quality": str(value.quality)}
