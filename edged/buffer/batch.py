"""Batches: what one flush put into the log, and how far each connection has got with it.

Every sample has a sequence number, `seq`. They are given at commit, one by one, without gaps, and never go back while
the `epoch` lasts. A batch is one row of the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.model import Sample

PRIORITY = "!"
"""The `target` of rows that go to all connections, ahead of the others. No connection can have this name."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one flush, in the order they were taken. The seq of `samples[i]` is `first + i`.

    Where readings were thinned, samples can be empty: they have no points and are not worth a message.
    """

    first: int
    samples: tuple[Sample, ...]
    boot: str
    """The boot the samples' `mono` belongs to (/proc/sys/kernel/random/boot_id)."""
    readings: int
    """How many readings the samples hold together."""
    target: str = ""
    """Empty for all connections; `PRIORITY`; or the one that a person had it sent to, once more."""

    @property
    def priority(self) -> bool:
        """Whether it passes ahead of all that are not."""
        return self.target == PRIORITY

    @property
    def replay(self) -> bool:
        """Whether a person had it sent to one connection, once more: it is settled for all others."""
        return self.target not in {"", PRIORITY}

    @property
    def last(self) -> int:
        """The seq of the last sample."""
        return self.first + len(self.samples) - 1
