"""The forwarders of one connection: one for all readings, or one for each flow, over one link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from edged.buffer.counters import BufferStats
from edged.buffer.log import Buffer
from edged.config.base import ConnectionConfig
from edged.config.flows import FlowConfig, cursor_name
from edged.config.model import Config
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors import load_forwarding
from edged.uplink.forwarder import Forwarder
from edged.uplink.trunk import Branch, Trunk
from edged.wallclock import Clock


def forwarders(
    config: Config, name: str, connection: ConnectionConfig, context: ConnectionContext, buffer: Buffer,
    clock: Clock | None,
) -> dict[str, Forwarder]:  # fmt: skip
    """By the name of their place in the buffer. `connection` has its secrets filled in. Raises ConfigError."""
    connector = load_forwarding(connection.connector)
    link = connector.link(connection, context)
    flows = config.flows_to(name)
    if not flows:
        return {name: Forwarder(name, connector.encoder(connection, context), link, buffer, clock)}
    from edged.flows.encoder import FlowEncoder  # noqa: PLC0415  # only where there are flows
    from edged.flows.flow import Flow, looking, output_units  # noqa: PLC0415  # as above
    from edged.flows.windows import WindowReader  # noqa: PLC0415  # as above

    adapters = {bus: str(one.adapter) for bus, one in config.buses.items()}
    enabled = {flow: one for flow, one in flows.items() if one.enabled}
    trunk = Trunk(link, len(enabled))
    made: dict[str, Forwarder] = {}
    for flow, one in enabled.items():
        place = cursor_name(name, flow)
        told_units = replace(context, shared={**context.shared, "units": partial(output_units, one)})
        inner = connector.encoder(replace(connection, **one.connections[name].overrides()), told_units)
        ready = Flow(one, context.gateway, looking(context.devices, adapters))
        read = WindowReader(buffer, ready.interval).read if ready.interval else None
        branch = Branch(trunk, first=not made, strict=ready.interval > 0)
        made[place] = Forwarder(place, FlowEncoder(flow, ready, inner), branch, buffer, clock, read)
    return made


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
    """Each flow with its counters: stored_for = sent + filtered + pending + expired + evicted + dead."""
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
