"""Modbus over networks and serial lines.

The adapters `modbus-tcp`, `modbus-tls`, `modbus-udp` and `modbus-rtu-over-tcp`, `modbus-rtu` and `modbus-ascii`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.adapter import Bus, BusConfig, DeviceConfig, RawRead, Simulator, Step

from .config import ModbusDevice, ModbusRtuOverTcpBus, ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from .link import Link
from .planner import Costs, line_costs, network_costs
from .serial_bus import ModbusAsciiBus, ModbusRtuBus, serial_costs

if TYPE_CHECKING:
    from edged.media import Frame, FrameNote

    from .explore import ModbusExplorer

__all__ = ["ASCII", "RTU", "RTU_OVER_TCP", "TCP", "TLS", "UDP"]

_USUAL_BAUDRATE = 19_200
"""What the planner reckons with when nobody says how fast the line behind a serial server is."""


@dataclass(slots=True)
class _Adapter:
    """One way to carry Modbus (see `edged.adapter.Adapter`)."""

    bus_config: type[BusConfig]
    links: Callable[[Any, Mapping[str, ModbusDevice]], Sequence[Link]]
    costs: Callable[[Any], Costs]
    framing: str
    device_config: type[DeviceConfig] = ModbusDevice

    def profiles(self) -> Path | None:
        return Path(__file__).parent / "profiles"

    def open(self, name: str, config: Any, devices: Mapping[str, Any]) -> Bus:
        from .bus import ModbusBus  # noqa: PLC0415  # checking a configuration should not cost loading pymodbus

        timed = getattr(config, "baudrate", None) is not None
        return ModbusBus(name, devices, self.links(config, devices), self.costs(config), timed=timed)

    def simulate(
        self, buses: Mapping[str, tuple[Any, Mapping[str, Any]]], *, host: str = "127.0.0.1", seed: int = 0
    ) -> AbstractAsyncContextManager[Simulator]:
        from .simulator import simulate  # noqa: PLC0415  # `edged run` never needs it

        return simulate(buses, host=host, seed=seed)

    def check_profile(
        self, document: Mapping[str, Any], device: Any
    ) -> Iterator[tuple[str, tuple[str | int, ...], str]]:
        """See `edged.config.library.ProfileChecker`."""
        from .profile import problems  # noqa: PLC0415  # `edged run` never needs it

        return problems(document, device)

    def profile_needs(self, _document: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `edged.config.library.Beginner`."""
        return {}

    def example_profile(self, name: str) -> str:
        """Likewise."""
        from .profile import example  # noqa: PLC0415  # `edged run` never needs it

        return example(name)

    def explorer(self) -> ModbusExplorer:
        """What is known of unknown devices, for the commands that look at them."""
        from .explore import ModbusExplorer  # noqa: PLC0415  # `edged run` never needs it

        return ModbusExplorer()

    def annotate(self, pieces: Sequence[Frame], character: float = 0.0) -> Sequence[FrameNote]:
        """See `edged.adapter.Annotates`."""
        from .annotate import annotate  # noqa: PLC0415  # `edged run` never needs it

        return annotate(pieces, character, framing=self.framing)

    def explain(self, device: Any, point: str, raw: Sequence[RawRead]) -> Sequence[Step]:
        """See `edged.adapter.Explains`."""
        if device.sunspec is not None:
            from .sunspec_explain import explain as explain_sunspec  # noqa: PLC0415  # `edged run` never needs it

            return explain_sunspec(point, raw)
        from .explain import explain  # noqa: PLC0415  # `edged run` never needs it

        return explain(device.points[point], raw)


def _tcp_links(config: ModbusTcpBus, _devices: object) -> Sequence[Link]:
    from .tcp import tcp_links  # noqa: PLC0415  # pymodbus costs 3.5 MiB

    return tcp_links(config)


def _tls_links(config: ModbusTlsBus, _devices: object) -> Sequence[Link]:
    from .tcp import tls_links  # noqa: PLC0415  # pymodbus costs 3.5 MiB

    return tls_links(config)


def _udp_links(config: ModbusUdpBus, _devices: object) -> Sequence[Link]:
    from .tcp import udp_links  # noqa: PLC0415  # pymodbus costs 3.5 MiB

    return udp_links(config)


def _rtu_over_tcp_links(config: ModbusRtuOverTcpBus, devices: Mapping[str, ModbusDevice]) -> Sequence[Link]:
    from .rtu import rtu_over_tcp_links  # noqa: PLC0415  # who has no serial line needs no master for one

    return rtu_over_tcp_links(config, devices)


def _serial_links(config: ModbusRtuBus | ModbusAsciiBus, devices: Mapping[str, ModbusDevice]) -> Sequence[Link]:
    from .master import serial_links  # noqa: PLC0415  # the network side needs no timers and ports

    return serial_links(config, devices)


def _by_network(_config: object) -> Costs:
    return network_costs()


def _by_line(config: ModbusRtuOverTcpBus) -> Costs:
    return line_costs(config.baudrate or _USUAL_BAUDRATE)


TCP = _Adapter(ModbusTcpBus, _tcp_links, _by_network, "tcp")
TLS = _Adapter(ModbusTlsBus, _tls_links, _by_network, "tcp")
UDP = _Adapter(ModbusUdpBus, _udp_links, _by_network, "tcp")
RTU_OVER_TCP = _Adapter(ModbusRtuOverTcpBus, _rtu_over_tcp_links, _by_line, "rtu")
RTU = _Adapter(ModbusRtuBus, _serial_links, serial_costs, "rtu")
ASCII = _Adapter(ModbusAsciiBus, _serial_links, serial_costs, "ascii")
