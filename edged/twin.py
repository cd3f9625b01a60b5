"""The twin: the last reported and the desired value of every point, kept over restarts.

What is reported is taken in by reference, one dict entry for each sample, and laid side by side only when somebody
looks. The disk sees it once an hour and at a stop: after a power cut an older value is shown, with its own time.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from edged.config.base import DeviceConfig
from edged.downlink.api import Change, TwinPoint, TwinValue
from edged.downlink.store import Desired, Store
from edged.errors import TransientError
from edged.model import GOOD, Quality, Reason, Sample

log = logging.getLogger("edged.twin")

_SAVE_EVERY = 3600.0
_SHAPES = 16
"""So many samples of different shape are kept of a device before they are laid together."""
_AT_A_TIME = 400
"""Devices that are saved in one transaction."""

_STALE = Quality("uncertain", Reason.STALE.value)
"""Of what was good before a restart, until the device has reported again."""
_Known = dict[str, TwinValue]
_NOTHING: Mapping[str, TwinValue] = MappingProxyType({})


def _laid(known: Mapping[str, TwinValue], sample: Sample) -> _Known:
    """What is known after one more sample. A bad reading changes only the quality."""
    after = dict(known)
    for i, (point, value) in enumerate(zip(sample.points, sample.values, strict=True)):
        quality = sample.quality.get(i, GOOD)
        before = known.get(point)
        if value is None and before is not None:
            after[point] = TwinValue(before.value, before.time, quality)
        else:
            after[point] = TwinValue(value, sample.time, quality)
    return after


@dataclass(slots=True)
class _Device:
    """Holds no dict of its own while all samples have one shape: there may be 100,000 devices."""

    latest: Sample | None = None
    others: dict[tuple[str, ...], Sample] | None = None
    """The newest of each other shape, the oldest first."""
    known: Mapping[str, TwinValue] = field(default_factory=lambda: _NOTHING)
    changed: bool = True
    loaded: bool = False
    """Whether `known` holds what the disk has."""

    def take(self, sample: Sample) -> None:
        fails = bool(sample.quality) and None in sample.values
        if fails:
            self.lay()  # what it takes the place of holds the last good values
        before, self.latest = self.latest, sample
        if before is not None and before.points != sample.points:
            if self.others is None:
                self.others = {}
            self.others.pop(sample.points, None)
            self.others[before.points] = before
        self.changed = True
        if (self.others and len(self.others) >= _SHAPES) or fails:
            self.lay()

    def lay(self) -> Mapping[str, TwinValue]:
        for sample in (*(self.others or {}).values(), *([self.latest] if self.latest else [])):
            self.known = _laid(self.known, sample)
        self.latest = self.others = None
        return self.known


class _Watcher:
    """Changes for one who watches; of each point the newest."""

    def __init__(self) -> None:
        self.changes: dict[tuple[str, str], Change] = {}
        self.news = asyncio.Event()


class KeptTwin:
    """Implements `edged.downlink.api.Twin`."""

    def __init__(self, devices: Mapping[str, DeviceConfig], store: Store) -> None:
        """`devices` must not change in place; a new configuration comes with `renew`."""
        self._store = store
        self._devices: dict[str, _Device] = {}
        self._desired: dict[str, dict[str, TwinValue]] = {}
        self._monitored: dict[str, dict[str, TwinValue | None]] = {}
        """Device → point with `monitor: true` → what was last told of it."""
        self._watchers: list[_Watcher] = []
        self.renew(devices)

    def renew(self, devices: Mapping[str, DeviceConfig]) -> None:
        """The configuration has changed."""
        self._configured = devices
        before = self._monitored
        self._monitored = {
            str(name): {str(point): before.get(str(name), {}).get(str(point)) for point in points}
            for name, device in devices.items()
            if device.enabled and (points := [point for point, one in device.points.items() if one.monitor])
        }
        for gone in self._devices.keys() - self._configured.keys():
            del self._devices[gone]

    # -- what comes ------------------------------------------------------------------------------------------------

    def take(self, sample: Sample) -> None:
        """A device has reported. Cheap."""
        device = self._devices.get(sample.device)
        if device is None:
            device = self._devices[sample.device] = _Device()
        device.take(sample)
        if self._monitored and sample.device in self._monitored:
            self._monitor(sample)

    def _monitor(self, sample: Sample) -> None:
        told = self._monitored[sample.device]
        for i, point in enumerate(sample.points):
            if point not in told:
                continue
            now = TwinValue(sample.values[i], sample.time, sample.quality.get(i, GOOD))
            before = told[point]
            if before is not None and (before.value, before.quality) == (now.value, now.quality):
                continue
            told[point] = now
            for watcher in self._watchers:
                watcher.changes[sample.device, point] = Change(sample.device, point, now)
                watcher.news.set()

    def desire(self, desired: Desired) -> None:
        """A point was told to be something."""
        self._desired.setdefault(desired.device, {})[desired.point] = TwinValue(desired.value, desired.time)

    # -- who looks -------------------------------------------------------------------------------------------------

    async def device(self, name: str) -> Mapping[str, TwinPoint]:
        """See `edged.downlink.api.Twin`."""
        reported, desired = await self._known(name), self._desired.get(name, {})
        config = self._configured.get(name)
        listed = frozenset(map(str, config.points)) if config else ()  # empty where the device itself says which it has
        return {
            point: TwinPoint(reported.get(point), desired.get(point))
            for point in sorted(reported.keys() | desired.keys())
            if not listed or point in listed
        }

    async def changes(self) -> AsyncIterator[Change]:
        """See `edged.downlink.api.Twin`."""
        watcher = _Watcher()
        self._watchers.append(watcher)
        try:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                while watcher.changes:
                    yield watcher.changes.pop(next(iter(watcher.changes)))
        finally:
            self._watchers.remove(watcher)

    async def _known(self, name: str) -> Mapping[str, TwinValue]:
        device = self._devices.get(name)
        if device is None:
            if name not in self._configured:
                return {}
            device = self._devices[name] = _Device(changed=False)
        await self._load([name])
        return device.lay()

    async def _load(self, names: Iterable[str]) -> None:
        """Fetch what was kept of devices, together: one by one, 100,000 of them would take a quarter of a minute."""
        unknown = [name for name in names if name in self._devices and not self._devices[name].loaded]
        if not unknown:
            return
        try:
            found = await self._store.reported(unknown)
        except TransientError as exc:
            log.debug("%s: %s", unknown[0], exc)
            return
        for name in unknown:
            device = self._devices.get(name)
            if device is not None and not device.loaded:
                device.loaded = True
                device.known = _older(_unpacked(found.get(name)), device.known)

    # -- the disk --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep what is known on the disk, until cancelled."""
        try:
            for desired in await self._store.desired():
                if desired.point not in self._desired.get(desired.device, {}):
                    self.desire(desired)
        except TransientError as exc:
            log.warning("what points were told to be is not known: %s", exc)
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self.save()

    async def save(self) -> None:
        """Write what has changed."""
        names = [name for name, device in self._devices.items() if device.changed]
        begin = 0
        try:
            for begin in range(0, len(names), _AT_A_TIME):
                some = names[begin : begin + _AT_A_TIME]
                await self._load(some)
                await self._store.keep([one async for one in self._packed(some)])
        except TransientError as exc:
            for name in names[begin:]:
                if name in self._devices:
                    self._devices[name].changed = True
            log.warning("the last values are not on the disk: %s", exc)

    async def _packed(self, names: Iterable[str]) -> AsyncIterator[tuple[str, bytes]]:
        for name in names:
            known = await self._known(name)
            if name in self._devices:
                self._devices[name].changed = False
            plain = {point: [one.value, one.time, str(one.quality)] for point, one in known.items()}
            yield name, zlib.compress(orjson.dumps(plain), 1)


def _older(older: Mapping[str, TwinValue], newer: Mapping[str, TwinValue]) -> _Known:
    """Both; of what is bad now, the last value is the older one's."""
    both = {**older, **newer}
    for point, now in newer.items():
        if now.value is None and point in older:
            both[point] = TwinValue(older[point].value, older[point].time, now.quality)
    return both


def _unpacked(data: bytes | None) -> _Known:
    if data is None:
        return {}
    try:
        known = {}
        for point, (value, time, quality) in orjson.loads(zlib.decompress(data)).items():
            was = Quality.parse(quality)
            known[point] = TwinValue(value, time, _STALE if was == GOOD else was)
    except (zlib.error, ValueError, TypeError, AttributeError):
        return {}  # the next save mends it
    return known
