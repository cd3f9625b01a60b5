"""What a survey found, as YAML."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edged.cli.explore import flow

if TYPE_CHECKING:
    from edged.cli.survey import Found


def as_yaml(found: Sequence[Found], *, whole: bool = False, when: str = "") -> str:
    """Buses and devices to paste; with `whole`, a configuration that is complete but for where the readings go."""
    if not found:
        return ""
    lines = [f"# Found by `edged scan modbus`, {when}."] if when else []
    if whole:
        lines.append(f"gateway: {flow({'id': gateway_id()})}")
    buses, devices = bus_lines(found), device_lines(found)
    if buses:
        lines += ["buses:", *buses]
    if devices:
        lines += ["devices:", *devices]
    return "\n".join(lines) + "\n"


def bus_lines(found: Sequence[Found]) -> list[str]:
    """The buses that the configuration does not have yet."""
    from edged.cli.survey import settings_of

    buses = {one.place.bus: one.place.bus_config for one in found if not one.known_bus}
    return [f"  {name}: {flow(settings_of(config))}" for name, config in buses.items()]


def device_lines(found: Sequence[Found]) -> list[str]:
    """The devices, and as comments those that nobody knows."""
    known = [one for one in found if one.profiles]
    lines = [f"  {_name(one, known)}: {flow(_device(one))}  # {_comment(one)}" for one in known]
    for one in found:
        if not one.profiles:
            lines += [
                f"  # Unit {one.unit} on {one.place.bus}: {one.what}. Find out what it measures:",
                f"  #   edged probe {one.place.bus} --unit {one.unit} --holding 0 --count 10",
                f"  #   edged find {one.place.bus} --unit {one.unit} --value WHAT-ITS-DISPLAY-SHOWS",
            ]
    return lines


def gateway_id() -> str:
    """The name of this machine, if it can be the id of a gateway."""
    from edged.config.types import Name

    try:
        return str(Name.parse(socket.gethostname().partition(".")[0]))
    except ValueError:
        return "my-gateway"


def _comment(one: Found) -> str:
    others = ", ".join(one.profiles[1:])
    return f"{one.title}; the label may also say: {others}" if others else one.title


def _device(one: Found) -> dict[str, object]:
    return {"bus": one.place.bus, "unit": one.unit, "profile": one.profiles[0]}


def _name(one: Found, known: Sequence[Found]) -> str:
    """Profile and unit; the bus, too, where that would not be enough."""
    name = f"{one.profiles[0]}-{one.unit}"
    alike = [other for other in known if (other.profiles[0], other.unit) == (one.profiles[0], one.unit)]
    return (name if len(alike) == 1 else f"{one.place.bus}-{name}")[:64]
