"""Devices that publish to a broker: LoRaWAN by ChirpStack or The Things Stack, Zigbee2MQTT, Tasmota, Shelly, JSON.

    buses:
      lora: {adapter: mqtt-in, url: "mqtt://localhost", preset: chirpstack}
    devices:
      cellar: {bus: lora, id: 24e124136b502217, codec: em300-th.js, points: {temperature: {unit: °C}}}

`config`, `point`, `path`, `times`, `topics`, `presets/`, `device`, `ledger` and `listener` do no I/O; `session` and
`link` speak to the broker, `codecs/` runs payload codecs in a process of its own, and `bus` puts it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.adapter import Sample, Simulator

from .config import MqttBus, MqttDevice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .bus import Bus

__all__ = ["MQTT_IN"]


class _Adapter:
    """Satisfies `edged.adapter.Adapter`."""

    bus_config = MqttBus
    device_config = MqttDevice

    def profiles(self) -> Path | None:
        """The device types that come with it."""
        return Path(__file__).parent / "profiles"

    def open(self, name: str, config: MqttBus, devices: Mapping[str, MqttDevice]) -> Bus:
        """See `edged.adapter.Adapter`."""
        from .bus import Bus  # noqa: PLC0415  # `edged check` of a configuration without it must not load paho

        return Bus(name, config, devices)

    def simulate(
        self,
        buses: Mapping[str, tuple[MqttBus, Mapping[str, MqttDevice]]],
        *,
        host: str = "127.0.0.1",
        seed: int = 0,
    ) -> AbstractAsyncContextManager[Simulator]:
        """Publish what such devices would publish, to the broker of each bus. Raises ConfigError."""
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

    def decoded(self, device: MqttDevice, vector: Mapping[str, Any]) -> Sequence[Sample]:
        """See `edged.config.vectors.Decodes`."""
        from .profile import decoded  # noqa: PLC0415  # `edged run` must not pay for it

        return decoded(device, vector)

    def examples(self, device: MqttDevice) -> Iterable[tuple[str, str]]:
        """See `edged.config.vectors.Carries`."""
        from .profile import examples  # noqa: PLC0415  # `edged run` must not pay for it

        return examples(device)


MQTT_IN = _Adapter()
