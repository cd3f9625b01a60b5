"""The documents in which clouds keep what is reported of a gateway and what is desired of it. Pure.

Device → point → value on either side. AWS calls it a shadow, Azure a device twin; both are changed by merging
(RFC 7396): what is named changes, what is null goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

import orjson

from edged.config.base import DeviceConfig, PointConfig
from edged.downlink.api import Command, CommandResult, Reply, TwinPoint
from edged.model import Reason, bad

OWN = "edged:gateway"
"""What edged itself has to say in the reported document. No device can be called so."""
_LOST = str(bad(Reason.DECODE))
_LONG_AGO = 1
_SEEN = 10_000
"""So many points have the last wish for them remembered, whatever names somebody makes up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cloud's document can hold."""

    size: int
    """Bytes of the reported document."""
    largest: int = 2**63 - 1
    """The largest whole number."""
    longest: int = 4096
    """Bytes of a text."""
    dots: bool = True
    """Whether a name may contain one."""

    def key(self, name: str) -> str:
        """A name as the document has it."""
        return name if self.dots else name.replace(".", "%2E")

    def name(self, key: str) -> str:
        """The name that `key` made."""
        return key if self.dots else key.replace("%2E", ".")

    def holds(self, value: object) -> bool:
        """Whether the document can say this value."""
        match value:
            case bool():
                return True
            case int():
                return abs(value) <= self.largest
            case float():
                return math.isfinite(value)
            case str():
                return len(value.encode("utf-8", "replace")) <= self.longest and not any(
                    "\ud800" <= char <= "\udfff" for char in value
                )
            case _:
                return False


