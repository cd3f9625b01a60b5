"""`edged service`: this installation as a systemd service, and back. What is done is planned first, to be shown."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from edged.cli import EXIT_PROBLEM
from edged.cli.system_files import (
    HOMES,
    RELOAD,
    UDEV,
    WATCHER,
    Action,
    Link,
    Remove,
    Run,
    Write,
    all_shipped,
    is_ours,
    marked,
    own_text,
    place,
    seen,
    shipped,
)
from edged.cli.system_files import prefix as here
from edged.cli.systemd import UNIT, booted, systemctl
from edged.cli.upgrade import described, rollback, upgrade
from edged.cli.upgrade_proof import prove
from edged.cli.upgrade_settle import settle
from edged.errors import ConfigError, PermanentError

_TIMER = "edged-backup.timer"
_PACKAGED = "usr/lib/systemd/system/edged.service"
_COMMAND = "usr/local/bin/edged"
_CONFIG, _STATE = "etc/edged", "var/lib/edged"
_SHOWN = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts",
    "ExecMainStartTimestamp", "MemoryCurrent", "FragmentPath",
)  # fmt: skip

_ROOT = click.option(
    "--root", type=click.Path(exists=True, file_okay=False), default="/", help="Work on the system in this folder."
)
_DRY = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


# -- planning ----------------------------------------------------------------------------------------------------------


def check_place(prefix: Path, seen: Iterable[Path]) -> None:
    """Raise ConfigError where no service of this machine can reach the environment."""
    if any(path.is_relative_to(folder) for path in (prefix, *seen) for folder in ("/tmp", "/var/tmp")):  # noqa: S108  # nothing is put there
        raise ConfigError(f"{prefix} lies in a temporary folder, which services do not see: install it under /opt")


def check_readable(prefix: Path) -> None:
    """Raise ConfigError where root's umask or an own folder keeps the service's user from the environment."""
    # A home is replaced by an empty folder, in which only the environment is shown.
    homes = [home for home in HOMES if prefix.is_relative_to(home)]
    for folder in (prefix, *(() if homes else prefix.parents)):
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise ConfigError(f"the user edged may not look into {folder}: sudo chmod -R a+rX {folder}")


def to_install(root: Path, prefix: Path, seen: Iterable[Path], *, start: bool) -> Iterator[Action]:
    """What makes a service of the installation. Raises ConfigError where something is in the way."""
    if (root / _PACKAGED).exists():
        raise ConfigError(
            "Debian's package of edged is installed, and brings the service: systemctl enable --now edged"
        )
    if root == Path("/"):  # the folders of another system are not known here
        check_place(prefix, seen)
        check_readable(prefix)
    for name, text in all_shipped().items():
        if name == WATCHER and prefix.name != "current":
            continue
        path = root / place(name, packaged=False)
        if path.exists() and not is_ours(path):
            raise ConfigError(
                f"{path} is there already, and not from here: move it away, or keep it and change it by hand"
            )
        yield Write(path, own_text(name, text, prefix, seen))
    if not (root / _CONFIG / "edged.yaml").exists():
        yield Write(root / _CONFIG / "edged.yaml", shipped("edged.yaml"))
    if not os.path.lexists(root / _COMMAND):
        yield Link(root / _COMMAND, str(prefix / "bin/edged"))
    there = _there(root)
    yield Run(("systemd-sysusers", *there, str(root / place("edged.sysusers", packaged=False))))
    if not there and _group_exists("bluetooth"):
        yield Run(("usermod", "--append", "--groups", "bluetooth", "edged"))
    yield Run(("systemd-tmpfiles", *there, "--create", str(root / place("edged.tmpfiles", packaged=False))))
    units = (UNIT, _TIMER, WATCHER) if prefix.name == "current" else (UNIT, _TIMER)
    if there:
        yield Run(("systemctl", *there, "enable", *units))
        return
    yield RELOAD
    yield from UDEV
    yield Run(("systemctl", "enable", *units))
    if start:
        yield Run(("systemctl", "restart", UNIT))
        yield Run(("systemctl", "restart", _TIMER))


def to_uninstall(root: Path, *, config: bool, state: bool) -> Iterator[Action]:
    """What takes the service away again; `config`, `state`: those too."""
    there = _there(root)
    files = [*marked(root)]
    units = sorted((path.name for path in files if path.suffix in (".service", ".timer")), key=_first)
    for unit in units:
        yield Run(("systemctl", *there, "disable", *([] if there else ["--now"]), unit), needed=False)
    yield from (Remove(path) for path in files)
    command = root / _COMMAND
    if command.is_symlink() and command.readlink() == here() / "bin/edged":
        yield Remove(command)
    if config:
        drop_ins = sorted((root / "etc/systemd/system").glob("edged*.d"))
        yield from (Remove(path) for path in (root / _CONFIG, *drop_ins) if path.exists())
    if state and (root / _STATE).exists():
        yield Remove(root / _STATE)
    if not there:
        yield RELOAD
        yield from UDEV
    if config and state:
        flags = ("--root", str(root)) if there else ()
        yield Run(("userdel", *flags, "edged"), needed=False)
        yield Run(("groupdel", *flags, "edged"), needed=False)


def _first(unit: str) -> tuple[bool, bool]:
    """What may start others comes first: the watcher, then the timers."""
    return unit != WATCHER, not unit.endswith(".timer")


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
    prefix = here()
    if not (prefix / "bin/edged").exists():
        raise ConfigError(
            f"there is no {prefix}/bin/edged: install edged into a virtual environment, such as /opt/edged"
        )
    actions = list(to_install(Path(root), prefix, seen(), start=not no_start))
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
    if not booted():
        raise ConfigError("systemd does not run here, so there is no service; `edged status` asks edged itself")
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
    os.umask(0o022)  # others read what is put there: systemd, udev, polkit, the service
    if not dry_run and root == "/" and os.geteuid():
        raise ConfigError("only root may do that: put sudo before it, or look with --dry-run")
    for action in actions:
        click.echo(str(action))
        if not dry_run:
            try:
                action.carry_out()
            except OSError as exc:
                raise PermanentError(f"cannot {action}: {exc}", reason="disk") from exc
