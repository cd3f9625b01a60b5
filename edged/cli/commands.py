"""`edged commands`: the audit log of what was written to devices, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import click

from edged import paths
from edged.cli import EXIT_PROBLEM, NoDaemonError, client
from edged.cli.plain import say

_SOCKET = click.option("--socket", metavar="PATH", help="Control socket of the gateway.")


@click.group(short_help="List the commands that came, from whom, and what became of them.")
def commands() -> None:
    """List the commands that came, from whom, and what became of them."""


@commands.command("list")
@click.argument("device", required=False, default="")
@click.option("--limit", "-n", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@_SOCKET
@click.option("--state", metavar="DIR", help="Folder of the state, for a gateway that does not run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def list_(device: str, limit: int, socket: str | None, state: str | None, as_json: bool) -> None:
    """The newest commands, of all devices or of one: when, who, what, and the result.

    The last thousand are kept, and those whose expiry is still to come. Works without a running gateway, too.
    """
    query = urlencode({"limit": limit, **({"device": device} if device else {})})
    try:
        records = client.call(paths.socket_path(socket), f"/v1/commands?{query}")
    except NoDaemonError:
        records = _offline(state, limit, device)
    if as_json:
        click.echo(json.dumps(records, indent=2))
    else:
        say(render(records))


def _offline(state: str | None, limit: int, device: str) -> list[dict[str, Any]]:
    """Raises ConfigError."""
    from edged.control.commands import row_record  # `edged --help` must not pay for it
    from edged.downlink.store import read_offline

    return [row_record(row) for row in read_offline(paths.state_dir(state) / "commands.db", limit, device)]


@commands.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_SOCKET
def cancel(ids: tuple[str, ...], socket: str | None) -> None:
    """Take commands back that wait for their device. Exit code 1 if none of them waits."""
    query = urlencode([("id", ident) for ident in ids])
    count = client.call(paths.socket_path(socket), f"/v1/commands/cancel?{query}", method="POST")["cancelled"]
    click.echo(f"{count} cancelled")
    if not count:
        raise SystemExit(EXIT_PROBLEM)


def render(records: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """One line for each."""
    from edged.downlink.rules import brief  # `edged --help` must not pay for it

    empty = True
    for record in records:
        empty = False
        what = f"raw {record['raw']}" if record["raw"] is not None else json.dumps(record["value"], ensure_ascii=False)
        reason = f"({record['reason']})" if record["reason"] else ""
        reads = f", reads {brief(str(record['read']))}" if record["read"] is not None else ""
        detail = f": {brief(record['detail'])}" if record["detail"] else ""
        who = f"{record['requester'] or '?'} by {record['entrance']}"
        result = f"{record['state']}{reason}{reads}{detail}"
        yield f"{record['time']}  {record['point']} = {brief(what)}  {who}  {result}  {record['id']}"
    if empty:
        yield "no command has come yet"
