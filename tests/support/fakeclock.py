"""A wall clock of the test's own for a daemon in another process, by libfaketime."""

from __future__ import annotations

import os
from pathlib import Path

_PLACES = (os.environ.get("EDGED_TEST_FAKETIME", ""), *map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")))
LIBRARY = next((place for place in _PLACES if place and Path(place).exists()), "")
"""Empty where it is not installed."""
MISSING = "libfaketime is not installed: sudo apt install faketime"


class FakeClock:
    """The wall clock that the daemon sees; its monotonic clock stays the real one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime.rc"
        self.prefix = (
            "env", f"LD_PRELOAD={LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={self._file}", "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1",
        )  # fmt: skip
        self.shift(0)

    def shift(self, seconds: float) -> None:
        """Show the real time plus this."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)
