"""Devices that publish without being there: to the broker of their bus, which can be any one on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from edged.adapter import ConfigError, Duration, EdgedError, Simulator, Value
from edged.testing.waveforms import Waveform, seed_of, waveform

from .config import MqttBus, MqttDevice, PresetName, endpoint
from .device import Device
from .path import Place
from .point import MqttPoint
from .presets import PRESETS
from .session import Session, VersionError
from .values import sent

_LEAST, _MOST = 0.2, 5.0
"""Seconds between two messages of a device."""
_PERIOD = 60.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_USUAL: Mapping[str, tuple[float, float]] = {"°C": (15, 28), "%": (30, 60), "hPa": (990, 1030), "V": (2.6, 3.4)}
"""Unit → what such a value usually is."""
Messages = list[tuple[str, bytes]]


@dataclass(slots=True)
class _Simulation:
    """Satisfies `edged.adapter.Simulator`."""

    endpoints: dict[str, str] = field(default_factory=dict)
    messages: int = 0

    def state(self) -> Mapping[str, int]:
        """How many messages were published."""
        return {"messages": self.messages}


@asynccontextmanager
async def simulation(
    buses: Mapping[str, tuple[MqttBus, Mapping[str, MqttDevice]]], _host: str, seed: int
) -> AsyncIterator[Simulator]:
    """Publish for the devices of these buses. Raises ConfigError: for a broker elsewhere, or one that is not there."""
    made = _Simulation()
    playing: list[tuple[str, Session, Callable[[float], Messages], float]] = []
    async with contextlib.AsyncExitStack() as stack:
        for name, (config, devices) in buses.items():
            players = [player(name, config, device, spec, seed) for device, spec in devices.items()]
            session = await _connect(name, config)
            stack.push_async_callback(session.close)
            made.endpoints[name] = config.url
            named = zip(devices, players, strict=True)
            playing += [(f"{name} plays {device}", session, say, every) for device, (say, every) in named]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(_play(made, who, say, every), name=name) for name, who, say, every in playing]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()


async def _connect(name: str, config: MqttBus) -> Session:
    if endpoint(config.url).host not in _LOOPBACK:
        raise ConfigError(f"{name}: values are made up only for a broker on this machine, such as mqtt://localhost")
    settings = replace(config, session_expiry=Duration(0))
    session = Session(settings, f"edged-simulate-{name}", v5=config.protocol != "3.1.1", wake=lambda: None)
    try:
        await session.open()
    except (EdgedError, VersionError) as exc:
        raise ConfigError(f"{name}: {exc}: a broker must run there, such as mosquitto") from exc
    return session


async def _play(made: _Simulation, session: Session, say: Callable[[float], Messages], every: float) -> None:
    while True:
        for topic, payload in say(time.time()):
            await session.publish(topic, payload, qos=0)
            made.messages += 1
        await asyncio.sleep(every)


def player(
    bus: str, config: MqttBus, name: str, spec: MqttDevice, seed: int
) -> tuple[Callable[[float], Messages], float]:
    """(What a device publishes at a time, how often). Raises ConfigError for one that cannot be simulated."""
    if spec.codec:
        raise ConfigError(
            f"{name} cannot be simulated: nobody knows the bytes that its codec would read; leave the device out, with "
            f"`enabled: false`"
        )
    if "+" in spec.topic or "#" in spec.topic:
        raise ConfigError(f"{name} cannot be simulated: its `topic` stands for many")
    called = Device(name, spec, PRESETS[config.preset](config)).called
    waves = {str(point): _wave(one, seed_of(seed, bus, name, point)) for point, one in spec.points.items()}
    maker = _MAKERS[config.preset]

    def say(now: float) -> Messages:
        bare: Messages = []
        values: dict[str, Any] = {}
        for point, one in spec.points.items():
            where = str(point) if one.field is None else one.field
            raw = sent(one, _value(one, waves[str(point)], now))
            if one.topic and (config.preset == "json" or not where):
                bare.append((one.topic.replace("{id}", called), _payload(where, raw)))
            elif not where.startswith(("@", "$.", "/")) and where:
                _put(values, Place.parse(where).steps, raw)
        return [*bare, *maker(config, spec, called, values, now)] if values else bare

    return say, min(max(float(spec.every), _LEAST), _MOST)


def _wave(point: MqttPoint, seed: int) -> Waveform:
    low, high = point.range or _USUAL.get(point.unit, (0.0, 100.0))
    return waveform("sine", low, high, period=_PERIOD, seed=seed)


def _value(point: MqttPoint, wave: Waveform, now: float) -> Value:
    turn = int(now / 10)
    if point.enum:
        return list(point.enum.values())[turn % len(point.enum)]
    if point.type == "boolean":
        return turn % 2 == 0
    if point.type == "text":
        return "text"
    if point.type == "integer" and (point.scale, point.offset, point.map) == (1.0, 0.0, None):
        return round(wave(now))
    if point.type == "integer":
        raw = point.map.raw[0] if point.map else round((wave(now) - point.offset) / point.scale)
        return point.map.to[0] if point.map else raw * point.scale + point.offset
    return round(wave(now), 3)


def _put(values: dict[str, Any], steps: tuple[str, ...], value: Any) -> None:
    for step in steps[:-1]:
        values = values.setdefault(step, {})
    values[steps[-1]] = value


def _payload(where: str, value: Any) -> bytes:
    if not where:
        return value.encode() if isinstance(value, str) else orjson.dumps(value)
    values: dict[str, Any] = {}
    _put(values, Place.parse(where).steps, value)
    return orjson.dumps(values)


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _application(config: MqttBus) -> str:
    return "simulated" if config.application == "+" else config.application


def _chirpstack(config: MqttBus, spec: MqttDevice, name: str, values: Any, now: float) -> Messages:
    content = {
        "time": _iso(now), "deviceInfo": {"devEui": name.casefold()}, "fCnt": int(now) & 0xFFFF,
        "fPort": spec.ports[0] if spec.ports else 1, "data": "AA==", "object": values,
        "rxInfo": [{"gatewayId": "0" * 16, "rssi": -80, "snr": 7.5}],
    }  # fmt: skip
    return [(f"application/{_application(config)}/device/{name.casefold()}/event/up", orjson.dumps(content))]


def _thethingsstack(config: MqttBus, spec: MqttDevice, name: str, values: Any, now: float) -> Messages:
    uplink = {
        "f_port": spec.ports[0] if spec.ports else 1, "f_cnt": int(now) & 0xFFFF, "frm_payload": "AA==",
        "decoded_payload": values, "received_at": _iso(now), "rx_metadata": [{"rssi": -80, "snr": 7.5}],
    }  # fmt: skip
    content = {"end_device_ids": {"device_id": name}, "received_at": _iso(now), "uplink_message": uplink}
    return [(f"v3/{_application(config)}/devices/{name}/up", orjson.dumps(content))]


def _zigbee2mqtt(config: MqttBus, _spec: MqttDevice, name: str, values: Any, _now: float) -> Messages:
    return [(f"{config.base or 'zigbee2mqtt'}/{name}", orjson.dumps(values))]


def _tasmota(_config: MqttBus, _spec: MqttDevice, name: str, values: Any, _now: float) -> Messages:
    return [(f"tele/{name}/SENSOR", orjson.dumps(values))]


def _shelly(_config: MqttBus, _spec: MqttDevice, name: str, values: Any, now: float) -> Messages:
    content = {"src": name, "dst": f"{name}/events", "method": "NotifyStatus", "params": {"ts": now, **values}}
    return [(f"{name}/events/rpc", orjson.dumps(content))]


def _plain(_config: MqttBus, spec: MqttDevice, name: str, values: Any, _now: float) -> Messages:
    return [(spec.topic.replace("{id}", name), orjson.dumps(values))]


_MAKERS: Mapping[PresetName, Callable[[MqttBus, MqttDevice, str, Any, float], Messages]] = {
    "chirpstack": _chirpstack,
    "thethingsstack": _thethingsstack,
    "zigbee2mqtt": _zigbee2mqtt,
    "tasmota": _tasmota,
    "shelly": _shelly,
    "json": _plain,
}
