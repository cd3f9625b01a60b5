"""The broker as a bus: what its devices published since the last poll, and what is written to them.

A poll waits for nothing: messages come by themselves and are kept until a poll fetches them. So `every: 1s` costs next
to nothing, and every message becomes a sample with the moment it was measured. With a longer period the newest of each
period does, and `PollResult.again` sees to it that the first one does not wait for the period's end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from edged.adapter import (
    ConfigError,
    Job,
    Name,
    PermanentError,
    Plan,
    PlanRequest,
    PollResult,
    RawRead,
    Reason,
    TransientError,
    Value,
)

from . import times, topics
from .codecs.runner import CodecError
from .config import MqttBus, MqttDevice
from .decoding import Codecs
from .device import Device
from .ledger import Ticket
from .link import Link
from .listener import Listener, MqttJob, Packet
from .path import ABSENT, nested
from .presets import PRESETS, Message, Preset
from .presets.base import an_object
from .values import sent

log = logging.getLogger("edged.mqtt-in")

_STARTING = 10.0
"""Seconds that the first polls wait for the broker."""
_PATIENT = 30.0
"""Seconds that a person waits for a message."""
_AGAIN = 1.0
"""Seconds until it is looked again for the one message of a long period."""
_ROUTES = 4096
"""Topics of which it is remembered whom they concern."""
_TOLD = 8
"""Different problems of one device that are told; the rest are more of the same."""
_AT_A_STRETCH = 50
"""Messages after which other tasks have their turn."""


class Bus:
    """Satisfies `edged.adapter.Bus`."""

    concurrency = 2
    """One for polls, which wait for nothing, and one for whoever waits for a message or for the answer to a write."""

    def __init__(self, name: str, config: MqttBus, devices: Mapping[str, MqttDevice]) -> None:
        """Raises ConfigError for devices that do not fit the preset, and for codecs that are not there."""
        self._name = name
        self._config = config
        self._preset: Preset = PRESETS[config.preset](config)
        self._devices = {device: Device(device, spec, self._preset) for device, spec in devices.items()}
        self._codecs = Codecs(devices)
        self._filters = [(filter_.split("/"), one) for one in self._devices.values() for filter_ in one.filters]
        self._routes: dict[str, tuple[Device, ...]] = {}
        protocol = config.protocol if config.protocol != "auto" else self._preset.protocol
        self._link = Link(name, config, [one for device in self._devices.values() for one in device.filters], protocol)
        self._listeners = {device: Listener(self._link.release) for device in devices}
        self._number = 0
        self._told: dict[str, set[str]] = {device: set() for device in devices}
        self._notes: dict[str, list[str]] = {device: [] for device in devices}
        self._bridge_gone = False
        self._shed = 0
        self._task: asyncio.Task[None] | None = None

    # -- what the scheduler calls ------------------------------------------------------------------------------------

    def prepare(self, device: str, points: Sequence[str]) -> MqttJob:
        """See `edged.adapter.Bus`. A job made after a write gets what came since."""
        if device not in self._devices:
            raise ConfigError(f"{self._name} has no device {device!r}")
        config = self._devices[device].config
        if unknown := [point for point in points if point not in config.points]:
            raise ConfigError(f"{device} has no point {unknown[0]!r}")
        listener = self._listeners[device]
        thin = any((config.points[Name(point)].every or config.every) > 1 for point in points)
        job = MqttJob(device, tuple(points), thin, delivered=listener.written or listener.count)
        listener.jobs.add(job)
        return job

    def plan(self, job: Job) -> Plan:  # noqa: ARG002  # the same for all
        """Listening costs nothing."""
        return Plan([PlanRequest("messages", 0.0)])

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:  # noqa: ARG002  # nothing is cheaper
        """See `edged.adapter.Bus`. A device that said nothing new yields nothing, until it is silent for too long.

        `raw` waits for a message, and tells of the last one even if it was delivered before.
        """
        mine = cast("MqttJob", job)
        down: TransientError | None = None
        try:
            await self._link.wait(_STARTING)
        except TransientError as exc:
            down = exc
        if self._task is None:
            self._task = asyncio.create_task(self._take_all(), name=f"messages of {self._name}")
        elif self._task.done():
            self._task.result()
        if raw:
            return await self._asked(mine, down)
        listener = self._listeners[mine.device]
        samples = [sample for packet in listener.fetch(mine) if (sample := mine.sample(packet))]
        if not samples:
            self._check(mine, listener, down)
        elif late := listener.stale(mine, self._patience(mine)[1]):
            samples.append(mine.without(late, Reason.STALE, *_now()))
        if samples:
            mine.silent = False
        return PollResult(samples, notes=self._say(mine), again=None if samples or not mine.thin else _AGAIN)

    async def write(self, device: str, point: str, value: Value) -> None:
        """See `edged.adapter.Bus`. That a network server took a downlink does not mean that the device did."""
        known = self._devices.get(device)
        spec = known.config.points.get(Name(point)) if known else None
        if known is None or spec is None or not spec.writable:
            raise PermanentError(f"{device}/{point} is not writable", reason="not-writable")
        try:
            raw = sent(spec, value)
        except ValueError as exc:
            raise PermanentError(f"{device}/{point}: {exc}", reason="range") from None
        await self._link.wait(_STARTING)
        self._listeners[device].written = self._listeners[device].count
        if self._preset.lorawan:
            await self._send_down(known, point, raw)
            return
        outgoing = self._preset.write(known.config, known.called, point, spec, raw)
        if outgoing.answer == "none":
            await self._link.publish(outgoing.topic, outgoing.payload)
            return
        content = orjson.loads(outgoing.payload)
        answer = await self._link.call(
            outgoing.topic, lambda number, source: orjson.dumps({"id": number, "src": source, **content})
        )
        if isinstance(error := answer.get("error"), Mapping):
            raise PermanentError(f"{device}/{point}: the device refuses: {error.get('message')}", reason="exception")

    async def close(self) -> None:
        """See `edged.adapter.Bus`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._link.close()
        await self._codecs.close()

    # -- what a poll says ----------------------------------------------------------------------------------------------

    def _patience(self, job: MqttJob) -> tuple[int, int]:
        """(How long it may be silent, since when its last word is too old), microseconds."""
        patience = round(self._devices[job.device].expect * 1e6)
        return patience, _now()[1] - patience

    def _check(self, job: MqttJob, listener: Listener, down: TransientError | None) -> None:
        """Raises TransientError when there is a reason why nothing comes."""
        if down is not None:
            raise down
        if self._bridge_gone:
            raise TransientError(f"{self._config.preset} says that it is offline itself", reason=Reason.UNREACHABLE)
        if listener.offline:
            raise TransientError("it is offline, says its availability topic", reason="offline")
        patience, before = self._patience(job)
        if max(listener.seen, 0 if job.silent else self._link.up_since) >= before:
            return
        job.silent = True
        device = self._devices[job.device]
        seconds = (patience + before - max(listener.seen, self._link.up_since)) / 1e6
        hint = "" if listener.seen else f": is {device.called!r} what it is called there?"
        raise TransientError(f"no message for {seconds:.0f} s{hint}", reason=Reason.STALE)

    def _say(self, job: MqttJob) -> Sequence[str]:
        notes, self._notes[job.device] = self._notes[job.device], []
        if job.lost:
            notes.append(f"{job.device}: {job.lost} messages came faster than they were fetched, and are lost")
            job.lost = 0
        if self._link.shed > self._shed:
            notes.append(f"{self._link.shed - self._shed} messages found no room, and are lost or come again later")
            self._shed = self._link.shed
        return notes

    def _note(self, device: str, text: str) -> None:
        """Something that a person should know once."""
        told = self._told[device]
        if text not in told and len(told) < _TOLD:
            told.add(text)
            self._notes[device].append(f"{device}: {text}")

    async def _asked(self, job: MqttJob, down: TransientError | None) -> PollResult:
        """The newest message, for a person, who waits for it. Raises TransientError."""
        if down is not None:
            raise down
        listener = self._listeners[job.device]
        until = time.monotonic() + _PATIENT
        while listener.newest is None:
            if time.monotonic() >= until:
                text = f"no message within {_PATIENT:.0f} s, of {self._devices[job.device].called!r}"
                raise TransientError(text, reason=Reason.STALE)
            await asyncio.sleep(0.1)
        packet = listener.newest
        topic, payload, frame = listener.raw
        age = (_now()[1] - packet.mono) / 1e6
        shown = payload[:400].decode("utf-8", "replace") + ("…" if len(payload) > 400 else "")  # noqa: PLR2004  # some lines
        sample = job.sample(packet)
        return PollResult([sample] if sample else [], raw=[RawRead(f"{topic}, {age:.1f} s ago: {shown}", tuple(frame))])

    # -- what arrives --------------------------------------------------------------------------------------------------

    async def _take_all(self) -> None:
        """Take what arrives, one message after the other, for ever."""
        count = 0
        while True:
            arrived = self._link.fetch()
            if arrived is None:
                self._link.news.clear()
                if (arrived := self._link.fetch()) is None:
                    await self._link.news.wait()
                    continue
            wall, mono = _now()
            devices = () if self._ours(arrived.topic, arrived.payload) or self._link.is_marker(arrived) else (
                self._route(arrived.topic)
            )  # fmt: skip
            ticket = None
            if arrived.number:
                ticket = self._link.ledger.take(arrived.number, len(devices), time.monotonic())
            for device in devices:
                await self._take(device, arrived.topic, arrived.payload, ticket, wall, mono, retained=arrived.retained)
            count += 1
            if count % _AT_A_STRETCH == 0:
                await asyncio.sleep(0)

    def _route(self, topic: str) -> tuple[Device, ...]:
        """The devices that a topic concerns; none if a former configuration subscribed to it."""
        known = self._routes.get(topic)
        if known is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            levels = topic.split("/")
            found = (device for wanted, device in self._filters if topics.matches(wanted, levels))
            known = self._routes[topic] = tuple(dict.fromkeys(found))
        return known

    def _ours(self, topic: str, payload: bytes) -> bool:
        """Whether it is an answer to a call."""
        if topic != f"{self._link.answer_topic}/rpc":
            return False
        content = an_object(payload)
        if not isinstance(content, str):
            self._link.answered(content.get("id"), content)
        return True

    async def _take(
        self, device: Device, topic: str, payload: bytes, ticket: Ticket | None, wall: int, mono: int, *, retained: bool
    ) -> None:
        message = device.read(topic, payload)
        listener = self._listeners[device.name]
        packet = None
        if message is not None and message.online is not None:
            self._heed(message, listener)
        elif message is not None and not (retained and device.config.retained == "ignore"):
            packet = await self._packet(device, message, ticket, wall, mono, retained=retained)
            if not retained:
                listener.offline = False
                listener.notice(packet.mono)
        if packet is None or not packet.values:
            self._link.release(ticket)
            return
        listener.raw = topic, payload, (message.frame if message else None) or b""
        listener.hear(packet)

    def _heed(self, message: Message, listener: Listener) -> None:
        if message.bridge:
            self._bridge_gone = not message.online
        else:
            listener.offline = not message.online

    async def _packet(
        self, device: Device, message: Message, ticket: Ticket | None, wall: int, mono: int, *, retained: bool
    ) -> Packet:
        moment, overall = times.judge(message.time, wall, waited=self._link.waited, retained=retained)
        values: Any = ABSENT
        problem = ""
        if device.wants_codec(message):
            values, problem = await self._decoded(device, message, moment)
        found = device.found(message, values, problem)
        for text in found.problems:
            self._note(device.name, text)
        if message.note:
            self._note(device.name, message.note)
        self._number += 1
        return Packet(
            self._number, moment, mono - (wall - moment), found.values, found.quality, overall,
            ticket,
        )  # fmt: skip

    async def _decoded(self, device: Device, message: Message, moment: int) -> tuple[Any, str]:
        """(What a codec makes of a frame, what is wrong with it)."""
        name = self._codecs.name(device.name)
        try:
            output = await self._codecs.decode(device.name, message.frame or b"", message.port, moment)
        except CodecError as exc:
            return ABSENT, f"codec {name}: {exc}"
        if output.errors:
            return ABSENT, f"codec {name}, FPort {message.port}: {output.errors[0]}"
        for text in output.warnings:
            self._note(device.name, f"codec {name} warns: {text}")
        return output.data, ""

    # -- downlinks -----------------------------------------------------------------------------------------------------

    async def _send_down(self, device: Device, point: str, value: Any) -> None:
        if not device.config.codec:
            raise PermanentError(f"{device.name}/{point}: a `codec` is needed to encode it", reason="not-writable")
        spec = device.config.points[Name(point)]
        where = spec.write_field or (point if spec.field is None else spec.field)
        output = await self._codecs.encode(device.name, nested(where.split("."), value))
        port = device.config.downlink_port or output.port
        if not port:
            raise PermanentError(f"{device.name}: the codec names no FPort: set `downlink_port`", reason="not-writable")
        outgoing = self._preset.downlink(device.config, device.called, output.frame or b"", port)
        await self._link.publish(outgoing.topic, outgoing.payload)


def _now() -> tuple[int, int]:
    return time.time_ns() // 1000, time.monotonic_ns() // 1000
