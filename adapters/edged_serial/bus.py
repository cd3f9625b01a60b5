"""The bus: devices that are asked one after the other, and devices that are only listened to, on one line."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edged.adapter import (
    ConfigError,
    Name,
    PermanentError,
    Plan,
    PlanRequest,
    PollResult,
    RawRead,
    Reason,
    Sample,
    TransientError,
    Value,
)
from edged.media import FrameRing

from . import dialogue
from .codecs.decode import Fields
from .codecs.framing import DelimiterFramer
from .codecs.talk import Template
from .config import SerialBus, SerialDevice, Wake
from .device import Columns, Device, Kind, raw_value
from .line import Line, RejectedError
from .listener import Listener
from .point import Write

_KEPT = 256
"""Most frames kept between two polls with `keep: all`; the oldest go first, and a note says so."""
_USUAL_ANSWER = 32
_REACTION = 0.03
"""Bytes of an answer and seconds before it, where nothing is known of a device."""
_MOST_FRAMES = 256
_REST, _REST_NUMBERED = 3.0, 0.5
"""For how many time-outs a device is left alone that has not answered, and one whose answers say to what they are."""
_LOOK = 0.25
"""Seconds between two looks at whether the port is still there, while a first frame is awaited."""


@dataclass(slots=True)
class Job:
    """Some points of one device; knows which frames it has already delivered."""

    device: str
    points: tuple[str, ...]
    asked: list[Columns]
    listened: list[Columns]
    seen: dict[tuple[Name, str], int] = field(default_factory=dict)


class Bus:
    """Satisfies `edged.adapter.Bus`."""

    def __init__(self, name: str, config: SerialBus, devices: Mapping[str, SerialDevice]) -> None:
        self._name = name
        self._line = Line(config.settings(devices), name)
        self._devices = {device: Device.compile(device, spec) for device, spec in devices.items()}
        self._addresses = {
            device: dialogue.check_address(spec.dialogue, device, spec.address)
            for device, spec in devices.items()
            if spec.dialogue
        }
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._sequence = 0
        self._awake: dict[str, float] = {}
        self._listeners: dict[tuple[str, Name], Listener] = {}
        for device in self._devices.values():
            for kind in device.kinds.values():
                if not device.asked(kind):
                    self._listen(device, kind)
        # Waiting for a device that sends by itself occupies nothing, so each of its jobs may wait at once.
        waiting = sum(len({spec.every, *(p.every for p in spec.points.values())} - {None}) for spec in devices.values())
        self.concurrency = max(1, waiting) if self._listeners else 1

    @property
    def rings(self) -> Sequence[FrameRing]:
        """See `edged.adapter.Traced`."""
        return [self._line.medium.ring]

    def _listen(self, device: Device, kind: Kind) -> None:
        limit = _KEPT if device.config.keep == "all" else 1
        listener = Listener(device, kind, kind.framer(), limit, self._news)
        self._listeners[device.name, kind.name] = listener
        self._line.listen(listener.hear, listener.restart)

    # -- what the scheduler calls ------------------------------------------------------------------------------------

    def prepare(self, device: str, points: Sequence[str]) -> Job:
        """See `edged.adapter.Bus`."""
        compiled = self._devices[device]
        columns = compiled.columns(points)
        asked = [one for one in columns if compiled.asked(one.kind)]
        return Job(device, tuple(points), asked, [one for one in columns if not compiled.asked(one.kind)])

    def plan(self, job: Job) -> Plan:
        """One request for each kind of message; what comes by itself costs nothing."""
        device = self._devices[job.device]
        character = self._line.medium.character
        requests = []
        for one in job.asked:
            answer = max(len(device.config.kinds[one.kind.name].sample), one.kind.framing.length or 0, _USUAL_ANSWER)
            sent = len(one.kind.send.text) or _USUAL_ANSWER
            seconds = (sent + answer * one.kind.frames) * character + _REACTION + float(device.config.pause)
            requests.append(PlanRequest(f"message {one.kind.name}", seconds))
        return Plan(requests)

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:
        """See `edged.adapter.Bus`. A device that sends by itself yields nothing while it has said nothing new."""
        await self._line.open()
        samples: list[Sample] = []
        reads: list[RawRead] = []
        if job.asked:
            async with self._turn:
                await self._ask_all(job, samples, reads, probe=probe)
        notes: list[str] = []
        if job.listened and not (probe and job.asked):
            await self._hear_all(job, samples, reads, notes, probe=probe, peek=raw)
        return PollResult(samples, max(1, len(job.asked)), reads if raw else (), notes)

    async def write(self, device: str, point: str, value: Value) -> None:
        """See `edged.adapter.Bus`."""
        compiled = self._devices[device]
        spec = compiled.config.points.get(Name(point))
        if spec is None or spec.write is None:
            raise PermanentError(f"{device}/{point} is not writable", reason="not-writable")
        kind = compiled.kinds[compiled.config.message_of(point)]
        sequence = self._next()
        try:
            data = Template(spec.write.send).render(
                compiled.config.places(sequence) | {"value": raw_value(compiled.config, point, value)}, kind.check
            )
        except ValueError as exc:
            raise PermanentError(f"{device}/{point}: {exc}", reason="range") from None
        async with self._turn:
            await self._wake(compiled)
            await self._write(compiled, kind, spec.write, data)

    async def close(self) -> None:
        """See `edged.adapter.Bus`."""
        await self._line.close()

    # -- devices that are asked --------------------------------------------------------------------------------------

    async def _ask_all(self, job: Job, samples: list[Sample], reads: list[RawRead], *, probe: bool) -> None:
        """One request for each kind of message. Raises TransientError when none was answered."""
        device = self._devices[job.device]
        failures: list[TransientError] = []
        frames: dict[Name, tuple[Fields, int]] = {}
        for one in job.asked[:1] if probe else job.asked:
            name = one.kind.name
            if name not in frames:
                try:
                    fields, frame, moment = await self._ask_often(
                        device, one.kind, 0 if probe else device.config.retries
                    )
                except TransientError as exc:
                    if exc.reason == Reason.UNREACHABLE:
                        raise
                    failures.append(exc)
                    reads.append(RawRead(f"message {name}", error=str(exc)))
                    samples.append(one.without(device.name, exc.reason, *_now()))
                    continue
                frames[name] = fields, moment
                reads.append(RawRead(f"message {name}", tuple(frame)))
            fields, moment = frames[name]
            wall, mono = _now()
            samples.append(one.sample(device.name, fields, wall - (mono - moment), moment))
        if failures and not frames:
            raise failures[0]

    async def _ask_often(self, device: Device, kind: Kind, retries: int) -> tuple[Fields, bytes, int]:
        for attempt in range(retries + 1):
            try:
                if device.config.pause:
                    await asyncio.sleep(device.config.pause)
                await self._wake(device)
                if device.config.dialogue is not None:
                    return await self._converse(device, kind)
                return await self._ask(device, kind)
            except TransientError as exc:
                self._awake.pop(device.name, None)
                if attempt == retries or exc.reason == Reason.UNREACHABLE:
                    raise
        raise AssertionError("unreachable")

    async def _ask(self, device: Device, kind: Kind) -> tuple[Fields, bytes, int]:
        sequence = self._next()
        places = device.config.places(sequence)
        request = kind.send.render(places, kind.check)
        end = kind.until.render(places) if kind.until.text else None
        parts: list[bytes] = []

        def accept(frame: bytes, moment: int) -> tuple[Fields, bytes, int]:
            if end is not None or kind.frames > 1:
                if frame != end:
                    parts.append(frame)
                if (end is not None and frame != end) or len(parts) < kind.frames:
                    if len(parts) > _MOST_FRAMES:
                        parts.clear()
                    raise RejectedError(f"only {len(parts)} of its frames came")
                frame = b"\n".join(parts)
                parts.clear()
            found, why = device.decode(kind, frame, sequence)
            if found is None:
                raise RejectedError(why)
            return found, frame, moment

        result = await self._line.ask(
            request, kind.framer(), accept, float(device.config.timeout),
            gap=float(kind.framing.gap), longest=kind.framing.max * kind.frames,
            who=device.known_by(kind), rest=_REST_NUMBERED if device.numbers(kind) else _REST,
        )  # fmt: skip
        self._awake[device.name] = time.monotonic()
        return result

    async def _converse(self, device: Device, kind: Kind) -> tuple[Fields, bytes, int]:
        address, within = self._addresses[device.name], float(device.config.timeout)
        if device.config.dialogue == "mbus":
            frame, moment = await dialogue.read_mbus(self._line, address, within)
        else:
            frame, moment = await dialogue.read_meter(self._line, str(address), within)
        found, why = device.decode(kind, frame)
        if found is None:
            raise TransientError(why or "what the device said cannot be decoded", reason=Reason.PROTOCOL)
        return found, frame, moment

    async def _wake(self, device: Device) -> None:
        wake = device.config.wake
        if wake is None or time.monotonic() < self._awake.get(device.name, float("-inf")) + wake.lasts:
            return
        data = Template(wake.send).render(device.config.places())
        if not wake.answer:
            await self._line.tell(data)
            await asyncio.sleep(wake.pause)
            return
        await self._knock(wake, data, Template(wake.answer).render(device.config.places()))

    async def _knock(self, wake: Wake, data: bytes, answer: bytes) -> None:
        for attempt in range(wake.tries):
            framer = DelimiterFramer(answer, 4096, keep=True)
            with contextlib.suppress(TransientError):
                await self._line.ask(data, framer, lambda _frame, _moment: None, float(wake.pause), rest=0.0)
                return
            await self._line.open()
            if attempt == wake.tries - 1:
                raise TransientError(f"it does not wake up ({wake.tries} tries)")

    async def _write(self, device: Device, kind: Kind, write: Write, data: bytes) -> None:
        if not write.answer:
            await self._line.tell(data, pause=0.1)
            return
        good, refused = re.compile(write.answer, re.ASCII), re.compile(write.refused or r"(?!)", re.ASCII)

        def accept(frame: bytes, _moment: int) -> str:
            text = frame.decode("latin-1")
            if refused.fullmatch(text):
                return text
            if not good.fullmatch(text):
                raise RejectedError(f"something else came than the confirmation: {text[:40]!r}")
            return ""

        text = await self._line.ask(
            data, kind.framer(), accept, float(device.config.timeout), gap=float(kind.framing.gap), rest=_REST
        )
        if text:
            raise PermanentError(f"{device.name} refused it: {text[:40]!r}", reason="refused")

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFF
        return self._sequence

    # -- devices that send by themselves -----------------------------------------------------------------------------

    async def _hear_all(
        self, job: Job, samples: list[Sample], reads: list[RawRead], notes: list[str], *, probe: bool, peek: bool
    ) -> None:
        """What came since the last poll. Raises TransientError when the device has been silent for too long."""
        device = self._devices[job.device]
        found = self._take(job, samples, reads, notes, peek=peek)
        if not found and not probe:
            await self._first(job)
            found = self._take(job, samples, reads, notes, peek=peek)
        if found or job.asked:
            return
        now = time.monotonic_ns() // 1000
        last = max(
            (heard.mono for one in job.listened if (heard := self._listener(job, one).newest(one.group))), default=0
        )
        since = max(last, 0) or self._line.opened or now
        if now - since > device.config.patience * 1e6 or (probe and not last):
            raise TransientError(self._silence(job, now - since), reason=Reason.TIMEOUT)

    async def _first(self, job: Job) -> None:
        """Before a device has said anything at all, wait for it: nothing is known of it yet."""
        listeners = [self._listener(job, one) for one in job.listened]
        if any(listener.newest(one.group) for listener, one in zip(listeners, job.listened, strict=True)):
            return
        patience = self._devices[job.device].config.patience
        until = (self._line.opened or time.monotonic_ns() // 1000) / 1e6 + patience
        while (left := until - time.monotonic()) > 0:
            if not self._line.medium.is_open:
                await self._line.open()
            self._news.clear()
            if any(listener.newest(one.group) for listener, one in zip(listeners, job.listened, strict=True)):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK)):
                    await self._news.wait()

    def _take(self, job: Job, samples: list[Sample], reads: list[RawRead], notes: list[str], *, peek: bool) -> bool:
        """Add the samples of new frames, and of groups that have become stale. Whether there was a new frame."""
        device = self._devices[job.device]
        wall, mono = _now()
        fresh, stale = False, []
        for one in job.listened:
            listener = self._listener(job, one)
            key = (one.kind.name, one.group)
            seen = 0 if peek else job.seen.get(key, 0)
            if listener.shed:
                notes.append(f"{device.name}: {listener.shed} frames came faster than they were polled and are lost")
                listener.shed = 0
            kept = listener.heard.get(one.group, ())
            new = [heard for heard in kept if heard.number > seen and mono - heard.mono <= device.config.patience * 1e6]
            for heard in new:
                samples.append(one.sample(device.name, heard.fields, heard.wall, heard.mono))
                reads.append(RawRead(f"message {one.kind.name}", tuple(heard.frame)))
            if new:
                fresh = True
                if not peek:
                    job.seen[key] = listener.fetched = new[-1].number
            elif not kept or mono - kept[-1].mono > device.config.patience * 1e6:
                stale.append(one)
        if fresh:
            samples += [
                one.without(device.name, Reason.TIMEOUT, wall, mono) for one in stale if self._waited(device, mono)
            ]
        return fresh

    def _waited(self, device: Device, mono: int) -> bool:
        return bool(self._line.opened) and mono - self._line.opened > device.config.patience * 1e6

    def _listener(self, job: Job, one: Columns) -> Listener:
        return self._listeners[job.device, one.kind.name]

    def _silence(self, job: Job, microseconds: int) -> str:
        listeners = [self._listener(job, one) for one in job.listened]
        seconds = f"{microseconds / 1e6:.0f} s"
        rejected = sum(one.framer.rejected for one in listeners)
        unknown = sum(one.unknown for one in listeners)
        skipped = sum(one.framer.skipped + len(one.framer.partial) for one in listeners)
        if rejected:
            return f"nothing usable for {seconds}: {rejected} frames had a wrong checksum"
        if unknown:
            return f"nothing usable for {seconds}: {unknown} frames came that its profile does not know"
        if skipped:
            return f"nothing usable for {seconds}, but {skipped} bytes without a frame: is the baud rate right?"
        return f"it has sent nothing for {seconds}"


def _now() -> tuple[int, int]:
    return time.time_ns() // 1000, time.monotonic_ns() // 1000


def check_bus(name: str, config: SerialBus, devices: Mapping[str, SerialDevice]) -> None:
    """Whether the devices can share the line. Raises ConfigError."""
    for device, spec in devices.items():
        if spec.dialogue and spec.dialogue == "iec62056-21" and len(devices) > 1 and not spec.address:
            raise ConfigError(
                f"{name}: {device} needs its `address` (the meter's number), as it is not alone on the line"
            )
    config.settings(devices)
