"""A whole daemon with a device that can be written, and one connection: for the way down through any connector."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server


@asynccontextmanager
async def plant(folder: Path, **connection: Any) -> AsyncIterator[Gateway]:
    """`chiller` has `setpoint` (writable, 0 to 500, reads 7 at first), `pump` (writable coil, off) and `flow` (9)."""
    with pymodbus_server("tcp", 1) as port:
        points = {
            "setpoint": {"holding": 7, "type": "uint16", "writable": True, "range": [0, 500], "unit": "°C"},
            "pump": {"coil": 4, "writable": True},
            "flow": {"holding": 9, "type": "uint16", "scale": 0.1, "unit": "m³/h"},
        }
        config = {
            "gateway": {"id": "plant-7"},
            "buffer": {"flush": "100ms"},
            "buses": {"line": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port}},
            "devices": {"chiller": {"bus": "line", "unit": 1, "every": "200ms", "points": points}},
            "connections": {"cloud": {"retry_max": "300ms", "commands": True, **connection}},
        }
        async with running(Gateway(folder, config)) as gateway:
            yield gateway
