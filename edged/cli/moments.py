"""Moments as people write them on a command line."""

from __future__ import annotations

import click

MOMENT = "A moment: 2026-11-20, 2026-11-20T12:00 (this machine's time zone), …Z or +01:00; or how long ago: 90m, 2d."


def chosen_range(begin: str | None, end: str | None, devices: tuple[str, ...]) -> dict[str, list[str]]:
    """`from`, `to` and `device` as a request has them. Raises UsageError."""
    options: dict[str, list[str]] = {"device": list(devices)}
    first = moment_of(begin) if begin is not None else None
    last = moment_of(end, last=True) if end is not None else None
    if first is not None:
        options["from"] = [str(first)]
    if last is not None:
        options["to"] = [str(last)]
    if first is not None and last is not None and last <= first:
        raise click.UsageError(f"--to {end} is not later than --from {begin}")
    return options


def moment_of(text: str, *, last: bool = False) -> int:
    """Microseconds since 1970 of what a person wrote.

    Where a clock change lets it mean two: the first, or the `last` one, so that a range leaves nothing out.
    """
    from datetime import UTC, datetime, timedelta

    from edged.clock import wall_us
    from edged.config.types import Duration

    try:
        return wall_us() - round(Duration.parse(text) * 1e6)
    except ValueError:
        pass
    try:
        written = datetime.fromisoformat(text)
        moment = written.astimezone(UTC)
        if last:
            moment = max(moment, written.replace(fold=1).astimezone(UTC))
    except (ValueError, OverflowError):
        raise click.UsageError(f"{text!r} is not a moment. {MOMENT}") from None
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
