"""Bluetooth Low Energy: sensors that are heard, and devices that are connected to.

    buses:
      radio: {adapter: ble}
    devices:
      cellar: {bus: radio, address: "C4:64:E3:01:23:45", decoder: ruuvi}

`codecs/`, `config`, `decoders`, `listener`, `job`, `watchdog`, `fresh`, `strangers`, `recording` and `encode` do no
I/O; `bluez`, `radio`, `gatt`, `pairing`, `survey` and `bus` do, through bluetoothd on D-Bus. `replay` takes the radio's
place, and `simulator` gives it something to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.adapter import Sample, Simulator

from .config import BleBus, BleDevice

if TYPE_CHECKING:
    from .bus import Bus
    from .codecs.advert import Advertisement
    from .config import Scan
    from .survey import Sender, Survey

__all__ = ["BLE"]


class _Adapter:
    """Satisfies `edged.adapter.Adapter`."""

    bus_config = BleBus
    device_config = BleDevice

    def profiles(self) -> Path | None:
        """The device types that come with it."""
        return Path(__file__).parent / "profiles"

    def open(self, name: str, config: BleBus, devices: Mapping[str, BleDevice]) -> Bus:
        """See `edged.adapter.Adapter`."""
        from .bus import Bus  # noqa: PLC0415  # `edged check` of a configuration without radios must not load bleak

        return Bus(name, config, devices)

    def simulate(
        self,
        buses: Mapping[str, tuple[BleBus, Mapping[str, BleDevice]]],
        *,
        host: str = "127.0.0.1",
        seed: int = 0,
    ) -> AbstractAsyncContextManager[Simulator]:
        """Serve what such sensors would advertise to a bus with `replay`. Raises ConfigError."""
        from .simulator import simulation  # noqa: PLC0415  # `edged run` must not pay for it

        return simulation(buses, host, seed)

    def profile_needs(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `edged.config.library.Beginner`."""
        from .profile import needs  # noqa: PLC0415  # `edged run` must not pay for it

        return needs(document)

    def example_profile(self, name: str) -> str:
        """Likewise."""
        from .profile import example  # noqa: PLC0415  # `edged run` must not pay for it

        return example(name)

    def decoded(self, device: BleDevice, vector: Mapping[str, Any]) -> Sequence[Sample]:
        """See `edged.config.vectors.Decodes`."""
        from .profile import decoded  # noqa: PLC0415  # `edged run` must not pay for it

        return decoded(device, vector)

    def survey(
        self, radio: str, scan: Scan, tell: Callable[[Advertisement], None] | None = None
    ) -> AbstractAsyncContextManager[Survey]:
        """Who is in range, for `edged scan ble` (see `edged.cli.ble.Surveyor`)."""
        from .survey import survey  # noqa: PLC0415  # `edged run` must not pay for it

        return survey(radio, scan, tell)

    def record(self, adv: Advertisement, seconds: float) -> str:
        """A line of a recording."""
        from .recording import record  # noqa: PLC0415  # `edged run` must not pay for it

        return record(adv, seconds)

    def replayed(self, lines: Iterable[str]) -> tuple[Sequence[Sender], Sequence[str]]:
        """(who was in range, what is wrong with the lines) of a recording."""
        from .survey import replayed  # noqa: PLC0415  # `edged run` must not pay for it

        return replayed(lines)

    async def tree(self, radio: str, address: str, seconds: float) -> list[str]:
        """What is in a device, for `edged ble gatt`. Raises TransientError."""
        from .survey import tree  # noqa: PLC0415  # `edged run` must not pay for it

        return await tree(radio, address, seconds)


BLE = _Adapter()
