"""Where frames begin and end in a stream of bytes.

A framer is fed whatever has come and returns the frames that are complete. How the bytes were cut into pieces makes no
difference. Its buffer is bounded, and after noise it finds the next whole frame again: a candidate that `valid`
rejects costs only its first byte, so that a frame that begins inside it is found. No framer knows a clock; the caller
tells it of a silence on the line (`gap`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Valid = Callable[[bytes], bool]
"""Whether a candidate is a frame: its checksum fits."""

MAX_FRAME = 65_536
"""The most that any frame may be configured to have."""


class Framer(Protocol):
    """Finds frames in a stream."""

    skipped: int
    """How many bytes belonged to no frame so far."""
    rejected: int
    """How many candidates had a wrong checksum."""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete."""
        ...

    def gap(self) -> list[bytes]:
        """Told that the line has been silent: the frame which that ends, if silence ends frames here."""
        ...

    def reset(self) -> None:
        """Forget what has come so far."""
        ...

    @property
    def partial(self) -> bytes:
        """What has come and is no frame yet."""
        ...


def always(_frame: bytes) -> bool:
    """Every candidate is a frame."""
    return True


class _Buffered:
    """A framer that searches its buffer from the front until it needs more bytes."""

    def __init__(self, limit: int, valid: Valid = always) -> None:
        self.skipped = 0
        self.rejected = 0
        self._limit = limit
        self._valid = valid
        self._buffer = bytearray()

    @property
    def partial(self) -> bytes:
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        frames: list[bytes] = []
        while self._buffer and self._step(frames):
            pass
        return frames

    def gap(self) -> list[bytes]:
        return []

    def reset(self) -> None:
        self._buffer.clear()

    def _step(self, frames: list[bytes]) -> bool:
        """Take one frame, or one piece of noise, from the front. False if more bytes are needed first."""
        raise NotImplementedError

    def _drop(self, count: int) -> None:
        self.skipped += count
        del self._buffer[:count]

    def _sync(self, start: bytes) -> bool:
        """Whether the buffer now begins with `start`, after dropping what came before it."""
        at = self._buffer.find(start)
        if at < 0:
            # the end of the buffer may be the beginning of the marker
            keep = next((n for n in range(len(start) - 1, 0, -1) if self._buffer.endswith(start[:n])), 0)
            self._drop(len(self._buffer) - keep)
            return False
        self._drop(at)
        return True

    def _offer(self, frame: bytes, frames: list[bytes]) -> bool:
        """Whether the candidate is a frame; then it is one of `frames` from now on."""
        if self._valid(frame):
            frames.append(frame)
            return True
        self.rejected += 1
        return False


class DelimiterFramer(_Buffered):
    """Frames end with a delimiter, which is not part of them unless `keep`. Too long ones are dropped whole."""

    def __init__(self, end: bytes, limit: int, valid: Valid = always, *, keep: bool = False) -> None:
        super().__init__(limit, valid)
        self._end = end
        self._keep = keep
        self._too_long = False

    def reset(self) -> None:
        super().reset()
        self._too_long = False

    def _step(self, frames: list[bytes]) -> bool:
        at = self._buffer.find(self._end)
        if at < 0:
            spare = len(self._buffer) - len(self._end) + 1
            if spare > self._limit:
                self._too_long = True
                self._drop(spare)
            return False
        whole = at + len(self._end)
        frame = bytes(self._buffer[: whole if self._keep else at])
        if self._too_long or at > self._limit or not self._offer(frame, frames):
            self.skipped += whole
        self._too_long = False
        del self._buffer[:whole]
        return True


class LineFramer(_Buffered):
    r"""Lines of text, ended by CR, LF or both; empty ones are left out."""

    def __init__(self, limit: int, valid: Valid = always) -> None:
        super().__init__(limit, valid)
        self._too_long = False

    def reset(self) -> None:
        super().reset()
        self._too_long = False

    def _step(self, frames: list[bytes]) -> bool:
        ends = [at for at in (self._buffer.find(b"\r"), self._buffer.find(b"\n")) if at >= 0]
        if not ends:
            if len(self._buffer) > self._limit:
                self._too_long = True
                self._drop(len(self._buffer))
            return False
        at = min(ends)
        frame = bytes(self._buffer[:at])
        if frame or self._too_long:
            if self._too_long or at > self._limit or not self._offer(frame, frames):
                self.skipped += at
            self._too_long = False
        del self._buffer[: at + 1]
        return True


