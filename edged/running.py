"""What a configuration comes to: its buses and connections, and how they become those of another one.

Satisfies `edged.reload.Gateway`. Parts that a reload does not touch go on undisturbed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edged.adapter import Bus, load_adapter
from edged.buffer.log import Buffer
from edged.config.base import DeviceConfig
from edged.config.diff import Touched
from edged.config.flows import connection_of, cursor_name, spoken
from edged.config.model import Config
from edged.config.secrets import filled
from edged.model import Sample
from edged.polling import Assignment, BusPoller
from edged.supervisor import Supervisor
from edged.trial import Vital, Vitals
from edged.uplink.api import ConnectionContext, Server
from edged.uplink.connectors import load_server
from edged.uplink.forwarder import Forwarder
from edged.uplink.forwarders import Uplink, flow_states
from edged.wallclock import Clock
from edged.watchdog import Work, limit_for

log = logging.getLogger("edged")

_GOLDEN = 0.618033988749895
"""Multiples of it, modulo 1, spread any number of jobs evenly over a period."""
_TOGETHER = 32
"""So many buses are polled in the same moments: one wake-up for all of them is what saves CPU on a small gateway."""
_WORKS = Vital(up=True)
"""One for all the devices that do."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What buses and connections need of the rest of the gateway."""

    config_dir: Path
    """Where the configuration lies; secrets are looked for beside it."""
    parts: Supervisor
    clock: Clock
    buffer: Callable[[], Buffer]
    take: Callable[[Sample], None]
    """Where samples go."""
    context: Callable[[str], ConnectionContext]
    """What a connection is told."""
    renew: Callable[[Collection[str]], None]
    """What is to be done when the configuration has changed; which devices are new, gone or different."""


