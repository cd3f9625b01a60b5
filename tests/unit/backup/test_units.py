"""The timer and its service are ones that systemd accepts, and the service may do little."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.cli.backup import backup
from edged.cli.service import to_install

FOLDER = Path(__file__).parents[3] / "systemd"
UNITS = [FOLDER / "edged-backup.service", FOLDER / "edged-backup.timer"]
needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")


def settings(path: Path, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep capitals
    parser.read(path, "utf-8")
    return dict(parser[section])


@needs_analyze
def test_systemd_accepts_them() -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, UNITS)], check=False, capture_output=True, text=True,
        timeout=50,
    )  # fmt: skip
    complaints = [line for line in result.stderr.splitlines() if "edged-backup" in line]
    assert not [line for line in complaints if "/usr/bin/edged is not executable" not in line]


@needs_analyze
def test_the_exposure_is_low() -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=12", str(UNITS[0])],
        check=False, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    if "unrecognized option" in result.stderr:
        pytest.skip(f"this systemd-analyze is too old: {result.stderr.strip()}")
    assert result.returncode == 0, result.stdout.splitlines()[-1]


def test_it_runs_a_command_that_there_is_as_the_user_of_the_gateway() -> None:
    service = settings(UNITS[0], "Service")
    program, group, command, option = service["ExecStart"].split()
    assert (program, group, command) == ("/usr/bin/edged", "backup", "create")
    assert option in {name for one in backup.commands["create"].params for name in one.opts}
    assert (service["User"], service["StateDirectory"]) == ("edged", "edged")
    assert "RuntimeDirectory" not in service, "it would be removed when the backup is made"


def test_it_does_not_ask_the_clock_when_to_look() -> None:
    timer = settings(UNITS[1], "Timer")
    assert "OnCalendar" not in timer
    assert timer["OnUnitInactiveSec"] == "1h"


def test_an_installation_puts_them_in_place_and_starts_the_timer(tmp_path: Path) -> None:
    actions = [str(action) for action in to_install(tmp_path, tmp_path / "venv", [], start=True)]
    for path in UNITS:
        assert f"write {tmp_path}/etc/systemd/system/{path.name}" in actions
    assert any("enable" in action and "edged-backup.timer" in action for action in actions)
