"""The manual page of the package: every command is in it, and nothing that troff takes for its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edged.cli import main

ROOT = Path(__file__).parents[2]
MACROS = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I"}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("manual") / "edged.1"
    subprocess.run([sys.executable, ROOT / ".ci/manual.py", page], check=True, capture_output=True, timeout=50)
    return page


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """All commands that people see, with those of groups, by what is typed."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not command.hidden:
            yield f"{context.command_path} {name}", command
            if isinstance(command, click.Group):
                yield from commands(command, click.Context(command, info_name=name, parent=context))


def test_every_command_and_every_option_is_in_it(manual: Path) -> None:
    text = manual.read_text("utf-8").replace("\\-", "-")
    for path, command in commands(main, click.Context(main, info_name="edged")):
        assert f'"{path}"' in text
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert any(name in text for name in option.opts), (path, option.name)
    assert "edged service settle" not in text, "that one is not for people"


def test_only_its_macros_begin_lines(manual: Path) -> None:
    lines = manual.read_text("utf-8").splitlines()
    assert {line.split(" ")[0] for line in lines if line.startswith((".", "'"))} - {'.\\"'} <= MACROS


@pytest.mark.skipif(not shutil.which("man"), reason="sudo apt install man-db")
def test_man_shows_it_without_a_warning(manual: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", manual], check=True, capture_output=True, timeout=50
    )  # fmt: skip
    assert done.stderr.decode() == ""
