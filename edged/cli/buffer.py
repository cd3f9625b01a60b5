"""`edged buffer` and `edged verify`: what is in the buffer, and whether all of it is accounted for.

Asks the running gateway; where none runs, looks into its file.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from edged.cli import EXIT_PROBLEM, NoDaemonError
from edged.cli.moments import MOMENT, chosen_range
from edged.config.flows import spoken

if TYPE_CHECKING:
    from edged.config.model import BufferConfig

Options = dict[str, list[str]]
_LONG = 24 * 3600.0
"""Seconds that an answer may take: verifying reads the whole file."""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_CONNECTION = click.option("--connection", metavar="NAME", help="Only those of this connection, or CONNECTION/FLOW.")
_KEPT = "`buffer: retention` says how long readings are kept that need no more sending"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the buffer is."""

    file: str | None
    config: str | None
    state: str | None
    socket: str | None

    def ask(self, action: str, **options: Iterable[object]) -> dict[str, Any]:
        """Have the gateway do it, or do it to the file. Raises EdgedError."""
        from edged.buffer.service import LOOKS
        from edged.cli import client

        given: Options = {name: [str(value) for value in values] for name, values in options.items()}
        if self.file is None:
            try:
                target = f"/v1/buffer/{action}?{urlencode(given, doseq=True)}"
                method = "GET" if action in LOOKS else "POST"
                answer: dict[str, Any] = client.call(self._socket(), target, method=method, timeout=_LONG)
            except NoDaemonError as exc:
                self._may_go_on(exc)
            else:
                return answer
        path, config, intervals = self._offline()
        if action in LOOKS:
            from edged.buffer.offline import look

            return look(path, action, given)
        return _change(path, config, intervals, action, given)

    def export(self, options: Options) -> Iterator[dict[str, Any]]:
        """Samples as JSON objects with `seq`. Raises EdgedError."""
        from edged.buffer import offline
        from edged.cli import client
        from edged.control import sample_record
        from edged.errors import EdgedError
        from edged.wallclock import remembered

        if self.file is None:
            try:
                for line in client.lines(self._socket(), f"/v1/buffer/export?{urlencode(options, doseq=True)}"):
                    record: dict[str, Any] = json.loads(line)
                    if "error" in record:
                        raise EdgedError(record["error"])
                    yield record
            except NoDaemonError as exc:
                self._may_go_on(exc)
            else:
                return
        path, _, _ = self._offline()
        for seq, sample in offline.export(path, options, remembered(path.with_name("clock.json"))):
            yield {"seq": seq, **sample_record(sample)}

    def _socket(self) -> Path:
        from edged.paths import socket_path

        return socket_path(self.socket)

    def _may_go_on(self, error: NoDaemonError) -> None:
        """Without the gateway only where it is not there, not where one may not ask it."""
        if self.socket or isinstance(error.__cause__, PermissionError):
            raise error

    def _offline(self) -> tuple[Path, BufferConfig, dict[str, int]]:
        """The file, how it is kept, and which places wait for intervals."""
        from edged import paths
        from edged.buffer.store import check_there
        from edged.config.compiled import load_compiled
        from edged.config.model import BufferConfig
        from edged.config.types import Duration, Size
        from edged.errors import ConfigError

        state = paths.state_dir(self.state)
        try:
            config = load_compiled(paths.config_path(self.config), state / "cache")
            found, intervals = config.buffer, config.intervals()
        except ConfigError:
            if self.config:
                raise
            found, intervals = None, {}
        named = self.file or (found.path if found else "")
        path = Path(named) if named else state / "buffer.db"
        if found is None:  # then nothing that is there may be given up
            check_there(path)
            size = path.stat().st_size
            found = BufferConfig(max_bytes=Size(max(2 * size, 2**28)), retention=Duration(2**31))
        return path, found, intervals


