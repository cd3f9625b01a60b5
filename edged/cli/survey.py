"""The survey behind `edged scan modbus` and `edged init --scan`: who answers, and what it is."""

from __future__ import annotations

import asyncio
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.cli.explore import Ask, Place, explorer_of, progress, try_read, way_to
from edged.errors import ConfigError, PermanentError, TransientError

if TYPE_CHECKING:
    from edged.config.model import Config

_LINE, _HOST = "modbus-rtu", "modbus-tcp"
_LINE_UNITS, _HOST_UNITS = range(1, 248), range(1, 33)
_LINE_TIMEOUT, _HOST_TIMEOUT = 0.3, 1.0
_FIRST = 16
"""Low unit numbers are tried with every setting of the line before the others: most devices have one."""
_UNLIKELY = (247, 246)
"""Unit numbers that answer only at a host that does not care for them."""
_PATIENCE = 1.0
"""Seconds for the answers of a unit that is there."""
_SILENCES = 3
"""So many unanswered fingerprints, and no more are tried."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to try."""

    units: Sequence[int] = ()
    bauds: Sequence[int] = ()
    parities: Sequence[str] = ()
    tcp_ports: Sequence[int] = (502,)
    timeout: float | None = None
    every_setting: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One unit that answers."""

    place: Place
    """Its bus, as it answered."""
    known_bus: bool
    """The configuration has the bus already."""
    unit: int
    identity: Mapping[str, str]
    profiles: Sequence[str]
    """Those that fit, the best first."""
    title: str = ""
    """What the best is called."""

    def __str__(self) -> str:
        return f"unit {self.unit} on {_where(self.place)}: {self.what}"

    @property
    def what(self) -> str:
        """What it is, as far as it is known."""
        named = ", ".join(text for text in self.identity.values() if text)
        if not self.profiles:
            return f"no profile fits{f'; it says it is {named}' if named else ''}"
        others = f", or {', '.join(self.profiles[1:])}" if len(self.profiles) > 1 else ""
        return f"{self.title or self.profiles[0]} (profile {self.profiles[0]}{others})"

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bus": self.place.bus, "settings": settings_of(self.place.bus_config), "unit": self.unit,
            "identity": dict(self.identity), "profile": self.profiles[0] if self.profiles else None,
            "profiles": list(self.profiles),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Medium:
    """A line, or one port of a host, and the settings it may have."""

    settings: tuple[Place, ...]
    units: Sequence[int]
    timeout: float
    known: bool


class Survey:
    """One scan. `found` and `notes` are filled as it goes, so that they are there when it is interrupted."""

    def __init__(self, wanted: Wanted, socket: Path, *, direct: bool, tell: Callable[[str], None]) -> None:
        self.found: list[Found] = []
        self.notes: list[str] = []
        self._wanted, self._socket, self._direct, self._tell = wanted, socket, direct, tell
        self._media: list[_Medium] = []
        self._folders: list[Path] = []
        self._done = 0

    def add(self, targets: Sequence[str], config: Config | None, base: Path) -> None:
        """What to look at: buses of the configuration, serial ports, hosts. Raises ConfigError."""
        if config is not None:
            self._folders.append(base / "profiles")
        names = self._names(config)
        for target in targets:
            bus = None if config is None else _bus_named(config, target)
            if bus is not None and config is not None:
                place = Place(bus, config.buses[bus], config.devices_on(bus), base=base)
                line = hasattr(place.bus_config, "baudrate")
                self._media.append(self._medium((place,), line=line, known=True))
            elif target.startswith(("/", "usb:")) or "://" in target:
                self._media.append(self._medium(tuple(self._settings(target, next(names))), line=True))
            else:
                for port in self._wanted.tcp_ports:
                    self._media.append(self._medium((_host(target, port),), line=False))

    def _medium(self, settings: tuple[Place, ...], *, line: bool, known: bool = False) -> _Medium:
        units = self._wanted.units or (_LINE_UNITS if line else _HOST_UNITS)
        timeout = self._wanted.timeout or (_LINE_TIMEOUT if line else _HOST_TIMEOUT)
        return _Medium(settings, list(units), timeout, known)

    def _names(self, config: Config | None) -> Iterator[str]:
        taken = set() if config is None else set(map(str, config.buses))
        return (name for name in (f"line-{letter}" for letter in string.ascii_lowercase) if name not in taken)

    def _settings(self, port: str, name: str) -> Iterator[Place]:
        from edged.adapter import load_adapter  # only a survey pays for it

        bus_config: Any = load_adapter(_LINE).bus_config
        explorer = explorer_of(_LINE)
        for parity in self._wanted.parities or explorer.parities:
            for baud in self._wanted.bauds or explorer.baudrates:
                try:
                    settings = bus_config(adapter=_LINE, port=_stable(port), baudrate=baud, parity=parity)
                except ValueError as exc:
                    raise ConfigError(str(exc)) from exc
                yield Place(name, settings)

    # -- the work ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at everything. What cannot be reached becomes a note."""
        total = sum(len(one.units) * len(one.settings) for one in self._media)
        with progress("scan", total) as self._advance:
            expected = 0
            for medium in self._media:
                expected += len(medium.units) * len(medium.settings)
                try:
                    await self._look(medium)
                except TransientError as exc:
                    self.notes.append(f"{_where(medium.settings[0])}: {exc}")
                self._done = expected
                self._advance(self._done)

    async def _look(self, medium: _Medium) -> None:
        """The likely units with every setting first; where one answered, the rest with that setting only."""
        first, rest = medium.units[:_FIRST], medium.units[_FIRST:]
        chosen = []
        for place in medium.settings:
            if await self._units(place, medium, first):
                chosen.append(place)
                if not self._wanted.every_setting:
                    break
        for place in chosen or medium.settings:
            if await self._units(place, medium, rest) and not self._wanted.every_setting:
                break

    async def _units(self, place: Place, medium: _Medium, units: Sequence[int]) -> int:
        """Ask these units; returns how many are there."""
        there = []
        async with way_to(place, self._socket, direct=self._direct) as (ask, through):
            if through:
                self._note(
                    f"{place.bus} is in use by the running gateway: asked through it, between its polls, at its own "
                    "settings; stop the gateway to try others"
                )
            for unit in units:
                if await self._present(ask, place, unit, medium.timeout, through=through):
                    there.append(unit)
                self._done += 1
                self._advance(self._done)
            if place.bus_config.adapter == _HOST and await self._answers_to_all(ask, place, medium, there):
                there = there[:1]
            for unit in there:
                await self._identify(ask, place, unit, known=medium.known)
        return len(there)

    async def _present(self, ask: Ask, place: Place, unit: int, timeout: float, *, through: bool = False) -> bool:  # noqa: ASYNC109  # of one read
        began = time.monotonic()
        span = place.explorer.span(place.explorer.present)
        answer = await try_read(ask, unit, span, timeout, attempts=1)
        if through and answer is None:
            await asyncio.sleep(time.monotonic() - began)  # the polls get at least as much of the bus
        return answer is not None

    async def _answers_to_all(self, ask: Ask, place: Place, medium: _Medium, there: Sequence[int]) -> bool:
        if len(there) < 2 or len(there) < len(medium.units[:_FIRST]):  # noqa: PLR2004  # several answered
            return False
        for unit in _UNLIKELY:
            if not await self._present(ask, place, unit, medium.timeout):
                return False
        self._note(f"{_where(place)} answers to every unit number alike: it is one device")
        return True

    async def _identify(self, ask: Ask, place: Place, unit: int, *, known: bool) -> None:
        from edged.adapter import RawRequest  # as above

        identity: Mapping[str, str] = {}
        try:
            texts = (await ask(RawRequest(unit, "identification", timeout=_PATIENCE))).texts
            identity = {key: _printable(text) for key, text in texts.items()}
        except PermanentError:
            pass  # most devices do not say
        except TransientError as exc:
            if exc.reason == "unreachable" and not getattr(exc, "code", 0):
                raise
        profiles = await self._fitting(ask, unit)
        title = self.profiles[profiles[0]][1] if profiles else ""
        found = Found(place, known, unit, identity, profiles, title)
        self.found.append(found)
        self._tell(str(found))

    async def _fitting(self, ask: Ask, unit: int) -> list[str]:
        """The profiles whose fingerprints hold, the sharpest first."""
        read: dict[Any, Sequence[int] | int | None] = {}
        silences = 0
        fitting = []
        for name, (print_, _) in self.profiles.items():
            for clause in print_.clauses:
                if clause.span not in read:
                    if silences >= _SILENCES:
                        break
                    answer = read[clause.span] = await try_read(ask, unit, clause.span, _PATIENCE, attempts=1)
                    silences = silences + 1 if answer is None else 0
                words = read[clause.span]
                if words is None or isinstance(words, int) or not clause.holds(words):
                    break
            else:
                fitting.append(name)
        if silences >= _SILENCES:
            self._note(f"unit {unit} keeps silent about registers it does not have: not all profiles were tried")
        return fitting

    @cached_property
    def profiles(self) -> dict[str, tuple[Any, str]]:
        """Fingerprint and title of every profile that has one, the sharpest first; local ones win."""
        from edged.adapter import load_adapter  # as above

        explorer, shipped = explorer_of(_LINE), load_adapter(_LINE).profiles()
        found: dict[str, tuple[Any, str]] = {}
        for folder in [*([shipped] if shipped else []), *self._folders]:
            for file in sorted(folder.glob("*.yaml")):
                try:
                    record = _head_of(file)
                    print_ = explorer.fingerprint(record)
                except (ValueError, OSError) as exc:
                    self._note(f"{file}: {exc}")
                    continue
                if print_ is not None:
                    found[file.stem] = print_, str(record.get("title", ""))
        return dict(sorted(found.items(), key=lambda item: -item[1][0].bits))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _head_of(file: Path) -> dict[str, Any]:
    """What a profile says apart from points and tests, which take long to parse. Raises ValueError, OSError."""
    from ruamel.yaml import YAML  # as above
    from ruamel.yaml.error import YAMLError

    text = file.read_text("utf-8")
    if not re.search(r"^fingerprint:", text, re.MULTILINE):
        return {}
    parts = re.split(r"^(?=[A-Za-z_])", text, flags=re.MULTILINE)
    wanted = [part for part in parts if part.partition(":")[0] in {"profile", "title", "device", "fingerprint"}]
    try:
        record = YAML(typ="safe", pure=True).load("".join(wanted))
    except YAMLError as exc:
        raise ValueError(" ".join(str(exc).split())) from exc
    return record if isinstance(record, dict) else {}


