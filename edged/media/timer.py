"""Waiting with the precision that a serial line needs.

asyncio rounds its timers up to whole milliseconds, which is more than a frame's silence at 115,200 baud allows. A
timerfd wakes the same event loop within some ten microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time

_ABSOLUTE = 1
"""TFD_TIMER_ABSTIME."""


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long),
    )  # fmt: skip


class PreciseTimer:
    """Lets one task at a time sleep until a moment. Close it in the loop that used it."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def until(self, when: float) -> None:
        """Return at `when` (`time.monotonic()`), never before; at once if it has passed."""
        loop = asyncio.get_running_loop()
        while (left := when - time.monotonic()) > 0:
            if not self._ready(loop):
                await asyncio.sleep(left)
                continue
            self._waiter = loop.create_future()
            _arm(self._fd, when)
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """Give the descriptor back. It can be used again afterwards."""
        if self._fd >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._fd < 0:
            self._fd = _create()
            if self._fd < 0:
                return False
            self._loop = loop
            loop.add_reader(self._fd, self._fire)
        return True

    def _fire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


if sys.version_info >= (3, 13):

    def _create() -> int:
        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _arm(fd: int, when: float) -> None:
        os.timerfd_settime(fd, flags=os.TFD_TIMER_ABSTIME, initial=max(when, 1e-9))

else:
    _libc = ctypes.CDLL(None, use_errno=True)

    def _create() -> int:
        # The flags have the values of O_NONBLOCK and O_CLOEXEC on Linux.
        create = getattr(_libc, "timerfd_create", None)
        return -1 if create is None else int(create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))

    def _arm(fd: int, when: float) -> None:
        seconds = int(when)
        spec = _Spec(0, 0, seconds, max(int((when - seconds) * 1e9), 1))
        _libc.timerfd_settime(fd, _ABSOLUTE, ctypes.byref(spec), None)
