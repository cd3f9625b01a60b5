"""Runs `load_server.c`: cheap Modbus TCP devices whose registers tell when and how often they were read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cc import compiled

REGISTERS = 50
"""How many a device of `device_yaml` reads: 4 for the time, 2 for the count, and the rest."""
POINTS = REGISTERS - 4
"""How many points that makes: the time and the count are one point each."""


def expected(count: int, register: int) -> int:
    """What a register above 5 holds in the reply number `count`."""
    return (count * 31 + register) & 0xFFFF


@contextmanager
def load_server(devices: int, *prefix: str) -> Iterator[list[int]]:
    """Serve so many devices until the block ends; yields their ports. `prefix` is put before the command (taskset)."""
    program = compiled(Path(__file__).with_name("load_server.c"))
    command = [*prefix, str(program), str(devices)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield [int(port) for port in process.stdout.readline().split()]
        finally:
            process.stdin.close()
            process.wait(10)


def points_yaml(registers: int = REGISTERS) -> dict[str, dict[str, object]]:
    """The points of a device of the load server, as plain data for a YAML file."""
    points: dict[str, dict[str, object]] = {
        "stamp": {"holding": 0, "type": "uint64"},
        "count": {"holding": 4, "type": "uint32"},
    }
    points |= {f"r{register}": {"holding": register} for register in range(6, registers)}
    return points