def chosen(devices: Mapping[str, DeviceConfig], patterns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The points that go into the document: those that match, or those that can be written or are monitored."""
    found = {}
    for device, settings in devices.items():
        if not settings.enabled:
            continue
        points = tuple(
            str(point) for point, one in settings.points.items() if _matches(f"{device}/{point}", one, patterns)
        )
        if points:
            found[str(device)] = points
    return found


def _matches(address: str, point: PointConfig, patterns: Sequence[str]) -> bool:
    if not patterns:
        return point.writable or point.monitor
    return any(fnmatchcase(address, each) for each in patterns)


@dataclass(slots=True)
class _Document:
    limits: Limits
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    quality: dict[str, str] = field(default_factory=dict)
    size: int = 0
    left_out: int = 0

    def add(self, device: str, point: str, known: TwinPoint) -> None:
        if known.reported is None:
            return
        value, quality = known.reported.value, known.reported.quality
        lost = value is None or quality.status == "bad" or not self.limits.holds(value)
        text = "" if quality.status == "good" else str(quality)
        if lost and quality.status != "bad":
            text = _LOST
        where, name, both = (self.limits.key(one) for one in (device, point, f"{device}/{point}"))
        need = len(both) + len(text) + 8 if text else 0
        if not lost:
            need += len(name) + len(orjson.dumps(value)) + 8 + (0 if where in self.devices else len(where) + 8)
        if self.size + need > self.limits.size:
            self.left_out += 1
            return
        self.size += need
        if not lost:
            self.devices.setdefault(where, {})[name] = value
        if text:
            self.quality[both] = text


def reported(known: Mapping[str, Mapping[str, TwinPoint]], limits: Limits) -> tuple[dict[str, Any], int]:
    """What is to be reported of device → point, and of how many points there is no room for.

    A value that is bad is not there; why is said under `OWN`, as of any value that is not good.
    """
    document = _Document(limits, size=64)
    for device, points in known.items():
        for point, one in points.items():
            document.add(device, point, one)
    own = {OWN: {"quality": document.quality}} if document.quality else {}
    return {**document.devices, **own}, document.left_out


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What makes `new` of `old` when it is merged."""
    changes: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := difference(before, value):
                changes[key] = inner
        elif before != value or isinstance(before, bool) != isinstance(value, bool):
            changes[key] = value
    return changes


def merged(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the changes. Something that has become empty is left as it is."""
    result = dict(old)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def changes_to(document: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What makes `known` say the document; the last command that it tells of stays."""
    own = known.get(OWN)
    command = own.get("command") if isinstance(own, Mapping) else None
    kept = {**document.get(OWN, {}), **({} if command is None else {"command": command})}
    return difference(known, {**document, **({OWN: kept} if kept else {})})


def outcome(result: CommandResult) -> dict[str, Any]:
    """What is reported of a command under `OWN`: the last one only."""
    said = {"reason": result.reason, "detail": result.detail, "value": result.value}
    return {
        "command": {
            "point": f"{result.device}/{result.point}", "id": result.id, "state": result.state.value,
            "time": result.time, **{key: said[key] if said[key] not in ("", None) else None for key in said},
        }
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """A point has a desired value."""

    device: str
    point: str
    given: Any
    """The value; or an object with it as `value`, and until when it counts as `expires`."""
    mark: str
    """Two wishes for a point with the same mark are one."""
    since: int | None = None
    """When it was set, microseconds since the Unix epoch by the cloud's clock; None if that is not known."""
    fresh: bool = False
    """Whether it is known to have come at once."""


def wishes_in(document: object, limits: Limits) -> Iterator[tuple[str, str, Any]]:
    """(device, point, what is given) of a desired document, without what is the cloud's own or has been taken back."""
    if not isinstance(document, Mapping):
        return
    for device, points in document.items():
        if device == OWN or str(device).startswith("$") or not isinstance(points, Mapping):
            continue
        for point, given in points.items():
            if given is not None and not str(point).startswith("$"):
                yield limits.name(str(device)), limits.name(str(point)), given


class Wishes:
    """Makes commands of desired values, once of each.

    A desired state stays where it is; so whoever comes back must not carry out what was wished long ago. What does not
    say how old it is counts as expired.
    """

    def __init__(self, valid_for: float, requester: str, reply: Reply) -> None:
        """`valid_for`: seconds after which a wish is not carried out any more."""
        self._valid_for = valid_for
        self._requester = requester
        self._reply = reply
        self._seen: dict[tuple[str, str], tuple[str, bytes, int]] = {}
        """Point → mark of the last wish, what it said, and the how manieth of this mark it was."""

    def command(self, wish: Wish) -> Command | None:
        """None if it was seen before. Whatever is wrong with it is found out where all commands are judged."""
        given = wish.given if isinstance(wish.given, Mapping) else {"value": wish.given}
        text = orjson.dumps([self._requester, wish.device, wish.point, wish.mark, given], option=orjson.OPT_SORT_KEYS)
        mark, before, count = self._seen.get((wish.device, wish.point), ("", b"", 0))
        if before and mark == wish.mark:
            if before == text:
                return None
            count += 1  # a mark may be as coarse as a second, in which somebody changed his mind
        else:
            count = 0
        if len(self._seen) >= _SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[wish.device, wish.point] = wish.mark, text, count
        ident = blake2b(text + str(count).encode(), digest_size=12).hexdigest()
        value = given.get("value")
        expires, valid_for = self._until(given.get("expires"), wish)
        return Command(
            id=ident, device=wish.device, point=wish.point,
            value=value if isinstance(value, bool | int | float | str) else None, expires=expires, valid_for=valid_for,
            requester=self._requester, reply=self._reply,
        )  # fmt: skip

    def _until(self, expires: object, wish: Wish) -> tuple[int | None, float | None]:
        if expires is not None:
            return moment(expires) or _LONG_AGO, None
        if wish.since is not None:
            return wish.since + round(self._valid_for * 1e6), None
        return (None, self._valid_for) if wish.fresh else (_LONG_AGO, None)


def moment(text: object) -> int | None:
    """Microseconds since 1970 of such a number, or of a text such as 2026-11-21T12:00:00Z; None if it is neither."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if found is None or found.tzinfo is None:
        return None
    return round((found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
