"""Wires the rooms together in one task group, and takes them down in order.

    adapters → pollers → pipeline → buffer → forwarders → connectors
                             └→ hub → control socket

Stopping goes from the source downstream: pollers end, what they read becomes durable, forwarders get a moment to
deliver it, the buffer closes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Collection, Coroutine, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edged import __version__
from edged.adapter import PollResult, RawAnswer, RawRequest
from edged.buffer.log import Buffer
from edged.clock import boot_id, iso, wall_us
from edged.config.base import CommandingConfig
from edged.config.model import Config
from edged.config.secrets import resolve
from edged.config.types import Name, Secret
from edged.control import ControlApi, ControlServer, Look
from edged.downlink.downlink import Downlink, Surroundings
from edged.downlink.entrance import Entrance
from edged.downlink.store import Desired
from edged.errors import ConfigError, EdgedError, TransientError
from edged.health.gather import Gatherer
from edged.health.restarts import Runs
from edged.hub import Hub
from edged.model import Sample
from edged.notify import extend, notify, patience
from edged.pipeline import Pipeline
from edged.priority import Priorities
from edged.reload import Reloader, Start
from edged.running import Rooms, Running
from edged.supervisor import Supervisor, end_tasks
from edged.twin import KeptTwin
from edged.upgrade import on_trial, outcome
from edged.uplink.api import ConnectionContext
from edged.uplink.forwarders import told
from edged.wallclock import Clock
from edged.watchdog import LIMIT, REQUEST_LIMIT, Watchdog, Work

log = logging.getLogger("edged")

_LAST_DELIVERY = 2.0
"""Seconds that forwarders may take at a stop to deliver what was read last."""
_LAST_COMMAND = 3.0
"""Seconds that a command which is under way may take at a stop."""
_DISK_RETRY = 5.0
"""Seconds between two tries to open a buffer whose disk is full or fails."""


_ENDED_BADLY: Mapping[str, str] = {
    "crash": "its process died", "watchdog": "it was stuck, and systemd ended it",
    "memory": "the kernel ended it for want of memory", "power": "the machine was not shut down (a power cut, a reset)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Places:
    """The files a running daemon needs."""

    config_dir: Path
    """Where the configuration lies; secrets are looked for beside it."""
    state: Path
    socket: Path
    config: Path | None = None
    """The configuration file; without it nothing can be reloaded."""


class Daemon:
    """One gateway, from configuration to stop."""

    def __init__(self, config: Config, places: Places, start: Start | None = None) -> None:
        """`start`: where `config` comes from, if it can be reloaded."""
        self._places = places
        self._hub = Hub()
        self._pipeline = Pipeline(config.devices)
        self._priorities = Priorities(config.devices)
        self._clock = Clock(config.clock, places.state / "clock.json")
        self._stop = asyncio.Event()
        self._started = wall_us()
        self._buffer = _new_buffer(config, places.state)
        self._parts = Supervisor()
        rooms = Rooms(
            places.config_dir, self._parts, self._clock, lambda: self._buffer, self._take, self._context, self._renew
        )
        self._running = Running(config, rooms)
        self._reloader: Reloader | None = None
        if start is not None and places.config is not None:
            self._reloader = Reloader(self._running, places.config, places.state, start)
        around = Surroundings(
            self._running.devices, self._running.poller, lambda: self._clock.trusted, self._desire, self._may_command
        )
        self._downlink = Downlink(places.state / "commands.db", around)
        self._twin = KeptTwin(config.devices, self._downlink.store)
        look = Look(
            lambda: self._config, self._running.bus, self._read_raw, lambda: self._buffer, self.status, self._hub
        )
        api = ControlApi(
            self.status, self._read, self._hub, lambda: self._buffer, self._reloader, self._probe, look,
            self._downlink, self._twin, self._clock.known,
        )  # fmt: skip
        self._control = ControlServer(places.socket, api)
        self._watchdog = Watchdog(self._work)
        self._runs = Runs(places.state)
        self._health = Gatherer(places.state, self._progress, self._runs)

    @property
    def _config(self) -> Config:
        return self._running.config

    # -- what connections are told -------------------------------------------------------------------------------

    def _context(self, connection: str) -> ConnectionContext:
        return ConnectionContext(
            connection, self._config.gateway, self._running.devices, self._secret, lambda: self._clock.trusted,
            partial(self._counters, connection), self._commands(connection), self._twin,
            self._places.state / "connections" / connection, self.status, self._health.brief,
        )  # fmt: skip

    def _commands(self, connection: str) -> Entrance | None:
        return self._downlink.entrance(connection) if self._may_command(connection) else None

    def _may_command(self, connection: str) -> bool:
        config = self._config.connections.get(Name(connection))
        return isinstance(config, CommandingConfig) and config.commands

    def _desire(self, desired: Desired) -> None:
        self._twin.desire(desired)

    def _counters(self, connection: str) -> dict[str, int]:
        """What became of the readings, as a connection's receiver is told."""
        return told(self._buffer.stats(), self._config, connection)

    def _secret(self, secret: Secret) -> str:
        return resolve(secret, base=self._places.config_dir)

    def _renew(self, devices: Collection[str]) -> None:
        """Another configuration runs, in which these devices are new, gone or different."""
        self._pipeline.renew(self._config.devices, devices)
        self._priorities.renew(self._config.devices)
        self._hub.renew(self._config.devices)
        self._twin.renew(self._config.devices)
        self._runs.reloaded()

    # -- the way of a reading ------------------------------------------------------------------------------------

    def _take(self, sample: Sample) -> None:
        """Process one sample and put what remains into the buffer. Never blocks."""
        read = len(sample.points)
        stored = self._pipeline.process(sample)
        if stored is None:
            self._buffer.count(read=read, suppressed=read)
            return
        self._buffer.count(read=read, suppressed=read - len(stored.points))
        stored = self._clock.stamp(stored)
        first, others, changed = self._priorities.split(stored)
        if first is not None:
            self._buffer.put_first(first, at_once=changed)
        if others is not None:
            self._buffer.put(others)
        shown = self._clock.shown(stored)
        self._hub.publish(shown)
        self._twin.take(shown)

    # -- running -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the daemon to end in good order."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop()`. Raises ConfigError if it cannot start."""
        if not await self._open_buffer():
            return
        try:
            await self._clock.start()
            await self._note_start()
            try:
                await self._until_stopped()
            except* ConfigError:
                await asyncio.to_thread(self._runs.end)  # it refused to start and says why: that is no crash
                raise
            await asyncio.to_thread(self._runs.end)
        finally:
            await self._buffer.stop()
        log.info("stopped")

    async def _until_stopped(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._parts.group = group
            clock = group.create_task(self._clock.run(), name="clock")
            guard = group.create_task(self._buffer.failed(), name="buffer guard")
            control = group.create_task(self._control.run(), name="control")
            watchdog = group.create_task(self._watchdog.run(), name="watchdog")
            health = group.create_task(self._health.run(), name="health")
            self._running.start()
            self._parts.spawn("commands", self._downlink.run)
            self._parts.spawn("twin", self._run_twin)
            self._announce()
            if self._reloader is not None:
                self._parts.spawn("reload", self._reloader.run)
            await self._stop.wait()
            notify("STOPPING=1", "STATUS=stopping")
            log.info("stopping")
            await self._parts.end(["reload"])
            await self._downlink.stop(_LAST_COMMAND)
            await self._parts.end(["twin"])
            await self._twin.save()
            await self._running.end_buses()
            await self._buffer.flush()
            await self._last_delivery()
            await self._parts.end(self._parts)
            await end_tasks([control, guard, clock, watchdog, health])
            await self._clock.stop()

    async def _note_start(self) -> None:
        reason = await asyncio.to_thread(self._runs.begin, boot_id(), __version__, iso(wall_us()))
        if reason in _ENDED_BADLY:
            log.warning("the run before this one ended badly: %s", _ENDED_BADLY[reason])

    def _progress(self) -> Iterator[tuple[str, int]]:
        """(Task, a counter that rises with each piece of work that it brings to an end)."""
        yield from self._running.progress()
        yield "buffer", self._buffer.stats().commits

    async def _open_buffer(self) -> bool:
        """Open the buffer, waiting for a disk that is full or fails. False if asked to stop meanwhile."""
        told = ""
        while not self._stop.is_set():
            try:
                async with patience():
                    await self._buffer.start()
            except TransientError as exc:
                if str(exc) != told:
                    told = str(exc)
                    log.error("%s; trying again every %.0f s", exc, _DISK_RETRY)  # noqa: TRY400  # one line for people
                notify(f"STATUS={exc}", extend(_DISK_RETRY))
            else:
                return True
            self._buffer = _new_buffer(self._config, self._places.state)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DISK_RETRY):
                    await self._stop.wait()
        return False

    def _announce(self) -> None:
        config = self._config
        devices = [one for one in config.devices.values() if one.enabled and config.buses[one.bus].enabled]
        points = sum(len(device.points) for device in devices)
        upstream = ", ".join(name for name, one in config.connections.items() if one.enabled)
        log.info(
            "edged %s: gateway %s polls %s of %s on %s and forwards to %s; epoch %s, seq %d",
            __version__, config.gateway.id, _count(points, "point"), _count(len(devices), "device"),
            _count(len(self._running.pollers), "bus", "buses"), upstream or "nobody", self._buffer.epoch,
            self._buffer.head,
        )  # fmt: skip
        notify("READY=1", f"STATUS=polling {points} points")

    async def _last_delivery(self) -> None:
        """Give the forwarders a moment to deliver what was read last."""
        try:
            async with asyncio.timeout(_LAST_DELIVERY):
                await self._running.last_delivery()
        except TimeoutError:
            log.info("some readings are still undelivered; they are in the buffer and go out at the next start")

    def _work(self) -> Iterator[Work]:
        """What is being done now: by the rules of `edged.watchdog`, all of it must come to an end."""
        yield from self._running.work()
        for doing, since in self._buffer.at_work().items():
            yield Work(f"buffer: a {doing}", since, REQUEST_LIMIT if doing == "request" else LIMIT)

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        if self._reloader is None:
            log.warning("this gateway was not started with a file, so there is nothing to reload")
            return
        try:
            self._reloader.request()
        except TransientError as exc:
            log.info("%s", exc)

    # -- what people see -----------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Everything the daemon knows of itself, as plain data."""
        status = self._status()
        return status | {"health": self._health.health(status)}

    def _status(self) -> dict[str, Any]:
        return {
            "gateway": str(self._config.gateway.id),
            "version": __version__,
            "upgrade": outcome(),
            "pid": os.getpid(),
            "started": iso(self._started),
            "time": iso(wall_us()),
            "config": self._reloader.state() if self._reloader else None,
            "clock": asdict(self._clock.state()),
            "buffer": asdict(self._buffer.stats()),
            **self._running.status(),
            "commands": asdict(self._downlink.state()),
            "faults": {name: asdict(fault) for name, fault in self._parts.faults.items()},
            "stalled": self._watchdog.stalled(),
        }

    async def _run_twin(self) -> None:
        await self._downlink.ready()
        await self._twin.run()

    async def _probe(self, bus: str, request: RawRequest) -> RawAnswer:
        return await self._running.pollers[bus].read_raw(request)

    async def _read(self, device: str) -> list[PollResult]:
        results = await self._read_raw(device)
        return [replace(one, samples=[self._pipeline.compute(sample) for sample in one.samples]) for one in results]

    async def _read_raw(self, device: str) -> list[PollResult]:
        config = self._config.devices[device]
        poller = self._running.poller(config.bus)
        if poller is None or not config.enabled:
            raise KeyError(device)
        return await poller.read_now(device)


def _new_buffer(config: Config, state: Path) -> Buffer:
    path = Path(config.buffer.path) if config.buffer.path else state / "buffer.db"
    ages = config.cursors()
    return Buffer(path, config.buffer, list(ages), boot=boot_id(), max_age=ages, migrate=not on_trial())


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def run_daemon(config: Config, places: Places, start: Start | None = None) -> None:
    """Run a gateway in this process until SIGTERM or SIGINT. Raises ConfigError if it cannot start."""

    async def main() -> None:
        daemon = Daemon(config, places, start)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        loop.add_signal_handler(signal.SIGHUP, daemon.hang_up)
        await daemon.run()

    run_coroutine(main())


def run_coroutine(coroutine: Coroutine[Any, Any, None]) -> None:
    """asyncio.run, with the first of our errors raised alone instead of inside an exception group."""
    try:
        asyncio.run(coroutine)
    except BaseExceptionGroup as group:
        first: BaseException | None = group.subgroup(EdgedError)
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if first is None:
            raise
        raise first from group
