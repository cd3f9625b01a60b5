"""`edged run`."""

from __future__ import annotations

import os
import signal

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
@click.option("--strict", is_flag=True, help="Do not start with the last good configuration when the file is broken.")
def run(config: str | None, state: str | None, socket: str | None, log_level: str, strict: bool) -> None:  # click's way
    """Run the gateway (what the systemd service does).

    CONFIG is the YAML file; without it $EDGED_CONFIG or /etc/edged/edged.yaml. Ends in good order on SIGTERM or Ctrl-C:
    what was read is made durable first. SIGHUP reloads the configuration, as `edged reload` does.

    When the file has errors, or is one that a reload had to roll back, the last good configuration is used, and log and
    status say so; --strict refuses to start then.
    """
    from edged import logs, paths  # `edged --help` must not pay for the daemon
    from edged.backup import pending
    from edged.daemon import Places, run_daemon
    from edged.reload import choose

    # Whoever starts it, however: what it writes is for its user to write and for its group to read, nobody else's.
    os.umask((os.umask(0) | 0o027) & 0o077)
    # Until the daemon listens to it: a reload that comes while it starts must not end it, and it reads the file anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logs.set_up(log_level)
    file = paths.config_path(config)
    folder = paths.state_dir(state)
    pending.finish(folder)
    start = choose(file, folder, strict=strict)
    loaded = start.compiled.config
    places = Places(
        config_dir=file.resolve().parent,
        state=folder,
        config=file,
        socket=paths.listening_path(socket or loaded.control.socket or None),
    )
    run_daemon(loaded, places, start)
