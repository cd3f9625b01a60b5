"""What went over a line lately: raw bytes with direction and time, always on, for `edged trace`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Direction = Literal["tx", "rx"]


class Frame(NamedTuple):
    """Bytes that went over the line together."""

    time: int
    """When they were sent, or when their last part arrived: microseconds on the monotonic clock."""
    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class LineErrors:
    """What the UART found wrong since it was opened (TIOCGICOUNT). Many framing errors mean a wrong baud rate."""

    framing: int
    parity: int
    overrun: int
    breaks: int


class FrameRing:
    """The last frames of one line, bounded in number and in bytes; the oldest go first.

    It keeps what arrives in the pieces in which it arrives, and joins them only when somebody looks.
    """

    def __init__(self, frames: int = 1024, size: int = 65_536) -> None:
        self._chunks: deque[Frame] = deque(maxlen=frames)
        self._room = size
        self._listeners: list[Callable[[Frame], None]] = []
        self.last_tx = 0
        """When something was sent last: microseconds on the monotonic clock."""
        self.errors: Callable[[], LineErrors | None] | None = None
        """What the UART counted since the line was opened, for who looks at the frames."""

    def add(self, time: int, direction: Direction, data: bytes) -> None:
        """Keep some bytes."""
        chunks = self._chunks
        frame = Frame(time, direction, data)
        if direction == "tx":
            self.last_tx = time
        if len(chunks) == chunks.maxlen:
            self._room += len(chunks[0].data)
        chunks.append(frame)
        self._room -= len(data)
        while self._room < 0 and len(chunks) > 1:
            self._room += len(chunks.popleft().data)
        for listener in self._listeners:
            listener(frame)

    def frames(self, gap_us: int = 5_000) -> list[Frame]:
        """What is kept, oldest first. Pieces of one direction that are closer than `gap_us` become one frame."""
        joined: list[Frame] = []
        for chunk in self._chunks:
            last = joined[-1] if joined else None
            if last is not None and last.direction == chunk.direction and chunk.time - last.time <= gap_us:
                joined[-1] = Frame(chunk.time, chunk.direction, last.data + chunk.data)
            else:
                joined.append(chunk)
        return joined

    def pieces(self) -> list[Frame]:
        """What is kept, oldest first, in the pieces in which it came."""
        return list(self._chunks)

    def listen(self, listener: Callable[[Frame], None]) -> Callable[[], None]:
        """Call `listener` with every piece from now on; returns what ends that. It must be quick and not raise."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
