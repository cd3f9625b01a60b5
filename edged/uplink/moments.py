"""Times of samples as dates, for receivers that want those. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from edged.errors import PermanentError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def date_of(micros: int) -> datetime:
    """Microseconds since 1970 as a date, UTC. Raises PermanentError where there is none: before 1, beyond 9999."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        raise PermanentError(f"the time {micros} µs since 1970 is no date", reason="time") from None


def text_of(micros: int) -> str:
    """The same as text, `2026-11-20T12:00:00.5Z`; without a fraction where there is none. Raises PermanentError."""
    return date_of(micros).isoformat().replace("+00:00", "Z")
