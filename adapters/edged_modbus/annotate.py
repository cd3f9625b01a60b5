"""What went over a Modbus line or connection, in words: for `edged trace`, and as evidence for `edged doctor`.

Pure. It takes the pieces as they came and knows nothing of what the master made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from edged.media.notes import Defect, FrameNote, NoteKind, Part
from edged.media.ring import Frame

from .ascii import ascii_frame, lrc
from .frame import crc16
from .pdu import InvalidReplyError, read_identification
from .spell import pdu_parts, spell_answer, spell_refusal, spell_request
from .traffic import Heard, ascii_frames, rtu_frames

_REQUEST_SIZE = 4
_REFUSAL = 5
"""Bytes of an exception's frame."""
_OWED = 16
"""So many unanswered requests are remembered, to know their late answers."""
_A_LITTLE = 2
"""So many bytes too many may be noise."""
_HEX = 24


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request of ours."""

    frame: Frame
    end: float
    """When its last bit left, µs."""
    unit: int
    pdu: bytes

    @property
    def device(self) -> str:
        return f"unit {self.unit}"

    def size(self) -> int | None:
        """Bytes of the normal answer's PDU, where the request tells."""
        code, count = self.pdu[0], int.from_bytes(self.pdu[3:5], "big")
        if code in {1, 2}:
            return 2 + (count + 7) // 8
        if code in {3, 4, 23}:
            return 2 + 2 * count
        return {5: 5, 6: 5, 15: 5, 16: 5, 22: 7}.get(code)

    def fits(self, unit: int, pdu: bytes) -> bool:
        """Whether that could be the answer to it."""
        if unit != self.unit or not pdu:
            return False
        if pdu[0] == self.pdu[0] | 0x80:
            return len(pdu) == 2  # noqa: PLR2004  # function and code
        if pdu[0] != self.pdu[0]:
            return False
        size = self.size()
        return size is None or (len(pdu) == size and (pdu[0] > 4 or pdu[1] == size - 2))  # noqa: PLR2004  # a read

    def expected(self) -> bytes:
        """How the frame of the normal answer begins (RTU)."""
        size = self.size()
        counted = bytes((size - 2 & 0xFF,)) if size is not None and self.pdu[0] in {1, 2, 3, 4, 23} else b""
        return bytes((self.unit, self.pdu[0])) + counted


class _Heard:
    """What came after one request, until the next: bytes, and when each came."""

    def __init__(self, pieces: Sequence[Frame]) -> None:
        self.data = b"".join(piece.data for piece in pieces)
        self._starts: list[tuple[int, int, int]] = []
        at = 0
        for piece in pieces:
            self._starts.append((at, piece.time, len(piece.data)))
            at += len(piece.data)

    def cut(self, begin: int, end: int, character: float) -> tuple[Frame, float, float]:
        """The bytes from `begin` to `end` as one frame; when it began, µs; its longest pause, seconds."""
        inside = [one for one in self._starts if one[0] < end and one[0] + one[2] > begin]
        first = inside[0][1] - (min(inside[0][2] + inside[0][0], end) - max(inside[0][0], begin)) * character * 1e6
        gap = 0.0
        for before, after in pairwise(inside):
            gap = max(gap, (after[1] - before[1]) / 1e6 - after[2] * character)
        return Frame(inside[-1][1], "rx", self.data[begin:end]), first, gap


def annotate_line(pieces: Sequence[Frame], character: float, *, ascii: bool) -> list[FrameNote]:  # noqa: A002  # the mode
    """The notes for one serial line, or for the line behind a serial server. `character` in seconds."""
    return _LineReader(character, ascii=ascii).read(pieces)


