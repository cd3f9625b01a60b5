"""Legacy serial devices that are not Modbus: a device type is a profile, without code.

    buses:
      scale-line: {adapter: serial, port: "usb:0403:6001/FT4XYZ"}
    devices:
      scale: {bus: scale-line, profile: mettler-toledo-mt-sics, every: 2s}

`codecs/` is pure; `config`, `parts` and `point` are what a technician writes; `device` is that, compiled; `line` and
`bus` do the I/O; `learn` looks at an unknown device; `simulator` plays the devices of profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.adapter import Sample, Simulator
from edged.media import LineSettings

from .bus import Bus, check_bus
from .config import SerialBus, SerialDevice

if TYPE_CHECKING:
    from .learn import Capture, Learned

__all__ = ["SERIAL"]


class _Adapter:
    """Satisfies `edged.adapter.Adapter`."""

    bus_config = SerialBus
    device_config = SerialDevice

    def profiles(self) -> Path | None:
        """The device types that come with it."""
        return Path(__file__).parent / "profiles"

    def open(self, name: str, config: SerialBus, devices: Mapping[str, SerialDevice]) -> Bus:
        """See `edged.adapter.Adapter`."""
        check_bus(name, config, devices)
        return Bus(name, config, devices)

    def profile_needs(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `edged.config.library.Beginner`."""
        from .profile import needs  # noqa: PLC0415  # `edged run` must not pay for it

        return needs(document)

    def example_profile(self, name: str) -> str:
        """Likewise."""
        from .profile import example  # noqa: PLC0415  # `edged run` must not pay for it

        return example(name)

    def decoded(self, device: SerialDevice, vector: Mapping[str, Any]) -> Sequence[Sample]:
        """See `edged.config.vectors.Decodes`."""
        from .profile import decoded  # noqa: PLC0415  # `edged run` must not pay for it

        return decoded(device, vector)

    def learn(self, captures: Sequence[Capture]) -> Learned:
        """What an unknown device says, for `edged serial learn` (see `edged.cli.serial.Learner`)."""
        from .learn import learn  # noqa: PLC0415  # `edged run` must not pay for it

        return learn(captures)

    async def scan(self, settings: LineSettings, found: Callable[[str], None], *, every: bool) -> None:
        """Find M-Bus devices, for `edged serial scan` (see `edged.cli.serial.Scanner`). Raises TransientError."""
        from .scan import scan  # noqa: PLC0415  # `edged run` must not pay for it

        await scan(settings, found, every=every)

    def simulate(
        self,
        buses: Mapping[str, tuple[SerialBus, Mapping[str, SerialDevice]]],
        *,
        host: str = "127.0.0.1",
        seed: int = 0,
    ) -> AbstractAsyncContextManager[Simulator]:
        """Serve the devices of these lines on pseudo terminals, or on `host` those behind a serial server."""
        from .simulator import simulated  # noqa: PLC0415  # `edged run` must not pay for it

        return simulated(buses, host=host, seed=seed)


SERIAL = _Adapter()
