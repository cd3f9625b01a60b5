"""The manual page edged(1), made from the commands themselves: `manual.py [FILE]`. For Debian's package.

Macros: man(7). Every command and every option is in it, as in docs/reference/cli.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from package import epoch

from edged import __version__
from edged.cli import COMMANDS, main

_FILES = (
    ("/etc/edged/edged.yaml", "the configuration; beside it conf.d/*.yaml, profiles/ and secrets.env"),
    ("/var/lib/edged", "the buffer with the readings that are not delivered yet, and what else has to be remembered"),
    ("/run/edged/edged.sock", "the socket through which the commands speak to the gateway"),
)
_VARIABLES = (
    ("EDGED_CONFIG", "the configuration, where none is named"),
    ("EDGED_SOCKET", "the control socket, where none is named"),
    ("EDGED_SECRET_NAME", "the secret NAME, where neither systemd nor secrets.env has it"),
)


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    day = datetime.fromtimestamp(epoch(), UTC).date()
    top = click.Context(main, info_name="edged")
    yield '.\\" Made from the code by .ci/manual.py.'
    yield f'.TH EDGED 1 "{day}" "edged {__version__}" "edged"'
    yield from (".SH NAME", "edged \\- edge gateway for Modbus, serial and Bluetooth devices")
    yield from (".SH SYNOPSIS", ".B edged", ".I COMMAND", "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(main.help or "")
    yield ".SH COMMANDS"
    for name in main.list_commands(top):
        yield from (".TP", f".B edged {_escaped(name)}", _escaped(COMMANDS[name][1]))
    for name in main.list_commands(top):
        yield from _command(_member(main, top, name), name, top, ".SH")
    for title, rows in (("FILES", _FILES), ("ENVIRONMENT", _VARIABLES)):
        yield f".SH {title}"
        for word, text in rows:
            yield from (".TP", f".I {_escaped(word)}", _escaped(text))
    yield from (".SH SEE ALSO", ".BR systemctl (1),", ".BR journalctl (1)")


def _member(group: click.Group, context: click.Context, name: str) -> click.Command:
    found = group.get_command(context, name)
    assert found is not None  # noqa: S101  # click types it as optional; this name is from its own list
    return found


def _command(command: click.Command, name: str, parent: click.Context, macro: str) -> Iterator[str]:
    """A command, and those that belong to it."""
    with click.Context(command, info_name=name, parent=parent) as context:
        yield f'{macro} "{_escaped(context.command_path)}"'
        yield f".B {_escaped(context.command_path)}"
        yield _escaped(" ".join(command.collect_usage_pieces(context)))
        yield from _paragraphs(command.help or "")
        for option in command.get_params(context):
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if record is not None and "--help" not in option.opts:
                yield from (".TP", f".B {_escaped(record[0])}", _escaped(record[1]))
        if isinstance(command, click.Group):
            members = [(part, _member(command, context, part)) for part in command.list_commands(context)]
            for part, member in members:
                if not member.hidden:
                    yield from _command(member, part, context, ".SS")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.replace("\b\n", "").split("\n\n"):
        yield from (".PP", _escaped(paragraph))


def _escaped(text: str) -> str:
    """On one line, with what has a meaning for troff made harmless."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", line)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), "utf-8")
    else:
        print(page(), end="")
