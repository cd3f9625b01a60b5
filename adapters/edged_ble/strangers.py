"""Who was heard without being configured: a bounded list, for people who look for a sensor. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .codecs.advert import Advertisement, uuid_of
from .config import Allow

MOST = 256
MOST_PRIVATE = 64
"""Senders remembered. Phones and the like change their address every few minutes; they have a list of their own, so
that they cannot push out sensors."""


@dataclass(slots=True)
class Stranger:
    """A sender that no device is configured for."""

    advertisement: Advertisement
    """The last that had any data."""
    rssi: int
    name: str | None
    count: int
    last: int
    """When it was heard last, microseconds since the epoch."""
    private: bool
    """Whether the address will change."""


class Allowed:
    """Whether a sender is to be remembered."""

    def __init__(self, allow: Allow | None) -> None:
        self._all = allow is None
        self._addresses = tuple(one.upper() for one in allow.addresses) if allow else ()
        self._names = allow.names if allow else ()
        self._services = frozenset(uuid_of(one) for one in allow.services) if allow else frozenset()
        self._companies = frozenset(allow.companies) if allow else frozenset()

    def __call__(self, adv: Advertisement) -> bool:
        if self._all:
            return True
        return (
            (bool(self._addresses) and adv.address.startswith(self._addresses))
            or not self._companies.isdisjoint(adv.manufacturer_data)
            or not self._services.isdisjoint(adv.service_data)
            or not self._services.isdisjoint(adv.service_uuids)
            or any(fnmatchcase(adv.name or "", pattern) for pattern in self._names)
        )


class Strangers:
    """Those heard last, at most `MOST` with a lasting address and `MOST_PRIVATE` with a passing one."""

    def __init__(self, allow: Allow | None) -> None:
        self._allowed = Allowed(allow)
        self._lasting: OrderedDict[str, Stranger] = OrderedDict()
        self._passing: OrderedDict[str, Stranger] = OrderedDict()

    def hear(self, adv: Advertisement, wall: int, *, private: bool) -> None:
        """Remember it, if it is allowed; the one that was silent longest makes room."""
        kept, most = (self._passing, MOST_PRIVATE) if private else (self._lasting, MOST)
        known = kept.get(adv.address)
        if known is None:
            if not self._allowed(adv):
                return
            kept[adv.address] = Stranger(adv, adv.rssi, adv.name, 1, wall, private)
            if len(kept) > most:
                kept.popitem(last=False)
            return
        known.rssi, known.last, known.count = adv.rssi, wall, known.count + 1
        known.name = adv.name or known.name
        if adv.manufacturer_data or adv.service_data:
            known.advertisement = adv
        kept.move_to_end(adv.address)

    def __len__(self) -> int:
        return len(self._lasting) + len(self._passing)

    def all(self) -> list[Stranger]:
        """Everybody, the strongest first."""
        return sorted([*self._lasting.values(), *self._passing.values()], key=lambda one: -one.rssi)


def is_private(address: str, kind: str) -> bool:
    """Whether a random address is one that changes (Core Specification 5.4, volume 6, part B, section 1.3.2)."""
    return kind == "random" and int(address[:2], 16) >> 6 != 0b11  # noqa: PLR2004  # 0b11 is a static one
