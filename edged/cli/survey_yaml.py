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
    from edged.cli.survey import settings_of

    if not found:
        return ""
    lines = [f"# Found by `edged scan modbus`, {when}."] if when else []
    if whole:
        lines.append(f"gateway: {flow({'id': gateway_id()})}")
    buses = {one.place.bus: one.place.bus_config for one in found if not one.known_bus}
    if buses:
        lines.append("buses:")
        lines += [f"  {name}: {flow(settings_of(config))}" for name, config in buses.items()]
    known = [one for one in found if one.profiles]
    unknown = [one for one in found if not one.profiles]
    if known:
        lines.append("devices:")
        lines += [f"  {_name(one, known)}: {flow(_device(one))}  # {one.title or one.what}" for one in known]
    for one in unknown:
        lines += [
            f"  # Unit {one.unit} on {one.place.bus} answers, and {one.what}. Find out what it measures:",
            f"  #   edged probe {one.place.bus} --unit {one.unit} --holding 0 --count 10",
            f"  #   edged find {one.place.bus} --unit {one.unit} --value WHAT-ITS-DISPLAY-SHOWS",
        ]
    return "\n".join(lines) + "\n"


def gateway_id() -> str:
    """The name of this machine, if it can be the id of a gateway."""
    from edged.config.types import Name

    try:
        return str(Name.parse(socket.gethostname().partition(".")[0]))
    except ValueError:
        return "my-gateway"


def _device(one: Found) -> dict[str, object]:
    return {"bus": one.place.bus, "unit": one.unit, "profile": one.profiles[0]}


def _name(one: Found, known: Sequence[Found]) -> str:
    """Profile and unit; the bus, too, where that would not be enough."""
    name = f"{one.profiles[0]}-{one.unit}"
    alike = [other for other in known if (other.profiles[0], other.unit) == (one.profiles[0], one.unit)]
    return (name if len(alike) == 1 else f"{one.place.bus}-{name}")[:64]
