"""`edged config`: the configurations that were applied."""

from __future__ import annotations

import difflib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edged import paths
from edged.cli import EXIT_PROBLEM, NoDaemonError
from edged.errors import ConfigError

if TYPE_CHECKING:
    from edged.config.history import Entry, History, Source
    from edged.config.model import Config

_STATE = click.option("--state", metavar="DIR", help="Folder of the gateway's state, with the history in it.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_FILE = click.option("--config", "file", metavar="FILE", help="The configuration file. [default: that of the history]")


@click.group(short_help="Look at the configurations that were applied, compare them, go back to one.")
def config() -> None:
    """Look at the configurations that were applied, compare them, go back to one.

    The gateway keeps the files of each configuration that it applied, with time and result: the newest twenty, and
    always the last good one. Secrets are not among them, only their names.
    """


@config.command(short_help="List the configurations that were applied.")
@_STATE
@_JSON
def history(state: str | None, as_json: bool) -> None:  # click's way
    """List the configurations that were applied, newest last."""
    entries = _history(state).entries()
    if as_json:
        click.echo(json.dumps([_record(entry) for entry in entries], indent=2))
        return
    if not entries:
        click.echo("no configuration has been applied yet, or the history is elsewhere (--state)")
    for entry in entries:
        click.echo("\n".join(_lines(entry)))


@config.command(short_help="Show what differs between two configurations.")
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@_FILE
@_STATE
@click.option("--text", is_flag=True, help="Show the lines of the files instead of words by object.")
@_JSON
def diff(  # one parameter an option
    old: int | None, new: int | None, file: str | None, state: str | None, text: bool, as_json: bool
) -> None:
    """Show what differs between two configurations, by bus, device, point and connection.

    OLD and NEW are numbers of the history. Without NEW: the files as they are now. Without both: the last good
    configuration against the files.
    """
    known = _history(state)
    before = _entry(known, old)
    after = known.find(new) if new is not None else None
    main = _main(file, before)
    files = after.files if after else now(main)
    unified = list(_unified(before.files, files))
    if text and not as_json:
        click.echo("".join(unified), nl=False)
        return
    from edged.config.diff import compare  # `edged --help` must not pay for it

    with tempfile.TemporaryDirectory() as folder:
        first = _loaded(before, Path(folder) / "old")
        second = _loaded(after, Path(folder) / "new") if after else _load(main)
    found = compare(first, second)
    if as_json:
        changes = [change.as_dict() for change in found.changes]
        click.echo(json.dumps({"changes": changes, "text": "".join(unified)}, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(found.lines() or ["nothing that has an effect is different"]))


@config.command(short_help="Put the files of an earlier configuration back and reload.")
@click.argument("number", type=int, required=False)
@_FILE
@_STATE
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def rollback(  # one parameter an option
    number: int | None, file: str | None, state: str | None, socket: str | None, yes: bool, as_json: bool
) -> None:
    """Put the files of an earlier configuration back and reload.

    NUMBER is one of the history; without it the last good configuration. The files as they are now go into the history,
    so nothing is lost. Without a running gateway only the files are put back.
    """
    known = _history(state)
    entry = _entry(known, number)
    main = _main(file, entry)
    if os.path.abspath(main) != entry.main:  # noqa: PTH100  # links stay as they are
        raise ConfigError(f"number {entry.number} is a configuration of {entry.main}, not of {main}")
    current = now(main, entry)
    lines = list(_unified(current, entry.files))
    if not as_json:
        click.echo("".join(lines) or "the files are so already\n", nl=False)
    if lines and not yes:
        if not sys.stdin.isatty():
            raise ConfigError("this changes the files: say --yes")
        click.confirm(f"Make the files what they were in number {entry.number}?", abort=True, err=True)
    done = _put_back(known, entry, current) if lines else []
    result = _reload(paths.socket_path(socket), as_json=as_json)
    if as_json:
        click.echo(json.dumps({"number": entry.number, "files": done, "reload": result}, indent=2))
    else:
        click.echo("\n".join([*done, *result.get("lines", [])]))
    sys.exit(EXIT_PROBLEM if result["event"] in {"failed", "rolled-back"} else 0)


def _put_back(known: History, entry: Entry, current: Mapping[str, Source]) -> list[str]:
    from edged.clock import iso, wall_us  # as above
    from edged.config.history import put_back

    try:
        known.add(
            Path(entry.main), current, time=iso(wall_us()), result="set-aside", changes=("replaced by a rollback",)
        )
        return put_back(entry, current)
    except OSError as exc:
        raise ConfigError(
            f"{exc.filename or entry.main} cannot be written ({exc.strerror}): try again with sudo"
        ) from exc


def _reload(socket: Path, *, as_json: bool) -> dict[str, Any]:
    """The last event of a reload, with its lines for people."""
    from edged.cli.reload import events, render  # as above

    lines: list[str] = []
    last: dict[str, Any] = {"event": "none"}
    try:
        for last in events(socket, ""):
            lines += render(last)
            if not as_json and last["event"] == "applied":
                click.echo("\n".join(lines), err=True)
                lines = []
    except NoDaemonError:
        return {"event": "none", "lines": ["no gateway runs here: the files count from its next start"]}
    return {**last, "lines": lines}


def now(main: Path, entry: Entry | None = None) -> dict[str, Source]:
    """The files of the configuration as they are, broken or not; with those that `entry` had and that are there."""
    from edged.config.history import read_source  # as above
    from edged.config.load import load

    found = [str(path.absolute()) for path in load(main).files]
    from edged.adapter import adapter_names, load_adapter

    shipped: set[Path | None] = set()
    for name in adapter_names():
        try:
            shipped.add(load_adapter(name).profiles())
        except ConfigError:  # it lacks an extra, so nothing here uses it
            continue
    wanted = [path for path in found if Path(path).parent not in shipped]
    wanted += [path for path in (entry.files if entry else ()) if path not in wanted and Path(path).exists()]
    try:
        return {os.path.abspath(path): read_source(Path(path)) for path in wanted}  # noqa: PTH100  # links stay
    except OSError as exc:
        raise ConfigError(f"{exc.filename} cannot be read: {exc.strerror}") from exc


def _history(state: str | None) -> History:
    from edged.config.history import History  # as above

    return History(paths.state_dir(state) / "history")


def _entry(known: History, number: int | None) -> Entry:
    if number is not None:
        return known.find(number)
    entry = known.last_good()
    if entry is None:
        raise ConfigError("there is no good configuration in the history; `edged config history` shows what there is")
    return entry


def _main(file: str | None, entry: Entry) -> Path:
    return Path(file) if file else Path(entry.main)


def _loaded(entry: Entry, folder: Path) -> Config:
    from edged.config.history import lay_out  # as above

    return _load(lay_out(entry, folder), f"number {entry.number}")


def _load(main: Path, name: str = "") -> Config:
    from edged.config.load import load  # as above

    loaded = load(main)
    if loaded.config is None:
        for problem in loaded.problems:
            click.echo(problem.render(), err=True)
        raise ConfigError(f"{name or main} has errors, so only --text can compare it")
    return loaded.config


def _unified(old: Mapping[str, Source], new: Mapping[str, Source]) -> Iterator[str]:
    from edged.config.masking import masked  # as above
    from edged.config.problems import printable

    for path in dict.fromkeys([*old, *new]):
        texts = [
            files[path].content.decode("utf-8", "replace").splitlines() if path in files else [] for files in (old, new)
        ]
        before, after = ([printable(masked(lines, at)) + "\n" for at in range(len(lines))] for lines in texts)
        yield from difflib.unified_diff(
            before, after, path if path in old else "/dev/null", path if path in new else "/dev/null"
        )
        if before == after and path in old and path in new and old[path].content != new[path].content:
            yield f"{path}: differs only in line ends or in what is masked\n"


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number, "time": entry.time, "result": entry.result, "why": entry.why, "file": entry.main,
        "files": list(entry.files), "changes": list(entry.changes),
    }  # fmt: skip


def _lines(entry: Entry) -> Iterable[str]:
    yield f"{entry.number:>4}  {entry.time[:19]}Z  {entry.result}" + (f": {entry.why}" if entry.why else "")
    shown = entry.changes[:5]
    yield from (f"        {change}" for change in shown)
    if len(entry.changes) > len(shown):
        yield f"        … and {len(entry.changes) - len(shown)} more"
