"""Whether the machine's wall clock has been set: what the kernel, the time services and the clock chip say of it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Source = Literal["", "kernel", "timesyncd", "ntp", "rtc", "pc", "config", "earlier"]
"""Why the wall clock is trusted. `rtc`: a clock chip agrees with it. `pc`: a PC or virtual machine starts with the
time. `config`: by configuration. `earlier`: it was, earlier in this boot. Empty: it is not."""
SYNCHRONISED: frozenset[Source] = frozenset({"kernel", "timesyncd", "ntp"})
"""Where somebody compares the clock with the world's."""
RELEASED = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
"""No clock that is right shows an earlier time than this, microseconds: edged was made later."""

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040
_TIMEX_BYTES = 512
"""More than any architecture's `struct timex` has."""
_RTC_AGREES = 60_000_000
"""Microseconds by which a clock chip that set the clock may have drifted away from it."""
_TIMESYNCD = "run/systemd/timesync/synchronized"
_DRIFT_FILES = (
    "var/lib/chrony/chrony.drift",
    "var/lib/chrony/drift",
    "var/lib/ntpsec/ntp.drift",
    "var/lib/ntp/ntp.drift",
)
"""Time services write these only once they have followed a server for a while."""
_PCS = frozenset({"x86_64", "i686", "i586", "i386"})


def kernel_synchronised() -> bool:
    """Whether the kernel's clock is disciplined, by adjtimex(2). False where it may not be asked."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return False  # a C library without it
    # unsigned modes; long offset, freq, maxerror, esterror; int status
    (status,) = struct.unpack_from("@i", timex.raw, struct.calcsize("@Illll"))
    return 0 <= state < _TIME_ERROR and not status & _STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where to look; tests look elsewhere."""

    root: Path = Path("/")
    kernel: Callable[[], bool] = kernel_synchronised
    machine: str = os.uname().machine

    def source(self, wall: int, mono: int) -> Source:
        """Why a wall clock that shows `wall` when `mono` has passed since the boot can be trusted; empty if not."""
        if wall < RELEASED:
            return ""
        if self.kernel():
            return "kernel"
        if (self.root / _TIMESYNCD).exists():
            return "timesyncd"
        booted = wall - mono
        if any(booted <= written <= wall for written in self._drift_files()):
            return "ntp"
        if any(abs(wall - shown) <= _RTC_AGREES for shown in self._clock_chips()):
            return "rtc"
        return "pc" if self.machine in _PCS else ""

    def _drift_files(self) -> Iterator[int]:
        for name in _DRIFT_FILES:
            try:
                yield (self.root / name).stat().st_mtime_ns // 1000
            except OSError:
                continue

    def _clock_chips(self) -> Iterator[int]:
        for file in sorted((self.root / "sys/class/rtc").glob("rtc*/since_epoch")):
            try:
                yield int(file.read_text(encoding="ascii")) * 1_000_000
            except (OSError, ValueError):
                continue  # a chip that does not answer, or has lost its time