def _change(
    path: Path, config: BufferConfig, intervals: dict[str, int], action: str, options: Options
) -> dict[str, Any]:
    """Do something to the buffer of a gateway that does not run. Its lock keeps others out meanwhile."""
    import asyncio

    from edged import logs
    from edged.buffer.log import Buffer
    from edged.buffer.service import perform
    from edged.buffer.store import check_there
    from edged.clock import boot_id

    check_there(path)
    logs.set_up("info")

    async def work() -> dict[str, Any]:
        buffer = Buffer(path, config, None, boot=boot_id())
        buffer.intervals |= intervals
        await buffer.start()
        mended = buffer.mended
        try:
            record = await perform(buffer, action, options)
            if action == "repair" and mended:  # opening it was enough
                record["found"].insert(0, mended)
            return record
        finally:
            await buffer.stop()

    return asyncio.run(work())


def _place_options(command: Any) -> Any:
    for option in (
        click.option("--socket", metavar="PATH", help="Control socket of the gateway."),
        click.option("--state", metavar="DIR", help="Folder of the buffer, where no gateway runs."),
        click.option("--config", metavar="FILE", help="Configuration, where no gateway runs."),
        click.option("--file", metavar="FILE", help="This buffer file, whoever runs."),
    ):
        command = option(command)
    return command


@click.group(short_help="Look into the buffer: count, export, send again, repair.")
@_place_options
@click.pass_context
def buffer(ctx: click.Context, file: str | None, config: str | None, state: str | None, socket: str | None) -> None:
    """Look into the buffer: count, export, send again, repair.

    Asks the running gateway. Where none runs, works on its file: the one that the configuration names, or --file.
    """
    ctx.obj = _Place(file, config, state, socket)


@buffer.command()
@_JSON
@click.pass_obj
def stats(place: _Place, as_json: bool) -> None:
    """Show what is in the buffer, and the counters."""
    record = place.ask("stats")
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    size = (record["file_bytes"] + record["wal_bytes"]) / 2**20
    click.echo(
        f"{record['readings']:,} readings in {record['rows']:,} rows, {size:.1f} MiB, of which "
        f"{record['used_bytes'] / 2**20:.1f} MiB are in use"
    )
    _print_counters(record)
    for name, one in record["connections"].items():
        click.echo(f"  {name}: of the evicted, {one['thinned']:,} were thinned and {one['corrupt']:,} damaged")
    if record["alarm"]:
        click.echo(f"ALARM, {record['alarm']}: {record['detail']}")


@buffer.command()
@click.option("--from", "begin", metavar="MOMENT", help=MOMENT)
@click.option("--to", "end", metavar="MOMENT", help="Likewise; not included.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this device; may be repeated.")
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@_JSON
@click.pass_obj
def export(
    place: _Place, begin: str | None, end: str | None, devices: tuple[str, ...], form: str, as_json: bool
) -> None:
    """Write stored readings to standard output, delivered ones included as far as `retention` keeps them.

    CSV has a line for each reading; JSON has one object a line for each sample.
    """
    write = _write_json if as_json or form == "json" else _write_csv
    try:
        written = write(place.export(chosen_range(begin, end, devices)))
    except BrokenPipeError:
        sys.stderr.close()  # the reader has enough; nothing to complain about
        return
    if not written:
        click.echo(f"edged: nothing of that is in the buffer; {_KEPT}", err=True)


@buffer.command()
@click.option("--connection", metavar="NAME", required=True, help="To which connection, or CONNECTION/FLOW.")
@click.option("--from", "begin", metavar="MOMENT", required=True, help=MOMENT)
@click.option("--to", "end", metavar="MOMENT", help="Likewise; not included.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this device; may be repeated.")
@_JSON
@click.pass_obj
def replay(
    place: _Place, connection: str, begin: str, end: str | None, devices: tuple[str, ...], as_json: bool
) -> None:
    """Send readings of a past time to a connection once more.

    They must still be in the buffer: `retention` keeps them. The messages have new numbers and are marked as
    historical and as a replay. What still waits for the connection is left out: it comes anyway.
    """
    record = place.ask("replay", connection=[connection], **chosen_range(begin, end, devices))
    none = f"\nNothing of that is in the buffer, or it still waits for {connection}; {_KEPT}"
    text = f"{record['readings']:,} readings are sent to {connection} once more"
    _tell(as_json, record, text if record["readings"] else text + none)


