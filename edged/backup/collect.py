"""What belongs into a backup: the files of the configuration and of the state, as they are now."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged import __version__
from edged.backup.archive import digest_of, room
from edged.backup.databases import Copied, copy_buffer, copy_commands
from edged.backup.manifest import BUFFER, CLOCK, COMMANDS, MAX_FILE, Manifest, Member, part_of
from edged.clock import iso, wall_us
from edged.config.load import Loaded, load
from edged.config.model import Config
from edged.config.secrets import FILE_NAME
from edged.config.types import FileName, Secret
from edged.errors import ConfigError, PermanentError

SCRATCH = ".edged-scratch-"
_SPARE = 16 * 2**20
"""Bytes that are left free in any case, where backups go."""
_KEYS = (".key", ".p12", ".pfx")


@dataclass(slots=True)
class Collected:
    """Everything for one archive."""

    manifest: Manifest
    sources: dict[str, bytes | Path] = field(default_factory=dict)


@dataclass(slots=True)
class _Findings:
    """Grows while one looks."""

    folder: Path
    members: list[Member] = field(default_factory=list)
    sources: dict[str, bytes | Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """What a file of the configuration is called in a backup."""
        if path.is_relative_to(self.folder):
            return f"config/{path.relative_to(self.folder).as_posix()}"
        return f"outside{path.as_posix()}"

    def file(self, path: Path, name: str, *, secret: bool = False) -> None:
        """Take a file as it is. Raises ConfigError where that is not possible."""
        if name in self.sources:
            return
        try:
            mode, content = path.stat().st_mode & 0o777, path.read_bytes()
        except OSError as exc:
            hint = "; try with sudo" if isinstance(exc, PermissionError) else ""
            raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}{hint}") from exc
        if len(content) > MAX_FILE:
            self.left_out.append(str(path))
            self.notes.append(f"{path} is larger than {MAX_FILE // 2**20} MiB, and not in this backup")
            return
        self._add(name, len(content), hashlib.sha256(content).hexdigest(), mode, secret=secret)
        self.sources[name] = content

    def database(self, copy: Path, name: str) -> None:
        """Take a copy that was made for this."""
        self._add(name, *digest_of(copy), 0o640)
        self.sources[name] = copy

    def _add(self, name: str, size: int, digest: str, mode: int, *, secret: bool = False) -> None:
        part = part_of(name)
        if part is None:
            raise PermanentError(f"{name} cannot be in a backup: such a path is too long or too strange", reason="name")
        self.members.append(Member(name, size, digest, mode, part, secret))


@contextmanager
def collected(main: Path, state: Path, target: Path, *, secrets: bool, gateway: str = "") -> Iterator[Collected]:
    """All of one gateway, copied in the folder `target` as far as it must be; removed when left.

    `gateway`: its id, where the configuration has errors and so does not say.

    Raises ConfigError, TransientError (full disk, or a buffer that cannot be read now).
    """
    loaded = load(main)
    found = _Findings(main.resolve().parent)
    _configuration(found, main.resolve(), loaded, secrets=secrets)
    config = loaded.config
    buffer_path = config.buffer.path if config else ""
    buffer = Path(buffer_path) if buffer_path else state / "buffer.db"
    databases = [path for path in (buffer, state / "commands.db") if path.is_file()]
    room(target, 2 * sum(path.stat().st_size for path in databases), _SPARE)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target) as scratch:
        copied = _state(found, state, buffer, Path(scratch), secrets=secrets)
        ident = str(config.gateway.id) if config else gateway
        manifest = _manifest(found, main.resolve(), ident, buffer_path, copied, secrets=secrets)
        yield Collected(dataclasses.replace(manifest, valid=config is not None), found.sources)


def _manifest(  # one parameter a fact
    found: _Findings, main: Path, gateway: str, buffer_path: str, copied: Copied | None, *, secrets: bool
) -> Manifest:
    return Manifest(
        edged=__version__,
        gateway=gateway,
        epoch=copied.epoch if copied else "",
        head=copied.head if copied else 0,
        time=iso(wall_us()),
        folder=str(found.folder),
        main=found.name(main),
        buffer_path=buffer_path,
        secrets=secrets,
        left_out=tuple(found.left_out),
        notes=tuple(found.notes),
        readings=copied.readings if copied else 0,
        pending=dict(copied.pending) if copied else {},
        members=tuple(found.members),
    )


def _configuration(found: _Findings, main: Path, loaded: Loaded, *, secrets: bool) -> None:
    found.file(main, found.name(main))
    packages = {*_shipped(loaded.config), Path(__file__).parents[1]}
    for path in loaded.files:
        whole = path.absolute()
        if whole.resolve() != main and not any(whole.is_relative_to(package) for package in packages):
            found.file(whole, found.name(whole))
    if loaded.config is None:
        found.notes.append("the configuration has errors; files that it names, such as certificates, are not included")
    connections = loaded.config.connections.values() if loaded.config else ()
    in_the_clear = sum(1 for connection in connections for _ in connection.revealed())
    for name, value in _settings(loaded.config):
        if isinstance(value, Secret):
            in_the_clear += bool(value.text)
        elif value and "://" not in value:
            _named(found, Path(value.at(found.folder)), key=name == "key", secrets=secrets)
    if in_the_clear:
        found.notes.append(f"the configuration itself has {in_the_clear} secrets in the clear, and so has this backup")
    if (found.folder / FILE_NAME).exists():
        _private(found, found.folder / FILE_NAME, secrets=secrets)


def _shipped(config: Config | None) -> Iterator[Path]:
    """The folders of profiles that come with adapters."""
    from edged.adapter import load_adapter  # noqa: PLC0415  # beside its only use: adapters are heavy

    for bus in config.buses.values() if config else ():
        folder = load_adapter(bus.adapter).profiles()
        if folder is not None:
            yield folder


def _named(found: _Findings, path: Path, *, key: bool, secrets: bool) -> None:
    """A file that a setting names."""
    try:
        if not path.is_file():
            found.notes.append(f"{path} is named in the configuration, and is not there")
            return
        private = key or path.suffix in _KEYS or b"PRIVATE KEY" in path.read_bytes()
    except OSError as exc:
        if not secrets:  # only its owner may read it, so it is one that is left out
            private = True
        else:
            raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}; try with sudo") from exc
    if private:
        _private(found, path, secrets=secrets)
    else:
        found.file(path, found.name(path))


def _private(found: _Findings, path: Path, *, secrets: bool) -> None:
    if secrets:
        found.file(path, found.name(path), secret=True)
    elif str(path) not in found.left_out:
        found.left_out.append(str(path))


def _settings(value: Any) -> Iterator[tuple[str, Secret | FileName]]:
    """(setting, value) of every secret and file name."""
    for one in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        yield from _within(one.name, getattr(value, one.name))


def _within(name: str, held: Any) -> Iterator[tuple[str, Secret | FileName]]:
    if isinstance(held, Secret | FileName):
        yield name, held
    elif isinstance(held, Mapping):
        for inner in held.values():
            yield from _within(name, inner)
    elif isinstance(held, list | tuple):
        for inner in held:
            yield from _within(name, inner)
    else:
        yield from _settings(held)


def _own(path: Path) -> bool:
    """Whether it is a file that the gateway has written: root must not follow a link which another has put there."""
    return path.is_file() and not path.is_symlink()


def _state(found: _Findings, state: Path, buffer: Path, scratch: Path, *, secrets: bool) -> Copied | None:
    """Commands after the buffer: what was carried out must not be forgotten."""
    copied = None
    if buffer.is_file():
        copied = copy_buffer(buffer, scratch / "buffer.db")
        found.database(scratch / "buffer.db", BUFFER)
    else:
        found.notes.append(f"there is no buffer {buffer}")
    if _own(state / "clock.json"):
        found.file(state / "clock.json", CLOCK)
    if (state / "commands.db").is_file():
        copy_commands(state / "commands.db", scratch / "commands.db")
        found.database(scratch / "commands.db", COMMANDS)
    for path in filter(_own, sorted((state / "history").glob("[0-9]*.json"))):
        found.file(path, f"state/history/{path.name}")
    for path in sorted((state / "connections").rglob("*")):
        if _own(path):
            name = f"state/{path.relative_to(state).as_posix()}"
            if b"PRIVATE KEY" not in path.read_bytes():
                found.file(path, name)
            elif secrets:
                found.file(path, name, secret=True)
            else:
                found.left_out.append(str(path))
    return copied
