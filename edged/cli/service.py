"""`edged service`: this installation as a systemd service, and back. What is done is planned first, to be shown."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from edged.cli import EXIT_PROBLEM
from edged.cli.upgrade import described, prove, rollback, settle, systemctl, upgrade
from edged.errors import ConfigError, PermanentError
from edged.upgrade import home_of

UNIT = "edged.service"
_MARK = "put here by `edged service install`; `edged service uninstall` takes it away"
_FILES = {
    "edged.service": ("etc/systemd/system/edged.service", "# {}"),
    "edged-upgrade.service": ("etc/systemd/system/edged-upgrade.service", "# {}"),
    "edged-backup.service": ("etc/systemd/system/edged-backup.service", "# {}"),
    "edged-backup.timer": ("etc/systemd/system/edged-backup.timer", "# {}"),
    "edged.sysusers": ("etc/sysusers.d/edged.conf", "# {}"),
    "edged.tmpfiles": ("etc/tmpfiles.d/edged.conf", "# {}"),
    "edged.udev": ("etc/udev/rules.d/70-edged.rules", "# {}"),
    "edged.dbus": ("etc/dbus-1/system.d/edged.conf", "<!-- {} -->"),
    "edged.polkit": ("etc/polkit-1/rules.d/70-edged.rules", "// {}"),
}
"""Shipped file → its place, and how a comment looks in it."""
_WATCHER = "edged-upgrade.service"
"""Only for an installation with releases side by side."""
_BACKUP, _TIMER = "edged-backup.service", "edged-backup.timer"
_PACKAGED = "usr/lib/systemd/system/edged.service"
_COMMAND = "usr/local/bin/edged"
_CONFIG, _STATE = "etc/edged", "var/lib/edged"
_HOMES = ("/home", "/root", "/run/user")
_SHOWN = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts",
    "ExecMainStartTimestamp", "MemoryCurrent", "FragmentPath",
)  # fmt: skip
_SECONDS = 120.0

_ROOT = click.option("--root", type=click.Path(file_okay=False), default="/", help="Work on the system in this folder.")
_DRY = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@dataclass(frozen=True, slots=True)
class Write:
    """Put a file in place."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"write {self.path}"

    def carry_out(self) -> None:
        """Do it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.text, "utf-8")
        self.path.chmod(0o644)


@dataclass(frozen=True, slots=True)
class Link:
    """Make a symbolic link."""

    path: Path
    target: str

    def __str__(self) -> str:
        return f"link {self.path} to {self.target}"

    def carry_out(self) -> None:
        """Do it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.symlink_to(self.target)


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a file or a folder away."""

    path: Path

    def __str__(self) -> str:
        return f"remove {self.path}"

    def carry_out(self) -> None:
        """Do it."""
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


# -- planning ----------------------------------------------------------------------------------------------------------


def shipped(name: str) -> str:
    """A shipped file: beside the sources, or where a wheel puts it. Raises ConfigError."""
    folder = "config" if name.endswith(".yaml") else "systemd"
    installed = Path(sys.prefix) / "share/edged" / ("" if folder == "config" else folder)
    for place in (Path(__file__).resolve().parents[2] / folder, installed):
        if (place / name).exists():
            return (place / name).read_text("utf-8")
    raise ConfigError(f"{name} is not in {installed}: is this installation whole? pip install --force-reinstall edged")


def unit_text(text: str, prefix: Path, seen: Iterable[Path]) -> str:
    """The unit for the environment at `prefix`; of homes, which it may not see, it may read what is `seen`."""
    command = shlex.quote(str(prefix / "bin/edged"))
    text = text.replace("=/usr/bin/edged ", f"={command} ").replace("/usr/lib/edged", str(prefix.parent))
    hidden = sorted({str(path) for path in seen if any(path.is_relative_to(home) for home in _HOMES)})
    if hidden:
        lines = [f"BindReadOnlyPaths={path}" for path in hidden]
        text = text.replace("ProtectHome=yes", "\n".join(["ProtectHome=tmpfs", *lines]))
    return text


def _seen() -> list[Path]:
    """The folders that this installation is made of; the last is a checkout, or site-packages."""
    home = home_of()
    own = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(__file__).resolve().parents[2]]
    return [home.path, *own] if home else own


def _prefix() -> Path:
    """Where this installation is found: for one with releases, whichever runs."""
    home = home_of()
    return home.path / "current" if home else Path(sys.prefix)


def check_place(prefix: Path, seen: Iterable[Path]) -> None:
    """Raise ConfigError where no service of this machine can reach the environment."""
    if any(path.is_relative_to(folder) for path in (prefix, *seen) for folder in ("/tmp", "/var/tmp")):  # noqa: S108  # nothing is put there
        raise ConfigError(f"{prefix} lies in a temporary folder, which services do not see: install it under /opt")


def to_install(root: Path, prefix: Path, seen: Iterable[Path], *, start: bool) -> Iterator[Action]:
    """What makes a service of the installation. Raises ConfigError where something is in the way."""
    if (root / _PACKAGED).exists():
        raise ConfigError(
            "Debian's package of edged is installed, and brings the service: systemctl enable --now edged"
        )
    if root == Path("/"):  # the folders of another system are not known here
        check_place(prefix, seen)
    for name, (place, comment) in _FILES.items():
        if name == _WATCHER and prefix.name != "current":
            continue
        path = root / place
        if path.exists() and _MARK not in path.read_text("utf-8", "replace"):
            raise ConfigError(
                f"{path} is there already, and not from here: move it away, or keep it and change it by hand"
            )
        text = unit_text(shipped(name), prefix, seen) if name in (UNIT, _WATCHER, _BACKUP) else shipped(name)
        yield Write(path, f"{text.rstrip()}\n{comment.format(_MARK)}\n")
    if not (root / _CONFIG / "edged.yaml").exists():
        yield Write(root / _CONFIG / "edged.yaml", shipped("edged.yaml"))
    if not os.path.lexists(root / _COMMAND):
        yield Link(root / _COMMAND, str(prefix / "bin/edged"))
    there = _there(root)
    yield Run(("systemd-sysusers", *there, str(root / _FILES["edged.sysusers"][0])))
    if not there and _group_exists("bluetooth"):
        yield Run(("usermod", "--append", "--groups", "bluetooth", "edged"))
    yield Run(("systemd-tmpfiles", *there, "--create", str(root / _FILES["edged.tmpfiles"][0])))
    units = (UNIT, _TIMER, _WATCHER) if prefix.name == "current" else (UNIT, _TIMER)
    if there:
        yield Run(("systemctl", *there, "enable", *units))
        return
    yield Run(("systemctl", "daemon-reload"))
    yield Run(("udevadm", "control", "--reload"), needed=False)
    yield Run(("udevadm", "trigger", "--action=change", "--subsystem-match=tty"), needed=False)
    yield Run(("systemctl", "enable", *units))
    if start:
        yield Run(("systemctl", "restart", UNIT))
        yield Run(("systemctl", "restart", _TIMER))


def to_uninstall(root: Path, *, config: bool, state: bool) -> Iterator[Action]:
    """What takes the service away again; `config`, `state`: those too."""
    there = _there(root)
    for unit in (_WATCHER, UNIT, _TIMER):  # what may start it first
        if _is_ours(root / _FILES[unit][0]):
            yield Run(("systemctl", *there, "disable", *([] if there else ["--now"]), unit), needed=False)
    for place, _ in _FILES.values():
        if _is_ours(root / place):
            yield Remove(root / place)
    command = root / _COMMAND
    if command.is_symlink() and command.readlink() == _prefix() / "bin/edged":
        yield Remove(command)
    drop_ins = root / "etc/systemd/system/edged.service.d"
    if config:
        yield from (Remove(path) for path in (root / _CONFIG, drop_ins) if path.exists())
    if state and (root / _STATE).exists():
        yield Remove(root / _STATE)
    if not there:
        yield Run(("systemctl", "daemon-reload"))
        yield Run(("udevadm", "control", "--reload"), needed=False)
    if config and state:
        flags = ("--root", str(root)) if there else ()
        yield Run(("userdel", *flags, "edged"), needed=False)
        yield Run(("groupdel", *flags, "edged"), needed=False)


def _is_ours(path: Path) -> bool:
    return path.exists() and _MARK in path.read_text("utf-8", "replace")


def _there(root: Path) -> tuple[str, ...]:
    """The option that makes systemd's programs work on another root."""
    return () if root == Path("/") else (f"--root={root}",)


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


