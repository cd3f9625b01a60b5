"""When a value was measured: what a message says of it, as far as that can be believed. Pure.

Times are microseconds since the Unix epoch.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from edged.adapter import Quality, Reason

CLOCK = Quality("uncertain", Reason.CLOCK.value)
STALE = Quality("uncertain", Reason.STALE.value)
AHEAD = 60_000_000
"""So far may another machine's clock be ahead of ours."""
BEHIND = 31 * 86_400_000_000
"""Messages may have waited at the broker for so long. Older ones come from a clock that was never set."""
_SECONDS, _MILLISECONDS, _MICROSECONDS = 1e11, 1e14, 1e17
"""A number below this is one of so many units since 1970, up to the year 5138."""
_LATEST = 1e20
"""The same year in nanoseconds."""
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9})\d*)?\s*(Z|[+-]\d\d:?\d\d)", re.ASCII | re.IGNORECASE
)


def parse(found: Any) -> int | None:
    """A time as it is written in messages: ISO 8601 with a zone, or a number since 1970 in s, ms, µs or ns.

    None for anything else: a time without a zone could be anywhere.
    """
    if isinstance(found, str):
        match = _ISO.fullmatch(found.strip())
        if match is None:
            return None
        date, clock, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        except ValueError:
            return None
        whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
        return whole + int((fraction or "0").ljust(6, "0")[:6])
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < _LATEST:
        return None
    if found < _SECONDS:
        return round(found * 1_000_000)
    if found < _MILLISECONDS:
        return round(found * 1000)
    return round(found) if found < _MICROSECONDS else round(found / 1000)


_MICROSECOND = datetime.resolution


def judge(said: Any, arrived: int, *, waited: bool = False, retained: bool = False) -> tuple[int, Quality | None]:
    """(When it was measured, the quality that this gives its values, or None).

    `said` is the message's own time, or None. `waited`: it may have waited at the broker while we were away.
    """
    moment = None if said is None else parse(said)
    if moment is not None and arrived - BEHIND <= moment <= arrived + AHEAD:
        return min(moment, arrived), STALE if retained else None
    if retained:
        return arrived, STALE
    return arrived, CLOCK if waited or moment is not None else None