class FixedFramer(_Buffered):
    """Frames of one length, perhaps with known first and last bytes."""

    def __init__(self, length: int, valid: Valid = always, *, start: bytes = b"", stop: bytes = b"") -> None:
        super().__init__(length, valid)
        self._start = start
        self._stop = stop

    def _step(self, frames: list[bytes]) -> bool:
        if not self._sync(self._start) or len(self._buffer) < self._limit:
            return False
        frame = bytes(self._buffer[: self._limit])
        if frame.endswith(self._stop) and self._offer(frame, frames):
            del self._buffer[: self._limit]
        else:
            self._drop(1)
        return True


@dataclass(frozen=True, slots=True)
class LengthField:
    """Where a frame says how long it is."""

    at: int
    size: int = 1
    little: bool = False
    adds: int = 0
    """The whole frame has so many bytes more than the field says."""


class LengthFramer(_Buffered):
    """Frames that say their own length."""

    def __init__(self, field: LengthField, limit: int, valid: Valid = always, *, start: bytes = b"") -> None:
        super().__init__(limit, valid)
        self._field = field
        self._start = start

    def _step(self, frames: list[bytes]) -> bool:
        end = self._field.at + self._field.size
        if not self._sync(self._start) or len(self._buffer) < end:
            return False
        said = int.from_bytes(self._buffer[self._field.at : end], "little" if self._field.little else "big")
        total = said + self._field.adds
        if not end <= total <= self._limit:
            self._drop(1)
            return True
        if len(self._buffer) < total:
            return False
        if self._offer(bytes(self._buffer[:total]), frames):
            del self._buffer[:total]
        else:
            self._drop(1)
        return True


class MarkerFramer(_Buffered):
    """Frames from a start marker to a stop marker and `trailer` more bytes, all of them part of the frame.

    A start marker before the stop begins the frame anew, unless the longer frame has the right checksum.
    """

    def __init__(self, start: bytes, stop: bytes, limit: int, valid: Valid = always, *, trailer: int = 0) -> None:
        super().__init__(limit, valid)
        self._start = start
        self._stop = stop
        self._trailer = trailer

    def _step(self, frames: list[bytes]) -> bool:
        if not self._sync(self._start):
            return False
        stop = self._buffer.find(self._stop, len(self._start))
        total = stop + len(self._stop) + self._trailer
        if (stop if stop >= 0 else len(self._buffer) - len(self._stop) + 1) > self._limit:
            self._drop(1)
            return True
        if stop < 0 or len(self._buffer) < total:
            return False
        for begin in self._starts(stop):
            if self._valid(bytes(self._buffer[begin:total])):
                frames.append(bytes(self._buffer[begin:total]))
                self.skipped += begin
                del self._buffer[:total]
                return True
        self.rejected += 1
        self._drop(1)
        return True

    def _starts(self, stop: int) -> list[int]:
        """Where the frame may begin, the likeliest first."""
        begins = [0]
        while (at := self._buffer.find(self._start, begins[-1] + 1, stop)) >= 0:
            begins.append(at)
        return begins if self._valid is not always else begins[:-2:-1]


class GapFramer(_Buffered):
    """Frames are what comes without a silence in between."""

    def __init__(self, limit: int, valid: Valid = always) -> None:
        super().__init__(limit, valid)
        self._too_long = False

    def reset(self) -> None:
        super().reset()
        self._too_long = False

    def _step(self, frames: list[bytes]) -> bool:  # noqa: ARG002  # only a silence ends a frame here
        if self._too_long or len(self._buffer) > self._limit:
            self._too_long = True
            self._drop(len(self._buffer))
        return False

    def gap(self) -> list[bytes]:
        frames: list[bytes] = []
        if self._buffer and not self._offer(bytes(self._buffer), frames):
            self.skipped += len(self._buffer)
        self.reset()
        return frames