# -- the commands ------------------------------------------------------------------------------------------------------


@click.group(short_help="Make a systemd service of this installation, or take it away again.")
def service() -> None:
    """Make a systemd service of this installation, or take it away again.

    For an installation by pip in a virtual environment; the Debian package needs none of this.
    """


@service.command(short_help="Install, enable and start the service.")
@click.option("--no-start", is_flag=True, help="Only install and enable it.")
@_DRY
@_ROOT
def install(root: str, *, no_start: bool, dry_run: bool) -> None:
    """Install, enable and start the service: unit, user, folders, names for serial adapters, access to Bluetooth.

    /etc/edged/edged.yaml is written only if there is none. Doing it again after an upgrade renews all the rest.
    """
    prefix = _prefix()
    if not (prefix / "bin/edged").exists():
        raise ConfigError(
            f"there is no {prefix}/bin/edged: install edged into a virtual environment, such as /opt/edged"
        )
    actions = list(to_install(Path(root), prefix, _seen(), start=not no_start))
    _carry_out(actions, root, dry_run=dry_run)
    owner = (prefix / "bin/edged").stat().st_uid
    if owner:
        name = pwd.getpwuid(owner).pw_name
        click.echo(
            f"note: {prefix} belongs to {name}, who can so change what the service runs: sudo chown -R root {prefix}"
        )
    if not dry_run:
        click.echo("edged is a service now. Its configuration: /etc/edged/edged.yaml; its log: journalctl -u edged")


