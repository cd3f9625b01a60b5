"""What to tell a person about the buffer: once when a limit or the disk begins to act, once when it ends."""

from __future__ import annotations

import logging
from typing import Literal

from edged.buffer.jobs import Done
from edged.config.model import BufferConfig

log = logging.getLogger("edged.buffer")

_WHAT_GOES = {
    "drop-oldest": "the oldest readings are dropped",
    "drop-newest": "new readings are refused",
    "thin": "the oldest readings are thinned out, then dropped",
}


class Alarm:
    """The state that `stats` shows."""

    def __init__(self, config: BufferConfig) -> None:
        self._config = config
        self.kind: Literal["", "full", "failing"] = ""
        self.detail = ""
        self._refusing = False

    @property
    def refuses_new(self) -> bool:
        """Whether the file is full and new samples are what is given up."""
        return self.kind == "full" and self._config.when_full == "drop-newest"

    def update(self, done: Done) -> None:
        """Take over how the last job went."""
        kind: Literal["", "full", "failing"] = "failing" if done.error else "full" if done.full else ""
        before, self.kind = self.kind, kind
        if kind == "failing":
            self.detail = f"the buffer cannot be written ({done.error}); readings wait in memory"
        elif kind == "full":
            self.detail = self._why_full(done.full)
        if kind == before:
            return
        if kind:
            log.warning("%s", self.detail)
        else:
            log.info("the buffer is %s again", "writable" if before == "failing" else "below its limit")
            self.detail = ""

    def _why_full(self, limit: str) -> str:
        config = self._config
        what = _WHAT_GOES[config.when_full]
        if limit == "disk":
            return f"the disk has less than `min_free` ({config.min_free / 2**20:g} MiB) left for the buffer: {what}"
        return f"the buffer has reached `max_bytes` ({config.max_bytes / 2**20:g} MiB): {what}"

    def inbox_full(self, waiting: int, consequence: str) -> None:
        """Too many readings wait for the disk; say once what that leads to."""
        if not self._refusing:
            self._refusing = True
            log.warning("%d readings wait for the buffer's disk: %s", waiting, consequence)

    def inbox_has_room(self) -> None:
        """It is over."""
        if self._refusing:
            self._refusing = False
            log.info("the buffer takes new readings again")
