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
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edged import __version__
from edged.adapter import Bus, PollResult, RawAnswer, RawRequest, load_adapter
from edged.buffer.log import Buffer
from edged.clock import boot_id, iso, mono_us, wall_us
from edged.config.base import CommandingConfig, DeviceConfig
from edged.config.diff import Touched
from edged.config.model import Config
from edged.config.secrets import filled, resolve
from edged.config.types import Secret
from edged.control import ControlApi, ControlServer, Look
from edged.downlink.downlink import Downlink, Surroundings
from edged.downlink.entrance import Entrance
from edged.downlink.store import Desired
from edged.errors import ConfigError, EdgedError, TransientError
from edged.hub import Hub
from edged.model import Sample
from edged.notify import extend, notify, patience
from edged.pipeline import Pipeline
from edged.polling import Assignment, BusPoller
from edged.priority import Priorities
from edged.reload import Reloader, Start
from edged.trial import Vital, Vitals
from edged.twin import KeptTwin
from edged.uplink.api import ConnectionContext
from edged.uplink.forwarder import Forwarder
from edged.uplink.forwarders import flow_states, forwarders, told
from edged.wallclock import Clock
from edged.watchdog import LIMIT, REQUEST_LIMIT, Watchdog, Work, limit_for

log = logging.getLogger("edged")

_LAST_DELIVERY = 2.0
"""Seconds that forwarders may take at a stop to deliver what was read last."""
_LAST_COMMAND = 3.0
"""Seconds that a command which is under way may take at a stop."""
_DISK_RETRY = 5.0
"""Seconds between two tries to open a buffer whose disk is full or fails."""
_GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, spread any number of jobs evenly over a period."""
_TOGETHER = 32
"""So many buses are polled in the same moments: one wake-up for all of them is what saves CPU on a small gateway."""
_RESTART_MIN, _RESTART_MAX = 1.0, 60.0
_WORKS = Vital(up=True)
"""One for all the devices that do."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files a running daemon needs."""

    config_dir: Path
    """Where the configuration lies; secrets are looked for beside it."""
    state: Path
    socket: Path
    config: Path | None = None
    """The configuration file; without it nothing can be reloaded."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The last time a part of the daemon had to be started again."""

    time: str
    detail: str
    restarts: int