def _bus_named(config: Config, target: str) -> str | None:
    """The bus that is meant, by its name or by the port it uses."""
    if target in config.buses:
        return target
    ports = {_stable(str(getattr(bus, "port", ""))): str(name) for name, bus in config.buses.items()}
    return ports.get(_stable(target))


def _stable(port: str) -> str:
    """The name of a serial port that survives replugging, if it has one."""
    from edged.media import list_ports  # as above

    return next((one.name for one in list_ports() if one.path == port), port)


def _host(target: str, port: int) -> Place:
    from edged.adapter import load_adapter  # as above

    match = re.fullmatch(r"\[?([^\[\]]+?)\]?(?::(\d{1,5}))?", target) if target.count(":") <= 1 else None
    host, own = (match[1], match[2]) if match else (target, None)
    number = int(own) if own else port
    name = "tcp-" + re.sub(r"[^A-Za-z0-9.-]", "-", host) + ("" if number == 502 else f"-{number}")  # noqa: PLR2004  # the usual port
    make: Any = load_adapter(_HOST).bus_config
    try:
        return Place(name[:64], make(adapter=_HOST, host=host, port=number))
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def settings_of(bus_config: Any) -> dict[str, Any]:
    """What a person would write of a bus."""
    keys = ("adapter", "host", "port") if hasattr(bus_config, "host") else ("adapter", "port", "baudrate", "parity")
    return {key: getattr(bus_config, key) for key in keys if hasattr(bus_config, key)}


def _printable(text: str) -> str:
    """What a device says goes to terminals and into files: no line ends and no control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _where(place: Place) -> str:
    """For people."""
    settings = settings_of(place.bus_config)
    if "baudrate" in settings:
        return f"{settings.get('port', place.bus)} at {settings['baudrate']} {settings.get('parity', '')}".rstrip()
    return f"{settings['host']}:{settings['port']}" if "host" in settings else place.bus
