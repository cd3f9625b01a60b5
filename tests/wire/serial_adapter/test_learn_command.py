"""`edged serial learn` on a pseudo terminal."""

from __future__ import annotations

import os
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edged.cli.serial import serial


@pytest.fixture
def talking() -> Iterator[str]:
    """A port on which somebody talks."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    stop = threading.Event()

    def talk() -> None:
        count = 0
        while not stop.wait(0.02):
            count += 1
            try:
                os.write(master, b"T= %d.%d 'C\r\n" % (20 + count % 7, count % 10))
            except BlockingIOError:
                continue

    thread = threading.Thread(target=talk)
    thread.start()
    yield os.ttyname(slave)
    stop.set()
    thread.join()
    os.close(slave)
    os.close(master)


def test_shows_what_arrives_and_writes_a_profile(talking: str, tmp_path: Path) -> None:
    file = tmp_path / "thermometer.yaml"
    arguments = ["learn", talking, "--baud", "9600", "--parity", "none", "--seconds", "0.7", "--name", "thermometer"]
    result = CliRunner().invoke(serial, [*arguments, "--output", str(file)])
    assert result.exit_code == 0, result.output
    assert "lines, regex" in result.output
    text = file.read_text(encoding="utf-8")
    assert "profile: thermometer" in text
    assert "value_0" in text
    again = CliRunner().invoke(serial, [*arguments, "--output", str(file)])
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_says_so_when_nothing_comes(tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        arguments = ["learn", os.ttyname(slave), "--baud", "9600", "--parity", "none", "--seconds", "0.1"]
        result = CliRunner().invoke(serial, arguments)
    finally:
        os.close(slave)
        os.close(master)
    assert result.exit_code == 1
    assert "nothing came" in result.output
    assert "does it need a request" in result.output


def test_a_wrong_name_or_port_is_told() -> None:
    assert CliRunner().invoke(serial, ["learn", "COM3"]).exit_code == 2
    assert CliRunner().invoke(serial, ["scan", "COM3"]).exit_code == 2
    result = CliRunner().invoke(serial, ["learn", "/dev/ttyS0", "--name", "a b"])
    assert result.exit_code == 2
    assert "is not a name" in result.output
