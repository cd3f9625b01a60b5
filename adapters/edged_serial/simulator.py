"""The devices of profiles without the devices: they answer, or talk by themselves, on pseudo terminals.

Every point follows a waveform; what a frame looks like is the `sample` of its message, or what its decoder can encode.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from pathlib import Path

from edged.adapter import ConfigError, Name, Simulator
from edged.testing.line import Burst, Line
from edged.testing.lineserver import reachable
from edged.testing.waveforms import Waveform, seed_of, waveform

from .codecs import mbus
from .codecs.decode import StructDecoder
from .codecs.sml import transmission
from .codecs.talk import Template, Value
from .codecs.values import Measured, Raw
from .config import SerialBus, SerialDevice
from .device import Device, Kind, raw_value
from .parts import to_bytes

_REACTION = 0.005
_IDENTIFICATION = b"/EDG0edged-simulator\r\n"
"""0: it goes on at 300 baud, which is how fast the simulated line is."""


@dataclass(slots=True)
class Player:
    """Plays one device. Pure but for the time it is given."""

    bus: str
    device: Device
    seed: int = 0
    requests: dict[bytes, tuple[Kind, int]] = field(default_factory=dict)
    _waves: dict[str, Waveform] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, point in self.device.config.points.items():
            low, high = point.range or (0.0, 100.0)
            seed = seed_of(self.seed, self.bus, self.device.name, name)
            self._waves[name] = waveform("sine", low, high, period=60, seed=seed)
        for kind in self.device.kinds.values():
            if kind.send.text:
                numbers = range(256) if "sequence" in kind.send.names else range(1)
                for number in numbers:
                    self.requests[kind.send.render(self.device.config.places(number), kind.check)] = kind, number
            self.frame(kind, 0.0)  # what cannot be played is told at once

    def value(self, point: Name, now: float) -> Value:
        """What a point would be sent as, at a time."""
        spec = self.device.config.points[point]
        if spec.enum:
            return list(spec.enum)[int(now / 10) % len(spec.enum)]
        if spec.type == "text":
            return "text"
        if spec.type == "boolean" or spec.bit is not None:
            return int(now / 10) % 2
        if spec.flags:
            return 1 << min(spec.flags)
        return raw_value(self.device.config, point, self._waves[point](now))

    def frame(self, kind: Kind, now: float, sequence: int = 0) -> bytes:
        """A frame of a kind, on the wire. Raises ConfigError if nobody knows how it looks."""
        points = [name for name in self.device.config.points if self.device.config.message_of(name) == kind.name]
        values: dict[str, Value] = {name: self.value(name, now) for name in points}
        sample = self.device.config.kinds[kind.name].sample
        if sample:
            try:
                template = Template(sample, (*values, "address", "sequence", "check"))
                rounded = {name: _round(value) if name in template.whole else value for name, value in values.items()}
                content = template.render(self.device.config.places(sequence) | rounded, kind.check)
            except ValueError as exc:
                raise ConfigError(f"{self.device.name}: the sample of message {kind.name}: {exc}") from None
            return _wrap(kind, content, checked="check" in template.names)
        fields = self._fields(kind, values, sequence)
        encoded = kind.decoder.encode(fields)
        if encoded is None:
            raise ConfigError(
                f"{self.device.name}: message {kind.name} cannot be simulated: give it a `sample`, how a frame looks"
            )
        return _wrap(kind, encoded, checked=False)

    def _fields(self, kind: Kind, values: Mapping[str, Value], sequence: int) -> dict[str, Raw]:
        fields: dict[str, Raw] = dict(kind.expect)
        names = kind.decoder.fields() or frozenset()
        fields |= {name: place for name, place in self.device.config.places(sequence).items() if name in names}
        whole = isinstance(kind.decoder, StructDecoder)
        for point, value in values.items():
            spec = self.device.config.points[Name(point)]
            number = round(value) if whole and isinstance(value, float) else value
            sml = kind.framing.type == "sml" and isinstance(number, int | float)
            fields[spec.field or point] = Measured(float(number), spec.unit) if sml else number
        return fields


def _round(value: Value) -> Value:
    return round(value) if isinstance(value, float) else value


def _wrap(kind: Kind, content: bytes, *, checked: bool) -> bytes:
    match kind.framing.type:
        case "sml":
            return transmission(content)
        case "mbus":
            return mbus.long_frame(content)
    if isinstance(kind.decoder, StructDecoder):
        start, stop = (to_bytes(text, "") for text in (kind.framing.start, kind.framing.stop))
        content = start + content[len(start) : len(content) - len(stop)] + stop
    if kind.check is not None and not checked:
        content = _with_check(kind, content)
    return kind.framing.wrap(content)


def _with_check(kind: Kind, content: bytes) -> bytes:
    """Put the checksum where it belongs: over what the layout left for it, or at the end."""
    check = kind.check
    if check is None:
        return content
    if isinstance(kind.decoder, StructDecoder):  # a binary layout has a place for it
        at = -check.size if check.at is None else check.at
        start = at if at >= 0 else len(content) + at
        return content[:start] + check.encode(check.covered(content)) + content[start + check.size :]
    whole = content + bytes(check.size)
    return content + check.encode(check.covered(whole))


class LinePlayer:
    """All devices of one line."""

    def __init__(self, players: Sequence[Player]) -> None:
        self.players = players
        self.sentences = 0

    def respond(self, request: bytes) -> Sequence[Burst]:
        """What the devices send on hearing something."""
        now = time.time()
        for player in self.players:
            conversation = _DIALOGUES.get(player.device.config.dialogue or "")
            if conversation is not None:
                answer = conversation(player, request, now)
                if answer:
                    return [Burst(answer, _REACTION)]
            found = player.requests.get(request)
            if found is not None:
                return [Burst(player.frame(found[0], now, found[1]), _REACTION)]
            wake = player.device.config.wake
            if (
                wake is not None
                and wake.answer
                and request == Template(wake.send).render(player.device.config.places())
            ):
                return [Burst(Template(wake.answer).render(player.device.config.places()), _REACTION)]
        return []

    async def talk(self, line: Line, player: Player, kind: Kind) -> None:
        """Send what a device sends by itself, for ever."""
        period = min(float(player.device.config.every), 1.0)
        while True:
            line.say(Burst(player.frame(kind, time.time()), 0))
            self.sentences += 1
            await asyncio.sleep(period)


def _play_mbus(player: Player, request: bytes, now: float) -> bytes:
    address = player.device.config.address
    if not mbus.valid(request) or address is None:
        return b""
    own = mbus.parse_address(address)
    primary = mbus.SELECTED if isinstance(own, str) else own
    kind = next(iter(player.device.kinds.values()))
    if request == mbus.reset_link(primary):
        return mbus.ACK
    if isinstance(own, str) and request == mbus.select(own):
        return mbus.ACK
    if request in {mbus.request_data(primary, count=count) for count in (True, False)}:
        return player.frame(kind, now)
    return b""


def _play_meter(player: Player, request: bytes, now: float) -> bytes:
    address = player.device.config.address
    if request == f"/?{'' if address is None else address}!\r\n".encode():
        return _IDENTIFICATION
    if request.startswith(b"\x060"):
        kind = next(iter(player.device.kinds.values()))
        body = b"\x02" + player.frame(kind, now).strip() + b"\r\n!\r\n\x03"
        return body + bytes([reduce(xor, body[1:], 0)])
    return b""


_DIALOGUES: Mapping[str, Callable[[Player, bytes, float], bytes]] = {"mbus": _play_mbus, "iec62056-21": _play_meter}


@dataclass(slots=True)
class _Served:
    """Satisfies `edged.adapter.Simulator`."""

    lines: dict[str, Line] = field(default_factory=dict)
    """The lines by bus, whose faults can be changed at any time."""
    endpoints: dict[str, str] = field(default_factory=dict)
    """Bus → the port to open."""
    players: list[LinePlayer] = field(default_factory=list)

    def state(self) -> Mapping[str, int]:
        """What was asked, answered and sent by itself."""
        return {
            "requests": sum(line.requests for line in self.lines.values()),
            "answers": sum(line.answers for line in self.lines.values()),
            "sentences": sum(player.sentences for player in self.players),
        }


@asynccontextmanager
async def simulated(
    buses: Mapping[str, tuple[SerialBus, Mapping[str, SerialDevice]]], *, host: str, seed: int = 0
) -> AsyncIterator[Simulator]:
    """Serve the devices of these lines. A port that is a path outside /dev is made to lead to the simulation.

    Raises ConfigError for a device that cannot be simulated.
    """
    served = _Served()
    talkers: list[tuple[LinePlayer, Line, Player, Kind]] = []
    async with AsyncExitStack() as stack:
        for name, (config, devices) in buses.items():
            players = [Player(name, Device.compile(device, spec), seed) for device, spec in devices.items()]
            player = LinePlayer(players)
            link = Path(config.port) if config.port.startswith("/") and not config.port.startswith("/dev/") else None
            settings = config.settings(devices)
            line = await stack.enter_async_context(
                Line(player.respond, baudrate=settings.baudrate, character_bits=settings.character_bits, link=link)
            )
            served.lines[name] = line
            served.endpoints[name] = await stack.enter_async_context(reachable(line, name, config.port, host))
            served.players.append(player)
            talkers += [
                (player, line, one, kind)
                for one in players
                for kind in one.device.kinds.values()
                if not one.device.asked(kind)
            ]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [
            group.create_task(player.talk(line, one, kind), name=f"{one.device.name} talks")
            for player, line, one, kind in talkers
        ]
        try:
            yield served
        finally:
            for task in tasks:
                task.cancel()
