"""What the local API serves. One handler a route; the table at the end says which.

GET  /v1/status         what the daemon is doing (JSON)
GET  /v1/tail           live samples, one JSON object a line, until the client goes; ?device=&label=KEY=VALUE filter
POST /v1/read/DEVICE    poll a device once, out of turn (JSON)
POST /v1/probe/BUS      read raw addresses of a unit (JSON); ?unit=&what=holding&address=&count=&timeout=
GET  /v1/trace/BUS, POST /v1/explain/DEVICE/POINT, GET /v1/top: see `look.py`
GET  /v1/buffer/export  stored samples, one JSON object a line; ?from=&to=&device= choose (microseconds since 1970)
GET  /v1/buffer/ACTION  stats, verify, letters (JSON)
POST /v1/save           make durable what is in memory: readings, and the last values of the twin (JSON)
GET  /v1/reload         what a reload would change (JSON)
POST /v1/reload         reload; what happens, one JSON object a line; ?watch=SECONDS&keep=1
POST /v1/write/DEVICE/POINT, GET /v1/commands, POST /v1/commands/cancel, GET /v1/twin[/DEVICE]: see `commands.py`
POST /v1/buffer/ACTION  retry, purge, replay, repair, vacuum (JSON); ?connection=&id=&from=&to=&device=
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from edged.adapter import PollResult
from edged.buffer import service
from edged.buffer.log import Buffer
from edged.downlink.api import Twin
from edged.downlink.downlink import Downlink
from edged.errors import ConfigError, EdgedError
from edged.hub import Hub
from edged.reload import Reloader
from edged.trial import Run
from edged.twin import KeptTwin

from . import commands
from . import probe as raw
from .look import Look
from .records import poll_record, sample_record


@dataclass(frozen=True, slots=True)
class ControlApi:
    """What the API gives access to."""

    status: Callable[[], Mapping[str, Any]]
    read: Callable[[str], Awaitable[list[PollResult]]]
    """Raises KeyError for an unknown device, EdgedError when it fails."""
    hub: Hub
    buffer: Callable[[], Buffer] | None = None
    reloader: Reloader | None = None
    probe: raw.Probe | None = None
    look: Look | None = None
    downlink: Downlink | None = None
    twin: Twin | None = None
    times: Callable[[], service.Times] | None = None
    """What is known now of the times of samples."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks for."""

    parts: tuple[str, ...]
    """What stands in the path where the route has a `*`."""
    options: service.Options
    peer: str = ""
    """Who the client is, by the kernel's word: the name of its user."""


class Reply(NamedTuple):
    """The answer to it."""

    status: int
    lines: bool
    """It is a stream of JSON objects, one a line, else one JSON value."""
    body: AsyncIterator[bytes]


_PATIENCE = 15.0
"""Seconds to wait for a disk."""
_NO_COMMANDS = "this gateway takes no commands"
_NO_LOOK = "this gateway cannot be looked into"
_NO_FILE = "this gateway was not started with a file, so there is nothing to reload"
Handler = Callable[[ControlApi, Ask], Awaitable[Reply]]


async def one(record: Any) -> AsyncIterator[bytes]:
    """One JSON value as a body."""
    yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)


def good(record: Any) -> Reply:
    """An answer that worked."""
    return Reply(200, lines=False, body=one(record))


def bad(status: int, why: object) -> Reply:
    """An answer that says why not."""
    return Reply(status, lines=False, body=one({"error": str(why)}))


def stream(body: AsyncIterator[bytes]) -> Reply:
    """An answer of many lines."""
    return Reply(200, lines=True, body=body)


async def answer(api: ControlApi, method: str, target: str, peer: str = "") -> Reply:
    """What to say to a request of `peer`."""
    url = urlsplit(target)
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    for (wanted, pattern), handler in ROUTES.items():
        names = _match(pattern.strip("/").split("/"), parts)
        if wanted == method and names is not None:
            return await handler(api, Ask(names, parse_qs(url.query, keep_blank_values=True), peer))
    return bad(404, f"there is no {method} {url.path}")


