"""Recorded or simulated advertisements in the place of a radio: the same listeners, decoders and points.

Loads neither bleak nor D-Bus, so it works on any machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from edged.adapter import ConfigError, Reason, TransientError

from .codecs.advert import Advertisement
from .config import Replay
from .recording import recorded

log = logging.getLogger("edged.ble")

_ROUND = 1.0
"""Seconds that a round takes at least, however short the recording is."""
_RETRY = 1.0
_CONNECT = 5.0
_LONGEST = 64 * 1024
"""Bytes of a line; an advertisement is shorter than a thousandth of it."""


class Replayer:
    """Satisfies `edged_ble.bus.Link`. Tells `hear` each advertisement at its time, and `anew` that a round begins."""

    passive = False

    def __init__(
        self, name: str, config: Replay, hear: Callable[[Advertisement, int], None], anew: Callable[[], None]
    ) -> None:
        """Raises ConfigError when there is no such file."""
        self._name = name
        self._config = config
        self._hear = hear
        self._anew = anew
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._error: TransientError | None = None
        self._skipped = 0
        self.up_since = 0
        self.silence = ""
        self.count = 0
        """Advertisements, ever."""
        if not config.endpoint and not Path(config.file).is_file():
            raise ConfigError(f"{name}: there is no recording {config.file}: `edged scan ble --record FILE` makes one")

    async def wait(self, seconds: float) -> None:
        """Wait until it plays. Raises TransientError if it cannot."""
        if self._task is None:
            log.warning(
                "%s: no radio is used: the advertisements come from %s, and are not of now",
                self._name, self._config.file,
            )  # fmt: skip
            self._task = asyncio.create_task(self._run(), name=f"replay {self._name}")
        elif self._task.done():
            self._task.result()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        if self._error is not None or not self._settled.is_set():
            raise self._error or _unreachable(f"{self._config.file} does not answer")

    def insist(self, why: str) -> None:
        """There is nobody to ask for more."""

    async def close(self) -> None:
        """Stop. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        while True:
            try:
                await self._play()
            except OSError as exc:
                what = exc.strerror or str(exc) or type(exc).__name__
                self._error = _unreachable(f"{self._config.file} cannot be read: {what}")
            except (EOFError, TimeoutError, ValueError):  # ValueError: a line without end, so no `edged simulate`
                self._error = _unreachable(f"{self._config.file} does not answer: does `edged simulate` run?")
            else:
                if not self._config.loop:
                    self.silence = f"the recording {self._config.file} has ended (`loop: true` begins it again)"
                    log.info("%s: the recording has ended", self._name)
                    return
                continue
            self._settled.set()
            await asyncio.sleep(_RETRY)

    async def _play(self) -> None:
        """One round. Raises OSError, and EOFError when a socket ends."""
        began = time.monotonic()
        first = math.nan
        async with aclosing(self._lines()) as lines:
            number = 0
            async for text in lines:
                number += 1
                if not text.strip() or text.startswith("#"):
                    continue
                try:
                    line = recorded(text)
                except ValueError as exc:
                    self._skip(number, exc)
                    continue
                if not self._config.endpoint:
                    first = line.seconds if math.isnan(first) else first
                    await _until(began + (line.seconds - first) / self._config.speed)
                self.count += 1
                self._hear(line.advertisement, time.monotonic_ns() // 1000)
        if self._config.endpoint:
            raise EOFError
        await _until(max(began + _ROUND, time.monotonic()))

    async def _lines(self) -> AsyncGenerator[str]:
        if not self._config.endpoint:
            with _opened(self._config.file) as file:
                self._begin()
                while text := file.readline(_LONGEST):
                    yield text
            return
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(*self._config.endpoint, limit=_LONGEST)
        try:
            self._begin()
            while line := await reader.readline():
                yield line.decode("utf-8", "replace")
        finally:
            writer.close()

    def _begin(self) -> None:
        self._anew()
        self._error = None
        if not self._settled.is_set() or not self.up_since:
            self.up_since = time.monotonic_ns() // 1000
        self._settled.set()

    def _skip(self, number: int, exc: ValueError) -> None:
        self._skipped += 1
        if self._skipped == 1:
            log.warning("%s: %s, line %d: %s; it is left out", self._name, self._config.file, number, exc)


def _opened(path: str) -> TextIO:
    """A file on a local disk, whose lines are short: reading one takes no longer than decoding it."""
    return Path(path).open(encoding="utf-8", errors="replace")


async def _until(moment: float) -> None:
    """Wait until then; let others have their turn in any case."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _unreachable(message: str) -> TransientError:
    return TransientError(message, reason=Reason.UNREACHABLE)
