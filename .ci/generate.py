"""Write the files that are made from the code, or with `--check` only say which of them are out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.testing import CliRunner

from edged.cli import COMMANDS, main
from edged.config.library import Found, document, library
from edged.config.nodes import Mapping
from edged.health import reference as health
from edged.uplink import asyncapi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]


def cli_reference() -> str:
    """docs/reference/cli.md from the commands themselves."""
    return "\n".join(_cli_lines()) + "\n"


def _cli_lines() -> Iterator[str]:
    top = click.Context(main, info_name="edged")
    yield "# Commands"
    yield ""
    yield "<!-- Made from the code by `make docs`. Change the help texts in edged/cli instead. -->"
    yield ""
    yield from _help_lines(main)
    for name in main.list_commands(top):
        yield f"- [`edged {name}`](#edged-{name}): {COMMANDS[name][1]}"
    for name in main.list_commands(top):
        command = main.get_command(top, name)
        assert command is not None  # noqa: S101  # click types it as optional; this name is from its own list
        yield from _command_lines(command, name, top, "##")


def _command_lines(command: click.Command, name: str, parent: click.Context, heading: str) -> Iterator[str]:
    """A command, and those that belong to it."""
    with click.Context(command, info_name=name, parent=parent) as context:
        yield ""
        yield f"{heading} {context.command_path}"
        yield ""
        yield "```"
        yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield "```"
        yield ""
        yield from _help_lines(command)
        yield from _option_lines(command, context)
        if isinstance(command, click.Group):
            for part in command.list_commands(context):
                member = command.get_command(context, part)
                assert member is not None  # noqa: S101  # click types it as optional; this name is from its own list
                if not member.hidden:
                    yield from _command_lines(member, part, context, "###")


def _help_lines(command: click.Command) -> Iterator[str]:
    for paragraph in (command.help or "").replace("\b\n", "").split("\n\n"):
        yield " ".join(paragraph.split())
        yield ""


def _option_lines(command: click.Command, context: click.Context) -> Iterator[str]:
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    rows = [record for option in options if "--help" not in option.opts and (record := option.get_help_record(context))]
    if rows:
        yield "| option | |"
        yield "|---|---|"
        for names, text in rows:
            yield f"| `{_cell(names)}` | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _printed(*arguments: str) -> str:
    """What `edged` prints."""
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    if result.exit_code:
        sys.exit(f"`edged {' '.join(arguments)}` failed: {result.output}")
    return result.stdout


def modbus_profiles() -> str:
    """docs/reference/modbus-profiles.md from the profiles themselves."""
    return "\n".join(_profile_lines([one for one in library(None) if one.family and one.family.name == "modbus"]))


def _profile_lines(found: list[Found]) -> Iterator[str]:
    yield "# Modbus device types"
    yield ""
    yield "<!-- Made from the profiles by `make docs`. Change adapters/edged_modbus/profiles instead. -->"
    yield ""
    yield f"edged knows {len(found)} Modbus device types. A device takes one with `profile: NAME`, and"
    yield "`edged profiles show NAME` lists its points. To write your own: [Write a profile](../how-to/profiles.md)."
    yield "They are made from public documents, and from what public projects that read these devices made of them; the"
    yield "source says which. We did not try them on the devices: compare a few values with the display when you begin."
    yield ""
    yield "| profile | device | models | points | source |"
    yield "|---|---|---|---|---|"
    for one in found:
        head = one.head()
        cells = [f"`{one.name}`", head["title"], ", ".join(map(str, head["models"])), points_of(one), head["source"]]
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""


def points_of(found: Found) -> str:
    """How many points a profile has, for its row."""
    tree, _ = document(found.file)
    points = tree.get("points") if tree else None
    return str(len(list(points))) if isinstance(points, Mapping) else "its own"


GENERATED: dict[str, Callable[[], str]] = {
    "config/profile.schema.json": lambda: _printed("profiles", "schema"),
    "docs/reference/modbus-profiles.md": modbus_profiles,
    "config/edged.schema.json": lambda: _printed("schema"),
    "docs/reference/asyncapi.yaml": lambda: asyncapi.files()["asyncapi.yaml"],
    "docs/reference/cli.md": cli_reference,
    "docs/reference/configuration.md": lambda: _printed("schema", "--markdown"),
    "docs/reference/health.md": lambda: health.files()["health.md"],
    "docs/reference/health.schema.json": lambda: health.files()["health.schema.json"],
    "docs/reference/payload.schema.json": lambda: asyncapi.files()["payload.schema.json"],
}
"""File → what it should hold."""


def out_of_date() -> list[str]:
    """The generated files that are not what the code would make now."""
    return [
        name
        for name, make in GENERATED.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text("utf-8") != make()
    ]


if __name__ == "__main__":
    stale = out_of_date()
    if "--check" in sys.argv:
        for stale_name in stale:
            print(f"{stale_name} is not what the code says now: run `make docs` and commit it")
        sys.exit(1 if stale else 0)
    for stale_name in stale:
        (ROOT / stale_name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / stale_name).write_text(GENERATED[stale_name](), "utf-8")
        print(f"wrote {stale_name}")
