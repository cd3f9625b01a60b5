"""Several rounds of one measurement as one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

_WORST = frozenset({"wrong", "missing_reads", "disordered", "repeated", "bad_readings"})
"""What counts mistakes: of these the worst round stands, not the middle one."""


def together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of each number; of mistakes the highest."""
    record: dict[str, Any] = {}
    for name, first in rounds[0].items():
        values = [one[name] for one in rounds]
        if isinstance(first, Mapping):
            record[name] = together(values)
        elif isinstance(first, int | float):
            record[name] = max(values) if name in _WORST else median(values)
        else:
            record[name] = first
    return record
