"""What a disk can hold when a machine stops at any moment: from the record of all that a program did to its files.

`recorddisk.c` writes the record. A write that was not followed by a sync of its file may be there, or not, or in part;
so may each of several, in any order. Names (created, renamed, deleted files) are taken to be there at once.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

_HEAD = struct.Struct("=c4Q")
_SECTOR = 512
Fate = Literal["all", "none", "some"]
"""What becomes of writes that were not synced."""


class Step(NamedTuple):
    """One thing that was done."""

    kind: str
    inode: int
    at: int
    name: str
    data: bytes


def recorded(path: Path) -> Iterator[Step]:
    """The record, in order."""
    log, at = path.read_bytes(), 0
    while at < len(log):
        kind, inode, where, name, size = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        yield Step(
            kind.decode(), inode, where, Path(log[at : at + name].decode()).name, log[at + name : at + name + size]
        )
        at += name + size


@dataclass(slots=True)
class _File:
    """A file: what is surely on the disk, and what was done since."""

    content: bytearray
    since: list[Step]

    def sync(self) -> None:
        for step in self.since:
            _do(self.content, step)
        self.since = []

    def after(self, fate: Fate, chance: random.Random) -> bytearray:
        found = bytearray(self.content)
        for step in self.since if fate != "none" else ():
            if fate == "all":
                _do(found, step)
            elif chance.random() < 0.5:  # a coin
                _do(found, _torn(step, chance))
        return found


def _do(content: bytearray, step: Step) -> None:
    if step.kind == "t":
        del content[step.at :]
        content.extend(bytes(step.at - len(content)))
        return
    content.extend(bytes(max(0, step.at - len(content))))
    content[step.at : step.at + len(step.data)] = step.data


def _torn(step: Step, chance: random.Random) -> Step:
    """Perhaps only the sectors up to one of them."""
    if step.kind != "w" or chance.random() < 0.5:  # a coin
        return step
    end = (step.at + chance.randrange(len(step.data) + 1)) // _SECTOR * _SECTOR
    return step._replace(data=step.data[: max(0, end - step.at)])


class Disk:
    """Follows a record, and writes images of what the disk may hold."""

    def __init__(self, kept: Path) -> None:
        """`kept` has hard links to files whose inode must be that of the record, by its number."""
        self._kept = kept
        self._names: dict[str, int] = {}
        self._files: dict[int, _File] = {}

    def do(self, step: Step) -> None:
        """The next step was taken."""
        if step.kind == "r":
            self._names[Path(step.data.decode()).name] = self._names.pop(step.name)
        elif step.kind == "u":
            gone = self._names.pop(step.name, 0)
            if gone and gone not in self._names.values():
                del self._files[gone]
        elif step.kind == "s":
            if step.inode in self._files:  # not a directory, nor a file without a change
                self._files[step.inode].sync()
        else:
            self._names[step.name] = step.inode
            self._files.setdefault(step.inode, _File(bytearray(), [])).since.append(step)

    def unsynced(self) -> int:
        """How many steps a power cut might undo."""
        return sum(len(file.since) for file in self._files.values())

    def image(self, folder: Path, fate: Fate, chance: random.Random) -> None:
        """Make the folder as it would be found."""
        for old in folder.iterdir():
            old.unlink()
        for name, inode in self._names.items():
            if (self._kept / str(inode)).exists():
                os.link(self._kept / str(inode), folder / name)
            (folder / name).write_bytes(self._files[inode].after(fate, chance))
