"""The simulator, read by our own bus and by pymodbus' client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from typing import Any, cast

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient

from edged.adapter import Adapter, ConfigError, LinearMap, TransientError
from edged_modbus import RTU_OVER_TCP, TCP, TLS, UDP
from edged_modbus.config import ModbusDevice, ModbusRtuOverTcpBus, ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from edged_modbus.point import ModbusPoint
from edged_modbus.simulator import ModbusSimulator
from tests.support.modbus import HOST, device, faults, opened, values

POINTS = {
    "supply": ModbusPoint(holding=100, type="float32", order="CDAB", range=(-40, 120)),
    "level": ModbusPoint(input=0, scale=0.1, range=(0, 100)),
    "pressure": ModbusPoint(input=1, type="int16", map=LinearMap(raw=(0, 27648), to=(0, 10))),
    "energy": ModbusPoint(input=4, type="uint32", unit="kWh"),
    "bcd": ModbusPoint(input=6, type="bcd32"),
    "mode": ModbusPoint(holding=111, enum={0: "off", 1: "cooling", 2: "heating"}),
    "alarm": ModbusPoint(holding=112, flags={0: "hot", 3: "door"}),
    "low": ModbusPoint(holding=113, bit=2),
    "high": ModbusPoint(holding=113, bit=9),
    "name": ModbusPoint(holding=120, type="string", length=4),
    "pump": ModbusPoint(coil=0),
    "full": ModbusPoint(discrete=7),
    "setpoint": ModbusPoint(holding=130, type="int16", scale=0.1, range=(5, 30), writable=True),
    "valve": ModbusPoint(coil=1, writable=True),
    "option": ModbusPoint(holding=131, bit=5, writable=True),
}
BUSES: dict[str, tuple[Adapter, type[Any]]] = {
    "tcp": (TCP, ModbusTcpBus),
    "udp": (UDP, ModbusUdpBus),
    "rtu-over-tcp": (RTU_OVER_TCP, ModbusRtuOverTcpBus),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def simulated(kind: str, port: int, devices: Mapping[str, ModbusDevice], *, host: str = HOST, seed: int = 0) -> Any:
    adapter, config = BUSES[kind]
    return adapter.simulate({"bus": (config(adapter=f"modbus-{kind}", host=host, port=port), devices)}, seed=seed)


@pytest.mark.parametrize("kind", BUSES)
async def test_every_point_has_a_plausible_value(kind: str) -> None:
    port = free_port()
    async with simulated(kind, port, {"m": device(POINTS)}) as simulator:
        assert simulator.endpoints == {"bus": f"{HOST}:{port}"}
        async with opened(kind, port, device(POINTS)) as bus:
            job = bus.prepare("m", list(POINTS))
            for _ in range(3):
                await bus.poll(job)
            result = await bus.poll(job)
            read = values(result)
    assert faults(result) == {}
    assert result.notes == []
    assert -40 <= cast("float", read["supply"]) <= 120
    assert 0 <= cast("int", read["level"]) <= 1000
    assert 0 <= cast("int", read["pressure"]) <= 27_648
    assert read["mode"] in {"off", "cooling", "heating"}
    assert set(cast("str", read["alarm"]).split(",")) <= {"", "hot", "door"}
    assert read["name"] == "m/name"
    assert read["setpoint"] == 175 or read["setpoint"] == 176
    assert all(isinstance(read[point], bool) for point in ("low", "high", "pump", "full"))
    assert simulator.state()["requests"] > 4


async def test_writes_stick_and_touch_nothing_else() -> None:
    port = free_port()
    async with simulated("tcp", port, {"m": device(POINTS)}), opened("tcp", port, device(POINTS)) as bus:
        for point, value, raw in (("setpoint", 21.5, 215), ("valve", True, True), ("option", True, True)):
            await bus.write("m", point, value)
            assert values(await bus.poll(bus.prepare("m", [point]))) == {point: raw}
        await bus.write("m", "option", False)
        assert values(await bus.poll(bus.prepare("m", ["setpoint", "valve", "option"]))) == {
            "setpoint": 215, "valve": True, "option": False,
        }  # fmt: skip


async def test_two_simulators_with_one_seed_agree_and_with_another_do_not() -> None:
    async def read(seed: int) -> dict[str, object]:
        port = free_port()
        async with simulated("tcp", port, {"m": device(POINTS)}, seed=seed), opened("tcp", port, device(POINTS)) as bus:
            return dict(values(await bus.poll(bus.prepare("m", ["energy", "bcd", "supply"]))))

    one, other = await read(1), await read(2)
    assert one != other
    again = await read(1)
    assert abs(cast("int", again["energy"]) - cast("int", one["energy"])) < 60


async def test_several_units_answer_behind_one_endpoint_and_others_do_not() -> None:
    port = free_port()
    point = {"x": ModbusPoint(holding=0, type="string", length=4)}
    devices = {name: device(point, unit=unit) for name, unit in (("a", 1), ("b", 2))}
    asked = devices | {"c": device(point, unit=3)}
    async with simulated("tcp", port, devices), opened("tcp", port, asked) as bus:
        assert values(await bus.poll(bus.prepare("a", ["x"]))) == {"x": "a/x"}
        assert values(await bus.poll(bus.prepare("b", ["x"]))) == {"x": "b/x"}
        with pytest.raises(TransientError, match="gateway target device failed to respond") as caught:
            await bus.poll(bus.prepare("c", ["x"]))
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    ("fault", "reason"), [("silent", "timeout"), ("exception", "exception"), ("garbage", "protocol")]
)
@pytest.mark.parametrize("kind", BUSES)
async def test_a_device_can_be_made_faulty_and_well_again(kind: str, fault: str, reason: str) -> None:
    port = free_port()
    point = {"x": ModbusPoint(holding=0)}
    devices = {name: device(point, unit=unit, timeout=0.1) for name, unit in (("a", 1), ("b", 2))}
    async with simulated(kind, port, devices) as simulator, opened(kind, port, devices) as bus:
        a, b = bus.prepare("a", ["x"]), bus.prepare("b", ["x"])
        simulator.faults["a"] = fault
        with pytest.raises(TransientError) as caught:
            await bus.poll(a)
        assert caught.value.reason == reason
        assert len(values(await bus.poll(b))) == 1
        simulator.faults.clear()
        assert len(values(await bus.poll(a))) == 1


@pytest.mark.parametrize("framer", [FramerType.SOCKET, FramerType.RTU])
async def test_pymodbus_understands_every_function(framer: FramerType) -> None:
    port = free_port()
    points = {f"w{n}": ModbusPoint(holding=n, writable=True) for n in range(8)}
    points |= {f"c{n}": ModbusPoint(coil=n, writable=True) for n in range(11)}
    points |= {"i": ModbusPoint(input=0), "d": ModbusPoint(discrete=0)}
    kind = "tcp" if framer is FramerType.SOCKET else "rtu-over-tcp"
    async with simulated(kind, port, {"m": device(points, unit=9)}):
        client = AsyncModbusTcpClient(HOST, port=port, framer=framer, retries=0, reconnect_delay=0)
        await client.connect()
        try:
            bits = [True, False, True, True, False, False, True, False, True, True, False]
            assert not (await client.write_coil(3, value=True, device_id=9)).isError()
            assert (await client.read_coils(3, count=1, device_id=9)).bits[0]
            assert not (await client.write_coils(0, bits, device_id=9)).isError()
            assert (await client.read_coils(0, count=11, device_id=9)).bits[:11] == bits
            assert not (await client.write_register(1, 77, device_id=9)).isError()
            assert not (await client.write_registers(2, [78, 79], device_id=9)).isError()
            assert (await client.read_holding_registers(1, count=3, device_id=9)).registers == [77, 78, 79]
            await client.mask_write_register(address=1, and_mask=0xFFF0, or_mask=0x0005, device_id=9)
            both = await client.readwrite_registers(
                read_address=1, read_count=2, write_address=2, values=[5], device_id=9
            )
            assert both.registers == [77 & 0xFFF0 | 5, 5]
            assert len((await client.read_input_registers(0, count=1, device_id=9)).registers) == 1
            assert len((await client.read_discrete_inputs(0, count=1, device_id=9)).bits) >= 1
            identity = await client.read_device_information(read_code=1, device_id=9)
            assert identity.information[0] == b"edged"  # type: ignore[attr-defined]  # this reply has it
            for refused in (
                client.read_holding_registers(7, count=2, device_id=9),
                client.read_input_registers(500, count=1, device_id=9),
                client.write_register(8, 1, device_id=9),
            ):
                assert (await refused).exception_code == 2
            if framer is FramerType.SOCKET:  # on a line, nobody can tell where an unknown request ends
                assert (await client.diag_read_bus_message_count(device_id=9)).exception_code == 1
        finally:
            client.close()


async def test_frames_in_pieces_and_several_at_once_are_answered() -> None:
    port = free_port()
    request = struct.pack(">HHHBBHH", 7, 0, 6, 1, 3, 0, 1)
    async with simulated("tcp", port, {"m": device({"x": ModbusPoint(holding=0)})}):
        reader, writer = await asyncio.open_connection(HOST, port)
        for byte in request:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reader.readexactly(11))[:9] == struct.pack(">HHHBBB", 7, 0, 5, 1, 3, 2)
        writer.write(request * 3)
        assert len(await reader.readexactly(33)) == 33
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b"", "who speaks something else is cut off"
        writer.close()


async def test_a_host_elsewhere_is_served_here_and_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        devices = {"m": device({"x": ModbusPoint(holding=0)})}
        async with simulated("tcp", port, devices, host="192.0.2.10") as simulator:
            served = simulator.endpoints["bus"]
            assert served.startswith(f"{HOST}:")
            assert served != f"{HOST}:{port}"
        with pytest.raises(ConfigError, match=f"cannot listen on {HOST}:{port} .*another port"):
            async with simulated("tcp", port, devices):
                pass


async def test_tls_cannot_be_simulated_and_says_so() -> None:
    config = ModbusTlsBus(adapter="modbus-tls", host=HOST)
    with pytest.raises(ConfigError, match="TLS cannot be simulated"):
        async with TLS.simulate({"bus": (config, {})}):
            pass


async def test_the_end_of_a_simulation_cuts_all_connections() -> None:
    port = free_port()
    async with simulated("tcp", port, {"m": device({"x": ModbusPoint(holding=0)})}) as simulator:
        reader, writer = await asyncio.open_connection(HOST, port)
        await asyncio.sleep(0.02)
        assert len(cast("ModbusSimulator", simulator).open) == 1
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