class _LineReader:
    """Reads one ring. Used once."""

    def __init__(self, character: float, *, ascii: bool) -> None:  # noqa: A002  # the mode's name
        self._character = character
        self._ascii = ascii
        self._frames = ascii_frames if ascii else rtu_frames
        self._owed: list[_Asked] = []
        self._notes: list[FrameNote] = []

    def read(self, pieces: Sequence[Frame]) -> list[FrameNote]:
        asked: _Asked | None = None
        heard: list[Frame] = []
        for piece in pieces:
            if piece.direction == "rx":
                heard.append(piece)
                continue
            self._exchange(asked, heard, over=True)
            heard = []
            asked = self._ask(piece)
        self._exchange(asked, heard, over=False)
        return self._notes

    def _ask(self, piece: Frame) -> _Asked | None:
        body = _body(piece.data, ascii=self._ascii)
        if body is None:
            self._notes.append(FrameNote(piece, "request", f"sent {_hex(piece.data)}"))
            return None
        asked = _Asked(piece, piece.time + len(piece.data) * self._character * 1e6, body[0], body[1:])
        parts = _parts(piece.data, asks=True, ascii=self._ascii)
        self._notes.append(FrameNote(piece, "request", spell_request(asked.pdu), asked.device, parts))
        return asked

    def _exchange(self, asked: _Asked | None, pieces: Sequence[Frame], *, over: bool) -> None:
        """What came after `asked`. `over`: nothing more can come."""
        heard = _Heard(pieces)
        begin = 0
        if asked is not None and _is_echo(heard.data, asked):
            begin = len(asked.frame.data)
            self._add(heard, 0, begin, "echo", "our own bytes, heard by our own receiver", asked)
        answered = False
        noise_from = begin
        for start, end, found in self._located(heard.data, begin, asked):
            answers = asked is not None and not answered and asked.fits(found.unit, found.pdu)
            if noise_from < start:
                self._rubbish(heard, noise_from, start, asked, answered=answered, before=answers)
            self._frame(heard, start, end, found, asked, answered=answered)
            answered = answered or answers
            noise_from = end
        if noise_from < len(heard.data):
            self._rubbish(heard, noise_from, len(heard.data), asked, answered=answered, before=False)
        if asked is not None and not answered and asked.unit:
            self._owed = [*self._owed[1 - _OWED :], asked]
            if len(heard.data) == begin and over:
                self._notes.append(FrameNote(asked.frame, "silence", "no answer", asked.device, error="no answer"))

    def _located(self, data: bytes, begin: int, asked: _Asked | None) -> Iterator[tuple[int, int, Heard]]:
        """The frames with a right checksum, and where they lie."""
        at = begin
        if asked is not None and asked.size() is None and not self._ascii:
            identified = _identification(data, begin, asked)
            if identified is not None:
                yield identified
                at = identified[1]
        for found in self._frames(data[at:]):
            body = bytes((found.unit,)) + found.pdu
            raw = ascii_frame(found.unit, found.pdu) if self._ascii else body + crc16(body).to_bytes(2, "little")
            start = (data.upper() if self._ascii else data).find(raw, at)
            if start >= 0:
                at = start + len(raw)
                yield start, at, found

    def _frame(
        self, heard: _Heard, start: int, end: int, found: Heard, asked: _Asked | None, *, answered: bool
    ) -> None:
        """A frame that is whole."""
        refusal = bool(found.pdu[0] & 0x80)
        text = spell_refusal(found.pdu) if refusal else spell_answer(found.pdu)
        device = f"unit {found.unit}"
        add = partial(self._add, heard, start, end, device=device)
        if asked is not None and asked.fits(found.unit, found.pdu):
            if answered:
                add("again", text, asked, error="a second answer to the same request")
            else:
                add("refusal" if refusal else "answer", text, asked, error=text if refusal else "")
            return
        owed = next((one for one in reversed(self._owed) if one.fits(found.unit, found.pdu)), None)
        if owed is not None:
            self._owed = [one for one in self._owed if one is not owed]
            add("late", text, owed, error="an answer to an earlier request, which had been given up")
        elif found.asks:
            add("foreign", spell_request(found.pdu), asked, error="a request that is not ours: there is another master")
        else:
            add("foreign", text, asked, error="an answer that we did not ask for")

    def _rubbish(
        self, heard: _Heard, begin: int, end: int, asked: _Asked | None, *, answered: bool, before: bool
    ) -> None:
        """Bytes that are no frame."""
        data = heard.data[begin:end]
        if asked is None or answered or before:
            where: Defect = "before" if before else "after" if answered else "unknown"
            text = f"{len(data)} stray bytes{f' {where} the answer' if where != 'unknown' else ''}: {_hex(data)}"
            self._add(heard, begin, end, "noise", text, asked, error="stray bytes", defect=where)
            return
        defect, why = _diagnosis(data, asked, ascii=self._ascii)
        if defect == "unknown":
            error = f"no answer can be made of these {len(data)} bytes"
            self._add(heard, begin, end, "noise", _hex(data), asked, error=error, defect=defect)
        else:
            self._add(heard, begin, end, "damaged", f"{why}: {_hex(data)}", asked, error=why, defect=defect)

    def _add(
        self, heard: _Heard, begin: int, end: int, kind: NoteKind, text: str, asked: _Asked | None, *,
        device: str = "", error: str = "", defect: Defect = "",
    ) -> None:  # fmt: skip
        frame, first, gap = heard.cut(begin, end, self._character)
        parts: tuple[Part, ...] = ()
        if kind in {"answer", "refusal", "late", "again", "foreign"}:
            parts = _parts(frame.data, asks=kind == "foreign" and "request" in error, ascii=self._ascii)
        elif kind == "damaged":
            parts = _parts(frame.data, asks=False, ascii=self._ascii)
        self._notes.append(
            FrameNote(
                frame, kind, text, device or (asked.device if asked else ""), parts, error, defect,
                max(0.0, (first - asked.end) / 1e6) if asked else 0.0, gap,
                asked.expected() if asked and not self._ascii else b"",
            )
        )  # fmt: skip


