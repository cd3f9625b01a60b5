"""`edged run`."""

from __future__ import annotations

import click


@click.command(short_help="Run the gateway (what the systemd service does).")
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option("--state", metavar="DIR", help="Folder for the buffer and caches. [default: the service's, or yours]")
@click.option("--socket", metavar="PATH", help="Control socket. [default: in /run/edged or your runtime folder]")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much to tell on standard error.",
)
def run(config: str | None, state: str | None, socket: str | None, log_level: str) -> None:
    """Run the gateway (what the systemd service does).

    CONFIG is the YAML file; without it $EDGED_CONFIG or /etc/edged/edged.yaml. Ends in good order on SIGTERM or Ctrl-C:
    what was read is made durable first.
    """
    from edged import logs, paths  # `edged --help` must not pay for the daemon
    from edged.config.compiled import load_compiled
    from edged.daemon import Places, run_daemon

    logs.set_up(log_level)
    file = paths.config_path(config)
    folder = paths.state_dir(state)
    loaded = load_compiled(file, folder / "cache")
    places = Places(
        config_dir=file.resolve().parent,
        state=folder,
        socket=paths.socket_path(socket or loaded.control.socket or None),
    )
    run_daemon(loaded, places)
