"""Waiting with the precision that a serial line needs.

asyncio rounds its timers up to whole milliseconds, which is more than a frame's silence at 115,200 baud allows. A
timerfd wakes the same event loop within some ten microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable

_NOW = 1e-9
"""A moment long past; 0 would disarm."""
_USUAL = 0.005
"""Seconds by which a loop that has much to do is late."""


def held_up(due: float, now: float) -> float:
    """Seconds that somebody gets in addition because whoever looks at the clock, at `due`, stood still himself.

    A machine that is stopped for a moment, as virtual ones are, reads nothing meanwhile, and what was sent to it may
    still be on its way when it goes on.
    """
    return now - due if now - due > _USUAL else 0.0


class Alarm:
    """Calls `ring` in the event loop at a moment (`time.monotonic()`), never before it. One moment at a time."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, when: float) -> None:
        """Ring then, and not when it was set to before."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.close()
            self._loop = loop
            self._fd = _create()
            loop.add_reader(self._fd, self._fire)
        _arm(self._fd, max(when, _NOW))

    def close(self) -> None:
        """Do not ring any more, and give the descriptor back. It can be set again afterwards."""
        if self._fd >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
        self._fd, self._loop = -1, None

    def _fire(self) -> None:
        # It was set anew between its ringing and this call: nothing to read, and not yet the time.
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._ring()


class PreciseTimer:
    """Lets one task at a time sleep until a moment. Close it in the loop that used it."""

    def __init__(self) -> None:
        self._alarm = Alarm(self._wake)
        self._waiter: asyncio.Future[None] | None = None

    async def until(self, when: float) -> None:
        """Return at `when` (`time.monotonic()`), never before; at once if it has passed."""
        while when > time.monotonic():
            self._waiter = asyncio.get_running_loop().create_future()
            self._alarm.set(when)
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """Give the descriptor back. It can be used again afterwards."""
        self._alarm.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


if sys.version_info >= (3, 13):

    def _create() -> int:
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _arm(fd: int, when: float) -> None:
        os.timerfd_settime(fd, flags=os.TFD_TIMER_ABSTIME, initial=when)

else:
    import ctypes

    _ABSOLUTE = 1
    """TFD_TIMER_ABSTIME."""
    _libc = ctypes.CDLL(None, use_errno=True)

    class _Spec(ctypes.Structure):
        _fields_ = (
            ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
            ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long),
        )  # fmt: skip

    def _create() -> int:
        # The flags have the values of O_NONBLOCK and O_CLOEXEC on Linux.
        fd = int(_libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return fd

    def _arm(fd: int, when: float) -> None:
        seconds = int(when)
        spec = _Spec(0, 0, seconds, max(int((when - seconds) * 1e9), 1))
        _libc.timerfd_settime(fd, _ABSOLUTE, ctypes.byref(spec), None)