class Running:
    """The buses and connections of the configuration that runs."""

    def __init__(self, config: Config, rooms: Rooms) -> None:
        self._config = config
        self._rooms = rooms
        self._parts = rooms.parts
        self.devices: dict[str, DeviceConfig] = dict(config.devices)
        """Those of the configuration, for whoever needs to know them as they are at the moment."""
        self._served = tuple(config.cursors())
        """The places that the buffer keeps readings for."""
        self._buses: dict[str, Bus] = {}
        self._limits: dict[str, float] = {}
        """By bus: how long one poll may take."""
        self.pollers = dict(self._make_pollers())
        self._uplinks: dict[str, Uplink] = {}
        """The connections, once they are built."""
        self._servers: dict[str, Server] = {}

    @property
    def config(self) -> Config:
        """What runs."""
        return self._config

    # -- buses ---------------------------------------------------------------------------------------------------

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
                yield name, BusPoller(name, partial(self._open_bus, name), bus_config, assignments, self._rooms.take)

    def _open_bus(self, name: str) -> Bus:
        """The bus object, its secrets looked up. Raises ConfigError when one is missing."""
        base = self._rooms.config_dir
        config = filled(self._config.buses[name], base=base)
        devices = {device: filled(one, base=base) for device, one in self._config.devices_on(name).items()}
        self._buses[name] = load_adapter(config.adapter).open(name, config, devices)
        return self._buses[name]

    def bus(self, name: str) -> Bus | None:
        """One that is open."""
        return self._buses.get(name) if name in self.pollers else None

    def poller(self, bus: str) -> BusPoller | None:
        """That of a bus. A reload replaces it."""
        return self.pollers.get(bus)

    def _start_buses(self, names: Iterable[str]) -> None:
        for name in names:
            self._parts.spawn(f"bus {name}", self.pollers[name].run)

    # -- connections ---------------------------------------------------------------------------------------------

    async def _run_connection(self, name: str) -> None:
        """Build one and run it. Raises ConfigError, for instance when a certificate or secret is missing."""
        connection = filled(self._config.connections[name], base=self._rooms.config_dir)
        context = self._rooms.context(name)
        if not connection.keeps:
            self._servers[name] = load_server(connection.connector).server(connection, context)
            await self._servers[name].run()
            return
        uplink = Uplink(self._config, name, connection, context, self._rooms.buffer(), self._rooms.clock)
        self._uplinks[name] = uplink
        if uplink.places == [name]:
            await uplink.run(name)
            return
        for place in uplink.places:
            self._start_flow(place)
        await asyncio.Event().wait()  # until it is ended: its flows run by themselves

    def _start_flow(self, place: str) -> None:
        self._parts.spawn(spoken(place), partial(self._uplinks[connection_of(place)].run, place))

    def _start_connections(self, names: Iterable[str]) -> None:
        for name in names:
            connection = self._config.connections.get(name)
            flows = self._config.flows_to(name).values()
            idle = flows and not any(flow.enabled for flow in flows)
            if connection is not None and connection.enabled and not idle:
                self._parts.spawn(f"connection {name}", partial(self._run_connection, name))

    async def _end_connections(self, names: Collection[str]) -> None:
        await self._parts.end(f"connection {name}" for name in names)
        places = [place for name in names if name in self._uplinks for place in self._uplinks[name].places]
        await self._parts.end(map(spoken, places))
        for name in names:
            self._uplinks.pop(name, None)
            self._servers.pop(name, None)

    async def _change_flows(self, places: Collection[str]) -> None:
        """Flows that are new, gone or different, over connections that go on. Their sessions last."""
        await self._parts.end(map(spoken, places))
        for uplink in self._uplinks.values():
            uplink.renew(self._config)
            for place in uplink.places:
                if place in places:
                    self._start_flow(place)

    @property
    def _forwarders(self) -> dict[str, Forwarder]:
        """All there are, by their place in the buffer."""
        return {place: one for uplink in self._uplinks.values() for place, one in uplink.forwarders.items()}

    async def last_delivery(self) -> None:
        """Deliver to all who listen what is in the buffer now."""
        for forwarder in [one for one in self._forwarders.values() if one.state().connected]:
            await forwarder.drained()

    # -- from one configuration to the next ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin: connections first, so that they are there when the first reading is."""
        self._start_connections(self._config.connections)
        self._start_buses(self.pollers)

    async def end_buses(self) -> None:
        """Read no more."""
        await self._parts.end(f"bus {name}" for name in self.pollers)
        if cut_off := sum(poller.cut_off for poller in self.pollers.values()):
            log.info("polls that were under way and are not waited for: %d", cut_off)

    async def adopt(self, config: Config, touched: Touched) -> None:
        """Run `config` from now on; parts that are not touched go on undisturbed. Raises TransientError: as before.

        Connections that are gone keep their place in the buffer until `settle`, so that there is a way back.
        """
        served = tuple(dict.fromkeys([*self._served, *config.cursors()]))
        if served != self._served:
            await self._rooms.buffer().serve(served, self._config.cursors() | config.cursors())
            self._served = served
        uplinks = touched.connections | {
            name
            for name, connection in config.connections.items()
            if touched.announce and not connection.follows_devices
        }
        await self._parts.end(f"bus {name}" for name in touched.buses)
        self._config = config
        self.devices.clear()
        self.devices.update(config.devices)
        self._rooms.renew(touched.devices)
        pollers = dict(self._make_pollers(touched.buses))
        kept = {name: one for name, one in self.pollers.items() if name not in touched.buses}
        self.pollers = {name: one for name in config.buses if (one := (kept | pollers).get(name)) is not None}
        self._start_buses(pollers)
        await self._end_connections(uplinks)
        await self._change_flows([place for place in touched.flows if connection_of(place) not in uplinks])
        self._start_connections(uplinks)
        for place, forwarder in self._forwarders.items():
            if touched.announce and connection_of(place) not in uplinks:
                forwarder.announce()

    async def settle(self) -> None:
        """Keep readings only for the connections of the configuration that runs. Raises TransientError."""
        served, buffer = tuple(self._config.cursors()), self._rooms.buffer()
        stats = buffer.stats().connections
        gone = {place: stats[place].pending for place in self._served if place not in served and place in stats}
        self._served = served
        await buffer.serve(served, self._config.cursors())
        for place, waiting in gone.items():
            log.info("%s is gone for good: %d readings that waited for it are given up", spoken(place), waiting)

    # -- what people see -----------------------------------------------------------------------------------------

    def vitals(self) -> Vitals:
        """Which part works."""
        parts: dict[str, Vital] = {}
        for name, poller in self.pollers.items():
            health, error = poller.health
            parts[f"bus {name}"] = Vital(health == "ok", error)
            for device, health, error in poller.healths():
                if health == "ok":
                    parts[f"device {device}"] = _WORKS
                    continue
                slow = float(self.devices[device].every) if health == "starting" else 0.0
                parts[f"device {device}"] = Vital(up=False, detail=error, slow=slow)
        for name, uplink in self._uplinks.items():
            for place, forwarder in uplink.forwarders.items():
                state = forwarder.state()
                parts[spoken(place)] = Vital(state.connected, state.detail)
            if name not in uplink.forwarders:
                whole = uplink.state()
                parts[f"connection {name}"] = Vital(whole.get("connected", False), whole.get("detail", ""))
        for name, server in self._servers.items():
            parts[f"connection {name}"] = Vital(bool(server.state().listening), server.state().detail)
        return Vitals(parts, {name: fault.detail for name, fault in self._parts.faults.items()})

    def neighbours(self, touched: Touched) -> frozenset[str]:
        """All that may suffer from a change of `touched`: on a bus that is opened anew, every device."""
        beneath = {name for bus in touched.buses for name in self._config.devices_on(bus)}
        return frozenset(
            [f"bus {name}" for name in touched.buses]
            + [f"device {name}" for name in beneath | touched.devices]
            + [f"connection {name}" for name in touched.connections]
            + [spoken(place) for place in touched.flows]
            + [spoken(cursor_name(name, flow)) for name in touched.connections for flow in self._config.flows_to(name)]
        )

    def work(self) -> Iterator[Work]:
        """What is being done now: by the rules of `edged.watchdog`, all of it must come to an end."""
        for name, poller in self.pollers.items():
            if (since := poller.polling_since()) is not None:
                yield Work(f"bus {name}: a poll", since, self._limits[name])
        for name, forwarder in self._forwarders.items():
            config = self._config.connections.get(connection_of(name))
            if (since := forwarder.dialling_since()) is not None:
                yield Work(f"connection {name}: connecting", since, limit_for(_waits(config)))
            elif (since := forwarder.stuck_since()) is not None:
                limit = limit_for(_waits(config), float(getattr(config, "retry_max", 0)))
                yield Work(f"connection {name}: a message", since, limit)

    def progress(self) -> Iterator[tuple[str, int]]:
        """(Part, a counter that rises with each piece of work that it brings to an end)."""
        for name, poller in self.pollers.items():
            yield f"bus {name}", poller.polls
        for name, forwarder in self._forwarders.items():
            yield spoken(name), forwarder.progress

    def status(self) -> dict[str, Any]:
        """How buses, connections and flows do, as plain data."""
        return {
            "buses": [
                {**asdict(poller.state()), "where": self._config.buses[name].where}
                for name, poller in self.pollers.items()
            ],
            "connections": {name: state for name, uplink in self._uplinks.items() if (state := uplink.state())},
            "servers": {name: asdict(server.state()) for name, server in self._servers.items()},
            "deactivated": [name for name, one in self._config.connections.items() if not one.enabled],
            "flows": flow_states(self._config, self._forwarders, self._rooms.buffer().stats()),
        }


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
    names = ("timeout", "connect_timeout", "ack_timeout", "response_timeout", "listen")
    return sum(float(getattr(config, name, 0)) for name in names)