def _match(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    if len(pattern) != len(parts) or any(want not in {"*", part} for want, part in zip(pattern, parts, strict=True)):
        return None
    return tuple(part for want, part in zip(pattern, parts, strict=True) if want == "*")


# -- the handlers ------------------------------------------------------------------------------------------------------


async def _status(api: ControlApi, _ask: Ask) -> Reply:
    return good(api.status())


async def _save(api: ControlApi, _ask: Ask) -> Reply:
    if api.buffer is None or not isinstance(api.twin, KeptTwin):
        return bad(404, "this gateway keeps nothing")
    try:
        async with asyncio.timeout(_PATIENCE):
            head = await api.buffer().flush()
            await api.twin.save()
    except TimeoutError:
        return bad(503, f"the disk has not taken it within {_PATIENCE:g} s")
    except EdgedError as exc:
        return bad(503, exc)
    return good({"head": head})


async def _read(api: ControlApi, ask: Ask) -> Reply:
    (device,) = ask.parts
    try:
        results = await api.read(device)
    except KeyError:
        return bad(404, api.look.nearest(device) if api.look else f"there is no enabled device {device!r}")
    except EdgedError as exc:
        return bad(502, exc)
    points = api.look.points(device) if api.look else {}
    return good([poll_record(result, points) for result in results])


async def _probe(api: ControlApi, ask: Ask) -> Reply:
    (bus,) = ask.parts
    if api.probe is None:
        return bad(404, "there is no POST /v1/probe")
    try:
        return good(await raw.answer(api.probe, bus, raw.request_from(ask.options)))
    except KeyError:
        return bad(404, f"the gateway has no open bus {bus!r}")
    except ValueError as exc:
        return bad(400, exc)
    except ConfigError as exc:
        return bad(409, exc)


async def _tail(api: ControlApi, ask: Ask) -> Reply:
    labels = dict(label.partition("=")[::2] for label in ask.options.get("label", ()))
    return stream(_samples(api, ask.options.get("device", []), labels))


async def _samples(api: ControlApi, devices: Sequence[str], labels: Mapping[str, str]) -> AsyncIterator[bytes]:
    with api.hub.subscribe() as samples:
        missed = 0
        yield b""  # the head goes out before the first sample comes
        async for sample in samples:
            if devices and sample.device not in devices:
                continue
            if labels and not (api.look and api.look.labelled(sample.device, labels)):
                continue
            if samples.missed > missed:
                yield orjson.dumps({"missed": samples.missed - missed}, option=orjson.OPT_APPEND_NEWLINE)
                missed = samples.missed
            yield orjson.dumps(sample_record(sample), option=orjson.OPT_APPEND_NEWLINE)


async def _trace(api: ControlApi, ask: Ask) -> Reply:
    (bus,) = ask.parts
    if api.look is None:
        return bad(404, _NO_LOOK)
    try:
        return stream(api.look.trace(bus, follow="follow" in ask.options))
    except KeyError:
        return bad(404, f"there is no bus {bus!r}; there are: {api.look.buses()}")
    except EdgedError as exc:
        return bad(409, exc)


async def _explain(api: ControlApi, ask: Ask) -> Reply:
    device, point = ask.parts
    if api.look is None:
        return bad(404, _NO_LOOK)
    try:
        return good(await api.look.explain(device, point))
    except KeyError:
        return bad(404, api.look.nearest(device, point))
    except EdgedError as exc:
        return bad(502, exc)


async def _top(api: ControlApi, _ask: Ask) -> Reply:
    return good(await api.look.top()) if api.look else bad(404, _NO_LOOK)


async def _buffer(api: ControlApi, ask: Ask) -> Reply:
    return await _act(api, ask, looks=True)


async def _buffer_change(api: ControlApi, ask: Ask) -> Reply:
    return await _act(api, ask, looks=False)


async def _act(api: ControlApi, ask: Ask, *, looks: bool) -> Reply:
    (action,) = ask.parts
    if api.buffer is None or action not in service.ACTIONS or looks != (action in service.LOOKS):
        return bad(404, f"there is no {'GET' if looks else 'POST'} /v1/buffer/{action}")
    try:
        return good(await service.perform(api.buffer(), action, ask.options))
    except EdgedError as exc:
        return bad(409, exc)


async def _buffer_export(api: ControlApi, ask: Ask) -> Reply:
    if api.buffer is None:
        return bad(404, "there is no GET /v1/buffer/export")
    return stream(_export(api.buffer(), ask.options, api.times() if api.times else None))


async def _export(buffer: Buffer, options: service.Options, times: service.Times | None) -> AsyncIterator[bytes]:
    yield b""
    try:
        async for seq, sample in service.export(buffer, options, times):
            yield orjson.dumps({"seq": seq, **sample_record(sample)}, option=orjson.OPT_APPEND_NEWLINE)
    except EdgedError as exc:
        yield orjson.dumps({"error": str(exc)}, option=orjson.OPT_APPEND_NEWLINE)


async def _reload_preview(api: ControlApi, _ask: Ask) -> Reply:
    if api.reloader is None:
        return bad(404, _NO_FILE)
    try:
        return good(await api.reloader.preview())
    except EdgedError as exc:
        return bad(409, exc)


async def _reload(api: ControlApi, ask: Ask) -> Reply:
    if api.reloader is None:
        return bad(404, _NO_FILE)
    watch = next(iter(ask.options.get("watch", ())), "")
    if watch and not watch.isdecimal():
        return bad(400, f"`watch` is a whole number of seconds, not {watch!r}")
    try:
        return stream(_events(api.reloader.request(watch=float(watch) if watch else None, keep="keep" in ask.options)))
    except EdgedError as exc:
        return bad(409, exc)


async def _events(run: Run) -> AsyncIterator[bytes]:
    async for event in run.follow():
        yield orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


async def _write(api: ControlApi, ask: Ask) -> Reply:
    device, point = ask.parts
    if api.downlink is None:
        return bad(404, _NO_COMMANDS)
    try:
        return good(await commands.write(api.downlink, commands.command_from(device, point, ask.options, ask.peer)))
    except ValueError as exc:
        return bad(400, exc)


async def _commands(api: ControlApi, ask: Ask) -> Reply:
    if api.downlink is None:
        return bad(404, _NO_COMMANDS)
    try:
        return good(await commands.listing(api.downlink, ask.options))
    except ValueError as exc:
        return bad(400, exc)
    except EdgedError as exc:
        return bad(503, exc)


async def _cancel(api: ControlApi, ask: Ask) -> Reply:
    if api.downlink is None:
        return bad(404, _NO_COMMANDS)
    return good({"cancelled": await api.downlink.cancel(ask.options.get("id", ()))})


async def _twin(api: ControlApi, ask: Ask) -> Reply:
    if api.twin is None or api.look is None:
        return bad(404, _NO_COMMANDS)
    known = api.look.config().devices
    (device,) = ask.parts or ("",)
    if device and device not in known:
        return bad(404, api.look.nearest(device))
    return good(
        {str(name): await commands.twin_record(api.twin, str(name)) for name in ([device] if device else known)}
    )


ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", "/v1/status"): _status,
    ("GET", "/v1/tail"): _tail,
    ("POST", "/v1/read/*"): _read,
    ("POST", "/v1/probe/*"): _probe,
    ("POST", "/v1/save"): _save,
    ("GET", "/v1/reload"): _reload_preview,
    ("POST", "/v1/reload"): _reload,
    ("GET", "/v1/trace/*"): _trace,
    ("POST", "/v1/explain/*/*"): _explain,
    ("GET", "/v1/top"): _top,
    ("POST", "/v1/write/*/*"): _write,
    ("GET", "/v1/commands"): _commands,
    ("POST", "/v1/commands/cancel"): _cancel,
    ("GET", "/v1/twin"): _twin,
    ("GET", "/v1/twin/*"): _twin,
    ("GET", "/v1/buffer/export"): _buffer_export,
    ("GET", "/v1/buffer/*"): _buffer,
    ("POST", "/v1/buffer/*"): _buffer_change,
}
"""Method and path → what answers it; the first that fits. A `*` stands for one part of the path."""
