"""Who publishes to a broker, and how: topics, messages, commands. Pure."""

from __future__ import annotations

from edged_mqtt.config import PresetName

from .base import Message, Outgoing, Preset
from .chirpstack import ChirpStack
from .plain import Plain
from .shelly import Shelly
from .tasmota import Tasmota
from .thethingsstack import TheThingsStack
from .zigbee2mqtt import Zigbee2Mqtt

__all__ = ["PRESETS", "Message", "Outgoing", "Preset"]

PRESETS: dict[PresetName, type[Preset]] = {
    "chirpstack": ChirpStack,
    "thethingsstack": TheThingsStack,
    "zigbee2mqtt": Zigbee2Mqtt,
    "tasmota": Tasmota,
    "shelly": Shelly,
    "json": Plain,
}
