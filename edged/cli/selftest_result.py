"""What `edged selftest` found out, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edged.testing.audit import Audit


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of outage did."""

    case: str
    received: int
    """Readings."""
    lost: int
    """Samples that later messages say exist, but that had not arrived when the case was over."""
    duplicates: int
    """Messages."""
    out_of_order: int
    recovery_seconds: float
    """From the end of the outage until everything had arrived."""
    recovered: bool

    def text(self) -> str:
        """A line of the table."""
        recovery = f"{self.recovery_seconds:.1f} s" if self.recovered else "NEVER"
        cells = (f"{self.received:,}", f"{self.lost:,}", self.duplicates, self.out_of_order, recovery)
        return f"{self.case:<34}" + "".join(f"{cell:>13}" for cell in cells)


HEAD = f"{'outage':<34}" + "".join(
    f"{name:>13}" for name in ("received", "lost", "duplicates", "disordered", "recovery")
)
"""The first line of the table."""


@dataclass(frozen=True, slots=True)
class Total:
    """What became of the readings, once all has ended. The scratch buffer knows what it stored."""

    stored: int
    received: int
    pending: int
    lost: int
    duplicates: int

    @property
    def ok(self) -> bool:
        """Whether something arrived and nothing is missing."""
        return self.received > 0 and not self.lost

    def text(self) -> str:
        """The result for people."""
        verdict = "Nothing was lost." if self.ok else f"{self.lost:,} readings were LOST."
        return (
            f"{self.stored:,} readings stored, {self.received:,} received, {self.pending:,} still in the scratch "
            f"buffer, {self.duplicates} messages twice. {verdict}"
        )


@dataclass(slots=True)
class Received:
    """What the receiver behind the broker knows."""

    audit: Audit
    newest: int = 0
    """The time of the newest reading, microseconds since the epoch."""

    def take(self, payload: dict[str, Any]) -> None:
        """One message of readings."""
        self.audit.take(payload)
        self.newest = max(self.newest, *(at for table in payload["tables"] for at in table["times"]))

    def lost(self) -> int:
        """Samples that are known to exist, but have not come."""
        epochs = {(lane.gateway, lane.epoch) for lane in self.audit.lanes}
        gaps = sum(last - first + 1 for epoch in epochs for first, last in self.audit.gaps(*epoch))
        return max(gaps, len(self.audit.missing))
