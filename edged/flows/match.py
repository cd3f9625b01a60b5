"""Which readings a flow takes: by key, labels, adapter, site, device and point. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from edged.config.flows import MatchConfig


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a flow knows of a device."""

    adapter: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    """Point → its unit."""


@dataclass(frozen=True, slots=True)
class Site:
    """What a flow knows of the gateway."""

    gateway: str
    tenant: str = ""
    building: str = ""
    location: str = ""

    def names(self) -> tuple[str, ...]:
        """All by which it is known."""
        return tuple(one for one in (self.gateway, self.tenant, self.building, self.location) if one)


def pattern(text: str) -> Callable[[str], bool]:
    """Whether a text fits a pattern with `*`, `?` and `[abc]`; upper and lower case are the same."""
    fits = re.compile(translate(text.casefold())).match
    return lambda one: fits(one.casefold()) is not None


class Match:
    """The points of a device that some matchers take together."""

    def __init__(self, matchers: Sequence[MatchConfig], site: Site) -> None:
        self._matchers = [_Matcher(one, site) for one in matchers]

    def points(self, device: str, info: DeviceInfo, points: Sequence[str]) -> list[int]:
        """The indices of those of the points that one of the matchers takes."""
        if not self._matchers:
            return list(range(len(points)))
        tests = [test for one in self._matchers if (test := one.point_test(device, info))]
        return [i for i, point in enumerate(points) if any(test(point) for test in tests)]


class _Matcher:
    def __init__(self, config: MatchConfig, site: Site) -> None:
        self._config = config
        self._site = site

    def point_test(self, device: str, info: DeviceInfo) -> Callable[[str], bool] | None:
        """What tells whether a point of this device fits; None if none does."""
        config = self._config
        labels = {name.casefold(): str(value) for name, value in info.labels.items()}
        fits = (
            (not config.adapter or pattern(config.adapter)(info.adapter))
            and (not config.device or pattern(config.device)(device))
            and (not config.site or any(map(pattern(config.site), self._site.names())))
            and all(pattern(value)(labels.get(name.casefold(), "")) for name, value in config.labels.items())
        )
        if not fits:
            return None
        by_key = self._by_key(device)
        if by_key is None:
            return None
        by_point = pattern(config.point or "*")
        return lambda point: by_point(point) and by_key(point)

    def _by_key(self, device: str) -> Callable[[str], bool] | None:
        if not self._config.key:
            return pattern("*")
        *before, owner, point = self._config.key.split("/") if "/" in self._config.key else (self._config.key, "*")
        by_device, by_site = pattern(owner)(device), any(map(pattern(owner), self._site.names()))
        of_site = not before or any(map(pattern(before[0]), self._site.names()))
        here = (by_device and of_site) if before else (by_device or by_site)
        return pattern(point) if here else None
