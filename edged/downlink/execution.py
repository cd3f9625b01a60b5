"""One command at its device: the write, and the look whether the point has followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from edged.adapter import Bus
from edged.config.base import PointConfig
from edged.downlink.api import Command, State
from edged.downlink.rules import payloads_of, same
from edged.errors import ConfigError, PermanentError, TransientError
from edged.model import Reason, Sample, Value
from edged.pipeline import DevicePipeline

_LOOKS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds before each look: many devices take over a value a moment after they confirmed it."""
_LONGEST = 60.0
"""Seconds that one exchange may take: adapters have time-outs of their own, much shorter."""
_UNWRITTEN = frozenset({"not-writable", "unknown", "decode", Reason.RANGE.value, "raw"})
"""Reasons for which an adapter refuses before it sends anything."""


class Polled(Protocol):
    """A bus between its polls; satisfied by `edged.polling.BusPoller`."""

    @property
    def bus(self) -> Bus | None:
        """The bus while it is open."""
        ...

    def answers(self, device: str) -> bool:
        """Whether the device answered last time."""
        ...

    def turn(self) -> AbstractAsyncContextManager[Bus]:
        """The bus for one exchange. Raises TransientError."""
        ...

    def emit(self, sample: Sample) -> None:
        """Hand a sample on as if it had been polled."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended."""

    state: State
    reason: str = ""
    detail: str = ""
    read: Value = None


@dataclass(frozen=True, slots=True)
class Execution:
    """What is to be done."""

    command: Command
    settings: PointConfig
    polled: Polled
    expected: Value
    left: Callable[[], float]
    """Seconds until the command expires, at the moment of asking."""

    async def run(self) -> Ending:
        """Write, and read back."""
        command = self.command
        try:
            written = await self._write()
        except PermanentError as exc:
            state = State.REJECTED if exc.reason in _UNWRITTEN else State.FAILED
            return Ending(state, str(exc.reason), str(exc))
        except TransientError as exc:
            return await self._after(exc)
        if not written:
            return Ending(State.EXPIRED, "", "its time ran out while it waited for its turn on the bus")
        if not command.confirm:
            return Ending(State.EXECUTED)
        return await self._confirm()

    async def look(self) -> Ending:
        """Whether a write that was interrupted was carried out."""
        try:
            read = await self._read()
        except (TransientError, ConfigError) as exc:
            return Ending(State.FAILED, "interrupted", f"the gateway was stopped while it wrote, and now: {exc}")
        if self._follows(read):
            return Ending(State.VERIFIED, detail="the gateway was stopped while it wrote; the point follows", read=read)
        return Ending(
            State.FAILED, "interrupted", f"the gateway was stopped while it wrote; the point reads {read}", read=read
        )

    async def _write(self) -> bool:
        """Whether it was begun: for its turn it may have waited too long. What takes longer than it may is cut off."""
        command = self.command
        async with self.polled.turn() as bus:
            left = self.left()
            if left <= 0:
                return False
            async with _limit(left):
                if command.raw is None:
                    await bus.write(command.device, command.point, command.value)
                    return True
                payloads = payloads_of(bus)
                if payloads is None:
                    raise PermanentError(f"the adapter of {command.device} takes no raw payloads", reason="raw")
                await payloads.write_raw(command.device, command.point, command.raw)
                return True

    async def _read(self) -> Value:
        """The value that the point has now, which goes upstream like any other reading. Raises TransientError."""
        command = self.command
        async with self.polled.turn() as bus, _limit():
            result = await bus.poll(bus.prepare(command.device, [command.point]))
        read: Value = None
        failure = f"{command.address} was not in the answer"
        for sample in result.samples:
            self.polled.emit(sample)
            if command.point in sample.points:
                shown = DevicePipeline({command.point: self.settings}).compute(sample)
                index = shown.points.index(command.point)
                read = shown.values[index]
                if read is None:
                    failure = f"{command.address} reads as {shown.quality.get(index)}"
        if read is None:
            raise TransientError(failure, reason=Reason.DECODE)
        return read

    def _follows(self, read: Value) -> bool:
        return same(self.settings, self.expected, read)

    async def _confirm(self) -> Ending:
        """Read until the point follows, or the looks are used up."""
        read: Value = None
        failure: Exception | None = None
        for pause in _LOOKS:
            await asyncio.sleep(pause)
            try:
                read, failure = await self._read(), None
            except (TransientError, ConfigError) as exc:
                failure = exc
                continue
            if self._follows(read):
                return Ending(State.VERIFIED, read=read)
        if failure is not None:
            return Ending(State.EXECUTED, "unread", f"the write was taken, but cannot be read back: {failure}")
        detail = f"the write was taken, but the point reads {read} instead of {self.expected}"
        return Ending(State.FAILED, "mismatch", detail, read)

    async def _after(self, exc: TransientError) -> Ending:
        """The write was not confirmed. It is never sent again: see whether it was carried out."""
        try:
            read = await self._read()
        except (TransientError, ConfigError):
            detail = f"{exc}; whether it was carried out is not known"
            return Ending(State.FAILED, str(exc.reason), detail)
        if self._follows(read):
            return Ending(State.VERIFIED, detail=f"not confirmed ({exc}), but the point follows", read=read)
        return Ending(State.FAILED, str(exc.reason), f"{exc}; the point reads {read}", read)


@asynccontextmanager
async def _limit(left: float = _LONGEST) -> AsyncIterator[None]:
    """`left`: seconds, if that is less than the longest there is."""
    limit = min(left, _LONGEST)
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise TransientError(f"it did not come to an end within {limit:.3g} s", reason=Reason.TIMEOUT) from None


@dataclass(frozen=True, slots=True)
class Alone:
    """A bus that nobody polls, for a single command. Implements `Polled`."""

    bus: Bus

    def answers(self, device: str) -> bool:  # noqa: ARG002  # as announced
        """Nobody knows before it was asked."""
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Bus]:
        """At once."""
        yield self.bus

    def emit(self, sample: Sample) -> None:
        """Nobody wants it."""
