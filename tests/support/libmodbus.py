"""Builds and runs `libmodbus_server.c`: a Modbus server that shares no line of code with ours or with pymodbus."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.cc import compiled

SOURCE = Path(__file__).with_name("libmodbus_server.c")


def build() -> Path:
    """The compiled server. Skips the test, with the reason, where it cannot be built."""
    flags = ("-I/usr/include/modbus", "-lmodbus")
    return compiled(SOURCE, *flags, needs="libmodbus-dev", missing=("modbus.h", "-lmodbus"))


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
