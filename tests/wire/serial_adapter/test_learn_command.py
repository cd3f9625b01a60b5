"""`edged serial learn` on a pseudo terminal."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.cli.serial import serial
from edged.config.load import load
from edged_serial import SERIAL


def _plain(count: int) -> bytes:
    return b"T= %d.%d 'C\r\n" % (20 + count % 7, count % 10)


def _with_a_checksum(count: int) -> bytes:
    body = b"T,%d.%d,C" % (20 + count % 7, count % 10)
    return b"$%s*%02X\r\n" % (body, functools.reduce(operator.xor, body))


def _binary(count: int) -> bytes:
    body = bytes((0xAA, 0xC0, 20 + count % 7, count % 10, 1, 2, 3))
    return body + bytes((sum(body) & 0xFF,))


@pytest.fixture
def talking(request: pytest.FixtureRequest) -> Iterator[str]:
    """A port on which somebody talks."""
    says: Callable[[int], bytes] = getattr(request, "param", _plain)
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    stop = threading.Event()

    def talk() -> None:
        count = 0
        while not stop.wait(0.02):
            count += 1
            try:
                os.write(master, says(count))
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


@pytest.mark.parametrize(
    ("talking", "found"),
    [(_plain, "lines, regex"), (_with_a_checksum, "xor"), (_binary, "sum8")],
    indirect=["talking"],
    ids=["plain", "checksum", "binary"],
)
def test_the_profile_is_accepted_and_reads_the_device(talking: str, found: str, tmp_path: Path) -> None:
    file = tmp_path / "profiles" / "learnt.yaml"
    file.parent.mkdir()
    arguments = ["learn", talking, "--baud", "9600", "--parity", "none", "--seconds", "0.7", "--name", "learnt"]
    result = CliRunner().invoke(serial, [*arguments, "--output", str(file)])
    assert result.exit_code == 0, result.output
    assert found in result.output
    (tmp_path / "edged.yaml").write_text(
        f"gateway: {{id: test}}\nbuses:\n  line: {{adapter: serial, port: {talking}}}\n"
        f"devices:\n  a: {{bus: line, profile: learnt}}\n",
        encoding="utf-8",
    )
    loaded = load(tmp_path / "edged.yaml")
    assert loaded.config is not None, loaded.problems
    devices = dict(loaded.config.devices)
    values = asyncio.run(_read(loaded.config.buses["line"], devices))
    assert any(isinstance(value, int | float) and 20 <= value < 27 for value in values), values


async def _read(bus_config: Any, devices: dict[Any, Any]) -> list[Any]:
    bus = SERIAL.open("line", bus_config, devices)
    job = bus.prepare("a", list(devices["a"].points))
    try:
        async with asyncio.timeout(10):
            while not (samples := (await bus.poll(job)).samples):
                await asyncio.sleep(0.02)
        return [value for sample in samples for value in sample.values]
    finally:
        await bus.close()


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
