"""The checks of the machine, on a faked one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.doctor.machine import check_clock, check_machine, check_supply, check_temperature, check_wear, latency_of
from edged.doctor.mqtt import connack_code, connect_packet


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


@pytest.mark.parametrize(
    ("life", "state"), [("0x01 0x02", "ok"), ("0x01 0x09", "warning"), ("0x0b 0x01", "problem"), ("0x00 0x00", "n/a")]
)
def test_the_wear_of_an_emmc(tmp_path: Path, life: str, state: str) -> None:
    write(tmp_path, "sys/block/mmcblk0/device/life_time", life)
    assert check_wear(tmp_path).state == state


def test_a_card_that_is_near_its_end_says_so(tmp_path: Path) -> None:
    write(tmp_path, "sys/block/mmcblk0/device/life_time", "0x02 0x02")
    write(tmp_path, "sys/block/mmcblk0/device/pre_eol_info", "0x03")
    assert check_wear(tmp_path).state == "problem"


@pytest.mark.parametrize(("degrees", "state"), [(45_000, "ok"), (72_500, "warning"), (83_000, "problem")])
def test_temperature(tmp_path: Path, degrees: int, state: str) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", str(degrees))
    assert check_temperature(tmp_path).state == state


@pytest.mark.parametrize(("alarm", "state"), [("0", "ok"), ("1", "problem")])
def test_under_voltage_of_a_pi(tmp_path: Path, alarm: str, state: str) -> None:
    write(tmp_path, "sys/class/hwmon/hwmon1/name", "rpi_volt")
    write(tmp_path, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm)
    assert check_supply(tmp_path).state == state


def test_a_clock_with_a_chip_is_better_than_none(tmp_path: Path) -> None:
    without = check_clock(tmp_path)
    (tmp_path / "sys/class/rtc/rtc0").mkdir(parents=True)
    with_chip = check_clock(tmp_path)
    if without.state == "ok":  # somebody keeps this machine's clock
        assert with_chip.state == "ok"
    else:
        assert "no clock chip" in without.evidence
        assert "no clock chip" not in with_chip.evidence


def test_a_latency_timer_is_read(tmp_path: Path) -> None:
    write(tmp_path, "sys/bus/usb-serial/devices/ttyUSB0/latency_timer", "16")
    assert latency_of(Path("/dev/ttyUSB0"), tmp_path) == 16
    assert latency_of(Path("/dev/ttyUSB1"), tmp_path) is None


def test_without_a_configuration_everything_still_has_an_answer(tmp_path: Path) -> None:
    checks = list(check_machine(None, tmp_path / "state", tmp_path))
    assert all(check.evidence for check in checks)
    assert {"groups", "ports", "clock", "disk", "wear", "temperature", "supply"} <= {check.name for check in checks}


def test_connect_and_its_answer() -> None:
    packet = connect_packet("c", "u", "p")
    assert packet == bytes.fromhex("10140004 4d515454 05c2001e 00 000163 000175 000170".replace(" ", ""))
    assert connack_code(bytes.fromhex("2003008600")) == 0x86
    assert connack_code(bytes.fromhex("20020005")) == 0x87  # of 3.1.1
    assert connack_code(b"HTTP/1.1") is None
