"""The file of a codec: where it is, and what it says now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edged.adapter import ConfigError, FileName

SHIPPED = Path(__file__).parents[1] / "profiles"
LARGEST = 1 << 20
"""Bytes of a script; the largest of those published has a third of it."""


def find(name: FileName) -> Path:
    """The file of a codec: as given, beside the configuration, in the folder `profiles` there, or shipped with edged.

    Raises ConfigError.
    """
    given = Path(name)
    places = [given, given.parent / "profiles" / given.name, SHIPPED / given.name]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"there is no codec {given.name}: looked in {given.parent}, in its folder `profiles`, and among those that "
        f"edged ships"
    )


@dataclass(slots=True)
class Script:
    """A codec. It is read anew when its file changes."""

    file: Path
    number: int
    """Which one it is, for the process that runs it."""
    source: str = ""
    version: int = 0
    """Raised whenever the source is another one."""
    _seen: tuple[int, int, int] = (0, 0, 0)

    @property
    def name(self) -> str:
        """For people."""
        return self.file.name

    def refresh(self) -> None:
        """Read it if it has changed. Raises ConfigError when there is nothing to run."""
        try:
            status = self.file.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            if status.st_size > LARGEST:
                raise ConfigError(f"{self.file} is larger than {LARGEST >> 20} MiB: is it a codec?")
            source = self.file.read_text("utf-8")
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{self.file} is not UTF-8 text") from exc
        except OSError as exc:
            raise ConfigError(f"{self.file} cannot be read: {exc.strerror or exc}") from exc
        self.source, self._seen = source, seen
        self.version += 1
