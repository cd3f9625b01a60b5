"""Home Assistant: discovery, states and commands over MQTT. Pure.

Source: home-assistant.io/integrations/mqtt (discovery messages, availability, `origin`, `device`), and its lists of
device classes for sensor and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from edged import __version__
from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig, PointConfig
from edged.config.model import GatewayConfig
from edged.downlink.api import Command, CommandResult, Incoming, Refused, TwinPoint
from edged.errors import PermanentError
from edged.model import Value
from edged.uplink.api import Chunk, Envelope, Lane, Message
from edged.uplink.dialects.cutting import cut
from edged.uplink.dialects.kinds import Kind, promised, words
from edged.uplink.encoders import encode_sample
from edged.uplink.topics import escape, unescape

_CLASSES: dict[str, tuple[str, str]] = {
    "°C": ("temperature", "measurement"), "°F": ("temperature", "measurement"), "K": ("temperature", "measurement"),
    "V": ("voltage", "measurement"), "mV": ("voltage", "measurement"),
    "A": ("current", "measurement"), "mA": ("current", "measurement"),
    "W": ("power", "measurement"), "kW": ("power", "measurement"),
    "VA": ("apparent_power", "measurement"), "var": ("reactive_power", "measurement"),
    "Wh": ("energy", "total_increasing"), "kWh": ("energy", "total_increasing"),
    "MWh": ("energy", "total_increasing"),
    "Hz": ("frequency", "measurement"), "kHz": ("frequency", "measurement"),
    "Pa": ("pressure", "measurement"), "hPa": ("pressure", "measurement"), "kPa": ("pressure", "measurement"),
    "bar": ("pressure", "measurement"), "mbar": ("pressure", "measurement"), "psi": ("pressure", "measurement"),
    "lx": ("illuminance", "measurement"), "W/m²": ("irradiance", "measurement"),
    "m³/h": ("volume_flow_rate", "measurement"), "L/min": ("volume_flow_rate", "measurement"),
    "kg": ("weight", "measurement"), "g": ("weight", "measurement"),
    "m/s": ("speed", "measurement"), "km/h": ("speed", "measurement"),
    "s": ("duration", "measurement"), "min": ("duration", "measurement"), "h": ("duration", "measurement"),
}  # fmt: skip
"""Unit → device class and state class, where the unit alone says what is measured. `%` does not, nor does `m³`."""
_LARGEST = 1e9
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
"""As JSON and JavaScript write one; Python would take `1_0` or digits of other scripts, too."""
_KEY = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(frozen=True, slots=True)
class Names:
    """The topics of one gateway."""

    discovery: str
    """The prefix that Home Assistant listens to, usually `homeassistant`."""
    base: str
    """Where our own topics begin, e.g. `edged/plant-7/ha`."""

    @property
    def status(self) -> str:
        """`online` or `offline`, retained."""
        return f"{self.base}/status"

    @property
    def birth(self) -> str:
        """Where Home Assistant says that it has started."""
        return f"{self.discovery}/status"

    def state(self, device: str) -> str:
        """The readings of a device."""
        return f"{self.base}/state/{escape(device)}"

    def history(self, device: str) -> str:
        """Readings of the past, which Home Assistant cannot take: it would show them as fresh."""
        return f"{self.base}/history/{escape(device)}"

    def command(self, device: str, point: str) -> str:
        """Where a point is written."""
        return f"{self.base}/set/{escape(device)}/{escape(point)}"

    def config(self, component: str, node: str, key: str) -> str:
        """The discovery topic of an entity."""
        return f"{self.discovery}/{component}/{node}/{key}/config"


def key_of(*parts: str) -> str:
    """Letters, digits, `_` and `-`, as Home Assistant wants them; different names never become the same key."""
    plain = _KEY.sub("_", "_".join(parts))
    if all(_KEY.search(part) is None for part in parts):
        return plain
    return f"{plain}_{blake2b('/'.join(parts).encode('utf-8', 'surrogatepass'), digest_size=3).hexdigest()}"


@dataclass(slots=True)
class Discovery:
    """What is said about the gateway, its devices and their points."""

    gateway: GatewayConfig
    names: Names
    devices: Mapping[str, DeviceConfig]
    commands: bool
    _told: set[str] = field(default_factory=set)
    """Topics so far: where a point is gone, its retained message is to go too."""

    def messages(self) -> list[Message]:
        """A retained message for each entity there is, and an empty one for each that is gone."""
        found = dict(self._entities())
        gone = [Message(topic, b"", retain=True) for topic in sorted(self._told - found.keys())]
        self._told |= found.keys()
        return [*(Message(topic, orjson.dumps(config), retain=True) for topic, config in found.items()), *gone]

    def _entities(self) -> Iterator[tuple[str, dict[str, Any]]]:
        node = key_of("edged", str(self.gateway.id))
        yield self.names.config("binary_sensor", node, "connected"), self._connected(node)
        for device, settings in self.devices.items():
            if settings.enabled:
                for point, config in settings.points.items():
                    component, more = self._entity(str(device), str(point), config)
                    key = key_of(str(device), str(point))
                    common = self._common(node, str(device), str(point), settings, component)
                    yield (
                        self.names.config(component, node, key),
                        common | _value_of(str(point), component, more) | more,
                    )

    def _origin(self) -> dict[str, str]:
        return {"name": "edged", "sw_version": __version__}

    def _connected(self, node: str) -> dict[str, Any]:
        return {
            "name": "Connected", "unique_id": f"{node}_connected", "state_topic": self.names.status,
            "object_id": f"{node}_connected", "default_entity_id": f"binary_sensor.{_entity_id(f'{node}_connected')}",
            "payload_on": "online", "payload_off": "offline", "device_class": "connectivity",
            "entity_category": "diagnostic", "origin": self._origin(), "device": self._gateway(node),
        }  # fmt: skip

    def _gateway(self, node: str) -> dict[str, Any]:
        return {
            "identifiers": [node], "name": str(self.gateway.id), "manufacturer": "edged", "sw_version": __version__,
        }  # fmt: skip

    def _common(self, node: str, device: str, point: str, settings: DeviceConfig, component: str) -> dict[str, Any]:
        value, there = _found(point)
        key = f"{node}_{key_of(device, point)}"
        about = {"identifiers": [f"{node}_{key_of(device)}"], "name": device, "via_device": node}
        if settings.profile:
            about["model"] = settings.profile
        if room := settings.labels.get("room"):
            about["suggested_area"] = room
        return {
            "name": point,
            "unique_id": key,
            "object_id": key,  # until Home Assistant 2026.3; since 2025.10 the next takes its place
            "default_entity_id": f"{component}.{_entity_id(key)}",
            "state_topic": self.names.state(device),
            "availability_mode": "all",
            "availability": [
                {"topic": self.names.status},
                {
                    "topic": self.names.state(device),
                    "value_template": (
                        f"{{% if {there} %}}{{{{ 'offline' if {value} is none else 'online' }}}}{{% endif %}}"
                    ),
                },
            ],
            "origin": self._origin(),
            "device": about,
        }

    def _entity(self, device: str, point: str, config: PointConfig) -> tuple[str, dict[str, Any]]:
        """The component of a point, and what only this component says."""
        kind, options = promised(config), words(config)
        writable = self.commands and config.writable
        more: dict[str, Any] = {"command_topic": self.names.command(device, point), "qos": 1} if writable else {}
        if kind is Kind.TRUTH:
            return ("switch" if writable else "binary_sensor"), more | _truth(point, switch=writable)
        if options:
            return ("select", more | {"options": options}) if writable else (
                "sensor", {"device_class": "enum", "options": options},
            )  # fmt: skip
        if kind is Kind.TEXT:
            return ("text" if writable else "sensor"), more
        device_class, state_class = _CLASSES.get(config.unit, ("", "measurement" if config.unit else ""))
        if writable:
            return "number", more | _number(config, device_class)
        said: dict[str, Any] = {
            "unit_of_measurement": config.unit,
            "device_class": device_class,
            "state_class": state_class,
        }
        if config.decimals is not None and config.decimals >= 0:
            said["suggested_display_precision"] = config.decimals
        return "sensor", {name: value for name, value in said.items() if value != ""}


def quoted(text: str) -> str:
    """A text as a literal of Jinja."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _found(point: str) -> tuple[str, str]:
    """Expressions of Jinja: the value of a point in a state, and whether it is in there; a sample need not have all."""
    return f"value_json['values'][{quoted(point)}]", f"{quoted(point)} in value_json['values']"


