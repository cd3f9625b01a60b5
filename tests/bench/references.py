"""The raw references of one run: the same machine, the same core, the same minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.bench import measure, workloads
from tests.support.cc import compiled
from tests.support.load_server import load_server
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed

MESSAGE = 3_400
"""Bytes of the messages that aiomqtt publishes alone: about what 500 readings of the benchmark take."""
NAMES = {
    "pymodbus": "pymodbus alone: transactions of 50 registers",
    "streams": "bare asyncio loop: the same, nothing looked at",
    "floor": "libmodbus + libmosquitto in C: the same, and published, nothing kept",
    "aiomqtt": f"aiomqtt alone: QoS 1 messages of {MESSAGE:,} bytes, MQTT 5, 20 in flight, one receiver",
    "aiomqtt311": "aiomqtt alone: the same with MQTT 3.1.1, which cannot tell a refusal",
    "sqlite": "sqlite3 alone: rows, 1,000 a commit, WAL, FULL",
}


def reference(name: str, seconds: float, numbers: Iterable[int] = ()) -> dict[str, Any]:
    """One raw reference, pinned to the daemon's core."""
    return _measured(sys.executable, "-m", "tests.bench.raw", name, str(seconds), *map(str, numbers))


def _measured(*command: str) -> dict[str, Any]:
    whole = [*measure.pinned(measure.UNDER_TEST), *command]
    result: dict[str, Any] = json.loads(subprocess.run(whole, check=True, capture_output=True, text=True).stdout)
    return result


def _floor(seconds: float, broker: int, ports: Iterable[int]) -> dict[str, Any]:
    """Skips where libmodbus or libmosquitto is missing."""
    program = compiled(
        Path(__file__).with_name("floor.c"), "-I/usr/include/modbus", "-lmodbus", "-lmosquitto",
        needs="libmodbus-dev libmosquitto-dev", missing=("modbus.h", "mosquitto.h", "-lmodbus", "-lmosquitto"),
    )  # fmt: skip
    return _measured(str(program), str(seconds), str(broker), *map(str, ports))


def all_of_them(seconds: float) -> dict[str, dict[str, Any]]:
    """Every reference once. The one in C is left out where it cannot be built."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = stack.enter_context(load_server(workloads.PORTS, *measure.pinned(measure.THE_REST)))
        broker = stack.enter_context(Mosquitto(folder))
        found = {name: reference(name, seconds, ports) for name in ("pymodbus", "streams")}
        with suppress(pytest.skip.Exception):
            found["floor"] = _floor(seconds, broker.port, ports)
        for name in ("aiomqtt", "aiomqtt311"):
            found[name] = aiomqtt(seconds, name)
        found["sqlite"] = reference("sqlite", seconds)
        return found


def aiomqtt(seconds: float, name: str = "aiomqtt", size: int = MESSAGE) -> dict[str, Any]:
    """What aiomqtt alone brings to one receiver through mosquitto."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(Mosquitto(folder))
        stack.enter_context(subscribed(broker.port, "raw"))
        return reference(name, seconds, [broker.port, size])
