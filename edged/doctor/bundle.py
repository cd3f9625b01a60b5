"""The support archive: everything a stranger needs to understand a gateway, and no secret."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edged.config.model import Config
from edged.config.secrets import FILE_NAME, resolve
from edged.config.types import Secret
from edged.errors import ConfigError

from .redact import found_in, redacted

_JOURNAL = ("journalctl", "--unit", "edged", "--lines", "2000", "--no-pager", "--output", "short-iso")
_PATIENCE = 20.0
_LARGEST = 4 * 2**20
"""Most characters of one file in the archive; the end is what matters."""


def known_secrets(config: Config | None, texts: Iterable[str], base: Path) -> set[str]:
    """Every secret that can be found: in `texts`, beside the configuration, in credentials, the environment."""
    found: set[str] = set()
    for text in texts:
        found |= found_in(text)
    found |= set(_in_file(base / FILE_NAME))
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        found.add(_text(path).strip())
    for name, value in os.environ.items():
        found |= found_in(f"{name}={value}")
        if name.startswith("EDGED_SECRET_"):
            found.add(value.strip())
    for secret in _secrets_of(config):
        try:
            found.add(resolve(secret, base=base))
        except ConfigError:
            continue  # then it is nowhere, and cannot be in the archive
    for connection in config.connections.values() if config else ():
        found.update(text for _, text, _ in connection.revealed())
    return {one for one in found if one}


def _in_file(path: Path) -> Iterator[str]:
    for line in _text(path).splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() and not line.lstrip().startswith("#"):
            yield value.strip()
            yield value.strip().strip("\"'")


def _secrets_of(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _secrets_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets_of(each)


def journal() -> str:
    """The gateway's journal as far as it can be read, or why not."""
    try:
        done = subprocess.run(  # noqa: S603  # a constant command
            _JOURNAL, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"the journal cannot be read: {exc}\n"
    return done.stdout or f"the journal cannot be read: {done.stderr}\n"


def write_bundle(path: Path, files: Mapping[str, str], secrets: set[str]) -> None:
    """Write the archive; each file goes through the nets first. Raises ConfigError."""
    folder = path.name.removesuffix(".tar.gz")
    try:
        # It may hold names of hosts and devices: nobody else's business.
        raw = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        with raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, text in files.items():
                data = redacted(text, secrets)[-_LARGEST:].encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{folder}/{redacted(name, secrets)}")
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(data))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
