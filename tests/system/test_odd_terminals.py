"""The commands where a shell gives them something odd: no UTF-8, no room for their output, a place that is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

CONFIG = """
gateway: {id: t1}
buses: {plc: {adapter: modbus-tcp, host: 300.0.0.1}}
devices: {a: {bus: plc, points: {x: {holding: 1, unit: °C, typ: float32}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "edged.yaml"
    file.write_text(CONFIG, "utf-8")
    return file


def edged(
    *arguments: str | Path, env: dict[str, str] | None = None, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edged", *map(str, arguments)],
        check=False, text=True, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=env,
    )  # fmt: skip


def test_a_terminal_without_degrees_and_arrows_gets_question_marks(config: Path) -> None:
    plain = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C", "PYTHONUTF8": "0"}
    doctor = edged("doctor", config, env=plain)
    assert doctor.stdout.startswith("? configuration"), doctor.stderr


@pytest.mark.parametrize("arguments", [("doctor", "{config}"), ("schema",), ("--help",), ("--version",)])
def test_an_output_that_is_full_is_told_in_a_line(config: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = edged(*(one.format(config=config) for one in arguments), stdout=full)
    assert ran.returncode == 1
    assert ran.stderr == "edged: the output cannot be written: No space left on device\n"


def test_an_error_that_nobody_can_read_has_its_exit_code(config: Path) -> None:
    missing = config.with_name("missing.yaml")
    ran = subprocess.run(["sh", "-c", f"{sys.executable} -m edged check {missing} 2>/dev/full >&2"], check=False)
    assert ran.returncode == 1


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    pipe = f"{sys.executable} -m edged schema | head -1"
    ran = subprocess.run(["sh", "-c", pipe], check=False, capture_output=True, text=True)
    assert ran.stdout == "{\n"
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "ended before it had answered"), (b"hello\r\n", "ended before it had answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is not edged"),
        (b"HTTP/1.1 200 OK\r\nServer: edged\r\nContent-Length: 9\r\n\r\n{", "ended before it had answered"),
        (b"HTTP/1.1 500 X\r\nServer: edged\r\nContent-Length: 2\r\n\r\n[]", "answered 500"),
    ],
)  # fmt: skip
def test_something_else_behind_the_socket_is_told_in_a_line(tmp_path: Path, answer: bytes, told: str) -> None:
    place = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        ran = edged("status", "--socket", place)
        thread.join()
    assert ran.returncode == 1
    assert ran.stderr.startswith("edged: ")
    assert told in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (["run", "{config}", "--state", "{config}"], 2, "is not a folder"),
        (["profiles", "show", "{config}"], 2, "is not a profile: it has no `profile:`"),
        (["trace", "--replay", "/nonexistent"], 2, "/nonexistent cannot be read: No such file or directory"),
        (["demo", "--for", "0s"], 2, "at least 5s"),
        (["demo", "--for", "5s", "--broker", "mqtt://127.0.0.1:1"], 1, "the broker at 127.0.0.1:1 cannot be used"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(config: Path, command: list[str], code: int, told: str) -> None:
    ran = edged(*(part.format(config=config) for part in command))
    assert ran.returncode == code
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_init_asks_again_until_an_answer_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    command = f"{sys.executable} -m edged init {file} --no-scan --no-ble --host 192.0.2.10 --broker mqtt://h"
    typed = "my gw\nplant-9\nEurope/Berln\nEurope/Berlin\n" + 20 * "\n"  # and no port has Modbus devices
    ran = subprocess.run(
        ["script", "-qec", command, "/dev/null"], check=False, capture_output=True, text=True, input=typed
    )
    assert "`my_gw` would be one" in ran.stdout
    assert "did you mean Europe/Berlin?" in ran.stdout
    assert "id: plant-9" in file.read_text("utf-8"), ran.stdout