@dataclass(frozen=True, slots=True)
class Escaping:
    """How a protocol hides its markers in the content."""

    end: int
    """Marks the end of a frame, and in `slip` and `hdlc` its beginning too."""
    escape: int
    replaced: dict[int, int]
    """What stands for what after the escape byte."""


SLIP = Escaping(0xC0, 0xDB, {0xDC: 0xC0, 0xDD: 0xDB})
"""RFC 1055."""
HDLC = Escaping(0x7E, 0x7D, {byte ^ 0x20: byte for byte in range(256)})
"""RFC 1662, asynchronous."""


class StuffedFramer(_Buffered):
    """SLIP and HDLC: frames between end bytes, which are escaped inside. Frames are delivered without either."""

    def __init__(self, escaping: Escaping, limit: int, valid: Valid = always) -> None:
        super().__init__(limit, valid)
        self._escaping = escaping
        self._too_long = False

    def reset(self) -> None:
        super().reset()
        self._too_long = False

    def _step(self, frames: list[bytes]) -> bool:
        at = self._buffer.find(self._escaping.end)
        if at < 0:
            if len(self._buffer) > 2 * self._limit:
                self._too_long = True
                self._drop(len(self._buffer))
            return False
        frame = self._plain(bytes(self._buffer[:at]))
        long = self._too_long or at > 2 * self._limit or (frame is not None and len(frame) > self._limit)
        if long or frame is None or (frame and not self._offer(frame, frames)):
            self.skipped += at
        self._too_long = False
        del self._buffer[: at + 1]
        return True

    def _plain(self, raw: bytes) -> bytes | None:
        first, *rest = raw.split(bytes([self._escaping.escape]))
        pieces = [first]
        for piece in rest:
            if not piece or piece[0] not in self._escaping.replaced:
                return None
            pieces += [bytes([self._escaping.replaced[piece[0]]]), piece[1:]]
        return b"".join(pieces)


class DleFramer(_Buffered):
    """DLE STX … DLE ETX with DLE doubled inside; `trailer` bytes follow as they are. Delivered: content and trailer."""

    DLE, STX, ETX = 0x10, 0x02, 0x03

    def __init__(self, limit: int, valid: Valid = always, *, trailer: int = 0) -> None:
        super().__init__(limit, valid)
        self._trailer = trailer

    def _step(self, frames: list[bytes]) -> bool:
        buffer = self._buffer
        if not self._sync(bytes([self.DLE, self.STX])):
            return False
        content, at = bytearray(), 2
        while True:
            if len(content) > self._limit:
                self._drop(1)
                return True
            if at >= len(buffer) or (buffer[at] == self.DLE and at + 1 >= len(buffer)):
                return False
            if buffer[at] != self.DLE:
                content.append(buffer[at])
                at += 1
            elif buffer[at + 1] == self.DLE:
                content.append(self.DLE)
                at += 2
            else:
                break
        if buffer[at + 1] != self.ETX:
            self._drop(at)  # a new frame begins here, or it is noise
            return True
        end = at + 2 + self._trailer
        if len(buffer) < end:
            return False
        if self._offer(bytes(content) + bytes(buffer[at + 2 : end]), frames):
            del buffer[:end]
        else:
            self._drop(1)
        return True


def stuff(frame: bytes, escaping: Escaping) -> bytes:
    """A frame as SLIP or HDLC sends it."""
    needed = {escaping.end, escaping.escape}
    codes = {byte: code for code, byte in escaping.replaced.items() if byte in needed}
    content = b"".join(bytes([escaping.escape, codes[b]]) if b in needed else bytes([b]) for b in frame)
    end = bytes([escaping.end])
    return end + content + end


def stuff_dle(content: bytes, trailer: bytes = b"") -> bytes:
    """A frame between DLE STX and DLE ETX."""
    return b"\x10\x02" + content.replace(b"\x10", b"\x10\x10") + b"\x10\x03" + trailer
