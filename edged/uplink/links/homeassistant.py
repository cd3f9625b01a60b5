"""The MQTT link to Home Assistant: what is there is told again whenever Home Assistant starts."""

from __future__ import annotations

import asyncio

from edged.downlink.api import Incoming, Twin
from edged.uplink.api import Pacing
from edged.uplink.dialects.homeassistant import Discovery, Names, snapshot
from edged.uplink.links.mqtt import Announcer, Broker, MqttLink
from edged.uplink.links.mqtt_commands import CommandService, Slot

_SETTLE = 0.5
"""Seconds from its birth message until Home Assistant has subscribed to what it was told."""


class HomeAssistantLink(MqttLink):
    """Sessions with one broker. Implements `edged.uplink.api.Link`."""

    def __init__(  # each is one thing that a session depends on
        self, name: str, broker: Broker, announcer: Announcer, pacing: Pacing, service: CommandService,
        discovery: Discovery, twin: Twin | None,
    ) -> None:  # fmt: skip
        super().__init__(name, broker, announcer, pacing, service)
        self._discovery = discovery
        self._names: Names = discovery.names
        self._twin = twin
        self._born = asyncio.Event()

    async def _greet(self) -> list[str]:
        notes = []
        if self._session is not None:
            self._born.clear()
            self._session.take = self._take
            if refused := await self._session.listen([(self._names.birth, 1)]):
                notes.append(refused)
        notes += await super()._greet()
        self._born.set()  # the values follow as soon as the session serves
        return notes

    def _take(self, incoming: Incoming) -> bool:
        if incoming.topic != self._names.birth:
            return False
        if incoming.payload == b"online" and not incoming.retained:
            self._born.set()
        return True

    async def announce(self) -> None:
        """Tell of everything again, because devices have changed."""
        await super().announce()
        self._born.set()

    async def serve(self, slot: Slot) -> None:
        """Besides commands: whenever Home Assistant has started, tell it of everything once more, and of the values."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().serve(slot), name=f"{self._name} commands")
            group.create_task(self._tell(slot), name=f"{self._name} states")

    async def _tell(self, slot: Slot) -> None:
        while True:
            await self._born.wait()
            self._born.clear()
            for message in self._discovery.messages():
                async with slot():
                    await self.send(message)
            await asyncio.sleep(_SETTLE)
            for device in [str(name) for name, settings in self._discovery.devices.items() if settings.enabled]:
                states = snapshot(self._names, device, await self._twin.device(device)) if self._twin else None
                if states is not None:
                    async with slot():
                        await self.send(states)
