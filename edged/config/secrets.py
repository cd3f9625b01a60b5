"""Where the text of a secret comes from. The text is never logged, never printed, never cached.

Looked for in this order: systemd's credentials, the file `secrets.env` beside the configuration, the environment
variable `EDGED_SECRET_<NAME>`. See docs/how-to/secrets.md.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import Any

from edged.config.types import FileName, Secret
from edged.discretion import hide
from edged.errors import ConfigError

SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FILE_NAME = "secrets.env"


def resolve(secret: Secret, *, base: Path) -> str:
    """The text of a secret; `base` is the folder of the configuration.

    Raises ConfigError, which names the places that were looked in, when it is nowhere, empty or unreadable.
    """
    if not secret.name:
        hide(secret.text)
        return secret.text
    name = secret.name
    if not SECRET_NAME.fullmatch(name):
        raise ConfigError("a secret's name has only letters, digits, `-`, `_` and `.`")
    for text, place in (
        (_from_credentials(name), "systemd's credentials"),
        (_from_file(name, base / FILE_NAME), str(base / FILE_NAME)),
        (os.environ.get(variable_of(name)), f"${variable_of(name)}"),
    ):
        if text is None:
            continue
        text = text.rstrip("\r\n")  # noqa: PLW2901  # the same text without what an editor appended
        if not text:
            raise ConfigError(f"the secret `{name}` in {place} is empty")
        hide(text)
        return text
    raise ConfigError(f"there is no secret `{name}`: looked in {', '.join(places(name, base))}")


def filled(value: Any, *, base: Path) -> Any:
    """`value`, a configuration dataclass, with the text of every secret and the whole path of every file in it.

    Raises ConfigError.
    """
    if isinstance(value, Secret):
        return dataclasses.replace(value, text=resolve(value, base=base))
    if isinstance(value, FileName):
        return value.at(base)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    changed = {name: new for name, old in held.items() if (new := _filled_if_it_can(old, base)) is not old}
    return dataclasses.replace(value, **changed) if changed else value


def _filled_if_it_can(value: Any, base: Path) -> Any:
    """Looks only where a secret can be, so that a thousand points need not be copied for a key."""
    fillable = isinstance(value, Secret | FileName) or dataclasses.is_dataclass(value)
    return filled(value, base=base) if fillable else value


def placed(value: Any, base: Path) -> Any:
    """`value`, a configuration dataclass, with the whole path of every file in it, for what needs no secret."""
    held = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
    moved = {name: new for name, old in held.items() if (new := _placed_if_it_can(old, base)) is not old}
    return dataclasses.replace(value, **moved) if moved else value


def _placed_if_it_can(value: Any, base: Path) -> Any:
    if isinstance(value, FileName):
        there = value.at(base)
        return value if there == value else there
    return placed(value, base) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def places(name: str, base: Path) -> list[str]:
    """Everywhere a secret is looked for, in order, for people."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    first = f"{folder}/{name}" if folder else "systemd's credentials (this process was given none)"
    return [first, str(base / FILE_NAME), f"the environment variable {variable_of(name)}"]


def variable_of(name: str) -> str:
    """The environment variable of a secret."""
    return "EDGED_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def exposed(base: Path) -> str | None:
    """A warning when the secrets file can be read by everybody on the machine."""
    path = base / FILE_NAME
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not mode & stat.S_IROTH:
        return None
    return f"{path} can be read by every user of this machine: chmod o-rwx {path}"


def _from_credentials(name: str) -> str | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return _read(Path(folder) / name) if folder else None


def _from_file(name: str, path: Path) -> str | None:
    content = _read(path)
    for number, raw in enumerate((content or "").split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not SECRET_NAME.fullmatch(key.strip()):
            raise ConfigError(f"{path}:{number}: this line is not NAME=value")
        if key.strip() == name:
            return _unquoted(value.strip())
    return None


def _unquoted(value: str) -> str:
    # People, and the tools that write such files, quote by habit.
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror or exc}") from exc
