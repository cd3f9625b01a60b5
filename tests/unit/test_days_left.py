"""How long the buffer will last, as `edged top` reckons it."""

from __future__ import annotations

from typing import Any

import pytest

from edged.cli.top import days_left

DAY = 86_400


def record(*, connected: bool, waiting: int = 3_600, age: float = 3_600.0, readings: int = 10_000) -> dict[str, Any]:
    return {
        "limits": {"max_bytes": 100 * DAY + 1_000_000},
        "buffer": {"used_bytes": 1_000_000, "readings": readings},
        "connections": {"cloud": {"connected": connected}},
        "waiting": {"cloud": {"readings": waiting, "oldest_age": age}, "gone": None},
    }


@pytest.mark.parametrize(
    ("state", "looks", "days"),
    [
        # one reading a second has been waiting for an hour, at 100 bytes each: the gateway's own age does not matter
        (record(connected=False), [(0, 1_000_000)], 1),
        (record(connected=False), [(0, 999_900), (10, 1_000_000)], 1),
        # watched for long enough: 50 bytes a second
        (record(connected=False), [(0, 998_000), (40, 1_000_000)], 2),
        # it does not grow: old readings give way
        (record(connected=False), [(0, 1_000_000), (40, 1_000_000)], None),
        (record(connected=True), [(0, 998_000), (40, 1_000_000)], None),
        (record(connected=False, age=5), [(0, 1_000_000)], None),
        (record(connected=False, waiting=0, age=0), [(0, 1_000_000)], None),
    ],
)
def test_days_left_follow_from_what_waits_or_from_what_was_watched(
    state: dict[str, Any], looks: list[tuple[float, int]], days: float | None
) -> None:
    assert days_left(state, looks) == (days if days is None else pytest.approx(days))