@buffer.command("verify")
@_JSON
@click.pass_obj
def verify_buffer(place: _Place, as_json: bool) -> None:
    """Count all rows anew, check each checksum, and hold the counters against them. Exit code 1 if they differ."""
    _verify_here(place, as_json)


@buffer.command()
@_JSON
@click.pass_obj
def repair(place: _Place, as_json: bool) -> None:
    """Save what can be read of a damaged buffer into a new file. A sound one is left as it is.

    The gateway does this by itself when it meets damage. The damaged file stays beside the new one.
    """
    record = place.ask("repair")
    lost = ", ".join(f"{first}-{last}" for first, last in record["lost"])
    text = "\n".join(record["found"]) or "the buffer is sound"
    _tell(as_json, record, f"{text}\nsamples lost to damage, ever: {lost}" if lost else text)
    sys.exit(0 if record["ok"] else EXIT_PROBLEM)


@buffer.command()
@_JSON
@click.pass_obj
def vacuum(place: _Place, as_json: bool) -> None:
    """Make the file as small as its content. It needs as much free disk meanwhile."""
    record = place.ask("vacuum")
    _tell(as_json, record, f"{record['before'] / 2**20:.1f} MiB before, {record['after'] / 2**20:.1f} MiB now")


@buffer.group()
def dead() -> None:
    """Dead letters: readings that a receiver refused for good."""


@dead.command("list")
@_CONNECTION
@_JSON
@click.pass_obj
def list_letters(place: _Place, connection: str | None, as_json: bool) -> None:
    """List them, oldest first: number, when, connection, samples, reason."""
    record = place.ask("letters", connection=[connection] if connection else [])
    lines = [
        f"{one['id']:>6}  {one['time']}  {one['connection']}  samples {one['first']}-{one['last']}  "
        f"{one['readings']:,} readings  {one['reason']}  {one['detail']}"
        for one in record["letters"]
    ]
    _tell(as_json, record, "\n".join(lines) or "there are no dead letters")


@dead.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_CONNECTION
@_JSON
@click.pass_obj
def retry(place: _Place, ids: tuple[int, ...], every: bool, connection: str | None, as_json: bool) -> None:
    """Send them to their connection again, by the number that `list` shows, or --all.

    They get new numbers and are marked as historical and as a replay. If they are refused again, they come back.
    """
    record = place.ask("retry", **_letters(ids, every, connection))
    _tell_letters(as_json, record, f"{record['letters']} with {record['readings']:,} readings are sent again")


@dead.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_CONNECTION
@_JSON
@click.pass_obj
def purge(place: _Place, ids: tuple[int, ...], every: bool, connection: str | None, as_json: bool) -> None:
    """Delete them for ever, by the number that `list` shows, or --all. They stay counted."""
    record = place.ask("purge", **_letters(ids, every, connection))
    _tell_letters(as_json, record, f"{record['letters']} are deleted")


def _tell_letters(as_json: bool, record: dict[str, Any], text: str) -> None:
    """What was done to dead letters, and which were left."""
    left = "".join(f"\n{count} are left: {why}" for why, count in record["skipped"].items())
    _tell(as_json, record, text + left)
    sys.exit(EXIT_PROBLEM if record["skipped"] else 0)


