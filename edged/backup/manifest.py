"""What is in a backup, as its first member says. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from edged.config.problems import printable
from edged.config.types import Name
from edged.errors import ConfigError, PermanentError

FORMAT = 1
"""Raised when an older edged could not restore a backup any more."""
NAME = "manifest.json"
MAX_MANIFEST = 4 * 2**20
MAX_FILE = 16 * 2**20
"""Bytes of one file of the configuration: more than that is none, for the loader as well."""
MAX_FILES = 10_000

Part = Literal["config", "history", "connections", "commands", "buffer"]
PARTS: tuple[Part, ...] = get_args(Part)
"""`config`: the files that say what the gateway does. `history`: the configurations that were applied. `connections`:
what these must remember. `commands`: what was commanded, and the twin. `buffer`: the readings, and what is known of the
clocks that they were read by."""
BUFFER, COMMANDS, CLOCK = "state/buffer.db", "state/commands.db", "state/clock.json"
_STATE: dict[str, Part] = {BUFFER: "buffer", CLOCK: "buffer", COMMANDS: "commands"}
_HISTORY = re.compile(r"state/history/[0-9]{6}\.json")
_ROOTS: dict[str, Part] = {"config/": "config", "outside/": "config", "state/connections/": "connections"}
_LONGEST = 200
_ASIDE = re.compile(r"before-restore-|\.restore-")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a backup."""

    name: str
    size: int
    sha256: str
    mode: int
    part: Part
    secret: bool = False
    """Whether it holds a private key or passwords."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a backup says of itself."""

    edged: str
    gateway: str
    epoch: str
    """The buffer's at that time; empty if there was none. A restored buffer begins another one."""
    head: int
    """The last sequence number given at that time."""
    time: str
    """ISO 8601, UTC."""
    folder: str
    """Where the configuration lay."""
    main: str
    """Its main file, as named in this backup."""
    buffer_path: str = ""
    """`buffer: path` of the configuration."""
    valid: bool = True
    """Whether the configuration had no errors."""
    secrets: bool = False
    """Whether private keys and secrets are included."""
    left_out: tuple[str, ...] = ()
    """Files that a restored gateway needs and that are not here."""
    notes: tuple[str, ...] = ()
    """What a person should know."""
    readings: int = 0
    pending: dict[str, int] = field(default_factory=dict)
    """Connection → readings that waited for it."""
    members: tuple[Member, ...] = ()

    def dump(self) -> bytes:
        """As the first member of an archive."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def parts(self) -> list[Part]:
        """The parts that are included, in their order."""
        return [part for part in PARTS if any(member.part == part for member in self.members)]

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members)


_TEXTS = ("edged", "gateway", "epoch", "time", "folder", "main")
_MAY_LACK = ("buffer_path",)
_LISTS = ("left_out", "notes")
_SWITCHES = ("valid", "secrets")
_COUNTS = ("head", "readings")


def parse(data: bytes) -> Manifest:
    """What `dump` wrote, also what a newer edged has added to it.

    Raises ConfigError (of a newer format), PermanentError `backup` (it is something else).
    """
    try:
        record: dict[str, Any] = json.loads(data)
        version = record.pop("format")
        if isinstance(version, int) and version > FORMAT:
            raise ConfigError(
                f"this backup was made by edged {record.get('edged')} in format {version}; this edged knows {FORMAT}: "
                "update edged"
            )
        if version != FORMAT:
            raise ValueError(f"format {version!r}")
        for name in _LISTS:
            record[name] = tuple(printable(str(one)) for one in record[name])
        record["pending"] = {str(name): int(count) for name, count in record["pending"].items()}
        _check_values(record)
        record["members"] = tuple(_member(one) for one in record["members"])
        manifest = Manifest(**_known(Manifest, record))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        raise PermanentError(f"its manifest is not one that edged writes ({exc})", reason="backup") from exc
    _check(manifest)
    return manifest


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: record[one.name] for one in fields(kind) if one.name in record}


def _check_values(record: Mapping[str, Any]) -> None:
    """Whatever is made of them later, none of it fails. Raises ValueError, TypeError, LookupError."""
    texts = {name: record[name] for name in _TEXTS} | {name: record.get(name, "") for name in _MAY_LACK}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a text is none")
    if not all(type(record.get(name, False)) is bool for name in _SWITCHES):
        raise TypeError("neither true nor false")
    if not all(type(record.get(name, 0)) is int for name in _COUNTS):
        raise TypeError("a count is none")
    if not all(text.isprintable() for text in (*texts.values(), *record["pending"])):
        raise ValueError("a text that cannot be printed")
    if texts["gateway"]:
        Name.parse(texts["gateway"])  # it becomes a part of the names of files
    if datetime.fromisoformat(texts["time"]).tzinfo is None:
        raise ValueError(f"a time without its zone: {texts['time']!r}")


def _member(record: dict[str, Any]) -> Member:
    kinds = {"name": str, "sha256": str, "secret": bool, "size": int, "mode": int}
    if wrong := [name for name, kind in kinds.items() if type(record[name]) is not kind]:
        raise TypeError(f"{wrong[0]} of {record['name']!r}")
    if record["size"] < 0 or not 0 <= record["mode"] <= 0o777:  # noqa: PLR2004  # permission bits, no setuid
        raise ValueError(f"size or mode of {record['name']!r}")
    return Member(**_known(Member, record))


def _check(manifest: Manifest) -> None:
    """Raise PermanentError where the members are not what a backup can have."""
    names = [member.name for member in manifest.members]
    if len(names) > MAX_FILES or len(set(names)) < len(names):
        raise PermanentError("its manifest names too many files, or one twice", reason="backup")
    for member in manifest.members:
        if part_of(member.name) != member.part:
            raise PermanentError(f"its manifest has {member.name!r}, which no backup has", reason="backup")
        if not member.name.endswith(".db") and member.size > MAX_FILE:
            raise PermanentError(f"{member.name} is larger than {MAX_FILE // 2**20} MiB", reason="backup")
    if manifest.main not in names and "config" in manifest.parts:
        raise PermanentError(f"the main file {manifest.main!r} is not among its members", reason="backup")


def part_of(name: str) -> Part | None:
    """The part that a member of this name belongs to; None if no backup has such a member."""
    if name in _STATE:
        return _STATE[name]
    if _HISTORY.fullmatch(name):
        return "history"
    root = next((root for root in _ROOTS if name.startswith(root)), "")
    steps = name.removeprefix(root).split("/")
    harmless = all(step not in {"", ".", ".."} for step in steps) and not _ASIDE.match(steps[0])
    if root and harmless and len(name) <= _LONGEST and name.isprintable() and "\\" not in name:
        return _ROOTS[root]
    return None


def chosen(manifest: Manifest, only: Iterable[str]) -> Iterator[Member]:
    """The members of some parts, of all without any."""
    wanted = set(only) or set(PARTS)
    return (member for member in manifest.members if member.part in wanted)
