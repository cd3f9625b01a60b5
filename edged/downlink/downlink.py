"""The one way down: from a command to its result, whatever the entrance.

    submit → rules → stored → queue of its device → `executing` stored → write, between two polls → read back → result

A device that does not answer gets nothing sent: its commands wait, of each point only the newest, until it answers or
they expire. What was under way when the process died is never written again: the point is read, and that is the result.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edged.adapter import Bus
from edged.clock import boot_id, boottime_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.downlink.api import Command, CommandResult, State
from edged.downlink.entrance import Entrance
from edged.downlink.execution import Execution, Polled
from edged.downlink.expiry import Deadline, Due, Now, deadline_of
from edged.downlink.flood import Flood
from edged.downlink.rules import brief, check_form, settings_of, wanted
from edged.downlink.store import EXECUTING, Desired, Row, Store
from edged.errors import PermanentError, TransientError
from edged.model import Value

log = logging.getLogger("edged.commands")

MOST_QUEUED = 10_000
"""So many commands may wait to be carried out; a further one is rejected."""
LOCAL = "local"
"""The entrance of the local API."""
_TICK = 0.5
"""Seconds between two looks at devices that do not answer, and at what waits for them."""
_TELL_AFTER = 5.0
"""Seconds after which it is noted on the disk what has been told: what is told twice does no harm."""
_SUPERSEDED = State.REJECTED, "superseded", "a newer command for the point took its place"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What commands need of the daemon."""

    devices: Mapping[str, DeviceConfig]
    """As they are at the moment."""
    polled: Callable[[str], Polled | None]
    """The bus of this name, if there is one."""
    clock_trusted: Callable[[], bool]
    """Whether the wall clock can be believed."""
    desire: Callable[[Desired], None]
    """A point has been told to be something, and is."""
    allowed: Callable[[str], bool] = lambda _: True
    """Whether the connection of this name may bring commands now: a reload may have taken its leave away."""


@dataclass(slots=True)
class _Queue:
    """What waits for one device."""

    rows: list[Row] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class CommandsState:
    """How commands stand, for people: what waits now, and what came to an end since the start."""

    waiting: int
    ended: Mapping[str, int]


