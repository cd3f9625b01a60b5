"""Runs `load_server.c`: cheap Modbus TCP devices whose registers tell when and how often they were read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.cc import compiled

REGISTERS = 50
"""How many registers, each one point `r0`, `r1`, …, a device of `points_yaml` has."""


def stamp(values: Mapping[str, int]) -> int:
    """When the reply was made, by the server: microseconds since the epoch."""
    return values["r0"] << 48 | values["r1"] << 32 | values["r2"] << 16 | values["r3"]


def count(values: Mapping[str, int]) -> int:
    """Which reply of this device it was, from 1."""
    return values["r4"] << 16 | values["r5"]


def expected(reply: int, register: int) -> int:
    """What a register above 5 holds in the reply number `reply`."""
    return (reply * 31 + register) & 0xFFFF


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
    return {f"r{register}": {"holding": register} for register in range(registers)}
