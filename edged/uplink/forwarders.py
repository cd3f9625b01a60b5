"""One connection: its link, and what forwards over it, one for all readings or one for each flow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from edged.buffer.counters import BufferStats
from edged.buffer.log import Buffer
from edged.clock import iso
from edged.config.base import ConnectionConfig
from edged.config.flows import FlowConfig, cursor_name, spoken
from edged.config.model import Config
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors import load_forwarding
from edged.uplink.forwarder import Forwarder
from edged.uplink.state import ForwarderState
from edged.uplink.trunk import Branch, Trunk
from edged.wallclock import Clock

log = logging.getLogger("edged.uplink")

_SUMMED = (
    "in_flight", "unsaved", "pending", "delivered", "delivered_readings", "retried", "rejected", "unheard",
)  # fmt: skip
"""What the flows of a connection have together."""


class Uplink:
    """The forwarders of one connection, by their place in the buffer. Each is run by itself, and may fail by itself."""

    def __init__(
        self, config: Config, name: str, connection: ConnectionConfig, context: ConnectionContext, buffer: Buffer,
        clock: Clock | None,
    ) -> None:  # fmt: skip
        """`connection` has its secrets filled in. Raises ConfigError."""
        self._name = name
        self._connection = connection
        self._context = context
        self._buffer = buffer
        self._clock = clock
        self._connector = load_forwarding(connection.connector)
        self._link = self._connector.link(connection, _described(config, name, connection, context))
        self._trunk = Trunk(name, self._link, self._waiting)
        self._flows: dict[str, tuple[str, FlowConfig]] = {}
        self._adapters: Mapping[str, str] = {}
        self.forwarders: dict[str, Forwarder] = {}
        """Those that run, or ran last."""
        self.renew(config)

    @property
    def places(self) -> list[str]:
        """What is to be run."""
        return list(self._flows) or [self._name]

    def renew(self, config: Config) -> None:
        """Take over flows. What is run of them goes on as it is."""
        self._adapters = adapters_of(config)
        flows = config.flows_to(self._name)
        self._flows = {cursor_name(self._name, flow): (flow, one) for flow, one in flows.items() if one.enabled}
        self._buffer.intervals |= config.intervals()
        for place in [place for place in self.forwarders if place not in self.places]:
            del self.forwarders[place]

    async def run(self, place: str) -> None:
        """Forward until cancelled. Raises ConfigError."""
        if place not in self._flows:
            encoder = self._connector.encoder(self._connection, self._context)
            self.forwarders[place] = Forwarder(place, encoder, self._link, self._buffer, self._clock)
            await self.forwarders[place].run()
            return
        branch = Branch(self._trunk, spoken(place), strict=self._flows[place][1].interval > 0)
        try:
            self.forwarders[place] = self._made(place, branch)
            await self.forwarders[place].run()
        finally:
            branch.withdraw()

    def _made(self, place: str, branch: Branch) -> Forwarder:
        from edged.flows.encoder import FlowEncoder  # noqa: PLC0415  # only where there are flows
        from edged.flows.flow import Flow, looking, output_units  # noqa: PLC0415  # as above
        from edged.flows.windows import WindowReader  # noqa: PLC0415  # as above

        name, flow = self._flows[place]
        context = self._context
        told_units = replace(context, shared={**context.shared, "units": partial(output_units, flow)})
        bound = replace(self._connection, **flow.connections[self._name].overrides())
        ready = Flow(flow, context.gateway, looking(context.devices, self._adapters))
        ready.errors.tell = partial(
            log.warning, "%s: what cannot be worked out is left out or bad, and counted from now on: %s", spoken(place)
        )
        read = WindowReader(self._buffer, place, ready.interval, self._clock).read if ready.interval else None
        encoder = FlowEncoder(name, ready, self._connector.encoder(bound, told_units))
        return Forwarder(place, encoder, branch, self._buffer, self._clock, read)

    def _waiting(self) -> int:
        known = self._buffer.stats().connections
        return sum(known[place].pending for place in self._flows if place in known)

    def state(self) -> dict[str, Any]:
        """How it does, as plain data; with flows also how they do, by name."""
        states = {place: self.forwarders[place].state() for place in self.places if place in self.forwarders}
        if not self._flows:
            return asdict(states[self._name]) if states else {}
        flows = {self._flows[place][0]: asdict(state) for place, state in states.items()}
        if not states:
            return {}
        since = {"since": iso(self._trunk.opened)} if self._trunk.opened else {}
        return {**asdict(_together(states.values())), **since, "flows": flows}


def _described(
    config: Config, name: str, connection: ConnectionConfig, context: ConnectionContext
) -> ConnectionContext:
    """For a receiver that is told beforehand what there is: what flows leave, in place of what the devices have.

    Nothing of that is in the twin, which knows what the devices have.
    """
    flows = [flow for flow in config.flows_to(name).values() if flow.enabled]
    if not (flows and connection.describes_flows):
        return context
    from edged.flows.flow import looking  # noqa: PLC0415  # only where there are flows
    from edged.flows.outputs import Outputs  # noqa: PLC0415  # as above

    look = looking(context.devices, adapters_of(config))
    return replace(context, devices=Outputs(flows, context.gateway, context.devices, look), twin=None)


def adapters_of(config: Config) -> dict[str, str]:
    """The adapter of each bus."""
    return {bus: str(one.adapter) for bus, one in config.buses.items()}


def _together(states: Iterable[ForwarderState]) -> ForwarderState:
    """The session as one sees it who takes part in it, and the sums of all."""
    some = sorted(states, key=lambda one: not one.connected)
    sums = {name: sum(getattr(one, name) for one in some) for name in _SUMMED}
    rejection = next((one.last_rejection for one in some if one.last_rejection), "")
    return replace(some[0], last_rejection=rejection, lanes={}, **sums)


def told(stats: BufferStats, config: Config, connection: str) -> dict[str, int]:
    """What became of the readings of a connection: of all its flows together, a reading counted once for each."""
    flows = config.flows_to(connection)
    if not flows:
        return stats.told(connection)
    each = [stats.told(cursor_name(connection, flow)) for flow in flows]
    whole = each[0]
    for name in ("stored_for", "delivered", "pending", "expired", "evicted", "dead"):
        whole[name] = sum(one[name] for one in each)
    places = [stats.connections.get(cursor_name(connection, flow)) for flow in flows]
    return whole | {"filtered": sum(place.filtered for place in places if place)}


def flow_states(config: Config, running: Mapping[str, Forwarder], stats: BufferStats) -> dict[str, Any]:
    """Each flow with its counters: in = sent + filtered + queued + expired + evicted + dead."""
    return {str(name): _state(name, flow, running, stats) for name, flow in config.flows.items()}


def _state(name: str, flow: FlowConfig, running: Mapping[str, Forwarder], stats: BufferStats) -> dict[str, Any]:
    connections: dict[str, dict[str, int]] = {}
    errors, last = 0, ""
    for target in flow.connections:
        place = cursor_name(target, name)
        one = stats.connections.get(place)
        if one is not None:
            connections[str(target)] = {
                "in": one.stored_for, "sent": one.delivered - one.filtered, "filtered": one.filtered,
                "queued": one.pending, "expired": one.expired, "evicted": one.evicted, "dead": one.dead,
            }  # fmt: skip
        found = getattr(getattr(running.get(place), "encoder", None), "errors", None)
        if found is not None:
            errors, last = errors + found.count, found.last or last
    return {"enabled": flow.enabled, "errors": errors, "last_error": last, "connections": connections}
