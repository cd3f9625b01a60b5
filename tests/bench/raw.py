"""Raw references: the same machine in the same minutes, with nothing but the library in question.

    python -m tests.bench.raw NAME SECONDS [PORT ...]

Prints one JSON object. Run by the benchmark, pinned to the core that the daemon is measured on.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

REGISTERS = 50


async def pymodbus(seconds: float, ports: list[int]) -> int:
    """Transactions of pymodbus's own client, one connection a port, one request outstanding on each."""
    from pymodbus.client import AsyncModbusTcpClient  # noqa: PLC0415  # the other references must not pay for it

    done = 0
    end = time.monotonic() + seconds

    async def one(port: int) -> None:
        nonlocal done
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        while time.monotonic() < end:
            reply = await client.read_holding_registers(0, count=REGISTERS, device_id=1)
            assert len(reply.registers) == REGISTERS
            done += 1
        client.close()

    await asyncio.gather(*map(one, ports))
    return done


async def streams(seconds: float, ports: list[int]) -> int:
    """Transactions of a bare asyncio loop: write a request, read a reply, look at nothing."""
    done = 0
    end = time.monotonic() + seconds
    request = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, REGISTERS)

    async def one(port: int) -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            writer.write(request)
            await reader.readexactly(9 + 2 * REGISTERS)
            done += 1
        writer.close()

    await asyncio.gather(*map(one, ports))
    return done


async def aiomqtt(seconds: float, ports: list[int]) -> int:
    """QoS 1 messages of so many bytes (the second number), twenty in flight, as edged sends them: MQTT 5, typed."""
    from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415  # the other references must not pay for it
    from paho.mqtt.properties import Properties  # noqa: PLC0415  # as above

    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
    properties.ContentType = "application/json"
    return await _published(seconds, *ports, version=5, properties=properties)


async def aiomqtt311(seconds: float, ports: list[int]) -> int:
    """The same with MQTT 3.1.1, where a refusal cannot be told from a success."""
    return await _published(seconds, *ports, version=4, properties=None)


async def _published(seconds: float, port: int, size: int, *, version: int, properties: Any) -> int:
    import aiomqtt as mqtt  # noqa: PLC0415  # the other references must not pay for it

    done = 0
    end = time.monotonic() + seconds
    payload = b"x" * size
    protocol = mqtt.ProtocolVersion(version)
    async with mqtt.Client("127.0.0.1", port, protocol=protocol, max_inflight_messages=20) as client:
        client.pending_calls_threshold = 1 << 30

        async def one() -> None:
            nonlocal done
            while time.monotonic() < end:
                await client.publish("raw", payload, qos=1, properties=properties)
                done += 1

        await asyncio.gather(*(one() for _ in range(20)))
    return done


async def sqlite(seconds: float, _ports: list[int]) -> int:
    """Rows of four columns, 1,000 to a commit, WAL and synchronous=FULL, on the disk that holds /var/tmp."""
    done = 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp may be memory
        connection = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b, c, d)")
        rows = [(time.time(), "meter-1/voltage", 230.1, 0)] * 1000
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
            done += len(rows)
        connection.close()
    return done


REFERENCES: dict[str, Callable[[float, list[int]], Coroutine[None, None, int]]] = {
    "pymodbus": pymodbus,
    "streams": streams,
    "aiomqtt": aiomqtt,
    "aiomqtt311": aiomqtt311,
    "sqlite": sqlite,
}


def main() -> None:
    """Run one reference."""
    name, seconds, ports = sys.argv[1], float(sys.argv[2]), [int(port) for port in sys.argv[3:]]
    cpu, began = time.process_time(), time.monotonic()
    done = asyncio.run(REFERENCES[name](seconds, ports))
    elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"name": name, "per_second": done / elapsed, "cpu_us": 1e6 * cpu / max(done, 1)}))


if __name__ == "__main__":
    main()