class Downlink:
    """All commands of a gateway. `run` must be running for anything to be done."""

    def __init__(self, path: Path, around: Surroundings, most: int = MOST_QUEUED) -> None:
        """`path`: where commands are kept; `most`: how many may wait."""
        self.store = Store(path)
        self._around = around
        self._most = most
        self._entrances: dict[str, Entrance] = {}
        self._queues: dict[str, _Queue] = {}
        self._ended: Counter[str] = Counter()
        self._flood = Flood()
        self._ends: dict[int, asyncio.Future[CommandResult]] = {}
        """Who waits here for the end of a command, by its number."""
        self._noted: list[tuple[int, str]] = []
        self._ready = asyncio.Event()
        self._group: asyncio.TaskGroup
        self._closing = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry commands out until cancelled. Raises ConfigError if they cannot be stored."""
        self._closing = False
        self._queues.clear()
        await self.store.open()
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self.store.run(), name="command store")
                await self._resume()
                self._ready.set()
                self._group.create_task(self._note(), name="command notes")
                while True:
                    await asyncio.sleep(_TICK)
                    await self._tick()
        finally:
            self._ready.clear()
            await self.store.close()

    async def stop(self, within: float) -> None:
        """Begin nothing more, and let what is under way come to its end."""
        self._closing = True
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        if self._ready.is_set():
            await self._save_told()

    async def _resume(self) -> None:
        """Take up what an earlier run has left."""
        for row in await self.store.unfinished():
            self._queues.setdefault(row.command.device, _Queue()).rows.append(row)
        for row in await self.store.untold(MOST_QUEUED):
            if row.entrance != LOCAL:
                self.entrance(row.entrance).tell(row.number, row.result())

    def entrance(self, name: str) -> Entrance:
        """The way down for one connection, or `LOCAL`."""
        known = self._entrances.get(name)
        if known is None:
            known = self._entrances[name] = Entrance(name, self._submit, self._told)
        return known

    async def ready(self) -> None:
        """Wait until what earlier runs have left is known."""
        await self._ready.wait()

    def state(self) -> CommandsState:
        """For people."""
        return CommandsState(self._waiting(), dict(self._ended))

    def _waiting(self) -> int:
        return sum(len(queue.rows) for queue in self._queues.values())

    # -- in --------------------------------------------------------------------------------------------------------

    async def perform(self, command: Command, within: float) -> CommandResult:
        """Submit a command of the local API and wait for its end, so long; what is known then."""
        result, number = await self._take(LOCAL, command)
        if result.state.final or not number:
            return result
        end = self._ends.setdefault(number, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(within):
                return await asyncio.shield(end)
        except TimeoutError:
            return result

    async def _submit(self, entrance: str, command: Command) -> CommandResult:
        # While starting and stopping, what a broker brings is neither refused nor acknowledged: it brings it again.
        await self._ready.wait()
        result, number = await self._take(entrance, command)
        self.entrance(entrance).tell(number, result)
        return result

    async def _take(self, entrance: str, command: Command) -> tuple[CommandResult, int]:
        """Check, store and queue; what there is to say, and the command's number (0: not stored by this call)."""
        now = self._now()
        deadline, fate = self._judge(command, now)
        row = Row(0, entrance, command, deadline, now.wall, *fate, changed=now.wall)
        try:
            if not self._ready.is_set():
                raise TransientError("the store of commands is not open", reason="storage")
            if row.reason in {"id", "value"}:  # no command at all
                return row.result(), 0
            stored = await self.store.add(row, now.wall, now.boottime, trusted=now.trusted)
        except TransientError as exc:
            row.state, row.reason, row.detail = State.REJECTED, exc.reason, str(exc)
            return row.result(), 0
        if stored is not row:
            return self._known(stored, command), 0
        if row.state == State.ACCEPTED:
            self._enqueue(row)
        else:
            self._ended[row.state] += 1
        return row.result(), row.number

    def _judge(self, command: Command, now: Now) -> tuple[Deadline, tuple[str, str, str]]:
        """Until when, and (state, reason, detail)."""
        deadline = Deadline(now.boottime, now.boot, None, absolute=False)
        try:
            check_form(command)
            deadline = deadline_of(command, now)
            self._expected(command)
            if self._waiting() >= self._most:
                raise PermanentError(f"{self._most} commands wait already", reason="full")
        except PermanentError as exc:
            return deadline, (State.REJECTED.value, str(exc.reason), str(exc))
        if deadline.due(now) is Due.TOO_LATE:
            return deadline, (State.EXPIRED.value, "", "it had expired when it came")
        return deadline, (State.ACCEPTED.value, "", "")

    def _known(self, stored: Row, command: Command) -> CommandResult:
        """What to say to an id that is known."""
        old = stored.command
        if (old.device, old.point, old.value, old.raw) != (command.device, command.point, command.value, command.raw):
            return CommandResult(
                id=command.id, device=command.device, point=command.point, state=State.REJECTED, reason="id",
                detail=f"this id was already given to another command, for {old.address}", time=wall_us(),
                reply=command.reply,
            )  # fmt: skip
        stored.command = command
        return stored.result()

    def _settings(self, command: Command) -> PointConfig:
        return settings_of(self._around.devices.get(command.device), command)

    def _polled(self, device: str) -> Polled | None:
        config = self._around.devices.get(device)
        return self._around.polled(str(config.bus)) if config else None

    def _expected(self, command: Command) -> tuple[PointConfig, Polled | None, Value]:
        """Raises PermanentError if the command may not be carried out."""
        settings, polled = self._settings(command), self._polled(command.device)
        bus: Bus | None = polled.bus if polled else None
        if bus is None and command.raw is not None:
            raise PermanentError(f"the bus of {command.device} is not open: raw bytes cannot be judged", reason="raw")
        return settings, polled, wanted(settings, bus, command)

    def _now(self) -> Now:
        return Now(wall_us(), self._around.clock_trusted(), boottime_us(), boot_id())

    # -- the queues ------------------------------------------------------------------------------------------------

    def _enqueue(self, row: Row) -> None:
        queue = self._queues.setdefault(row.command.device, _Queue())
        queue.rows.append(row)
        self._start(row.command.device, queue)

    def _answers(self, device: str) -> bool:
        polled = self._polled(device)
        return polled is not None and polled.answers(device)

    def _start(self, device: str, queue: _Queue) -> None:
        if queue.task is None and not self._closing and self._answers(device):
            queue.task = self._group.create_task(self._serve(device, queue), name=f"commands for {device}")

    async def _tick(self) -> None:
        """Look after devices that did not answer: what is too late, too old, or can go on."""
        now = self._now()
        if summed_up := self._flood.summary(now.boottime / 1e6):
            log.info("more commands than are told one by one: %s; `edged commands list` has all", summed_up)
        for device, queue in list(self._queues.items()):
            if queue.task is None:
                await self._clear(queue, now)
                self._start(device, queue)
            if not queue.rows and queue.task is None:
                del self._queues[device]

    async def _clear(self, queue: _Queue, now: Now) -> None:
        """End what waits in vain: what has expired, is not allowed any more, or is not the newest of its point."""
        able = {row.number: row for row in queue.rows if row.state != EXECUTING and self._may_go(row)}
        newest = {row.command.point: row for row in able.values()}
        ends = []
        for row in queue.rows:
            if row.deadline.due(now) is Due.TOO_LATE:
                ends.append((row, self._end_overdue(row)))
            elif row.number not in able:
                continue
            elif newest[row.command.point] is not row:
                ends.append((row, self._end(row, *_SUPERSEDED)))
            elif (why := self._forbidden(row.command)) is not None:
                ends.append((row, self._end(row, State.REJECTED, str(why.reason), str(why))))
        gone = {row.number for row, _ in ends}
        queue.rows = [row for row in queue.rows if row.number not in gone]
        await asyncio.gather(*(end for _, end in ends))  # together they are one transaction

    def _may_go(self, row: Row) -> bool:
        """Whether its connection still has leave; if not it waits: the configuration may go back to what it was."""
        return row.entrance == LOCAL or self._around.allowed(row.entrance)

    def _forbidden(self, command: Command) -> PermanentError | None:
        """Why it may not be carried out: a reload may have changed what is allowed."""
        try:
            self._settings(command)
        except PermanentError as exc:
            return exc
        return None

    async def _end_overdue(self, row: Row) -> None:
        if row.state == EXECUTING:
            await self._end(row, State.FAILED, "interrupted", "the gateway was stopped while it wrote; nobody knows")
        else:
            await self._end(row, State.EXPIRED, "", "its time ran out before it could be carried out")

    async def _serve(self, device: str, queue: _Queue) -> None:
        """Carry out what waits for a device, as long as it answers."""
        try:
            while self._answers(device) and not self._closing:
                now = self._now()
                row = next((one for one in queue.rows if self._has_its_turn(one, now)), None)
                if row is None:
                    return
                await self._supersede(queue, row)
                if row.deadline.due(now) is Due.TOO_LATE:
                    await self._end_overdue(row)
                else:
                    await self._carry_out(row)
                if row in queue.rows:
                    queue.rows.remove(row)
        finally:
            queue.task = None

    def _has_its_turn(self, row: Row, now: Now) -> bool:
        """What was under way is only read, so it needs no leave."""
        due = row.deadline.due(now)
        return due is Due.TOO_LATE or (due is Due.YES and (row.state == EXECUTING or self._may_go(row)))

    async def _supersede(self, queue: _Queue, row: Row) -> None:
        """End what is older than `row`, for the same point, and was passed over: its clock or its leave is missing."""
        for older in queue.rows[: queue.rows.index(row)]:
            if older.command.point == row.command.point:
                queue.rows.remove(older)
                await self._end(older, *_SUPERSEDED)

    # -- out -------------------------------------------------------------------------------------------------------

    async def _carry_out(self, row: Row) -> None:
        """From the queue to the end of one command."""
        try:
            settings, polled, expected = self._expected(row.command)
            if polled is None:
                raise PermanentError(f"the bus of {row.command.device} is gone", reason="unknown")
        except PermanentError as exc:
            await self._end(row, State.REJECTED, str(exc.reason), str(exc))
            return
        execution = Execution(row.command, settings, polled, expected, lambda: row.deadline.left(self._now()))
        interrupted = row.state == EXECUTING
        if not interrupted:
            row.state, row.changed = EXECUTING, wall_us()
            try:
                await self.store.update(row)
            except TransientError as exc:
                await self._end(row, State.REJECTED, exc.reason, str(exc))
                return
        task = asyncio.create_task(execution.look() if interrupted else execution.run(), name=f"write {row.command.id}")
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
        fault = task.exception()
        if isinstance(fault, Exception):
            log.error(
                "writing %s failed in the adapter; this is a bug, please report it", row.command.address, exc_info=fault
            )
            await self._end(row, State.FAILED, "error", f"{type(fault).__name__}: {fault}")
            return
        ending = task.result()
        row.was = ending.read
        await self._end(row, ending.state, ending.reason, ending.detail, expected)

    async def _end(self, row: Row, state: State, reason: str, detail: str, expected: Value = None) -> None:
        """Store the result of a command, and have it told."""
        row.state, row.reason, row.detail, row.changed = state.value, reason, detail, wall_us()
        done = state in {State.EXECUTED, State.VERIFIED}
        desired = Desired(row.command.device, row.command.point, expected, row.changed) if done else None
        try:
            await self.store.update(row, desired)
        except TransientError as exc:
            log.error("%s: the result %s is not on the disk: %s", row.command.address, row.result(), exc)  # noqa: TRY400  # one line for people
        if desired is not None:
            self._around.desire(desired)
        result = row.result()
        self._ended[state.value] += 1
        if self._flood.may_say(boottime_us() / 1e6, state.value):
            log.info(
                "%s = %s for %s (%s, id %s): %s%s", row.command.address, shown(row.command),
                row.command.requester or "somebody", row.entrance, row.command.id, result,
                f": {brief(detail)}" if detail else "",
            )  # fmt: skip
        if row.entrance != LOCAL:
            self.entrance(row.entrance).tell(row.number, result)
        end = self._ends.pop(row.number, None)
        if end is not None and not end.done():
            end.set_result(result)

    def _told(self, number: int, result: CommandResult) -> None:
        if number:
            self._noted.append((number, result.state.value))

    async def _note(self) -> None:
        """Write now and then what has been told."""
        while True:
            await asyncio.sleep(_TELL_AFTER)
            await self._save_told()

    async def _save_told(self) -> None:
        noted, self._noted = self._noted, []
        if noted:
            with suppress(TransientError):
                await self.store.told(noted)

    # -- for people ------------------------------------------------------------------------------------------------

    async def cancel(self, ids: Collection[str]) -> int:
        """End the commands with these ids that wait; how many there were."""
        count = 0
        for queue in self._queues.values():
            for row in [one for one in queue.rows if one.command.id in ids and one.state == State.ACCEPTED]:
                if row in queue.rows and row.state == State.ACCEPTED:
                    queue.rows.remove(row)
                    await self._end(row, State.REJECTED, "cancelled", "somebody took it back")
                    count += 1
        return count


def shown(command: Command) -> str:
    """The value or payload of a command, for people."""
    return brief(f"raw {command.raw.hex(' ')}" if command.raw is not None else repr(command.value))


def new_id() -> str:
    """An id for a command that comes without one."""
    return uuid.uuid4().hex