def _is_echo(data: bytes, asked: _Asked) -> bool:
    """Whether it begins with what was sent. The answer to some writes looks the same: then it comes twice."""
    sent = asked.frame.data
    if not data.startswith(sent):
        return False
    return asked.pdu[0] not in {5, 6, 22} or data[len(sent) :].startswith(sent)


def _diagnosis(data: bytes, asked: _Asked, *, ascii: bool) -> tuple[Defect, str]:  # noqa: A002  # the mode's name
    """How an answer is damaged, and that in words."""
    if ascii:
        return "unknown", ""
    refusal = bytes((asked.unit, asked.pdu[0] | 0x80))
    if len(data) <= _REFUSAL + 1 and _alike(data, refusal) > _alike(data, asked.expected()):
        return _compared(data, refusal, _REFUSAL)
    size = asked.size()
    if size is None:
        size = _told_size(data)
    return _compared(data, asked.expected(), size + 3) if size is not None else ("unknown", "")


def _compared(data: bytes, expected: bytes, whole: int) -> tuple[Defect, str]:
    """What is wrong with an answer that should begin so and be so long."""
    missing = whole - len(data)
    right = _alike(data, expected)
    if not missing and right >= len(expected) - 1:
        return "garbled", "as long as it should be, checksum wrong"
    if -_A_LITTLE <= missing < 0 and _without_some(data, -missing):
        return "inserted", f"{-missing} bytes too many inside, without them it is right"
    if missing < -_A_LITTLE and right == len(expected):
        return "long", f"{-missing} bytes more than it should have"
    if missing == 1 and right < len(expected):
        heads = (expected[:i] + expected[i + 1 :] for i in range(len(expected) - 1))
        return ("short", "a byte of its head is missing") if any(map(data.startswith, heads)) else ("unknown", "")
    if missing <= 0 or right < min(len(expected), len(data)) or not right:
        return "unknown", ""
    if missing == 1 and crc16(data[:-1]) & 0xFF == data[-1]:
        return "cut", "the last byte is missing"
    return "short", f"{missing} of {whole} bytes are missing"


def _alike(data: bytes, expected: bytes) -> int:
    return sum(a == b for a, b in zip(data, expected, strict=False))


def _told_size(data: bytes) -> int | None:
    """The size of the PDU as an identification tells it itself."""
    try:
        return read_identification().size_of(data[1:])
    except InvalidReplyError:
        return None


def _identification(data: bytes, begin: int, asked: _Asked) -> tuple[int, int, Heard] | None:
    """The answer to a request for the identification, whose length only it tells itself, and where it lies."""
    for start in range(begin, len(data)):
        size = _told_size(data[start:]) if data[start] == asked.unit else None
        frame = data[start : start + size + 3] if size is not None else b""
        if size is not None and len(frame) == size + 3 and not crc16(frame):
            return start, start + len(frame), Heard(frame[0], frame[1:-2], asks=False)
    return None


def _without_some(data: bytes, count: int) -> bool:
    """Whether it is a right frame without `count` bytes in a row."""
    return any(not crc16(data[:i] + data[i + count :]) for i in range(1, len(data) - count + 1))


def _body(data: bytes, *, ascii: bool) -> bytes | None:  # noqa: A002  # the mode's name
    """Unit and PDU of one of our own requests."""
    if ascii:
        found = next(ascii_frames(data), None)
        return bytes((found.unit,)) + found.pdu if found else None
    return data[:-2] if len(data) >= _REQUEST_SIZE and not crc16(data) else None


