"""Builds and runs `libmodbus_server.c`: a Modbus server that shares no line of code with ours or with pymodbus."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("libmodbus_server.c")


def build() -> Path:
    """The compiled server. Skips the test, with the reason, where it cannot be built."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc): apt install gcc libmodbus-dev")
    name = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    program = Path(tempfile.gettempdir()) / f"edged-libmodbus-server-{os.getuid()}-{name}"
    if not program.exists():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "server"
            command = [compiler, "-O1", "-Wall", "-I/usr/include/modbus", str(SOURCE), "-o", str(made), "-lmodbus"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)  # our own command
            if result.returncode:
                missing = "modbus.h" in result.stderr or "-lmodbus" in result.stderr
                if missing:
                    pytest.skip("libmodbus is not installed: apt install libmodbus-dev")
                raise AssertionError(result.stderr)
            staged = program.with_suffix(f".{os.getpid()}")
            shutil.copy2(made, staged)
            staged.rename(program)
    return program


@contextlib.contextmanager
def libmodbus_server(*units: int) -> Iterator[int]:
    """Serve these units until the block ends; yields the port."""
    with subprocess.Popen(  # the program built above
        [str(build()), *map(str, units)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)
