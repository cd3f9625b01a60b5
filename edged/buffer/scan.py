"""Finds rows in a damaged SQLite file page by page, without its tree.

Every row has a checksum, so what looks like one and has the right checksum is one. The layout of the pages is that of
https://www.sqlite.org/fileformat2.html, sections 1.5 to 1.6 (pages), 2.1 (records) and 4 (the journal).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from edged.buffer.counters import Ledger
from edged.buffer.store import PAGE, parse_state
from edged.buffer.table import StoredRow, decode_row

_LEAF = 0x0D
_LARGEST = 2**26
"""Bytes of a row; a length beyond it is damage."""
_WAL_HEADER, _FRAME_HEADER = 32, 24
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Serial type → bytes."""
_COLUMNS = (9, 10)
"""Of a row of the log: format 1 had no `target`."""
_STATE_COLUMNS = 6

Record = tuple[int, list[object]]
"""(rowid, columns)."""


def scan_rows(path: Path) -> Iterator[StoredRow]:
    """All sound rows of the log in pages that are in use, in no order, some perhaps twice. Raises OSError."""
    for rowid, columns in scan(path):
        if len(columns) not in _COLUMNS or columns[0] is not None:
            continue
        row: Any = (rowid, *columns[1:], *([] if len(columns) == _COLUMNS[1] else [""]))
        if isinstance(row[8], bytes) and decode_row(row) is not None:
            yield row


def scan_state(path: Path) -> Ledger | None:
    """The newest book that can be found. Raises OSError."""
    found: list[Ledger] = []
    for _, columns in scan(path):
        if len(columns) == _STATE_COLUMNS:
            with suppress(ValueError):
                found.append(parse_state(*columns[1:])[2])
    return max(found, key=lambda ledger: ledger.head, default=None)


def scan(path: Path) -> Iterator[Record]:
    """Everything that looks like a record of a table. Raises OSError."""
    with ExitStack() as stack:
        pages = _Pages(path, stack)
        unused = pages.unused()
        for number in range(1, pages.count + 1):
            if number not in unused:
                yield from _records(pages, number)


class _Pages:
    """The pages of a database and its journal."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._file = stack.enter_context(path.open("rb"))
        self.size = _page_size(self._file.read(100))
        self._wal: BinaryIO | None = None
        self._newer: dict[int, int] = {}
        with suppress(OSError):
            self._wal = stack.enter_context(path.with_name(path.name + "-wal").open("rb"))
            self._newer = _frames(self._wal, self.size)
        self.count = max(path.stat().st_size // self.size, max(self._newer, default=0))

    def read(self, number: int) -> bytes:
        """A page; shorter than it should be where the file ends."""
        file: BinaryIO = self._file
        at = (number - 1) * self.size
        if self._wal is not None and number in self._newer:
            file, at = self._wal, self._newer[number]
        file.seek(at)
        return file.read(self.size)

    def unused(self) -> set[int]:
        """The free pages, where deleted rows still stand; as far as the list of them is readable."""
        found: set[int] = set()
        header = self.read(1)
        number = int.from_bytes(header[32:36])
        while 0 < number <= self.count and number not in found:
            found.add(number)
            trunk = self.read(number)
            number, leaves = struct.unpack_from(">II", trunk.ljust(8, b"\0"))
            if leaves > self.size // 4 - 2:
                break
            found.update(struct.unpack_from(f">{leaves}I", trunk.ljust(self.size, b"\0"), 8))
        return found


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18])
    return size if size in {512, 1024, 2048, 4096, 8192, 16_384, 32_768} else PAGE


def _frames(wal: BinaryIO, page: int) -> dict[int, int]:
    """Page number → where its newest committed image is in the journal."""
    header = wal.read(_WAL_HEADER)
    newer: dict[int, int] = {}
    pending: dict[int, int] = {}
    at = _WAL_HEADER
    while len(frame := wal.read(_FRAME_HEADER)) == _FRAME_HEADER and frame[8:16] == header[16:24]:
        number, commit = struct.unpack_from(">II", frame)
        pending[number] = at + _FRAME_HEADER
        if commit:
            newer.update(pending)
            pending.clear()
        at += _FRAME_HEADER + page
        wal.seek(at)
    return newer


def _records(pages: _Pages, number: int) -> Iterator[Record]:
    page = pages.read(number)
    begin = 100 if number == 1 else 0
    if len(page) < pages.size or page[begin] != _LEAF:
        return
    cells = int.from_bytes(page[begin + 3 : begin + 5])
    if begin + 8 + 2 * cells > pages.size:
        return
    for pointer in struct.unpack_from(f">{cells}H", page, begin + 8):
        with suppress(IndexError, struct.error, UnicodeDecodeError):
            size, at = _varint(page, pointer)
            rowid, at = _varint(page, at)
            if 0 < size < _LARGEST:
                yield rowid, _columns(_payload(pages, page, at, size))


def _payload(pages: _Pages, page: bytes, at: int, size: int) -> bytes:
    """The bytes of a record, collected from its overflow pages."""
    usable = pages.size
    if size <= usable - 35:
        return page[at : at + size]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    if local > usable - 35:
        local = least
    parts = [page[at : at + local]]
    left = size - local
    number = int.from_bytes(page[at + local : at + local + 4])
    while left > 0:
        if not 0 < number <= pages.count:
            raise IndexError("an overflow page is missing")
        more = pages.read(number)
        number = int.from_bytes(more[:4])
        parts.append(more[4 : 4 + left])
        left -= usable - 4
    return b"".join(parts)


def _columns(record: bytes) -> list[object]:
    """The values of a record. Raises IndexError, struct.error, UnicodeDecodeError where it is none."""
    end, at = _varint(record, 0)
    types: list[int] = []
    while at < end:
        kind, at = _varint(record, at)
        types.append(kind)
        if len(types) > _COLUMNS[1]:
            raise IndexError("not one of ours")
    values: list[object] = []
    for kind in types:
        size = _INTEGERS.get(kind, 8 if kind == 7 else max(0, (kind - 12) // 2))  # noqa: PLR2004  # 7 is a float
        body = record[at : at + size]
        if len(body) < size:
            raise IndexError("a record is cut short")
        values.append(_value(kind, body))
        at += size
    return values


def _value(kind: int, body: bytes) -> object:
    if kind in _INTEGERS:
        return int.from_bytes(body, signed=True)
    if kind in {8, 9}:
        return kind - 8
    if kind >= 12:  # noqa: PLR2004  # texts and blobs begin there
        return body.decode("utf-8") if kind % 2 else body
    return struct.unpack(">d", body)[0] if body else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(the number, where it ends). Section 1.6: seven bits a byte, the ninth byte has eight."""
    number = 0
    for i in range(at, at + 8):
        number = number << 7 | data[i] & 0x7F
        if data[i] < 0x80:  # noqa: PLR2004  # the last byte has no high bit
            return number, i + 1
    number = number << 8 | data[at + 8]
    return (number - 2**64 if number >= 2**63 else number), at + 9
