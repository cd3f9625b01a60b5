"""One poll of one job: read its blocks, learn what the device refuses, and say of every point how it is."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol, TypeVar

from edged.adapter import PollResult, Quality, RawRead, Reason, TransientError, bad

from .config import ModbusDevice
from .gather import Gathering
from .job import ModbusJob, Reader
from .link import Link, now
from .pdu import DeviceFailureError, RefusedError, Request

T = TypeVar("T")

_EXTRA = 16
"""Most requests that one poll spends on finding out what a device refuses."""
_WORTH_REPEATING = frozenset({6, 11})
"""Exceptions that may be gone with the next request: busy, and a device silent behind a gateway."""


class Asker(Protocol):
    """What a poll needs of its bus."""

    def intern(self, points: tuple[str, ...]) -> tuple[str, ...]:
        """The one tuple for samples of this shape."""
        ...

    def others(self, job: ModbusJob) -> list[ModbusJob]:
        """The other jobs of its device that have anything to read."""
        ...

    async def ask(self, link: Link, config: ModbusDevice, request: Request[T]) -> T:
        """One exchange, when the unit may be asked again. Raises what `Link.exchange` does."""
        ...


class Poll:
    """One poll. Used once."""

    def __init__(self, bus: Asker, link: Link, job: ModbusJob, *, raw: bool) -> None:
        self._bus, self._link, self._job = bus, link, job
        self._raw: list[RawRead] | None = [] if raw else None
        self._transactions = 0
        self._extra = _EXTRA
        self._gathering = Gathering(job.device, bus.intern)
        self._queue: deque[Reader] = deque(job.readers)
        self._failure: TransientError | None = None
        """Why a block was not read, other than being refused."""
        self._silent: Reader | None = None
        """The block by which the device, or the link, turned out not to answer. Nothing is read after it."""

    async def run(self) -> PollResult:
        """See `edged.adapter.Bus.poll`."""
        job = self._job
        self._queue.extend(job.due(time.monotonic()))
        while self._queue:
            reader = self._queue.popleft()
            if self._silent is None:
                await self._read(reader)
            elif not job.is_dead(reader):
                self._gathering.missing(reader.points, self._why_silent())
        return await self._conclude()

    async def probe(self) -> PollResult:
        """The cheapest read that shows whether the device answers. An exception is an answer, too."""
        job = self._job
        reader = job.smallest()
        if reader is None:
            return PollResult((), transactions=0)
        try:
            await self._ask(reader.request, attempts=1)
        except RefusedError as exc:
            if job.is_dead(reader):
                job.refused(reader, exc.code, time.monotonic())
                raise TransientError(f"{reader.block.span}: {exc}", reason=Reason.EXCEPTION) from exc
        except TransientError as exc:
            raise self._told(reader, exc) from exc
        else:
            if job.is_dead(reader):
                job.answered(reader)
        job.conclude()
        return PollResult((), transactions=self._transactions, notes=job.news())

    async def _read(self, reader: Reader) -> None:
        job = self._job
        try:
            data = await self._ask(reader.request, job.config.retries + 1)
        except RefusedError as exc:
            self._note_raw(reader, error=str(exc))
            self._refused(reader, exc.code)
        except TransientError as exc:
            self._note_raw(reader, error=str(exc))
            self._failure = self._told(reader, exc)
            if exc.reason in {Reason.TIMEOUT, Reason.UNREACHABLE} and self._failure.reason == exc.reason:
                self._silent = reader
            if not job.is_dead(reader):
                self._gathering.missing(reader.points, bad(self._failure.reason))
        else:
            self._gathering.add(self._link.arrived, reader.points, *reader.decode(data))
            job.answered(reader)
            if self._raw is not None:
                self._note_raw(reader, data)

    def _refused(self, reader: Reader, code: int) -> None:
        job = self._job
        pieces = job.refused(reader, code, time.monotonic())
        if not pieces and not job.is_dead(reader):
            self._gathering.missing(reader.points, bad(Reason.EXCEPTION))
        elif len(pieces) <= self._extra:
            self._extra -= len(pieces)
            self._queue.extendleft(reversed(pieces))
        else:  # the next poll goes on with them
            for piece in pieces:
                self._gathering.missing(piece.points, bad(Reason.EXCEPTION))

    async def _conclude(self) -> PollResult:
        job, gathering = self._job, self._gathering
        answers = gathering.read > 0
        if not answers:
            answers = await self._answers_otherwise()
        for points, quality in job.dead():
            gathering.missing(points, quality)
        if self._silent is not None and self._failure is not None and self._failure.reason == Reason.TIMEOUT:
            job.silent(self._silent, time.monotonic(), others_answer=answers)
        job.conclude()
        if answers:
            return PollResult(gathering.samples(now()), self._transactions, self._raw or (), job.news())
        if self._failure is not None:
            raise self._failure
        raise TransientError("; ".join(job.news()) or "it refuses every address", reason=Reason.EXCEPTION)

    async def _answers_otherwise(self) -> bool:
        """Nothing was read. Whether that is the fault of these addresses, because the device does answer others."""
        others = self._bus.others(self._job)
        if self._failure is None:
            return self._job.learning or bool(others)
        if self._failure.reason != Reason.TIMEOUT or not others:
            return False
        reader = others[0].smallest()
        if reader is None:
            return False
        try:
            await self._ask(reader.request, attempts=1)
        except RefusedError:
            return True
        except TransientError:
            return False
        return True

    # -- small things -------------------------------------------------------------------------------------------------

    async def _ask(self, request: Request[T], attempts: int) -> T:
        """With as many attempts as it needs and may have."""
        job = self._job
        while True:
            self._transactions += 1
            attempts -= 1
            try:
                return await self._bus.ask(self._link, job.config, request)
            except DeviceFailureError as exc:
                if attempts <= 0 or exc.code not in _WORTH_REPEATING:
                    raise
            except TransientError as exc:
                if attempts <= 0 or exc.reason == Reason.UNREACHABLE:
                    raise

    def _told(self, reader: Reader, exc: TransientError) -> TransientError:
        """The same with the place. No way from a gateway to one device is that device's failure, not the link's."""
        gateway = isinstance(exc, DeviceFailureError) and exc.reason == Reason.UNREACHABLE
        if exc.reason == Reason.UNREACHABLE and not gateway:
            return exc
        return TransientError(
            f"unit {self._job.config.unit}, {reader.block.span}: {exc}",
            reason=Reason.EXCEPTION if gateway else exc.reason,
        )

    def _why_silent(self) -> Quality:
        return bad(self._failure.reason if self._failure is not None else Reason.TIMEOUT)

    def _note_raw(self, reader: Reader, data: Any = (), error: str = "") -> None:
        if self._raw is not None:
            words = tuple(map(int, data))
            self._raw.append(RawRead(str(reader.block.span), words, error, reader.block.start))
