"""A Modbus bus: plans, polls, writes, and identifies devices, whatever the link."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TypeVar, cast
from weakref import WeakSet

from edged.adapter import (
    ConfigError,
    Duration,
    Job,
    Name,
    PermanentError,
    Plan,
    PlanRequest,
    PollResult,
    RawAnswer,
    RawRequest,
    TransientError,
    Value,
)  # fmt: skip
from edged.media import FrameRing

from . import pdu
from .config import ModbusDevice
from .job import ModbusJob
from .link import Link
from .pdu import DeviceFailureError, RefusedError, Request
from .planner import Costs, Table
from .point import ModbusPoint
from .poll import Poll
from .sunspec import SunSpecJob, SunSpecPoll, folder
from .write import (
    merged_words,
    payload_of,
    raw_value,
    requests_for,
    requests_for_payload,
    requests_for_words,
    value_of,
)

T = TypeVar("T")

_UNKNOWN_FUNCTION = 1
_BUSY = 6
_BUSY_PAUSE = 0.1
"""Seconds to leave a device alone that says it is busy."""
_SHAPES = 4096
"""How many shapes of samples are remembered."""
_IDENTITY = (
    "VendorName", "ProductCode", "MajorMinorRevision", "VendorUrl", "ProductName", "ModelName", "UserApplicationName",
)  # fmt: skip
IDENTIFICATION = "identification"
_LEVELS = (1, 2, 3)
_PAGES = 64
"""Most requests for one level of identification; a device could go on for ever."""


class ModbusBus:
    """See `edged.adapter.Bus`."""

    def __init__(
        self, name: str, devices: Mapping[str, ModbusDevice], links: Sequence[Link], costs: Costs, *, timed: bool
    ) -> None:
        self.concurrency = len(links)
        self._name = name
        self._devices = devices
        self._links = tuple(links)
        self._idle = list(links)
        self._free = asyncio.Semaphore(len(links))
        self._costs = costs
        self._timed = timed
        """Whether requests occupy a shared medium, and the costs are known seconds on it."""
        self._interned: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._jobs: dict[str, WeakSet[ModbusJob]] = {}
        self._pauses: dict[int, float] = {}
        """How long each unit is to be left alone after a request. Several devices may describe one unit."""
        for device in devices.values():
            self._pauses[device.unit] = max(self._pauses.get(device.unit, 0.0), float(device.pause))
        self._rest_until: dict[int, float] = {}
        """Until when each unit is to be left alone."""
        self._unsupported: dict[str, set[int]] = {}
        """Function codes for writing that a device turned out not to know."""

    @property
    def foreign(self) -> int:
        """Frames that were no reply to the request under way, ever."""
        return sum(link.foreign for link in self._links)

    @property
    def rings(self) -> Sequence[FrameRing]:
        """See `edged.adapter.Traced`."""
        return [link.ring for link in self._links]

    def prepare(self, device: str, points: Sequence[str]) -> ModbusJob | SunSpecJob:
        """See `edged.adapter.Bus`."""
        config = self._devices.get(device)
        if config is None:
            raise ConfigError(f"{self._name} has no device {device!r}")
        if config.sunspec is not None:
            return SunSpecJob(device, config, self.intern)
        if unknown := [point for point in points if point not in config.points]:
            raise ConfigError(f"{device} has no point {unknown[0]!r}")
        job = ModbusJob(device, config, points, self._costs, self.intern)
        self._jobs.setdefault(device, WeakSet()).add(job)
        return job

    def plan(self, job: Job) -> Plan:
        """See `edged.adapter.Bus`."""
        if isinstance(job, SunSpecJob):
            folder()  # raises what is missing; what there is to read, only the device can tell
            return Plan()
        mine = cast("ModbusJob", job)
        spans = [reader.block.span for reader in mine.readers]
        if not self._timed:
            return Plan([PlanRequest(str(span), 0.0) for span in spans])
        return Plan([PlanRequest(str(span), self._costs.of(span) + mine.config.pause) for span in spans])

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:
        """See `edged.adapter.Bus`."""
        # What `_link` does, without its cost.
        await self._free.acquire()
        link = self._idle.pop()
        try:
            poll = (
                SunSpecPoll(self, link, job, raw=raw)
                if isinstance(job, SunSpecJob)
                else Poll(self, link, cast("ModbusJob", job), raw=raw)
            )
            result = await (poll.probe() if probe else poll.run())
            return with_news(result, link) if link.news else result
        finally:
            self._idle.append(link)
            self._free.release()

    async def write(self, device: str, point: str, value: Value) -> None:
        """See `edged.adapter.Bus`. A request that was not answered is not repeated: it may have been carried out."""
        config, place = self._place(device, point)
        try:
            raw = raw_value(place, value)
            requests = requests_for(place, raw)
            async with self._link() as link:
                refused = await self._first_known(link, device, config, requests)
                if refused and place.partial:
                    # The device cannot mask: read the register, change the bits, write it back.
                    read: Request[Sequence[int]] = pdu.read_registers(place.table, place.start, place.count)  # type: ignore[assignment]  # a tuple
                    words = merged_words(place, raw, await self.ask(link, config, read))
                    requests = requests_for_words(place.start, words)
                    refused = await self._first_known(link, device, config, requests)
            if refused is not None:
                raise refused
        except (PermanentError, TransientError) as exc:
            raise _placed(exc, device, point, place) from exc

    def encode(self, device: str, point: str, value: Value) -> bytes:
        """See `edged.adapter.Payloads`: registers with the high byte first, a bit as one byte."""
        _, place = self._place(device, point)
        try:
            return payload_of(place, raw_value(place, value))
        except PermanentError as exc:
            raise _placed(exc, device, point, place) from exc

    def decode(self, device: str, point: str, data: bytes) -> Value:
        """See `edged.adapter.Payloads`."""
        _, place = self._place(device, point)
        try:
            return value_of(place, data)
        except PermanentError as exc:
            raise _placed(exc, device, point, place) from exc

    async def write_raw(self, device: str, point: str, data: bytes) -> None:
        """See `edged.adapter.Payloads`."""
        config, place = self._place(device, point)
        try:
            requests = requests_for_payload(place, data)
            async with self._link() as link:
                refused = await self._first_known(link, device, config, requests)
            if refused is not None:
                raise refused
        except (PermanentError, TransientError) as exc:
            raise _placed(exc, device, point, place) from exc

    def _place(self, device: str, point: str) -> tuple[ModbusDevice, ModbusPoint]:
        config = self._devices.get(device)
        place = cast("Mapping[str, ModbusPoint]", config.points).get(point) if config is not None else None
        if config is None or place is None:
            raise PermanentError(f"there is no point {device}/{point}", reason="unknown")
        return config, place

    async def identify(self, device: str) -> dict[str, str]:
        """What the device says about itself (function 43/14), by the object names of the specification.

        Raises TransientError, or PermanentError if it says nothing.
        """
        config = self._devices.get(device)
        if config is None:
            raise ConfigError(f"{self._name} has no device {device!r}")
        async with self._link() as link:
            return await self._identity(link, device, config)

    async def read_raw(self, request: RawRequest) -> RawAnswer:
        """See `edged.adapter.Prober`. A device of the configuration gets the pauses that it needs."""
        known = next(((name, one) for name, one in self._devices.items() if one.unit == request.unit), None)
        try:
            wanted = dataclasses.replace(
                known[1] if known else ModbusDevice(bus=Name(self._name)),
                unit=request.unit,
                timeout=Duration(request.timeout),
            )
            read = None
            if request.what != IDENTIFICATION:
                read = pdu.read(Table(request.what), request.address, request.count)
        except ValueError as exc:
            raise ConfigError(f"{self._name}: {exc}") from exc
        device = known[0] if known else f"unit {request.unit}"
        async with self._link() as link:
            if read is None:
                return RawAnswer(texts=await self._identity(link, device, wanted))
            words: Sequence[int] = await self.ask(link, wanted, cast("Request[Sequence[int]]", read))
            return RawAnswer(tuple(map(int, words)))

    async def close(self) -> None:
        """See `edged.adapter.Bus`."""
        for link in self._links:
            await link.close()

    # -- for polls ----------------------------------------------------------------------------------------------------

    def intern(self, points: tuple[str, ...]) -> tuple[str, ...]:
        """The one tuple for samples of this shape."""
        if len(self._interned) >= _SHAPES:
            self._interned.clear()
        return self._interned.setdefault(points, points)

    def others(self, job: ModbusJob) -> list[ModbusJob]:
        """The other jobs of its device that have anything to read."""
        return [other for other in self._jobs[job.device] if other is not job and other.readers]

    async def ask(self, link: Link, config: ModbusDevice, request: Request[T]) -> T:
        """One exchange, when the unit may be asked again. Raises what `Link.exchange` does."""
        await self._rest(config.unit)
        pause = self._pauses.get(config.unit, 0.0)
        try:
            return await link.exchange(config.unit, request, config.timeout)
        except DeviceFailureError as exc:
            if exc.code == _BUSY:
                pause = max(pause, _BUSY_PAUSE)
            raise
        finally:
            if pause:
                self._rest_until[config.unit] = time.monotonic() + pause

    async def _rest(self, unit: int) -> None:
        if self._rest_until and (seconds := self._rest_until.get(unit, 0.0) - time.monotonic()) > 0:
            await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def _link(self) -> AsyncIterator[Link]:
        """A link that nobody else uses meanwhile; the one used last comes first."""
        await self._free.acquire()
        link = self._idle.pop()
        try:
            yield link
        finally:
            self._idle.append(link)
            self._free.release()

    async def _first_known(
        self, link: Link, device: str, config: ModbusDevice, requests: Sequence[Request[None]]
    ) -> RefusedError | None:
        """Send the first of these requests that the device knows. Returns why, if it knows none of them."""
        unsupported = self._unsupported.setdefault(device, set())
        refused: RefusedError | None = None
        for request in requests:
            if request.function in unsupported:
                refused = RefusedError(request.function, _UNKNOWN_FUNCTION)
                continue
            try:
                await self.ask(link, config, request)
            except RefusedError as exc:
                if exc.code != _UNKNOWN_FUNCTION:
                    raise
                unsupported.add(request.function)
                refused = exc
            else:
                return None
        return refused

    async def _identity(self, link: Link, device: str, config: ModbusDevice) -> dict[str, str]:
        objects: dict[int, bytes] = {}
        for level in _LEVELS:
            try:
                await self._identify_level(link, config, level, objects)
            except (PermanentError, TransientError) as exc:
                if objects:
                    break  # it has told what it wants to tell
                kind = PermanentError if isinstance(exc, PermanentError) else TransientError
                raise kind(f"{device} does not identify itself: {exc}", reason=exc.reason) from exc
        return {_object_name(number): _text(data) for number, data in sorted(objects.items())}

    async def _identify_level(self, link: Link, config: ModbusDevice, level: int, objects: dict[int, bytes]) -> None:
        first = 0
        for _ in range(_PAGES):
            request = pdu.read_identification(level, first)
            page = await self.ask(link, config, request)
            objects.update(page.objects)
            if page.next_object is None or page.next_object <= first:
                return
            first = page.next_object


def with_news(result: PollResult, link: Link) -> PollResult:
    """The same, with what the link has to tell."""
    news = tuple(link.news)
    link.news.clear()
    return dataclasses.replace(result, notes=[*result.notes, *news])


def _object_name(number: int) -> str:
    return _IDENTITY[number] if number < len(_IDENTITY) else f"object {number}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip("\0 ")


def _placed(exc: PermanentError | TransientError, device: str, point: str, place: ModbusPoint) -> Exception:
    """The same with where it happened."""
    kind = PermanentError if isinstance(exc, PermanentError) else TransientError
    return kind(f"{device}/{point} ({place.span}): {exc}", reason=exc.reason)
