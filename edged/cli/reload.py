"""`edged reload`: a changed configuration for the running gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import click

from edged.cli import EXIT_CONFIG, EXIT_PROBLEM, client
from edged.config.types import Duration
from edged.errors import EdgedError
from edged.paths import socket_path


@click.command(short_help="Apply a changed configuration to the running gateway, and go back if it fails.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option(
    "--watch", metavar="TIME", help="How long to watch what changed, e.g. 30s. [default: `control: watch`, 1m]"
)
@click.option("--no-wait", is_flag=True, help="Return when it is applied; the gateway goes on watching by itself.")
@click.option("--no-rollback", is_flag=True, help="Keep the new configuration although something does not come up.")
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line, instead of text.")
def reload(  # one parameter an option
    dry_run: bool, watch: str | None, no_wait: bool, no_rollback: bool, socket: str | None, as_json: bool
) -> None:
    """Apply a changed configuration to the running gateway, and go back if it fails.

    The files are checked first; if they have errors nothing changes. Then only what differs is applied: other buses do
    not miss a poll, other connections stay connected. What worked before and was changed is watched; if it does not
    come up, the gateway goes back to the configuration before, by itself.

    Exit codes: 0 applied and good; 1 rolled back, or something does not work; 2 the files have errors; 3 no gateway
    runs.
    """
    path = socket_path(socket)
    if dry_run:
        event = client.call(path, "/v1/reload", timeout=600)
        click.echo(json.dumps(event) if as_json else "\n".join(render(event)))
        return
    options = {"watch": _seconds(watch)} if watch else {}
    query = urlencode({**options, **({"keep": 1} if no_rollback else {})})
    last = ""
    for event in events(path, query):
        last = event["event"]
        for line in [json.dumps(event)] if as_json else render(event):
            click.echo(line, err=last == "failed" and not as_json)
        if no_wait and last == "applied":
            break
    else:
        if last in {"", "diff", "applied"}:
            raise EdgedError("the gateway ended before the reload was complete")
    sys.exit({"failed": EXIT_CONFIG, "rolled-back": EXIT_PROBLEM, "kept": EXIT_PROBLEM}.get(last, 0))


def events(path: Any, query: str) -> Iterable[dict[str, Any]]:
    """What the gateway tells of a reload. Raises NoDaemonError, EdgedError."""
    for line in client.lines(path, f"/v1/reload?{query}", method="POST"):
        event = json.loads(line)
        if "error" in event:
            raise EdgedError(event["error"])
        yield event


def _seconds(text: str) -> int:
    try:
        seconds = round(Duration.parse(text))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--watch") from None
    if not 1 <= seconds <= 86_400:  # noqa: PLR2004  # the range stated in the message
        raise click.BadParameter("must lie between 1s and 1d", param_hint="--watch")
    return seconds


def render(event: Mapping[str, Any]) -> Iterable[str]:
    """One event of a reload as lines of text."""
    match event["event"]:
        case "diff":
            yield from (f"  {line}" for line in event["lines"] or ["nothing that has an effect is different"])
            if event["restart_needed"]:
                yield f"only a restart applies: {', '.join(event['restart_needed'])}"
        case "applied":
            yield f"applied; watching for {event['watch']:.0f} s"
        case "good":
            yield from (f"does not work yet: {note}" for note in event["notes"])
            yield "good: all that worked before works"
        case "kept":
            yield from (f"does not work: {problem}" for problem in event["problems"])
            yield "kept, as you asked"
        case "rolled-back":
            yield f"ROLLED BACK: {event['why']}"
            yield "the gateway runs the configuration from before; the files are as you left them"
        case "failed":
            yield from event["problems"].splitlines()
            yield f"nothing was changed: {event['why']}"
        case "superseded":
            yield "another reload came; it is judged together with this one"
        case "unchanged":
            yield "nothing to change"
