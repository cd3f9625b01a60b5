"""`edged backup`: configuration, state and buffer in one file, and back."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged import paths
from edged.cli import EXIT_PROBLEM
from edged.errors import ConfigError, EdgedError

if TYPE_CHECKING:
    from edged.backup.create import Made
    from edged.backup.place import Kept
    from edged.backup.restore import Plan
    from edged.config.model import Config

_CONFIG = click.option("--config", metavar="FILE", help="Configuration file. [default: /etc/edged/edged.yaml]")
_STATE = click.option("--state", metavar="DIR", help="Folder of the gateway's state. [default: /var/lib/edged]")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_PARTS = ("config", "history", "connections", "commands", "buffer")
_SAVE_SECONDS = 20.0


@click.group(short_help="Back up configuration, state and readings, and restore them.")
def backup() -> None:
    """Back up configuration, state and readings, and restore them.

    A backup is one file: the configuration with profiles and certificates, the configurations that were applied,
    commands and twin, and the buffer with every reading in it. It is made while the gateway runs.
    """


@backup.command(short_help="Make a backup while the gateway runs.")
@click.argument("directory", required=False, type=click.Path(file_okay=False))
@click.option("--with-secrets", is_flag=True, help="Also private keys and secrets.env. Keep such a backup locked away.")
@click.option(
    "--scheduled", is_flag=True, help="Only when one is due by `backup:` of the configuration: what the timer does."
)
@_CONFIG
@_STATE
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@_JSON
def create(  # one parameter an option
    directory: str | None,
    config: str | None,
    state: str | None,
    socket: str | None,
    *,
    with_secrets: bool,
    scheduled: bool,
    as_json: bool,
) -> None:
    """Make a backup in DIRECTORY while the gateway runs, and try it out.

    Without DIRECTORY it goes where `backup: directory` says, else to `backups` in the folder of the state. Private
    keys, and passwords that are kept outside of the configuration, are left out unless you ask for them.
    """
    from edged.backup.create import create as make
    from edged.backup.place import check, provide

    main, folder = paths.config_path(config), paths.state_dir(state)
    if scheduled:
        _scheduled(main, folder, socket, as_json=as_json)
        return
    running = _config(main, folder)
    target = Path(directory) if directory else _usual(running, folder)
    if target == folder / "backups":
        provide(target)
    check(target)
    said = _saved(socket or (running.control.socket if running else "") or None)
    made = make(main, folder, target, secrets=with_secrets, gateway=str(running.gateway.id) if running else "")
    _tell(made, as_json=as_json)
    if said and not as_json:
        click.echo(f"note: {said}")
    if target.stat().st_dev == folder.stat().st_dev and not as_json:
        click.echo("note: it is on the same disk as the gateway; copy it to another one")


def _usual(config: Config | None, state: Path) -> Path:
    return Path(config.backup.directory) if config and config.backup.directory else state / "backups"


def _config(main: Path, state: Path) -> Config | None:
    """What the gateway runs: what the file says, or the last good configuration; None if there is neither."""
    from edged.reload import choose

    try:
        return choose(main, state, strict=False).compiled.config
    except ConfigError:
        return None


def _scheduled(main: Path, state: Path, socket: str | None, *, as_json: bool) -> None:
    from edged.backup.create import scheduled

    config = _config(main, state)
    if config is None:
        raise ConfigError(f"{main} has errors, so it is not known where backups go: edged check {main}")
    if not config.backup.directory:
        return
    place = socket or config.control.socket or None
    made, removed = scheduled(main, state, config.backup, str(config.gateway.id), lambda: _saved(place))
    if made is not None:
        _tell(made, as_json=as_json)
    for path in removed:
        click.echo(f"removed {path}", err=as_json)


def _saved(socket: str | None) -> str:
    """Have a running gateway write what it has in memory; returns what a person should know of that."""
    from edged.cli import NoDaemonError, client

    try:
        client.call(paths.socket_path(socket), "/v1/save", method="POST", timeout=_SAVE_SECONDS)
    except NoDaemonError as exc:
        if isinstance(exc.__cause__, PermissionError):
            return f"what the gateway has in memory is not in it: {exc}"
    except EdgedError as exc:
        return f"what the gateway has in memory is not in it: {exc}"
    return ""


def _tell(made: Made, *, as_json: bool) -> None:
    manifest = made.manifest
    if as_json:
        click.echo(json.dumps({"path": str(made.path), "bytes": made.size, **asdict(manifest)}, indent=2))
        return
    click.echo(
        f"{made.path}: {made.size / 2**20:.1f} MiB, {', '.join(manifest.parts)}; {manifest.readings:,} readings up to "
        f"seq {manifest.head:,}. Tried out: it is whole"
    )
    for name in manifest.left_out:
        click.echo(f"left out: {name} (--with-secrets takes it)")
    for note in (*manifest.notes, *made.verdict.warnings):
        click.echo(f"note: {note}")


@backup.command("list", short_help="List the backups in a folder.")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False))
@_CONFIG
@_STATE
@_JSON
def list_backups(directory: str | None, config: str | None, state: str | None, *, as_json: bool) -> None:
    """List the backups in DIRECTORY, the oldest first. Only their beginning is read: `verify` reads all."""
    found = _found(directory, config, state)
    if as_json:
        click.echo(json.dumps([_record(one) for one in found], indent=2))
        return
    if not found:
        click.echo("there are no backups")
    for one in found:
        click.echo(_line(one))


def _found(directory: str | None, config: str | None, state: str | None) -> list[Kept]:
    from edged.backup.place import kept

    if directory is not None:
        return kept(Path(directory))
    folder = paths.state_dir(state)
    return kept(_usual(_config(paths.config_path(config), folder), folder))


def _record(one: Kept) -> dict[str, Any]:
    manifest = asdict(one.manifest) if one.manifest else None
    return {"path": str(one.path), "bytes": one.size, "problem": one.problem, "manifest": manifest}


def _line(one: Kept) -> str:
    manifest = one.manifest
    if manifest is None:
        return f"{one.path.name}  DAMAGED: {one.problem}"
    secrets = ", with secrets" if manifest.secrets else ""
    return (
        f"{one.path.name}  {manifest.time[:19]}Z  {one.size / 2**20:8.1f} MiB  gateway {manifest.gateway}  "
        f"{manifest.readings:,} readings  {'+'.join(manifest.parts)}{secrets}  edged {manifest.edged}"
    )


@backup.command(short_help="Prove that backups are whole and can be restored.")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@_JSON
def verify(files: tuple[str, ...], *, as_json: bool) -> None:
    """Prove that backups are whole and can be restored. Exit code 1 if one is not.

    Reads all of it, checks every checksum, opens the databases, counts the readings anew, and loads the configuration.
    """
    from edged.backup.check import verify as examine

    records, good = [], True
    for name in files:
        verdict = examine(Path(name))
        good = good and verdict.ok
        records.append({"path": name, "ok": verdict.ok, "problems": verdict.problems, "warnings": verdict.warnings})
        if not as_json:
            click.echo(f"{name}: {'whole' if verdict.ok else 'NOT whole'}")
            for line in (*verdict.problems, *verdict.warnings):
                click.echo(f"  {line}")
    if as_json:
        click.echo(json.dumps(records, indent=2))
    sys.exit(0 if good else EXIT_PROBLEM)


@backup.command(short_help="Put a backup in the place of what is there.")
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--only", multiple=True, type=click.Choice(_PARTS), help="Only this part; may be repeated.")
@click.option("--outside", is_flag=True, help="Also files that lay outside the folders of configuration and state.")
@click.option("--force", is_flag=True, help="Set aside what is there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--finish", is_flag=True, help="Carry a restore that was interrupted to its end.")
@_CONFIG
@_STATE
@_JSON
def restore(  # one parameter an option
    file: str | None,
    config: str | None,
    state: str | None,
    only: tuple[str, ...],
    *,
    outside: bool,
    force: bool,
    dry_run: bool,
    finish: bool,
    as_json: bool,
) -> None:
    """Put the backup FILE in the place of what is there: all of it or nothing, whatever happens meanwhile.

    The gateway must be stopped, unless only the configuration is restored. What is replaced stays in a folder
    `before-restore-…` beside it. Readings go out under a new epoch; what was delivered after the backup was made goes
    out once more. Commands that waited are not carried out.
    """
    folder = paths.state_dir(state)
    if finish:
        from edged.backup.pending import finish as carry_on

        click.echo("the restore is finished" if carry_on(folder) else "no restore was interrupted")
        return
    if file is None:
        raise click.UsageError("name the backup to restore")
    from edged.backup.restore import Goal, planned
    from edged.backup.restore import restore as carry_out

    main = _main(Path(file), config, only)
    goal = Goal(main, folder.absolute(), frozenset(only), outside, force)
    plan = planned(Path(file), goal)
    if not dry_run:
        carry_out(Path(file), goal, plan)
    _report(plan, dry_run=dry_run, as_json=as_json)
    if dry_run and plan.blockers and not force:
        sys.exit(EXIT_PROBLEM)


def _main(file: Path, config: str | None, only: tuple[str, ...]) -> Path:
    """Where the configuration goes. A backup from elsewhere does not decide that. Raises ConfigError."""
    from edged.backup.archive import manifest_of

    if config:
        return Path(config).resolve()
    usual = Path(os.environ.get("EDGED_CONFIG") or paths.SYSTEM_CONFIG).resolve()
    manifest = manifest_of(file)
    was = Path(manifest.folder) / manifest.main.partition("/")[2]
    if was != usual and (not only or "config" in only):
        raise ConfigError(f"the configuration lay at {was}, and would go to {usual}: say where it goes with --config")
    return usual


def _report(plan: Plan, *, dry_run: bool, as_json: bool) -> None:
    from edged.backup.manifest import BUFFER

    manifest = plan.manifest
    if as_json:
        record = {
            "gateway": manifest.gateway, "time": manifest.time, "dry_run": dry_run, "needs_force": plan.blockers,
            "changes": [{"target": str(one.target), "what": one.what} for one in plan.changes],
            "kept": [str(path) for path in plan.aside.values()], "notes": plan.notes, "commands_dropped": plan.waited,
        }  # fmt: skip
        click.echo(json.dumps(record, indent=2))
        return
    would = "would be " if dry_run else ""
    for change in plan.changes:
        click.echo(f"{change.target}: {would if change.what != 'unchanged' else ''}{change.what}")
    for blocker in plan.blockers if dry_run else ():
        click.echo(f"only with --force: {blocker}")
    for note in plan.notes:
        click.echo(f"note: {note}")
    if dry_run:
        return
    for path in plan.aside.values():
        click.echo(f"what was there is in {path}")
    if plan.waited:
        click.echo(f"{plan.waited} commands that waited then are not carried out: edged commands list")
    if any(change.member == BUFFER for change in plan.changes):
        click.echo(
            "readings go out under a new epoch; what was delivered after "
            f"{manifest.time[:19]}Z goes out once more, with the same times"
        )
    click.echo(f"this is gateway {manifest.gateway} as of {manifest.time[:19]}Z. Never run it on two machines at once")