@click.command(short_help="Prove that no reading is unaccounted for, here or at the receiver.")
@click.option("--subscribe", "url", metavar="URL", help="Judge what arrives at this broker, mqtt://… or mqtts://….")
@click.option("--topic", default="edged/+/data", show_default=True, help="With --subscribe: where the readings go.")
@click.option("--for", "duration", metavar="TIME", help="With --subscribe: how long, such as 10m. [default: Ctrl-C]")
@click.option("--username", help="With --subscribe.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False), help="With --subscribe.")
@click.option("--ca", metavar="FILE", help="With --subscribe mqtts: whom to trust, PEM. [default: the system]")
@_place_options
@_JSON
def verify(
    url: str | None,
    topic: str,
    duration: str | None,
    username: str | None,
    password_file: str | None,
    ca: str | None,
    file: str | None,
    config: str | None,
    state: str | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Prove that no reading is unaccounted for.

    Without an option: walks through the buffer, checks every row, and proves the counters with what is there.

    With --subscribe: reads the messages at a broker as a backend would, and reports from their numbers alone which are
    missing and which came twice. Exit code 1 if something is missing, or nothing came.
    """
    _check_one_way(url is not None)
    if url is None:
        _verify_here(_Place(file, config, state, socket), as_json)
        return
    from edged.cli.subscribe import judge

    sys.exit(judge(url, topic, duration, username, password_file, ca, as_json=as_json))


def _check_one_way(subscribe: bool) -> None:
    """An option that is for the other way would be ignored, and what was proven not what was asked."""
    here, there = {"file", "config", "state", "socket"}, {"topic", "duration", "username", "password_file", "ca"}
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name in (here if subscribe else there):
            raise click.UsageError(f"{parameter.opts[0]} {'cannot go with' if subscribe else 'needs'} --subscribe")


def _verify_here(place: _Place, as_json: bool) -> None:
    record = place.ask("verify")
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        _print_counters(record)
        click.echo(f"counted anew: {record['readings']:,} readings in {record['rows']:,} rows, every checksum")
        for problem in record["problems"]:
            click.echo(f"WRONG: {problem}")
        click.echo("everything adds up" if record["ok"] else "it does not add up: see above")
    sys.exit(0 if record["ok"] else EXIT_PROBLEM)


def _print_counters(record: Mapping[str, Any]) -> None:
    click.echo(f"epoch {record['epoch']}, seq {record['head']:,}")
    click.echo(
        f"read {record['read']:,} = stored {record['stored']:,} + suppressed {record['suppressed']:,} "
        f"+ rejected {record['rejected']:,} (+ {record['waiting']:,} about to be stored)"
    )
    for name, one in record["connections"].items():
        flow = "/" in name
        sent = f"sent {one['delivered'] - one['filtered']:,} + left out {one['filtered']:,}"
        click.echo(
            f"{spoken(name) if flow else name}: stored {one['stored_for']:,} "
            f"= {sent if flow else 'delivered ' + format(one['delivered'], ',')} + pending {one['pending']:,} "
            f"+ expired {one['expired']:,} + evicted {one['evicted']:,} + dead letters {one['dead']:,}"
        )
    if record["lost"]:
        click.echo("lost to damage: samples " + ", ".join(f"{first}-{last}" for first, last in record["lost"]))


def _letters(ids: tuple[int, ...], every: bool, connection: str | None) -> dict[str, Iterable[object]]:
    if bool(ids) == every:
        raise click.UsageError("say which: the numbers that `edged buffer dead list` shows, or --all")
    return {"id": ids, "connection": [connection] if connection else []}


def _write_json(records: Iterable[Mapping[str, Any]]) -> int:
    """Returns how many samples that were."""
    count = 0
    for record in records:
        click.echo(json.dumps(record, ensure_ascii=False))
        count += 1
    return count


def _write_csv(records: Iterable[Mapping[str, Any]]) -> int:
    """Likewise."""
    count = 0
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("time", "device", "point", "value", "quality", "seq"))
    for record in records:
        quality = record.get("quality", {})
        for point, value in record["values"].items():
            shown = json.dumps(value) if isinstance(value, bool) else value
            rows.writerow((record["time"], record["device"], point, shown, quality.get(point, "good"), record["seq"]))
        count += 1
    return count


def _tell(as_json: bool, record: Mapping[str, Any], text: str) -> None:
    click.echo(json.dumps(record, indent=2) if as_json else text)
