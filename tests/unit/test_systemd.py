"""The unit is one that systemd accepts, and it gives the daemon the folders that the daemon looks for."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from edged import paths

UNIT = Path(__file__).parents[2] / "systemd/edged.service"


def settings(section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep capitals
    parser.read(UNIT, "utf-8")
    return dict(parser[section])


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_accepts_the_unit() -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNIT)], check=False, capture_output=True, text=True, timeout=50
    )
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert not [line for line in complaints if "/opt/edged/bin/edged is not executable" not in line]


def test_the_folders_are_those_that_the_daemon_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    service = settings("Service")
    assert service["Type"] == "notify"
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "EDGED_CONFIG", "EDGED_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    assert Path("/etc") / service["ConfigurationDirectory"] / "edged.yaml" == paths.SYSTEM_CONFIG
    monkeypatch.setenv("STATE_DIRECTORY", f"/var/lib/{service['StateDirectory']}")  # as systemd sets it
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"/run/{service['RuntimeDirectory']}")
    assert paths.state_dir() == Path("/var/lib/edged")
    assert paths.socket_path() == Path("/run/edged/edged.sock")


def test_the_boot_id_stays_visible() -> None:
    """ProcSubset=pid would hide /proc/sys/kernel/random/boot_id, which every batch is stamped with."""
    assert "ProcSubset" not in settings("Service")