class Daemon:
    """One gateway, from configuration to stop."""

    def __init__(self, config: Config, places: Places, start: Start | None = None) -> None:
        """`start`: where `config` comes from, if it can be reloaded."""
        self._config = config
        self._devices: dict[str, DeviceConfig] = dict(config.devices)
        """Those of `config`, for whoever needs to know them as they are at the moment."""
        self._places = places
        self._hub = Hub()
        self._pipeline = Pipeline(config.devices)
        self._priorities = Priorities(config.devices)
        self._clock = Clock(config.clock, places.state / "clock.json")
        self._stop = asyncio.Event()
        self._started = wall_us()
        self._buffer = self._new_buffer()
        self._served = tuple(config.cursors())
        """The connections that the buffer keeps readings for."""
        self._group: asyncio.TaskGroup
        self._parts: dict[str, asyncio.Task[None]] = {}
        """By name, such as `bus line-a`: what is supervised."""
        self._buses: dict[str, Bus] = {}
        self._limits: dict[str, float] = {}
        """By bus: how long one poll may take."""
        self._pollers = dict(self._make_pollers())
        self._forwarders: dict[str, Forwarder] = {}
        self._reloader: Reloader | None = None
        if start is not None and places.config is not None:
            self._reloader = Reloader(self, places.config, places.state, start)
        around = Surroundings(self._devices, self._poller, lambda: self._clock.trusted, self._desire)
        self._downlink = Downlink(places.state / "commands.db", around)
        self._twin = KeptTwin(config.devices, self._downlink.store)
        look = Look(lambda: self._config, self._bus, self._read_raw, lambda: self._buffer, self.status, self._hub)
        api = ControlApi(
            self.status, self._read, self._hub, lambda: self._buffer, self._reloader, self._probe, look,
            self._downlink, self._twin,
        )  # fmt: skip
        self._control = ControlServer(places.socket, api)
        self._faults: dict[str, Fault] = {}
        self._watchdog = Watchdog(self._work)

    # -- construction --------------------------------------------------------------------------------------------

    def _make_pollers(self, only: Collection[str] | None = None) -> Iterator[tuple[str, BusPoller]]:
        groups_of: dict[tuple[int, float], list[tuple[float, tuple[str, ...]]]] = {}
        for number, (name, bus_config) in enumerate(self._config.buses.items()):
            devices = self._config.devices_on(name)
            if not (bus_config.enabled and devices):
                continue
            assignments = []
            index = number // _TOGETHER
            for device, device_config in devices.items():
                alike = id(device_config.points), device_config.every  # devices of one profile share their points
                if alike not in groups_of:
                    groups_of[alike] = _groups(device_config)
                for every, points in groups_of[alike]:
                    assignments.append(Assignment(str(device), points, every, index * _GOLDEN % 1.0))
                    index += 1
            if only is None or name in only:
                self._limits[name] = limit_for(_waits(bus_config), *map(_waits, devices.values()))
                yield name, BusPoller(name, partial(self._open_bus, name), bus_config, assignments, self._take)

    def _open_bus(self, name: str) -> Bus:
        """The bus object, its secrets looked up. Raises ConfigError when one is missing."""
        base = self._places.config_dir
        config = filled(self._config.buses[name], base=base)
        devices = {device: filled(one, base=base) for device, one in self._config.devices_on(name).items()}
        self._buses[name] = load_adapter(config.adapter).open(name, config, devices)
        return self._buses[name]

    def _bus(self, name: str) -> Bus | None:
        return self._buses.get(name) if name in self._pollers else None

    async def _run_connection(self, name: str) -> None:
        """Build and run one forwarder. Raises ConfigError, for instance when a certificate or secret is missing."""
        connection = filled(self._config.connections[name], base=self._places.config_dir)
        context = ConnectionContext(
            name, self._config.gateway, self._devices, self._secret, lambda: self._clock.trusted,
            partial(self._counters, name), self._commands(name), self._twin,
        )  # fmt: skip
        made = forwarders(self._config, name, connection, context, self._buffer, self._clock)
        self._drop_forwarders(name)
        self._forwarders.update(made)
        if len(made) == 1:
            await next(iter(made.values())).run()
            return
        async with asyncio.TaskGroup() as group:
            for place, forwarder in made.items():
                group.create_task(forwarder.run(), name=place)

    def _drop_forwarders(self, connection: str) -> None:
        for place in [one for one in self._forwarders if one.partition("/")[0] == connection]:
            del self._forwarders[place]

    def _commands(self, connection: str) -> Entrance | None:
        config = self._config.connections[connection]
        allowed = isinstance(config, CommandingConfig) and config.commands
        return self._downlink.entrance(connection) if allowed else None

    def _poller(self, bus: str) -> BusPoller | None:
        return self._pollers.get(bus)  # a reload replaces them all

    def _desire(self, desired: Desired) -> None:
        self._twin.desire(desired)

    def _counters(self, connection: str) -> dict[str, int]:
        """What became of the readings, as a connection's receiver is told."""
        return told(self._buffer.stats(), self._config, connection)

    def _secret(self, secret: Secret) -> str:
        return resolve(secret, base=self._places.config_dir)

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
            async with asyncio.TaskGroup() as group:
                self._group = group
                clock = group.create_task(self._clock.run(), name="clock")
                guard = group.create_task(self._buffer.failed(), name="buffer guard")
                control = group.create_task(self._control.run(), name="control")
                watchdog = group.create_task(self._watchdog.run(), name="watchdog")
                self._start_connections(self._config.connections)
                self._start_buses(self._pollers)
                self._spawn("commands", self._downlink.run)
                self._spawn("twin", self._run_twin)
                self._announce()
                if self._reloader is not None:
                    self._spawn("reload", self._reloader.run)
                await self._stop.wait()
                notify("STOPPING=1", "STATUS=stopping")
                log.info("stopping")
                await self._end_parts(["reload"])
                await self._downlink.stop(_LAST_COMMAND)
                await self._end_parts(["twin"])
                await self._twin.save()
                await self._end_parts(f"bus {name}" for name in self._pollers)
                await self._buffer.flush()
                await self._last_delivery()
                await self._end_parts(list(self._parts))
                await _end([control, guard, clock, watchdog])
                await self._clock.stop()
        finally:
            await self._buffer.stop()
        log.info("stopped")

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
            self._buffer = self._new_buffer()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DISK_RETRY):
                    await self._stop.wait()
        return False

    def _new_buffer(self) -> Buffer:
        config = self._config
        path = Path(config.buffer.path) if config.buffer.path else self._places.state / "buffer.db"
        ages = config.cursors()
        return Buffer(path, config.buffer, list(ages), boot=boot_id(), max_age=ages)

    def _announce(self) -> None:
        config = self._config
        points = sum(len(device.points) for device in config.devices.values())
        upstream = ", ".join(name for name, one in config.connections.items() if one.enabled)
        log.info(
            "edged %s: gateway %s polls %d points of %d devices on %d buses and forwards to %s; epoch %s, seq %d",
            __version__, config.gateway.id, points, len(config.devices), len(self._pollers),
            upstream or "nobody", self._buffer.epoch, self._buffer.head,
        )  # fmt: skip
        notify("READY=1", f"STATUS=polling {points} points")

    async def _last_delivery(self) -> None:
        """Give the forwarders a moment to deliver what was read last."""
        connected = [forwarder for forwarder in self._forwarders.values() if forwarder.state().connected]
        try:
            async with asyncio.timeout(_LAST_DELIVERY):
                for forwarder in connected:
                    await forwarder.drained()
        except TimeoutError:
            log.info("some readings are still undelivered; they are in the buffer and go out at the next start")

    def _start_buses(self, names: Iterable[str]) -> None:
        for name in names:
            self._spawn(f"bus {name}", self._pollers[name].run)

    def _start_connections(self, names: Iterable[str]) -> None:
        for name in names:
            connection = self._config.connections.get(name)
            flows = self._config.flows_to(name).values()
            idle = flows and not any(flow.enabled for flow in flows)
            if connection is not None and connection.enabled and not idle:
                self._spawn(f"connection {name}", partial(self._run_connection, name))

    def _spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self._parts[name] = self._group.create_task(self._supervise(name, run), name=name)

    async def _end_parts(self, names: Iterable[str]) -> None:
        """End those of the parts that run, all at once, and forget what they suffered."""
        names = list(names)
        await _end([task for name in names if (task := self._parts.pop(name, None)) is not None])
        for name in names:
            self._faults.pop(name, None)

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep one part running whatever happens inside it, so that a fault in it never stops the others."""
        pause = _RESTART_MIN
        while True:
            began = mono_us()
            try:
                await run()
                detail = "ended unexpectedly"
            except ConfigError as exc:
                detail = str(exc)
                log.error("%s: %s", name, exc)  # noqa: TRY400  # the message says it all; people get no traceback
            except Exception as exc:
                detail = f"{type(exc).__name__}: {exc}"
                log.exception("%s failed; this is a bug in edged, please report it", name)
            if (mono_us() - began) / 1e6 > _RESTART_MAX:
                pause = _RESTART_MIN
            fault = self._faults.get(name)
            self._faults[name] = Fault(iso(wall_us()), detail, fault.restarts + 1 if fault else 1)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RESTART_MAX)

    def _work(self) -> Iterator[Work]:
        """What is being done now: by the rules of `edged.watchdog`, all of it must come to an end."""
        for name, poller in self._pollers.items():
            if (since := poller.polling_since()) is not None:
                yield Work(f"bus {name}: a poll", since, self._limits[name])
        for name, forwarder in self._forwarders.items():
            if (since := forwarder.dialling_since()) is not None:
                limit = limit_for(_waits(self._config.connections.get(name.partition("/")[0])))
                yield Work(f"connection {name}: connecting", since, limit)
        for doing, since in self._buffer.at_work().items():
            yield Work(f"buffer: a {doing}", since, REQUEST_LIMIT if doing == "request" else LIMIT)

    # -- reloading: satisfies edged.reload.Gateway ---------------------------------------------------------------

    @property
    def config(self) -> Config:
        """What runs."""
        return self._config

    def vitals(self) -> Vitals:
        """Which part works."""
        parts: dict[str, Vital] = {}
        for name, poller in self._pollers.items():
            health, error = poller.health
            parts[f"bus {name}"] = Vital(health == "ok", error)
            for device, health, error in poller.healths():
                if health == "ok":
                    parts[f"device {device}"] = _WORKS
                    continue
                slow = float(self._devices[device].every) if health == "starting" else 0.0
                parts[f"device {device}"] = Vital(up=False, detail=error, slow=slow)
        for name, forwarder in self._forwarders.items():
            uplink = forwarder.state()
            parts[f"connection {name}"] = Vital(uplink.connected, uplink.detail)
        return Vitals(parts, {name: fault.detail for name, fault in self._faults.items()})

    def neighbours(self, touched: Touched) -> frozenset[str]:
        """All that may suffer from a change of `touched`: on a bus that is opened anew, every device."""
        beneath = {name for bus in touched.buses for name in self._config.devices_on(bus)}
        return frozenset(
            [f"bus {name}" for name in touched.buses]
            + [f"device {name}" for name in beneath | touched.devices]
            + [f"connection {name}" for name in touched.connections]
        )

    async def adopt(self, config: Config, touched: Touched) -> None:
        """Run `config` from now on; parts that are not touched go on undisturbed. Raises TransientError: as before.

        Connections that are gone keep their place in the buffer until `settle`, so that there is a way back.
        """
        served = tuple(dict.fromkeys([*self._served, *config.cursors()]))
        if served != self._served:
            await self._buffer.serve(served, self._config.cursors() | config.cursors())
            self._served = served
        uplinks = touched.connections | {
            name
            for name, connection in config.connections.items()
            if touched.announce and not connection.follows_devices
        }
        await self._end_parts(f"bus {name}" for name in touched.buses)
        self._config = config
        self._devices.clear()
        self._devices.update(config.devices)
        self._pipeline.renew(config.devices, touched.devices)
        self._priorities.renew(config.devices)
        self._twin.renew(config.devices)
        pollers = dict(self._make_pollers(touched.buses))
        kept = {name: one for name, one in self._pollers.items() if name not in touched.buses}
        self._pollers = {name: one for name in config.buses if (one := (kept | pollers).get(name)) is not None}
        self._start_buses(pollers)
        await self._end_parts(f"connection {name}" for name in uplinks)
        for name in uplinks:
            self._drop_forwarders(name)
        self._start_connections(uplinks)
        for name, forwarder in self._forwarders.items():
            if touched.announce and name.partition("/")[0] not in uplinks:
                forwarder.announce()

    async def settle(self) -> None:
        """Keep readings only for the connections of the configuration that runs. Raises TransientError."""
        self._served = tuple(self._config.cursors())
        await self._buffer.serve(self._served, self._config.cursors())

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
        return {
            "gateway": str(self._config.gateway.id),
            "version": __version__,
            "pid": os.getpid(),
            "started": iso(self._started),
            "time": iso(wall_us()),
            "config": self._reloader.state() if self._reloader else None,
            "clock": asdict(self._clock.state()),
            "buffer": asdict(self._buffer.stats()),
            "buses": [
                {**asdict(poller.state()), "where": self._config.buses[name].where}
                for name, poller in self._pollers.items()
            ],
            "connections": {name: asdict(forwarder.state()) for name, forwarder in self._forwarders.items()},
            "flows": flow_states(self._config, self._forwarders, self._buffer.stats()),
            "commands": asdict(self._downlink.state()),
            "faults": {name: asdict(fault) for name, fault in self._faults.items()},
            "stalled": self._watchdog.stalled(),
        }

    async def _run_twin(self) -> None:
        await self._downlink.ready()
        await self._twin.run()

    async def _probe(self, bus: str, request: RawRequest) -> RawAnswer:
        return await self._pollers[bus].read_raw(request)

    async def _read(self, device: str) -> list[PollResult]:
        results = await self._read_raw(device)
        return [replace(one, samples=[self._pipeline.compute(sample) for sample in one.samples]) for one in results]

    async def _read_raw(self, device: str) -> list[PollResult]:
        config = self._config.devices[device]
        poller = self._pollers.get(config.bus)
        if poller is None or not config.enabled:
            raise KeyError(device)
        return await poller.read_now(device)


def _groups(device: DeviceConfig) -> list[tuple[float, tuple[str, ...]]]:
    """(Seconds, the points that are read so often together)."""
    groups: dict[float, list[str]] = {}
    for point, config in device.points.items():
        # Plain text from here on: the fast encoders refuse subclasses of str as keys.
        groups.setdefault(config.every or device.every, []).append(str(point))
    # Without points it is a device that says itself which it has.
    return [(every, tuple(points)) for every, points in groups.items()] or [(device.every, ())]


def _waits(config: object) -> float:
    """All time-outs of a bus, device or connection together, whatever its protocol calls them, seconds."""
    return sum(float(getattr(config, name, 0)) for name in ("timeout", "connect_timeout", "ack_timeout", "listen"))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


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
