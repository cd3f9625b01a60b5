"""`edged scan`: one group for all that looks for devices."""

from __future__ import annotations

from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from edged.cli import main
from edged.cli.scan import SCANS, scan


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_the_group_lists_what_it_can_look_for() -> None:
    code, text = invoke("scan", "--help")
    assert code == 0
    for name, (_, line) in SCANS.items():
        assert f"  {name}" in text
        assert line.split(maxsplit=1)[0] in text


@pytest.mark.parametrize("name", SCANS)
def test_every_scan_can_be_imported_and_has_help(name: str) -> None:
    command = scan.get_command(click.Context(scan), name)
    assert command is not None
    assert command.help
    code, text = invoke("scan", name, "--help")
    assert (code, f"scan {name}" in text) == (0, True)


@pytest.mark.parametrize("name", ["ble", "serial"])
def test_the_group_of_the_bus_has_the_same_command(name: str) -> None:
    group = getattr(import_module(f"edged.cli.{name}"), name)
    assert group.commands["scan"] is scan.get_command(click.Context(scan), name)


def test_a_typo_is_answered_with_the_right_word() -> None:
    code, text = invoke("scan", "bel")
    assert code == 2
    assert "Did you mean 'ble'?" in text
