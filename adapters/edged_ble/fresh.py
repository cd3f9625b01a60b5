"""Which part of what bluetoothd says of a device was in the advertisement just received. Pure.

bluetoothd merges all that it ever heard of a device, and bleak hands out the whole at every change of any property: of
the signal's strength, or when a connection begins. An old measurement would come again as if it were new.

But bleak replaces the object of a property only when bluetoothd sent that property. So a property whose object is the
same as before was not in this advertisement. This holds because scanning is active with `DuplicateData`: then
bluetoothd sends the data of every advertisement, also unchanged ones, and only its own (BlueZ, src/device.c,
device_set_manufacturer_data). While scanning passively it sends only what changed, and merges by company or service.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

_MOST = 2048
"""Devices remembered beyond those that are kept; the rest are strangers anyway."""
_NONE: Mapping[Any, Any] = {}


class Fresh:
    """Tells new from old, for all devices of one radio."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[Any, Any, Any]] = OrderedDict()
        self._kept: dict[str, tuple[Any, Any, Any]] = {}
        self._cached: set[str] = set()

    def __len__(self) -> int:
        return len(self._last) + len(self._kept)

    def begin(self, cached: Collection[str]) -> None:
        """From here on bleak starts with an empty memory, and bluetoothd knew these paths already."""
        self._last.clear()
        self._kept.clear()
        self._cached = set(cached)

    def parts(
        self, path: str, properties: Mapping[str, Any], *, keep: bool, passive: bool
    ) -> tuple[Mapping[int, bytes], Mapping[str, bytes], bool]:
        """(manufacturer data, service data) of this advertisement, and whether it was one at all.

        `keep`: never forget this device, in favour of others.
        """
        rssi = properties.get("RSSI")
        manufacturer, service = properties.get("ManufacturerData"), properties.get("ServiceData")
        memory: dict[str, tuple[Any, Any, Any]] = self._kept if keep else self._last
        last = memory.get(path)
        memory[path] = (manufacturer, service, rssi)
        if memory is self._last:
            self._last.move_to_end(path)
            if len(self._last) > _MOST:
                self._last.popitem(last=False)
        if rssi is None:
            return _NONE, _NONE, False  # bluetoothd removes it when nobody scans
        if last is None:
            if path in self._cached:
                # What bluetoothd knew before may be as old as it likes.
                self._cached.discard(path)
                return _NONE, _NONE, False
            return manufacturer or _NONE, service or _NONE, True
        new_manufacturer = _new(last[0], manufacturer, passive=passive)
        new_service = _new(last[1], service, passive=passive)
        return new_manufacturer, new_service, bool(new_manufacturer or new_service or rssi != last[2])


def _new(before: Mapping[Any, Any] | None, now: Mapping[Any, Any] | None, *, passive: bool) -> Mapping[Any, Any]:
    if now is None or now is before:
        return _NONE
    if not passive or before is None:
        return now
    return {key: data for key, data in now.items() if before.get(key) != data} or now