def _parts(data: bytes, *, asks: bool, ascii: bool) -> tuple[Part, ...]:  # noqa: A002  # the mode's name
    """The fields of one frame, its checksum recomputed."""
    if ascii:
        body = _body(data, ascii=True)
        if body is None:
            return ()
        return _unit_and_pdu(body, asks=asks, end=Part("LRC", bytes((lrc(body),)), "ok"))
    if len(data) < _REQUEST_SIZE:
        return ()
    right = crc16(data[:-2]).to_bytes(2, "little")
    crc = Part("CRC", data[-2:], "ok") if right == data[-2:] else _wrong_crc(data, right)
    return _unit_and_pdu(data[:-2], asks=asks, end=crc)


def _wrong_crc(data: bytes, right: bytes) -> Part:
    return Part("CRC", data[-2:], f"wrong, {right.hex(' ').upper()} would fit", wrong=True)


def _unit_and_pdu(body: bytes, *, asks: bool, end: Part | None = None) -> tuple[Part, ...]:
    tail = () if end is None else (end,)
    return (Part("unit", body[:1], str(body[0])), *pdu_parts(body[1:], asks=asks), *tail)


def _hex(data: bytes) -> str:
    return data[:_HEX].hex(" ").upper() + (" …" if len(data) > _HEX else "")


# -- networks ----------------------------------------------------------------------------------------------------------

_HEADER = 6


def annotate_network(pieces: Iterable[Frame]) -> list[FrameNote]:
    """The notes for one Modbus TCP, TLS or UDP connection."""
    asked: dict[int, _Asked] = {}
    notes: list[FrameNote] = []
    rest, waiting = b"", 0
    for piece in pieces:
        if piece.direction == "tx":
            if waiting and notes and notes[-1].kind == "request":
                notes.append(FrameNote(notes[-1].frame, "silence", "no answer", notes[-1].device, error="no answer"))
            rest = b""
        data = rest + piece.data
        rest = b""
        while data:
            size = _HEADER + int.from_bytes(data[4:6], "big")
            if len(data) < _HEADER or (len(data) < size and data[2:4] == b"\0\0"):
                rest = data
                break
            note = _packet(Frame(piece.time, piece.direction, data[:size]), asked)
            if note.kind == "noise":
                notes.append(_packet(Frame(piece.time, piece.direction, data), asked))
                break
            notes.append(note)
            data = data[size:]
        waiting = piece.direction == "tx"
    if rest:
        cut = Frame(piece.time, "rx", rest)
        why = "only a part of a frame"
        notes.append(FrameNote(cut, "damaged", f"{why}: {_hex(rest)}", error=why, defect="cut"))
    return notes


def _packet(frame: Frame, asked: dict[int, _Asked]) -> FrameNote:
    """One frame with its header."""
    data = frame.data
    number, body = int.from_bytes(data[:2], "big"), data[_HEADER:]
    if data[2:4] != b"\0\0" or len(body) < 2:  # noqa: PLR2004  # unit and function
        return FrameNote(frame, "noise", _hex(data), error="this is not Modbus", defect="unknown")
    head = (
        Part("transaction", data[:2], str(number)),
        Part("protocol", data[2:4], "0 Modbus"),
        Part("length", data[4:6], str(len(body))),
    )
    device = f"unit {body[0]}"
    sending = frame.direction == "tx"
    parts = (*head, *_unit_and_pdu(body, asks=sending))
    if sending:
        asked[number] = _Asked(frame, frame.time, body[0], body[1:])
        while len(asked) > _OWED:
            del asked[next(iter(asked))]
        return FrameNote(frame, "request", spell_request(body[1:]), device, parts)
    refusal = bool(body[1] & 0x80)
    text = spell_refusal(body[1:]) if refusal else spell_answer(body[1:])
    latest = next(reversed(asked), None)
    question = asked.pop(number, None)
    after = (frame.time - question.end) / 1e6 if question else 0.0
    note = partial(FrameNote, frame, device=device, parts=parts, after=after)
    if question is None:
        return note("foreign", text, error=f"an answer to transaction {number}, which we did not ask")
    if not question.fits(body[0], body[1:]):
        return note("damaged", text, error="not what was asked for: another unit, function or length", defect="foreign")
    if latest != number:
        return note("late", text, error="an answer to an earlier request, which had been given up")
    return note("refusal" if refusal else "answer", text, error=text if refusal else "")


def annotate(pieces: Sequence[Frame], character: float, *, framing: str) -> list[FrameNote]:
    """The notes for one ring. `framing`: `rtu`, `ascii` or `tcp`; `character` in seconds."""
    return annotate_network(pieces) if framing == "tcp" else annotate_line(pieces, character, ascii=framing == "ascii")
