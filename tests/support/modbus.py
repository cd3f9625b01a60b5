"""Short ways to make Modbus buses for tests, and peers built on pymodbus."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from edged.adapter import Duration, Name, PollResult, Value
from edged.model import GOOD
from edged_modbus import RTU_OVER_TCP, TCP, TLS, UDP
from edged_modbus.config import ModbusDevice, ModbusRtuOverTcpBus, ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from edged_modbus.point import ModbusPoint

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer, ModbusUdpServer

    from edged_modbus.bus import ModbusBus

HOST = "127.0.0.1"
ADDRESSES = 1000
"""The pymodbus servers have so many of each kind; register n holds n, coil n the parity of n."""


def device(
    points: Mapping[str, ModbusPoint], *, timeout: float = 0.25, retries: int = 0, **settings: Any
) -> ModbusDevice:
    """A device that is given a quarter of a second to answer, and no second attempt, unless said otherwise."""
    named = {Name(name): point for name, point in points.items()}
    return ModbusDevice(bus=Name("bus"), timeout=Duration(timeout), retries=retries, points=named, **settings)


def holding(*starts: int) -> dict[str, ModbusPoint]:
    """Points h0, h1, … of one register each. Where registers hold their own address, h7 reads 7."""
    return {f"h{start}": ModbusPoint(holding=start) for start in starts}


def make_bus(kind: str, port: int, devices: Mapping[str, ModbusDevice] | ModbusDevice, **settings: Any) -> ModbusBus:
    """A bus to a port of this machine; `kind` is the adapter's name without `modbus-`."""
    adapter, config = {
        "tcp": (TCP, ModbusTcpBus),
        "tls": (TLS, ModbusTlsBus),
        "udp": (UDP, ModbusUdpBus),
        "rtu-over-tcp": (RTU_OVER_TCP, ModbusRtuOverTcpBus),
    }[kind]
    settings = {"host": HOST} | settings
    named = {"m": devices} if isinstance(devices, ModbusDevice) else devices
    return cast("ModbusBus", adapter.open("bus", config(adapter=f"modbus-{kind}", port=port, **settings), named))


@contextlib.asynccontextmanager
async def opened(
    kind: str, port: int, devices: Mapping[str, ModbusDevice] | ModbusDevice, **settings: Any
) -> AsyncIterator[ModbusBus]:
    """The same, and closed in the end."""
    bus = make_bus(kind, port, devices, **settings)
    try:
        yield bus
    finally:
        await bus.close()


def values(result: PollResult) -> dict[str, Value]:
    """The values that are good, by point."""
    return {
        reading.point: reading.value
        for sample in result.samples
        for reading in sample.readings()
        if reading.quality is GOOD
    }


def faults(result: PollResult) -> dict[str, str]:
    """The qualities that are not good, by point."""
    return {
        reading.point: str(reading.quality)
        for sample in result.samples
        for reading in sample.readings()
        if reading.quality is not GOOD
    }


def names(result: PollResult) -> list[str]:
    """The points of all samples, sorted."""
    return sorted(point for sample in result.samples for point in sample.points)


@contextlib.contextmanager
def pymodbus_server(kind: str, *units: int, sslctx: ssl.SSLContext | None = None, port: int = 0) -> Iterator[int]:
    """A server on pymodbus' own simulator, in a thread with its own loop; yields the port."""
    import asyncio  # noqa: PLC0415  # only for the thread below

    started = threading.Event()
    loop = asyncio.new_event_loop()
    server: ModbusTcpServer | ModbusUdpServer

    async def serve() -> None:
        nonlocal port, server
        server = _pymodbus_server(kind, units, sslctx, port)
        await server.serve_forever(background=True)
        transport = cast("Any", server.transport)
        socket = transport.sockets[0] if kind != "udp" else transport.get_extra_info("socket")
        port = socket.getsockname()[1]
        started.set()

    async def stop() -> None:
        await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus
        await asyncio.sleep(0.01)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(stop())
        loop.close()

    thread = threading.Thread(target=run, name="pymodbus server", daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _pymodbus_server(
    kind: str, units: tuple[int, ...], sslctx: ssl.SSLContext | None, port: int
) -> ModbusTcpServer | ModbusUdpServer:
    from pymodbus import FramerType, ModbusDeviceIdentification  # noqa: PLC0415  # heavy, and not for every test
    from pymodbus.server import ModbusTcpServer, ModbusTlsServer, ModbusUdpServer  # noqa: PLC0415  # likewise
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415  # likewise

    def bits() -> list[SimData]:
        return [SimData(0, values=[bool(n % 2) for n in range(ADDRESSES)], datatype=DataType.BITS)]

    def words() -> list[SimData]:
        return [SimData(0, values=list(range(ADDRESSES)), datatype=DataType.REGISTERS)]

    identity = ModbusDeviceIdentification(  # type: ignore[no-untyped-call]  # pymodbus
        info_name={"VendorName": "Fabrikam", "ProductCode": "P1", "MajorMinorRevision": "2.0"}
    )
    devices = [SimDevice(unit, (bits(), bits(), words(), words())) for unit in units]
    where: dict[str, Any] = {"address": (HOST, port), "identity": identity}
    if kind == "udp":
        return ModbusUdpServer(devices, **where)
    if kind == "tls":
        return ModbusTlsServer(devices, sslctx=sslctx, **where)
    framer = FramerType.RTU if kind == "rtu-over-tcp" else FramerType.SOCKET
    return ModbusTcpServer(devices, framer=framer, **where)
