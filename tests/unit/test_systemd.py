"""The shipped files for systemd, udev, D-Bus and polkit are ones that these accept, and they fit the daemon."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edged import paths

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "edged.service"
LIMIT = 2.0
"""The highest exposure, by systemd-analyze, that is accepted."""


def settings(section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep capitals
    parser.read(UNIT, "utf-8")
    return dict(parser[section])


needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")


@needs_analyze
def test_systemd_accepts_the_unit() -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNIT)], check=False, capture_output=True, text=True, timeout=50
    )
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert not [line for line in complaints if "/usr/bin/edged is not executable" not in line]


@needs_analyze
def test_systemd_accepts_the_unit_that_watches_over_upgrades() -> None:
    unit = FOLDER / "edged-upgrade.service"
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True, timeout=50
    )
    complaints = [line for line in result.stderr.splitlines() if unit.name in line]
    assert not [line for line in complaints if "/previous/bin/python3 is not executable" not in line]


def test_the_watcher_runs_the_release_before_and_only_while_there_is_something_to_watch() -> None:
    text = (FOLDER / "edged-upgrade.service").read_text("utf-8")
    assert "ExecStart=/usr/lib/edged/previous/bin/python3 -I -m edged service settle\n" in text
    assert "ConditionPathExists=/usr/lib/edged/trial.json\n" in text
    assert "After=edged.service" not in text, "it must not wait for a start that hangs"


@needs_analyze
def test_the_exposure_is_low() -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager", str(UNIT)],
        check=False, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    if "unrecognized option" in result.stderr or not result.stdout.startswith("["):
        pytest.skip(f"this systemd-analyze is too old: {result.stderr.strip()}")
    exposed = {
        check["json_field"]: float(check["exposure"]) for check in json.loads(result.stdout) if check["exposure"]
    }
    overall = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={LIMIT * 10:.0f}", str(UNIT)],
        check=False, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert overall.returncode == 0, f"{overall.stdout.splitlines()[-1]}: {exposed}"


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


def test_the_clock_can_be_asked_for() -> None:
    """ProtectClock= would make adjtimex fail, which tells whether the clock is set."""
    assert "ProtectClock" not in settings("Service")
    assert "SystemCallFilter=adjtimex" in UNIT.read_text("utf-8")


def test_the_user_is_a_static_one_that_owns_serial_ports() -> None:
    service = settings("Service")
    assert service["User"] == "edged"
    assert "DynamicUser" not in service
    lines = [line.split() for line in (FOLDER / "edged.sysusers").read_text("utf-8").splitlines()]
    assert ["m", "edged", "dialout"] in lines


def test_every_device_is_explained() -> None:
    """The line above each DeviceAllow= says what it is for."""
    lines = UNIT.read_text("utf-8").splitlines()
    allowed = [number for number, line in enumerate(lines) if line.startswith("DeviceAllow=")]
    assert allowed
    assert all(lines[number - 1].startswith("# ") for number in allowed)


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="there is no systemd-sysusers")
def test_the_user_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", str(FOLDER / "edged.sysusers")],
        check=True, capture_output=True, text=True, timeout=50,
    )  # fmt: skip


def test_the_policy_for_bluetooth_speaks_of_edged_and_bluez_only() -> None:
    policy = ET.parse(FOLDER / "edged.dbus").getroot()  # noqa: S314  # our own file
    assert [(one.get("user"), [rule.attrib for rule in one]) for one in policy.iter("policy")] == [
        ("edged", [{"send_destination": "org.bluez"}])
    ]


def test_udev_rules_are_well_formed() -> None:
    """Each line is a list of KEY op "value"; every GOTO has its LABEL."""
    lines = [line for line in (FOLDER / "edged.udev").read_text("utf-8").splitlines() if line and line[0] != "#"]
    words = [word.strip() for line in lines for word in line.split(",")]
    assert all(word.endswith('"') and word.count('"') == 2 and "=" in word for word in words)
    labels = {word.split('"')[1] for word in words if word.startswith("LABEL=")}
    assert {word.split('"')[1] for word in words if word.startswith("GOTO=")} <= labels