def _value_of(point: str, component: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The template of the value, and what Home Assistant is to do with a state that does not have it.

    Where it can, it ignores what is empty. What it shows instead, `this.state`, may be in the unit that a person
    chose, and must not be taken for a value of ours; texts have no unit.
    """
    value, there = _found(point)
    if component in {"number", "select"} or more.keys() & {"unit_of_measurement", "state_class"}:
        return {"value_template": f"{{% if {there} %}}{{{{ {value} }}}}{{% endif %}}"}
    before = "this.state"
    if component == "sensor":
        before = "(this.state if this.state not in ['unknown', 'unavailable'] else 'None')"
    return {"value_template": f"{{{{ {value} if {there} else {before} }}}}"}


def _entity_id(key: str) -> str:
    """As Home Assistant makes one of it: small letters, digits and `_`."""
    return re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")


def _truth(point: str, *, switch: bool) -> dict[str, Any]:
    value, there = _found(point)
    said = {
        "value_template": (
            f"{{% if {there} and {value} is not none %}}{{{{ 'ON' if {value} else 'OFF' }}}}{{% endif %}}"
        ),
        "payload_on": "ON", "payload_off": "OFF",
    }  # fmt: skip
    return said | ({"state_on": "ON", "state_off": "OFF"} if switch else {})


def _number(config: PointConfig, device_class: str) -> dict[str, Any]:
    low, high = config.range or (-_LARGEST, _LARGEST)
    whole = promised(config) in {Kind.WHOLE, Kind.LARGE}
    if whole and not config.range and str(getattr(config, "type", "")).startswith("u"):
        low = 0
    step = 1.0 if whole else 10.0**-config.decimals if config.decimals is not None else min(abs(config.scale), 1.0)
    said: dict[str, Any] = {"min": low, "max": high, "step": max(step, 0.001), "mode": "box"}
    if config.unit:
        said["unit_of_measurement"] = config.unit
    # The classes of numbers are those of sensors, but for durations, which came late.
    return said | ({"device_class": device_class} if device_class not in {"", "duration"} else {})


class StateEncoder:
    """Readings as states: one message for each sample, in the form `OneSample` of the connector `mqtt`."""

    def __init__(self, gateway: str, names: Names) -> None:
        self._gateway = gateway
        self._names = names

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """One message for each sample."""
        return cut(batch, 1, one_device=True)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the sample can never be encoded."""
        if sum(bool(sample.points) for sample in chunk.samples) > 1:  # the forwarder divides it
            raise PermanentError("a state has one sample, and these are several", reason="samples")
        past = chunk.replay or envelope.lane is Lane.HISTORICAL
        where = self._names.history if past else self._names.state
        filled = next((sample for sample in chunk.samples if sample.points), chunk.samples[-1])
        whole = chunk if chunk.samples[-1] is filled else _ending_with(chunk, filled)
        return Message(where(filled.device), encode_sample(whole, envelope, self._gateway))


def _ending_with(chunk: Chunk, sample: Any) -> Chunk:
    """The same numbers, with the sample that is not empty where the encoder looks for it."""
    others = [one for one in chunk.samples if one is not sample]
    return Chunk(chunk.first, [*others, sample], chunk.readings, chunk.boot, chunk.replay)


def snapshot(names: Names, device: str, known: Mapping[str, TwinPoint]) -> Message | None:
    """What is known of a device now, for a Home Assistant that has just started; None if nothing is."""
    values: dict[str, Value] = {}
    for point, twin in known.items():
        if twin.reported is not None:
            values[point] = None if twin.reported.quality.status == "bad" else twin.reported.value
    return Message(names.state(device), orjson.dumps({"values": values, "snapshot": True})) if values else None


class HomeAssistantCommands:
    """Implements `edged.downlink.api.Dialect`. A command is the bare value; there is no answer but the next state."""

    def __init__(self, names: Names, devices: Mapping[str, DeviceConfig], valid_for: float, run: str) -> None:
        """`run`: something that no other process has had, since these commands have no id of their own."""
        self._names = names
        self._devices = devices
        self._valid_for = valid_for
        self._run = run
        self._count = 0

    def topics(self) -> Sequence[tuple[str, int]]:
        """See the protocol. Sessions begin anew, so nothing old waits there."""
        return [(f"{self._names.base}/set/+/+", 1)]

    def decode(self, message: Incoming) -> Sequence[Command]:
        """See the protocol."""
        prefix = f"{self._names.base}/set/"
        levels = message.topic.removeprefix(prefix).split("/")
        if not message.topic.startswith(prefix) or len(levels) != 2:  # noqa: PLR2004  # device and point
            return []
        if message.retained:
            raise Refused("retained", f"a command must not be retained: {message.topic}")
        device, point = map(unescape, levels)
        known = self._devices.get(device)
        points = {str(name): config for name, config in known.points.items()} if known else {}
        if point not in points:
            raise Refused("unknown-point", f"there is no {device}/{point}")
        self._count += 1
        return [
            Command(
                id=f"{self._run}-{self._count}", device=device, point=point,
                value=_value(message.payload, points[point]), valid_for=self._valid_for, requester="Home Assistant",
            )
        ]  # fmt: skip

    def encode(self, result: CommandResult) -> Sequence[Message]:  # noqa: ARG002  # whatever it is, nobody is told
        """See the protocol."""
        return []


def _value(payload: bytes, config: PointConfig) -> Value:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise Refused("malformed", "a command is a number, ON, OFF or a text") from None
    kind = promised(config)
    if kind is Kind.TEXT:
        return text
    if text in {"ON", "OFF"}:
        return text == "ON"
    if _NUMBER.fullmatch(text) is None:
        if kind is None:
            return text
        raise Refused("malformed", f"{text[:40]!r} is no number")
    number = float(text)
    return int(number) if kind in {Kind.WHOLE, Kind.LARGE} and number.is_integer() else number
