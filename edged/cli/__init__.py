"""The command line. One small file per group of commands, imported only when the command is used.

Exit codes, the same for every command: 0 it worked; 1 it ran but found something wrong (a device that does not answer,
a lost reading); 2 the command line or the configuration is wrong; 3 no daemon answers on the control socket;
130 interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, TextIO

import click

from edged import __version__
from edged.errors import ConfigError, EdgedError

_OUTPUT_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
EXIT_PROBLEM, EXIT_CONFIG, EXIT_NO_DAEMON, EXIT_INTERRUPTED = 1, 2, 3, 130

COMMANDS = {
    "init": ("edged.cli.init", "Write a first configuration, by asking or from options."),
    "run": ("edged.cli.run", "Run the gateway (what the systemd service does)."),
    "service": ("edged.cli.service", "Make a systemd service of this installation, or take it away again."),
    "check": ("edged.cli.check", "Check a configuration and say everything that is wrong with it."),
    "reload": ("edged.cli.reload", "Apply a changed configuration to the running gateway, and go back if it fails."),
    "config": ("edged.cli.config", "Look at the configurations that were applied, compare them, go back to one."),
    "try": ("edged.cli.try_:try_", "Show step by step what a flow makes of a sample."),
    "schema": ("edged.cli.check", "Print the JSON Schema of the configuration, for editors."),
    "status": ("edged.cli.live", "Show what the running gateway is doing."),
    "top": ("edged.cli.top", "Show the whole gateway on one screen, as it works."),
    "tail": ("edged.cli.live", "Show readings as they come."),
    "read": ("edged.cli.read", "Poll a device once and show raw registers and decoded values."),
    "write": ("edged.cli.write", "Write a value to a point, read it back, and say what came of it."),
    "commands": ("edged.cli.commands", "List the commands that came, from whom, and what became of them."),
    "twin": ("edged.cli.twin", "Show the last reported and the desired value of every point."),
    "find": ("edged.cli.find", "Find the register that shows what the display of the device shows."),
    "probe": ("edged.cli.probe", "Show raw registers of a device, and everything they could mean."),
    "trace": ("edged.cli.trace", "Show the raw frames of a bus, explained field by field."),
    "explain": ("edged.cli.explain", "Show how a value comes about, from raw registers to the broker."),
    "doctor": ("edged.cli.doctor", "Find out what is wrong: lines, ports, network, broker, clock, disk."),
    "buffer": ("edged.cli.buffer", "Look into the buffer: count, export, send again, repair."),
    "backup": ("edged.cli.backup", "Back up configuration, state and readings, and restore them."),
    "verify": ("edged.cli.buffer", "Prove that no reading is unaccounted for, here or at the receiver."),
    "profiles": ("edged.cli.profiles", "List the device types that are known; check a profile, begin one."),
    "serial": ("edged.cli.serial", "Look at serial ports and unknown devices."),
    "scan": ("edged.cli.scan", "Find what is there: Bluetooth sensors, devices on a serial line."),
    "ble": ("edged.cli.ble", "Look for Bluetooth sensors, and into them."),
    "simulate": ("edged.cli.simulate", "Serve the devices of a configuration as simulated ones."),
    "selftest": ("edged.cli.selftest", "Break the way to the broker on purpose and count what is lost."),
    "demo": ("edged.cli.demo", "Show the whole gateway at work, with simulated devices and an outage."),
}
"""Command → the module that defines it, and its one-line help, so that `--help` need not import them all."""


class NoDaemonError(EdgedError):
    """Nothing answers on the control socket."""


class LazyGroup(click.Group):
    """Finds its commands by name, and imports them on use: name → (module or module:attribute, one-line help)."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module, _, attribute = self.table[name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute or name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            import difflib  # only a typo pays for it

            near = difflib.get_close_matches(args[0], self.table, 1)
            raise click.UsageError(exc.message + (f" Did you mean {near[0]!r}?" if near else ""), ctx) from None


class _Main(LazyGroup):
    """Turns what went wrong into one line and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:
            if exc.errno not in _OUTPUT_FULL or exc.filename is not None:
                raise
            click.echo(f"edged: the output cannot be written: {exc.strerror}", err=True)
            sys.exit(EXIT_PROBLEM)
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                _let_go(stream)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        except NoDaemonError as exc:
            code, text = EXIT_NO_DAEMON, str(exc)
        except ConfigError as exc:
            code, text = EXIT_CONFIG, str(exc)
        except EdgedError as exc:
            code, text = EXIT_PROBLEM, str(exc)
        except PermissionError as exc:
            if exc.filename is None:
                raise
            code = EXIT_CONFIG
            text = f"{exc.filename}: permission denied; try with sudo, or join the group edged and log in again"
        click.echo(f"edged: {text}", err=True)
        sys.exit(code)


def _let_go(stream: TextIO) -> None:
    """What cannot be written now cannot be at the end either: Python would say so, and end with a code of its own."""
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@click.group(cls=_Main, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edged")
def main() -> None:
    """An edge gateway: polls field devices, keeps every reading until the cloud has acknowledged it, forwards it.

    Exit codes: 0 it worked; 1 something is wrong with what was looked at; 2 the command line or the configuration is
    wrong; 3 no running gateway answers.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a file that has no arrows and degrees gets a question mark; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
