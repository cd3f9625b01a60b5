"""The deadline scheduler of one bus: drift-free, fair, and hard on devices that do not answer.

Every job (some points of one device, read together) has a grid of deadlines. The earliest deadline goes first; a job
that could not be read in time skips to its next deadline, and the skip is counted. So no job starves and none drifts.

A device that does not answer is taken off the grid and probed: with exponential pauses, and so rarely that all silent
devices together cost the others at most `dead_share` of the bus's time. One successful probe puts it back at once.
When the link itself is gone, that is the bus's failure, told once, not each device's.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

from edged.adapter import Bus, BusConfig, PollResult, Prober, RawAnswer, RawRequest, Traced
from edged.clock import wall_us
from edged.errors import ConfigError, TransientError
from edged.model import Reason, Sample
from edged.polled import Assignment, BusState, DeviceState, Load, PolledDevice, PolledJob

__all__ = ["Assignment", "BusPoller", "BusState", "DeviceState"]

log = logging.getLogger("edged.bus")

_CALM = 60.0
"""Seconds without an overrun before a further one is worth a new line in the log."""
_SLOT = 0.01
"""Seconds between two moments of the grid: what is due between them is due together, so that one wake-up serves it."""
_LAST_EXCHANGE = 3.0
"""Seconds that whoever uses the bus may take to come to an end before it is closed."""
_AT_A_STRETCH = 0.02
"""Seconds after which polls that never wait for anything let other tasks have their turn."""


class BusPoller:
    """Polls one bus for ever and hands every sample to `emit`."""

    def __init__(
        self,
        name: str,
        open_bus: Callable[[], Bus],
        config: BusConfig,
        assignments: Iterable[Assignment],
        emit: Callable[[Sample], None],
    ) -> None:
        self._name = name
        self._open = open_bus
        self._config = config
        self._emit = emit
        self._bus: Bus
        self._gate: asyncio.Semaphore
        self._devices: dict[str, PolledDevice] = {}
        self._queue: list[tuple[float, int, PolledJob | PolledDevice]] = []
        self._ticket = itertools.count(1)
        self._earlier = asyncio.Event()
        """Set when something was queued; wakes workers that sleep towards a later deadline."""
        self._assignments = list(assignments)
        self._health, self._since, self._last_error = "starting", wall_us(), ""
        self._down_at = 0.0
        self._polls = self._transactions = 0
        self._load = Load()
        self._overran_at = -_CALM
        self._probe_after = 0.0
        """No probe before this moment, so that silent devices keep to their share."""
        self._turns: dict[int, float] = {}
        """Worker → when the turn began that it is at."""
        self.cut_off = 0
        """Polls that were under way when `run` last ended: what is answered to them is not taken."""
        self._running = False
        self._command = asyncio.Lock()
        """So that of all commands only one stands in the way of a poll."""

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open the bus and poll until cancelled; then close it. Raises ConfigError when it cannot be opened.

        Can be run again after it ended.
        """
        self._bus = self._open()
        self._gate = asyncio.Semaphore(self._bus.concurrency)
        try:
            await self._schedule_all()
            self._running = True
            async with asyncio.TaskGroup() as group:
                for i in range(self._bus.concurrency):
                    group.create_task(self._work(i), name=f"bus {self._name} worker {i}")
        finally:
            self._running = False
            self.cut_off = len(self._turns)
            self._turns.clear()
            try:
                await self._until_unused()
            finally:
                await self._bus.close()

    async def _until_unused(self) -> None:
        """What went on with a bus that is closed would open it again, for ever: nobody would close it any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EXCHANGE):
                for _ in range(self._bus.concurrency):
                    await self._gate.acquire()

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Bus]:
        """The bus, when it is free. Raises TransientError if it is not open, or no longer the same by then."""
        if self._running:
            gate = self._gate
            async with gate:
                if (bus := self.bus) is not None and gate is self._gate:
                    yield bus
                    return
        raise TransientError(f"{self._name} is not open", reason=Reason.UNREACHABLE)

    # -- commands --------------------------------------------------------------------------------------------------

    def answers(self, device: str) -> bool:
        """Whether the device answered last time, so that a command has somewhere to go."""
        known = self._devices.get(device)
        return self._running and known is not None and known.health == "ok"

    @property
    def bus(self) -> Bus | None:
        """The bus while it is open, for what needs no I/O."""
        return self._bus if self._running else None

    def emit(self, sample: Sample) -> None:
        """Hand a sample on as if it had been polled."""
        self._emit(sample)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Bus]:
        """The bus between two polls, for one exchange of a command. Raises TransientError if it is not open.

        Whoever waits goes ahead of the polls that are due, but only one at a time: between two commands comes a poll.
        """
        async with self._command, self._use() as bus:
            began = self._now()
            try:
                yield bus
            finally:
                self._spend(began, self._now())

    # -- out of turn -----------------------------------------------------------------------------------------------

    async def read_now(self, device: str) -> list[PollResult]:
        """Read all points of a device out of turn. Raises KeyError, TransientError."""
        results = []
        for job in self._devices[device].jobs:
            async with self._use() as bus:
                results.append(await bus.poll(job.job, raw=True))
        return results

    async def read_raw(self, request: RawRequest) -> RawAnswer:
        """Read what no point need name, between the polls. Raises what `Prober.read_raw` does."""
        async with self._use() as bus:
            if not isinstance(bus, Prober):
                raise ConfigError(f"{self._name}: adapter {self._config.adapter} has no raw addresses to read")
            return await bus.read_raw(request)

    # -- the grid --------------------------------------------------------------------------------------------------

    async def _schedule_all(self) -> None:
        """Prepare every job, then put them on the grid."""
        self._queue.clear()
        self._devices.clear()
        prepared = []
        for assignment in self._assignments:
            prepared.append(self._bus.prepare(assignment.device, assignment.points))
            await asyncio.sleep(0)  # thousands of plans take seconds; other buses go on meanwhile
        now = self._now()
        self._load.begin(now)
        for assignment, plan in zip(self._assignments, prepared, strict=True):
            device = self._devices.setdefault(assignment.device, PolledDevice(assignment.device))
            job = PolledJob(
                plan,
                device,
                assignment.every,
                # One grid for all buses: jobs of several that are due in the same moment cost one wake-up together.
                phase=round(assignment.phase * assignment.every / _SLOT) * _SLOT,
                # The first reading should not wait for a long period's turn, nor should all begin in one instant.
                due=now + assignment.phase * min(assignment.every, 1.0),
            )
            device.jobs += (job,)
            self._push(job.due, job)

    def _push(self, when: float, what: PolledJob | PolledDevice) -> int:
        ticket = next(self._ticket)
        heapq.heappush(self._queue, (when, ticket, what))
        self._earlier.set()
        return ticket

    async def _work(self, worker: int) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        # A cancellation that came in the moment of a reply may have been swallowed: asyncio.wait_for of Python 3.11,
        # which libraries use, does that.
        rested = loop.time()
        while not (task and task.cancelling()):
            now = loop.time()
            wait = self._queue[0][0] - now if self._queue else None
            if wait is None or wait > 0:
                await self._sleep(wait)
                rested = loop.time()
                continue
            if now - rested > _AT_A_STRETCH:
                await asyncio.sleep(0)
                rested = now
            _, ticket, entry = heapq.heappop(self._queue)
            self._turns[worker] = now
            async with self._gate:
                if isinstance(entry, PolledJob):
                    await self._turn(entry)
                elif ticket == entry.probe:
                    await self._probe(entry)
            del self._turns[worker]

    async def _sleep(self, seconds: float | None) -> None:
        """Wait for the next deadline, or until another worker queued an earlier one."""
        if self._bus.concurrency == 1 and seconds is not None:
            await asyncio.sleep(seconds)  # the only worker is the only one to queue anything
            return
        self._earlier.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._earlier.wait()
        except TimeoutError:
            pass

    # -- a device that answers -----------------------------------------------------------------------------------

    async def _turn(self, job: PolledJob) -> None:
        """Poll a job that is due."""
        if job.device.down:
            return  # it left the grid; its recovery puts it back
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            result = await self._bus.poll(job.job)
        except TransientError as exc:
            self._spend(began, loop.time())
            self._failed(job.device, exc, loop.time() - began)
            return
        now = loop.time()
        self._spend(began, now)
        self._take(job.device, result, now - began)
        self._count_overruns(job, now)
        job.due = job.next_after(now)
        if result.again is not None:
            job.due = min(job.due, now + result.again)
        self._push(job.due, job)

    def _take(self, device: PolledDevice, result: PollResult, seconds: float) -> None:
        device.polls += 1
        device.seconds = seconds
        device.last_ok = wall_us()
        self._polls += 1
        self._transactions += result.transactions
        if device.health != "ok":
            self._came_up(device)
        for note in result.notes:
            log.warning("%s: %s", self._name, note)
        for sample in result.samples:
            self._emit(sample)

    def _count_overruns(self, job: PolledJob, now: float) -> None:
        missed = int((now - job.due) // job.every)
        if missed <= 0:
            return
        job.device.overruns += missed
        if now - self._overran_at > _CALM:
            log.warning(
                "%s: cannot keep up: %s was to be read every %gs and is %.3fs late; a poll takes %.3fs, the bus is "
                "busy %.0f %% of the time. Raise `every`, or put fewer points or devices on this bus",
                self._name, job.device.name, job.every, now - job.due, job.device.seconds, 100 * self._load.share,
            )  # fmt: skip
        self._overran_at = now

    def _came_up(self, device: PolledDevice) -> None:
        link_was_down = self._health == "down"
        if link_was_down:
            log.info("%s: reachable again after %.0f s", self._name, self._now() - self._down_at)
        if self._health != "ok":
            self._health, self._since, self._last_error = "ok", wall_us(), ""
        if device.down and not device.with_link:
            log.info("%s: %s answers again after %.0f s", self._name, device.name, self._now() - device.down_at)
        device.health, device.since, device.last_error = "ok", wall_us(), ""
        device.pause, device.with_link = 0.0, False
        if link_was_down:
            for other in self._devices.values():
                if other.with_link:
                    other.probe = self._push(self._now(), other)

    # -- a device that does not ----------------------------------------------------------------------------------

    def _failed(self, device: PolledDevice, exc: TransientError, cost: float) -> None:
        device.failures += 1
        device.cost = cost
        device.last_error = str(exc)
        if exc.reason == Reason.UNREACHABLE:
            self._link_down(exc)
        if not device.down:
            device.with_link = self._health == "down"
            if not device.with_link:
                log.warning(
                    "%s: %s does not answer: %s; it is tried again from time to time", self._name, device.name, exc
                )
            device.health, device.since, device.down_at = "down", wall_us(), self._now()
        device.pause = min(max(2 * device.pause, self._config.retry_min), self._config.retry_max)
        for sample in device.without_values(exc.reason):
            self._emit(sample)
        self._schedule_probe(device)

    def _link_down(self, exc: TransientError) -> None:
        if self._health != "down":
            log.warning(
                "%s: %s; trying again, at least every %s", self._name, exc, self._config.retry_max,
            )  # fmt: skip
            self._health, self._since, self._down_at = "down", wall_us(), self._now()
        self._last_error = str(exc)

    def _schedule_probe(self, device: PolledDevice) -> None:
        now = self._now()
        others_answer = any(other.health == "ok" for other in self._devices.values())
        if others_answer:
            quiet = device.cost * (1 / self._config.dead_share - 1)
            self._probe_after = max(self._probe_after, now) + quiet
            device.probe = self._push(max(now + device.pause, self._probe_after), device)
        else:
            device.probe = self._push(now + device.pause, device)

    async def _probe(self, device: PolledDevice) -> None:
        """See whether a silent device is back."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            result = await self._bus.poll(device.jobs[0].job, probe=True)
        except TransientError as exc:
            self._spend(began, loop.time())
            self._failed(device, exc, loop.time() - began)
            return
        now = loop.time()
        self._spend(began, now)
        self._take(device, result, now - began)
        for job in device.jobs:
            job.due = now
            self._push(now, job)

    # -- what people see -----------------------------------------------------------------------------------------

    def polling_since(self) -> float | None:
        """When the oldest turn began that is under way, or when it last sent something: monotonic seconds."""
        if not self._turns:
            return None
        began = min(self._turns.values())
        if self._bus.concurrency > 1 or not isinstance(self._bus, Traced):
            return began  # which of several turns has sent something is not known
        return max(began, *(ring.last_tx / 1e6 for ring in self._bus.rings))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _spend(self, began: float, now: float) -> None:
        self._load.spend(began, now, self._bus.concurrency)

    @property
    def health(self) -> tuple[str, str]:
        """The bus's (health, last error), as in `BusState`."""
        return self._health, self._last_error

    @property
    def polls(self) -> int:
        """How many polls have come to an end, well or not."""
        return self._polls

    def healths(self) -> Iterator[tuple[str, str, str]]:
        """(Device, health, last error) of each: what `state` says, for whoever asks often."""
        for device in self._devices.values():
            yield device.name, device.health, device.last_error

    def state(self) -> BusState:
        """A snapshot."""
        return BusState(
            bus=self._name,
            adapter=self._config.adapter,
            health=self._health,
            since=self._since,
            last_error=self._last_error,
            load=round(self._load.share, 4),
            polls=self._polls,
            transactions=self._transactions,
            overruns=sum(device.overruns for device in self._devices.values()),
            devices=[device.state(self._name) for device in self._devices.values()],
        )