@service.command(short_help="Stop the service and take it away.")
@click.option("--purge", is_flag=True, help="Remove configuration, buffer and user, too, and do not ask.")
@_DRY
@_ROOT
def uninstall(root: str, *, purge: bool, dry_run: bool) -> None:
    """Stop the service and take it away. Asks whether the configuration and the buffer shall go, too."""
    base = Path(root)
    config = purge or _agreed(base / _CONFIG, "the configuration and its passwords")
    state = purge or _agreed(base / _STATE, "the buffer, with readings that may not be delivered yet")
    _carry_out(list(to_uninstall(base, config=config, state=state)), root, dry_run=dry_run)
    kept = [str(base / folder) for folder in (_CONFIG, _STATE) if (base / folder).exists() and not dry_run]
    if kept:
        click.echo(f"kept: {', '.join(kept)}")


def _agreed(folder: Path, what: str) -> bool:
    """Ask a person; nobody there means no. What is not there may go."""
    if not folder.exists():
        return True
    return sys.stdin.isatty() and click.confirm(f"Remove {folder}, {what}?")


for one in (upgrade, rollback, settle, prove):
    service.add_command(one)


@service.command(short_help="Show how the service does, as systemd sees it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show how the service does, as systemd sees it. Exit code 1 if it does not run.

    `edged status` asks edged itself.
    """
    if shutil.which("systemctl") is None:
        raise ConfigError("there is no systemctl: this system does not run on systemd")
    shown = systemctl("show", UNIT, f"--property={','.join(_SHOWN)}")
    facts = dict(line.partition("=")[::2] for line in shown.splitlines())
    if as_json:
        click.echo(json.dumps({**facts, "releases": list(described())}, indent=2))
    else:
        click.echo("\n".join([*describe(facts), *described()]))
    ctx.exit(0 if facts.get("ActiveState") in ("active", "reloading") else EXIT_PROBLEM)


def describe(facts: dict[str, str]) -> Iterator[str]:
    """What systemd says, in lines for people."""
    if facts.get("LoadState") == "not-found":
        yield "not installed as a service: sudo edged service install"
        return
    yield f"{facts['ActiveState']} ({facts['SubState']}), {facts['UnitFileState']}, {facts['FragmentPath']}"
    if facts.get("StatusText"):
        yield f"says: {facts['StatusText']}"
    if facts.get("Result", "success") != "success":
        yield f"last ended by: {facts['Result']} (journalctl -u edged)"
    if facts.get("MainPID", "0") != "0":
        memory = facts.get("MemoryCurrent", "")
        used = f", {int(memory) / 2**20:.0f} MiB" if memory.isdigit() and int(memory) < 2**63 else ""
        yield f"process {facts['MainPID']} since {facts['ExecMainStartTimestamp']}{used}"
    yield f"started again by itself: {facts.get('NRestarts', '0')} times"


def _carry_out(actions: list[Action], root: str, *, dry_run: bool) -> None:
    if not dry_run and root == "/" and os.geteuid():
        raise ConfigError("only root may do that: put sudo before it, or look with --dry-run")
    for action in actions:
        click.echo(str(action))
        if not dry_run:
            try:
                action.carry_out()
            except OSError as exc:
                raise PermanentError(f"cannot {action}: {exc}", reason="disk") from exc
