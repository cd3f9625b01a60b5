"""The files of the system that edged brings: units, rules, policies. Where they lie, how they look, how they get there.

Debian's package has them below /usr, `edged service install` puts them below /etc. Each release has its own ones in
share/edged/systemd, and whichever release runs has its own in place, also after a way back: see `to_fit`.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edged.cli.systemd import UNIT
from edged.errors import ConfigError, PermanentError
from edged.upgrade import Home, home_of

log = logging.getLogger("edged.upgrade")

MARK = "put here by `edged service install`; `edged service uninstall` takes it away"
WATCHER = "edged-upgrade.service"
"""Only for an installation with releases side by side."""
HOMES = ("/home", "/root", "/run/user")
_IN_RELEASE = "share/edged/systemd"
_SECONDS = 120.0


# -- what is done ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    """Put a file in place."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"

    def carry_out(self) -> None:
        """Do it: the file is either the old or the new one, whole, whenever the power fails. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(self.text)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(0o644)
        fresh.replace(self.path)


@dataclass(frozen=True, slots=True)
class Link:
    """Make a symbolic link."""

    path: Path
    target: str

    def __str__(self) -> str:
        return f"link {self.path} to {self.target}"

    def carry_out(self) -> None:
        """Do it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.symlink_to(self.target)


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a file or a folder away."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"

    def carry_out(self) -> None:
        """Do it. Raises OSError."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Run:
    """Run one of the system's programs."""

    command: tuple[str, ...]
    needed: bool = True
    """Whether what follows makes no sense without it."""

    def __str__(self) -> str:
        return f"run {shlex.join(self.command)}"

    def carry_out(self) -> None:
        """Do it. Raises PermanentError."""
        program = shutil.which(self.command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        try:
            result = subprocess.run(  # noqa: S603  # a fixed list of the system's own programs, no shell
                [program or self.command[0], *self.command[1:]], check=False, capture_output=True, text=True,
                timeout=_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as exc:
            code, said = 1, str(exc)
        else:
            code, said = result.returncode, (result.stderr or result.stdout).strip()
        if code and self.needed:
            raise PermanentError(f"`{shlex.join(self.command)}` failed: {said or f'exit code {code}'}", reason="system")


Action = Write | Link | Remove | Run

RELOAD = Run(("systemctl", "daemon-reload"))
UDEV = (
    Run(("udevadm", "control", "--reload"), needed=False),
    Run(
        ("udevadm", "trigger", "--action=change", "--subsystem-match=tty", "--subsystem-match=usb-serial"), needed=False
    ),
)
"""Rules are read anew, and adapters that are plugged in get the names and the latency that they say."""


# -- which there are, and where they lie -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of file, by the ending of its name among the shipped ones."""

    packaged: str
    """Its place in Debian's package."""
    own: str
    """Its place when `edged service install` puts it there."""
    after: tuple[Run, ...]
    """What makes a change of it count."""
    comment: str = "# {}"


_UNITS = _Kind("usr/lib/systemd/system/{name}", "etc/systemd/system/{name}", (RELOAD,))
_KINDS = {
    ".service": _UNITS,
    ".timer": _UNITS,
    ".sysusers": _Kind(
        "usr/lib/sysusers.d/{stem}.conf", "etc/sysusers.d/{stem}.conf", (Run(("systemd-sysusers", "edged.conf")),)
    ),
    ".tmpfiles": _Kind(
        "usr/lib/tmpfiles.d/{stem}.conf", "etc/tmpfiles.d/{stem}.conf",
        (Run(("systemd-tmpfiles", "--create", "edged.conf"), needed=False),),
    ),
    ".udev": _Kind("usr/lib/udev/rules.d/70-{stem}.rules", "etc/udev/rules.d/70-{stem}.rules", UDEV),
    ".dbus": _Kind(
        "usr/share/dbus-1/system.d/{stem}.conf", "etc/dbus-1/system.d/{stem}.conf",
        (Run(("systemctl", "reload", "dbus.service"), needed=False),), "<!-- {} -->",
    ),
    ".polkit": _Kind(
        "usr/share/polkit-1/rules.d/{stem}.rules", "etc/polkit-1/rules.d/70-{stem}.rules",
        (Run(("systemctl", "try-restart", "polkit.service"), needed=False),), "// {}",
    ),
}  # fmt: skip


def place(name: str, *, packaged: bool) -> str:
    """Where a shipped file lies, below /."""
    path = Path(name)
    kind = _KINDS[path.suffix]
    return (kind.packaged if packaged else kind.own).format(name=name, stem=path.stem)


def _folder(name: str) -> Path:
    """Where shipped files are: beside the sources, or where a wheel puts them. Raises ConfigError."""
    below = "config" if name.endswith(".yaml") else "systemd"
    installed = Path(sys.prefix) / "share/edged" / ("" if below == "config" else below)
    for folder in (Path(__file__).resolve().parents[2] / below, installed):
        if (folder / name).exists():
            return folder
    raise ConfigError(f"{name} is not in {installed}: is this installation whole? pip install --force-reinstall edged")


def shipped(name: str) -> str:
    """A shipped file. Raises ConfigError."""
    return (_folder(name) / name).read_text("utf-8")


def texts(folder: Path) -> dict[str, str]:
    """Name → text of all files of the system in a folder; none if it is not there. Raises OSError."""
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.*")) if path.suffix in _KINDS}


def all_shipped() -> dict[str, str]:
    """Those of this installation. Raises ConfigError."""
    return texts(_folder(UNIT))


# -- how they look -----------------------------------------------------------------------------------------------------


def prefix() -> Path:
    """Where this installation is found: for one with releases, whichever runs."""
    home = home_of()
    return home.path / "current" if home else Path(sys.prefix)


def seen() -> list[Path]:
    """The folders that this installation is made of, whichever release runs."""
    home = home_of()
    if home:
        return [home.path, Path(sys.base_prefix).resolve()]
    # The last is a checkout, or site-packages.
    return [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(__file__).resolve().parents[2]]


def unit_text(text: str, prefix: Path, seen: Iterable[Path]) -> str:
    """The unit for the environment at `prefix`; of homes, which it may not see, it may read what is `seen`."""
    command = shlex.quote(str(prefix / "bin/edged"))
    text = text.replace("=/usr/bin/edged ", f"={command} ").replace("/usr/lib/edged", str(prefix.parent))
    hidden = sorted({str(path) for path in seen if any(path.is_relative_to(home) for home in HOMES)})
    if hidden:
        lines = [f"BindReadOnlyPaths={path}" for path in hidden]
        text = text.replace("ProtectHome=yes", "\n".join(["ProtectHome=tmpfs", *lines]))
    return text


def own_text(name: str, text: str, prefix: Path, seen: Iterable[Path]) -> str:
    """A shipped file as `edged service install` puts it in place: for this environment, and with the mark."""
    kind = _KINDS[Path(name).suffix]
    if name.endswith(".service"):
        text = unit_text(text, prefix, seen)
    return f"{text.rstrip()}\n{kind.comment.format(MARK)}\n"


def is_ours(path: Path) -> bool:
    """Whether `edged service install` has put it there."""
    return path.is_file() and MARK in path.read_text("utf-8", "replace")


def marked(root: Path) -> Iterator[Path]:
    """All that `edged service install` has put there, that of another release too."""
    for folder in sorted({(root / kind.own).parent for kind in _KINDS.values()}):
        yield from (path for path in sorted(folder.glob("*edged*")) if is_ours(path))


# -- which release's are in place --------------------------------------------------------------------------------------


def to_fit(home: Home, name: str, other: str, *, watcher: str = "", root: Path = Path("/")) -> list[Action]:
    """What puts the files of the release `name` in the place of those of the `other`; empty if they are there.

    With `watcher`, that one's unit watches: the release on trial has no say in whether it is undone. Nothing is done
    where the service is not from here, or where the release does not bring its files. Raises OSError.
    """
    packaged = (home.path / "package").exists()
    root = home.path.parents[2] if packaged else root  # it is usr/lib/edged below it
    wanted = texts(home.release(name) / _IN_RELEASE)
    if not wanted or not (packaged or is_ours(root / place(UNIT, packaged=False))):
        return []
    if watcher and (unit := texts(home.release(watcher) / _IN_RELEASE).get(WATCHER)):
        wanted[WATCHER] = unit
    gone = texts(home.release(other) / _IN_RELEASE).keys() - wanted.keys()
    actions: list[tuple[str, Action]] = [*_written(home, wanted, root, packaged=packaged)]
    for one in sorted(gone):
        path = root / place(one, packaged=packaged)
        if path.exists() and (packaged or is_ours(path)):
            actions.append((one, Remove(path)))
    after = dict.fromkeys(run for file, _ in actions for run in _KINDS[Path(file).suffix].after)
    return [*(action for _, action in actions), *after]


def _written(home: Home, wanted: Mapping[str, str], root: Path, *, packaged: bool) -> Iterator[tuple[str, Write]]:
    """Those that are not in place yet, each with its name."""
    for name, brought in wanted.items():
        path = root / place(name, packaged=packaged)
        there = path.read_text("utf-8", "replace") if path.is_file() else None
        text = brought if packaged else own_text(name, brought, home.path / "current", seen())
        a_persons_own = not packaged and there is not None and MARK not in there
        if text != there and not a_persons_own:
            yield name, Write(path, text)


def fit(home: Home, name: str, other: str, *, watcher: str = "") -> None:
    """Do what `to_fit` says. Raises PermanentError: then some may be in place and others not."""
    try:
        for action in to_fit(home, name, other, watcher=watcher):
            log.info("%s", action)
            action.carry_out()
    except OSError as exc:
        raise PermanentError(f"the units of {name} cannot be put in place: {exc}", reason="disk") from exc
