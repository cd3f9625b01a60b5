"""What can become of a buffer's file while the gateway is down."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path


def _cut(share: float, path: Path) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def _scribble(at: float, size: int, path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * at))
        file.write(random.Random(size).randbytes(size))


def _journal(damage: Callable[[Path], None], path: Path) -> None:
    journal = path.with_name(path.name + "-wal")
    if journal.exists() and journal.stat().st_size:
        damage(journal)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _zero_page(page: int, path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(page * 1024)
        file.write(bytes(1024))


def _delete_all(path: Path) -> None:
    """Then only the receiver can see, by the new epoch, that something is gone."""
    for one in path.parent.glob("buffer.db*"):
        one.unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut to half": partial(_cut, 0.5),
    "journal emptied": partial(_journal, partial(_cut, 0)),
    "torn page": partial(_scribble, 0.6, 500),
    "cut to nothing": partial(_cut, 0),
    "cut to a tenth": partial(_cut, 0.1),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "deleted": Path.unlink,
    "deleted with all beside it": _delete_all,
    "zeroed": _zero,
    "text": lambda path: path.write_bytes(b"nothing of the kind\n" * 100),
    "magic overwritten": partial(_scribble, 0, 16),
    "first page zeroed": partial(_zero_page, 0),
    "second page zeroed": partial(_zero_page, 1),
    "third page zeroed": partial(_zero_page, 2),
    "one byte of noise in the middle": partial(_scribble, 0.5, 1),
    "its last pages overwritten": partial(_scribble, 0.9, 2000),
    "twenty pages overwritten": partial(_scribble, 0.3, 20_000),
    "journal zeroed": partial(_journal, _zero),
    "journal cut to half": partial(_journal, partial(_cut, 0.5)),
    "journal torn": partial(_journal, partial(_scribble, 0.5, 500)),
}
