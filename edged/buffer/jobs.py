"""What passes between the event loop and the writer thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from edged.buffer.batch import Batch
from edged.buffer.counters import Ledger, Settle, Totals
from edged.buffer.cursor import Span
from edged.model import Sample

Limit = Literal["", "size", "disk"]
"""Which limit makes the buffer give up or refuse readings: `max_bytes`, `min_free`, or none."""


@dataclass(slots=True)
class Job:
    """What the event loop hands over."""

    samples: list[Sample] = field(default_factory=list)
    priority: list[Sample] = field(default_factory=list)
    """Those that pass ahead."""
    totals: Totals = field(default_factory=Totals)
    settles: list[Settle] = field(default_factory=list)
    damaged: list[Span] = field(default_factory=list)
    """Rows that could not be read back."""
    suspect: str = ""
    """Why the whole file must be replaced."""
    retain: bool = False
    """Delete settled rows now."""
    keep: int | None = None
    """If the disk refuses: of the readings that wait for it only the newest so many; None keeps all."""


@dataclass(slots=True)
class Done:
    """What the writer answers."""

    batches: list[Batch] = field(default_factory=list)
    """New rows, in order."""
    settled: Counter[str] = field(default_factory=Counter)
    """By connection: how many settles became durable."""
    given_up: dict[str, list[Span]] = field(default_factory=dict)
    """By connection: what will never be delivered, because it has left the log."""
    stored: int = 0
    refused: int = 0
    """With `stored`: readings that are no longer waiting."""
    shed: bool = False
    """Some that waited were given up, because the disk refuses."""
    uncommitted: Totals | None = None
    """What of the totals handed over is not in the ledger; None if there is no news of them."""
    error: str = ""
    """Why something still waits in memory."""
    ledger: Ledger = field(default_factory=Ledger)
    """As of the last commit; never changed again."""
    full: Limit = ""
    generation: int = 0
    """Rises when the file is replaced: other connections to it are stale then."""

    def lose(self, connection: str, spans: list[Span]) -> None:
        """Note what a connection will not get."""
        self.given_up.setdefault(connection, []).extend(spans)

    def merge(self, part: Done) -> None:
        """Take over what one transaction achieved."""
        self.batches += part.batches
        self.settled.update(part.settled)
        self.stored += part.stored
        self.refused += part.refused
        for connection, spans in part.given_up.items():
            self.lose(connection, spans)
