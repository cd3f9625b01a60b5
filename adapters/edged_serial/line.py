"""A serial line in use: every byte goes to who listens, and one request at a time waits for its answer.

Legacy protocols rarely number their requests, so a late answer looks like the answer to the next request. Therefore,
after a request that was not answered properly, nothing is sent whose answer that could be until it has come late, or
some times as long has passed as the device was given. What arrives meanwhile reaches only those who listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from edged.adapter import Reason, TransientError
from edged.media import LineSettings, Medium, held_up

from .codecs.framing import Framer

T = TypeVar("T")
Heard = Callable[[bytes, int], None]
"""Gets bytes and the moment they came: microseconds on the monotonic clock."""
log = logging.getLogger("edged.serial")

_AGAIN = 0.5
"""Seconds between two attempts to open a port that is gone, so that nothing is missed for long once it is back."""
_CALM, _CALM_CHARACTERS = 0.005, 5
"""So long, at the least, must the line have been silent before we send."""
_TAIL, _TAIL_CHARACTERS = 0.05, 20
"""So long may an answer pause once it has begun."""
_UNREAD = 1024
"""Most pieces kept for a request under way; more is not an answer."""
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class _Debt:
    """An answer that may still come."""

    until: float
    """Not any more after this moment, as far as can be told."""
    framer: Framer
    accept: Callable[[bytes, int], Any]

    def paid_by(self, data: bytes, moment: int) -> bool:
        """Whether these bytes complete it."""
        for frame in self.framer.feed(data):
            with contextlib.suppress(RejectedError):
                self.accept(frame, moment)
                return True
        return False


class RejectedError(Exception):
    """A frame that is not the answer; its message says why. Waiting goes on."""


class Line:
    """One line with its port. Opens when first used, and again by itself when the port comes back."""

    def __init__(self, settings: LineSettings, name: str) -> None:
        self.medium = Medium(settings, name)
        self.name = name
        self.opened = 0
        """When the port was opened last: microseconds on the monotonic clock; 0 before."""
        self.foreign = 0
        """How often something came that nobody had asked for."""
        self.late = 0
        """Answers that came after they were given up."""
        self._settings = settings
        self._listeners: list[Heard] = []
        self._on_open: list[Callable[[], None]] = []
        self._reader: deque[tuple[bytes, int]] | None = None
        self._arrival = asyncio.Event()
        self._quiet_until = 0.0
        self._owed: dict[str, _Debt] = {}
        """By who is told by his answers; "" where they do not say whose they are."""
        self._paid = asyncio.Event()
        self._last = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    def listen(self, heard: Heard, opened: Callable[[], None]) -> None:
        """Hand all that arrives to `heard`, call `opened` whenever the port was opened, and keep it open."""
        self._listeners.append(heard)
        self._on_open.append(opened)

    async def open(self) -> None:
        """Have the port open. Raises TransientError `unreachable`."""
        if self.medium.is_open:
            return
        async with self._opening:
            if self.medium.is_open:
                return
            for opened in self._on_open:
                opened()
            self.medium.on_receive(self._received)
            await self.medium.open()
            self.opened = time.monotonic_ns() // 1000
        if self._listeners and self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_open(), name=f"keep {self.name} open")

    async def close(self) -> None:
        """Give the port back. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        self.medium.close()

    async def _keep_open(self) -> None:
        while True:
            await self.medium.closed()
            await asyncio.sleep(_AGAIN)
            with contextlib.suppress(TransientError):  # whoever polls says so
                await self.open()

    def reconfigure(self, **changes: object) -> None:
        """Change settings while a device does (a hand-over of the speed); without any: back to the usual ones.

        The port stays open, so that nothing is lost between.
        """
        wanted = dataclasses.replace(self._settings, **changes)  # type: ignore[arg-type]  # the caller names fields
        if wanted != self.medium.settings:
            self.medium.reconfigure(wanted)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def ask(
        self,
        data: bytes | Callable[[], Awaitable[None]],
        framer: Framer,
        accept: Callable[[bytes, int], T],
        within: float,
        *,
        gap: float = 0.0,
        longest: int = 1024,
        who: str = "",
        rest: float = 1.0,
    ) -> T:
        """Send `data` (or let it do the sending), and return what `accept` makes of a frame and its time.

        That is the first frame that it does not reject. `within` seconds may pass before the answer begins. `gap` is
        the silence that ends a frame, where one does. `who` is whose answers look like nobody else's.
        Without an answer, nothing that could be mistaken is sent for `rest` times as long again, or until it has come.
        One request at a time. Raises TransientError.
        """
        await self.open()
        await self._settle(who)
        reader = self._reader = deque(maxlen=_UNREAD)
        self._arrival.clear()
        complaint = ""
        try:
            if isinstance(data, bytes):
                await self.medium.send(data)
            else:
                await data()
            now = time.monotonic()
            deadline, last = now + within, now + within + longest * self.medium.character
            while True:
                frames = await self._frames(reader, framer, deadline, gap)
                for frame, moment in frames:
                    try:
                        result = accept(frame, moment)
                    except RejectedError as exc:
                        complaint = str(exc)
                        continue
                    if framer.partial or reader or frame is not frames[-1][0]:
                        self.foreign += 1
                        self._be_quiet(_TAIL)
                    return result
                if reader or framer.partial:
                    pause = max(_TAIL, _TAIL_CHARACTERS * self.medium.character)
                    deadline = min(last, max(deadline, time.monotonic() + pause))
        except TimeoutError:
            self._owed[who] = _Debt(time.monotonic() + rest * within, framer, accept)
            raise self._unanswered(framer, complaint, within) from None
        except BaseException:
            self._owed[who] = _Debt(time.monotonic() + max(rest, 1.0) * within, framer, accept)
            raise
        finally:
            self._reader = None

    async def tell(self, data: bytes, pause: float = 0.0) -> None:
        """Send something that has no answer. Raises TransientError."""
        await self.open()
        await self._settle()
        await self.medium.send(data)
        self._be_quiet(pause)

    async def _frames(
        self, reader: deque[tuple[bytes, int]], framer: Framer, deadline: float, gap: float
    ) -> list[tuple[bytes, int]]:
        """The frames that the next bytes complete, or the next gap. Raises TimeoutError, TransientError."""
        until = min(deadline, self._last + gap) if gap and framer.partial else deadline
        if not reader:
            try:
                await self._wait(until, excuse=until == deadline)
            except TimeoutError:
                if until == deadline or not gap:
                    raise
                return [(frame, int(self._last * 1e6)) for frame in framer.gap()]
        frames: list[tuple[bytes, int]] = []
        while reader and not frames:
            data, moment = reader.popleft()
            frames = [(frame, moment) for frame in framer.feed(data)]
        return frames

    async def _wait(self, until: float, *, excuse: bool) -> None:
        """Wait for bytes. Raises TimeoutError; TransientError when the port is gone.

        `excuse`: wait longer by what we were held up.
        """
        self._arrival.clear()
        gone = asyncio.ensure_future(self.medium.closed())
        arrived = asyncio.ensure_future(self._arrival.wait())
        try:
            left = max(until - time.monotonic(), 0.0)
            done, _ = await asyncio.wait({gone, arrived}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            arrived.cancel()
        if arrived in done:
            return
        if gone in done:
            raise TransientError(gone.result(), reason=Reason.UNREACHABLE)
        if self.medium.catch_up():  # what came in time is not late because we are
            return
        now = time.monotonic()
        more = held_up(until, now) if excuse else 0.0
        if not more:
            raise TimeoutError
        await self._wait(now + more, excuse=False)

    def _unanswered(self, framer: Framer, complaint: str, within: float) -> TransientError:
        if framer.rejected:
            return TransientError("the answer has a wrong checksum", reason=Reason.PROTOCOL)
        if complaint:
            return TransientError(f"no answer to the request, but {complaint}", reason=Reason.PROTOCOL)
        if framer.partial or framer.skipped:
            rest = framer.partial[:_SHOWN]
            return TransientError(
                f"what came is no whole answer ({framer.skipped} bytes of noise, then {show(rest) or 'nothing'})",
                reason=Reason.PROTOCOL,
            )
        return TransientError(f"no answer within {within:g} s", reason=Reason.TIMEOUT)

    async def _settle(self, who: str = "") -> None:
        """Wait until no late answer is to be expected that `who` could take for his, and nobody is talking."""
        calm = max(_CALM, _CALM_CHARACTERS * self.medium.character)
        patience = max(time.monotonic(), self._until(who)) + 1.0
        while (now := time.monotonic()) < patience:
            until = max(self._until(who), self._last + calm if not self._listeners else 0.0)
            if now >= until:
                if self.medium.catch_up():
                    continue  # what came while we were held up was not asked for by what is sent now
                self._owed = {name: debt for name, debt in self._owed.items() if debt.until > now}
                return
            self._paid.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - now):
                    await self._paid.wait()
        if not self._listeners:
            raise TransientError("the line is never silent: is somebody else sending?", reason=Reason.PROTOCOL)

    def _until(self, who: str) -> float:
        """Until when nothing may be sent for `who`."""
        owed = [debt.until for name, debt in self._owed.items() if name in {"", who} or not who]
        return max(self._quiet_until, *owed, 0.0)

    def _be_quiet(self, seconds: float) -> None:
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def _received(self, data: bytes, moment: int) -> None:
        self._last = moment / 1e6
        for heard in self._listeners:
            heard(data, moment)
        for name, debt in list(self._owed.items()):
            if debt.paid_by(data, moment):
                del self._owed[name]
                self.late += 1
                self._be_quiet(_TAIL)
                self._paid.set()
        if self._reader is not None:
            self._reader.append((data, moment))
            self._arrival.set()
        elif not self._listeners:
            self.foreign += 1


def show(data: bytes) -> str:
    """Bytes for people: as text where they are, else in hexadecimal."""
    text = data.decode("latin-1")
    return repr(text) if text.isascii() and text.replace("\r", "").replace("\n", "").isprintable() else data.hex(" ")
