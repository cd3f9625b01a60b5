"""A SCADA beside the gateway: pymodbus and a raw socket ask the daemon for the points of another Modbus device."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import free_port

POINTS = {
    "plc/level": {"input": 0, "type": "float32"},
    "plc/count": {"input": 2, "type": "uint32", "order": "CDAB"},
    "plc/odd": {"discrete": 5},
    "plc/setpoint": {"holding": 0, "type": "int16", "scale": 0.1},
    "plc/relay": {"coil": 0},
    "plc/fixed": {"holding": 1, "type": "uint16"},
    "plc/missing": {"input": 100, "type": "float32"},
    "plc/long": {"input": 102, "type": "int16", "unit": 9},
}


@pytest.fixture
def device() -> Iterator[int]:
    with pymodbus_server("tcp", 1) as port:
        yield port


def config(device: int, port: int, **settings: Any) -> dict[str, Any]:
    points = {
        "level": {"holding": 33, "scale": 0.5},
        "count": {"holding": 34, "type": "uint32"},
        "odd": {"coil": 7},
        "setpoint": {"holding": 10, "type": "int16", "scale": 0.1, "range": [0, 30], "decimals": 1, "writable": True},
        "relay": {"coil": 3, "writable": True},
        "fixed": {"holding": 12},
        "missing": {"holding": 60_000},
        "long": {"holding": 500},
    }
    return {
        "gateway": {"id": "g"},
        "buses": {"plc": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": device, "retry_max": "1s"}},
        "devices": {
            "plc": {"bus": "plc", "unit": 1, "every": "200ms", "timeout": "1s", "retries": 0, "points": points},
        },
        "connections": {
            "scada": {"connector": "modbus-server", "listen": f"127.0.0.1:{port}", "points": POINTS, **settings},
        },
    }  # fmt: skip


class Scada:
    """An independent client, and how it may ask again until the gateway is ready."""

    def __init__(self, client: AsyncModbusTcpClient) -> None:
        self.client = client

    async def answer(self, read: str, address: int, count: int, unit: int = 1) -> Any:
        """The registers or bits, or the exception code."""
        reply = await getattr(self.client, read)(address, count=count, device_id=unit)
        return reply.exception_code if reply.isError() else getattr(reply, "registers", None) or reply.bits[:count]

    async def until(self, expected: Any, read: str, address: int, count: int, unit: int = 1) -> None:
        async with asyncio.timeout(30):
            while (got := await self.answer(read, address, count, unit)) != expected:
                await asyncio.sleep(0.05)
                del got


async def listening(gateway: Gateway) -> None:
    await gateway.until(lambda status: status["servers"].get("scada", {}).get("listening"))


async def connected(gateway: Gateway, port: int) -> Scada:
    await listening(gateway)
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0)
    assert await client.connect()
    return Scada(client)


async def test_it_shows_what_is_known_and_never_what_is_not(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, config(device, port))) as gateway:
        scada = await connected(gateway, port)
        await scada.until([*struct.unpack(">HH", struct.pack(">f", 16.5)), 35, 34], "read_input_registers", 0, 4)
        assert await scada.answer("read_discrete_inputs", 5, 1) == [True]
        assert await scada.answer("read_holding_registers", 0, 2) == [10, 12]
        assert await scada.answer("read_input_registers", 102, 1, 9) == [500]
        assert await scada.answer("read_input_registers", 100, 2) == 11  # the device has no such register
        assert await scada.answer("read_input_registers", 101, 2) == 2  # nothing is shown there
        assert await scada.answer("read_input_registers", 0, 1, 3) == 11  # there is no such unit
        assert (await scada.client.write_register(0, 200, device_id=1)).exception_code == 1  # commands are off
        stats = (await gateway.status())["buffer"]
        assert stats["connections"] == {}, "nothing is kept for a connection that sends nothing"
        scada.client.close()


async def test_what_a_silent_device_last_said_is_not_shown_as_if_it_were_fresh(tmp_path: Path) -> None:
    port = free_port()
    with pymodbus_server("tcp", 1) as device:
        gateway = Gateway(tmp_path, config(device, port, bad="sentinel"))
        await gateway.start()
        scada = await connected(gateway, port)
        await scada.until([10, 12], "read_holding_registers", 0, 2)
        assert await scada.answer("read_input_registers", 100, 2) == [0x7FC0, 0]
    try:
        await scada.until([0x8000, 0xFFFF], "read_holding_registers", 0, 2)
        assert await scada.answer("read_coils", 0, 1) == 11
    finally:
        scada.client.close()
        await gateway.stop()
    async with running(gateway):  # after a restart it knows the old values, and that they are old
        scada = await connected(gateway, port)
        assert await scada.answer("read_holding_registers", 0, 2) == [0x8000, 0xFFFF]
        scada.client.close()


async def test_a_write_is_a_command_with_its_rules_and_its_result(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, config(device, port, commands=True, command_timeout="4s"))) as gateway:
        scada = await connected(gateway, port)
        await scada.until([10], "read_holding_registers", 0, 1)
        client = scada.client
        assert not (await client.write_register(0, 215, device_id=1)).isError()
        await scada.until([215], "read_holding_registers", 0, 1)
        assert not (await client.write_coil(0, True, device_id=1)).isError()
        assert (await client.write_register(0, 999, device_id=1)).exception_code == 3  # beyond its range
        assert (await client.write_register(1, 5, device_id=1)).exception_code == 3  # not writable
        assert (await client.write_registers(0, [200, 5], device_id=1)).exception_code == 3
        assert (await client.write_register(50, 1, device_id=1)).exception_code == 2
        state = (await gateway.status())["servers"]["scada"]
        assert state["refused"] >= 4
        client.close()


async def test_strangers_garbage_and_crowds_do_not_disturb_it(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, config(device, port, max_clients=2))) as gateway:
        scada = await connected(gateway, port)
        await scada.until([10], "read_holding_registers", 0, 1)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(7), struct.pack(">HHHB", 1, 0, 300, 1)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            async with asyncio.timeout(15):
                assert await reader.read() == b""
            writer.close()
        _, second = await asyncio.open_connection("127.0.0.1", port)
        second.write(b"\0")  # and says no more
        await second.drain()
        await gateway.until(lambda status: status["servers"]["scada"]["clients"] >= 2)
        third, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(15):
            assert await third.read() == b""
        writer.close()
        assert await scada.answer("read_holding_registers", 0, 1) == [10]
        scada.client.close()
        second.close()
    assert "Traceback" not in gateway.lines()


async def test_a_port_that_is_taken_is_said_and_tried_again(tmp_path: Path, device: int) -> None:
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with running(Gateway(tmp_path, config(device, port))) as gateway:
        async with asyncio.timeout(30):
            while f"cannot listen on 127.0.0.1:{port}" not in gateway.lines():
                await asyncio.sleep(0.05)
        assert "Traceback" not in gateway.lines()
        taken.close()
        await taken.wait_closed()
        scada = await connected(gateway, port)
        await scada.until([10], "read_holding_registers", 0, 1)
        scada.client.close()


async def test_who_is_not_allowed_gets_no_answer(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, config(device, port, allow=["192.0.2.0/24"]))) as gateway:
        await listening(gateway)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(15):
            assert await reader.read() == b""
        writer.close()
        assert "`allow` does not name it" in gateway.lines()


METER = {"bus": "plc", "unit": 1, "every": "200ms", "timeout": "1s", "retries": 0}


def meters(device: int, port: int, **slots: str) -> dict[str, Any]:
    """Devices of one kind, each with its number, shown by a rule."""
    rules = {
        "meters": {
            "labels": {"kind": "meter"}, "stride": 10,
            "points": {"power": {"input": 0, "type": "uint16"}, "energy": {"input": 1, "type": "uint16"}},
        }
    }  # fmt: skip
    devices = {
        name: {**METER, "labels": {"kind": "meter", "slot": slot}, "points": {"power": {"holding": 10 * int(slot)}}}
        for name, slot in slots.items()
    }
    devices["full"] = {
        **METER, "labels": {"kind": "meter", "slot": "3"},
        "points": {"power": {"holding": 7}, "energy": {"holding": 8}},
    }  # fmt: skip
    scada = {"connector": "modbus-server", "listen": f"127.0.0.1:{port}", "bad": "sentinel", "rules": rules}
    return {**config(device, port), "devices": devices, "connections": {"scada": scada}}


async def test_a_rule_shows_devices_of_a_kind_and_a_reload_moves_none(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, meters(device, port, first="0", second="1"))) as gateway:
        scada = await connected(gateway, port)
        nothing = 0xFFFF  # what is not there
        await scada.until([0, nothing], "read_input_registers", 0, 2)
        await scada.until([10, nothing], "read_input_registers", 10, 2)
        await scada.until([7, 8], "read_input_registers", 30, 2)
        assert await scada.answer("read_input_registers", 20, 2) == [nothing, nothing]
        gateway.config.write_text(json.dumps(meters(device, port, third="2", second="1")))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edged", "reload", "--socket", str(gateway.socket), "--watch", "1s"
        )
        assert await process.wait() == 0
        await scada.until([20, nothing], "read_input_registers", 20, 2)
        assert await scada.answer("read_input_registers", 10, 2) == [10, nothing]
        assert await scada.answer("read_input_registers", 0, 2) == [nothing, nothing]  # it is gone, and nobody moved up
        assert (await gateway.status())["servers"]["scada"]["clients"] == 1, "its client has stayed"
        scada.client.close()
