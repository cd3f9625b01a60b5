"""Serves the devices of Modbus buses on real sockets, without the devices: for demos, tests and benchmarks."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, cast

from edged.adapter import ConfigError
from edged.testing.line import Line
from edged.testing.lineserver import reachable
from edged.testing.waveforms import seed_of

from .config import ModbusDevice, ModbusRtuOverTcpBus, ModbusTcpBus, ModbusTlsBus, ModbusUdpBus
from .frame import crc16, rtu_frame
from .point import ModbusPoint
from .serial_bus import ModbusAsciiBus, ModbusRtuBus
from .simdevice import SimulatedUnit
from .simline import simulated_line
from .sunspec_image import SimulatedSunSpec

Fault = Literal["silent", "exception", "garbage"]
_Config = ModbusTcpBus | ModbusUdpBus | ModbusRtuOverTcpBus
_Answer = Callable[[int, bytes], bytes | None]
"""Unit and request PDU → reply PDU, or None for silence."""

_DEVICE_FAILURE, _NOBODY_THERE = 4, 11
_GARBAGE = b"\xde\xad\xbe\xef" * 4
_MBAP = struct.Struct(">HHHB")
_HEAD, _LONGEST = _MBAP.size, 254
_MOST_UNREAD = 4096
_RTU_SIZES = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 7: 4, 8: 8, 22: 10, 43: 7}
"""Bytes of a request's frame, where they are always the same."""
_RTU_COUNTED = {15: 6, 16: 6, 23: 10}
"""Where the byte count is, in the others."""


class ModbusSimulator:
    """See `edged.adapter.Simulator`. `faults` can be changed at any time."""

    def __init__(self) -> None:
        self.endpoints: dict[str, str] = {}
        self.faults: dict[str, Fault] = {}
        """Device name → what is wrong with it: it keeps silent, answers exception 4, or answers garbage."""
        self.lines: dict[str, Line] = {}
        """The serial lines by bus, whose faults can be changed at any time, too."""
        self.open: set[asyncio.Transport] = set()
        """The connections there are."""
        self._counts = {"connections": 0, "requests": 0, "exceptions": 0, "unanswered": 0}

    def state(self) -> Mapping[str, int]:
        """See `edged.adapter.Simulator`."""
        return dict(self._counts)

    def count(self, what: str) -> None:
        """Count one of what `state` shows."""
        self._counts[what] += 1

    def disconnect(self) -> None:
        """Cut all connections."""
        for transport in list(self.open):
            transport.abort()

    def answerer(self, bus: str, devices: Mapping[str, ModbusDevice], seed: int, *, line: bool) -> _Answer:
        """What answers the requests to the units of one bus. On a line nobody answers for a unit that is not there."""
        units = {unit: _unit(bus, unit, devices, seed) for unit in {device.unit for device in devices.values()}}
        names = {device.unit: name for name, device in devices.items()}
        counts, faults = self._counts, self.faults

        def answer(unit: int, request: bytes) -> bytes | None:
            counts["requests"] += 1
            fault = faults.get(names.get(unit, "")) if faults else None
            simulated = units.get(unit)
            if fault == "silent" or (simulated is None and line):
                counts["unanswered"] += 1
                return None
            if simulated is None or fault == "exception":
                reply = bytes((request[0] | 0x80, _NOBODY_THERE if simulated is None else _DEVICE_FAILURE))
            elif fault == "garbage":
                return _GARBAGE
            else:
                reply = simulated.answer(request, time.time())
            counts["exceptions"] += reply[0] >> 7
            return reply

        return answer


def _unit(bus: str, unit: int, devices: Mapping[str, ModbusDevice], seed: int) -> SimulatedUnit | SimulatedSunSpec:
    """One unit for all the devices of the configuration that share its number."""
    mine = {name: device for name, device in devices.items() if device.unit == unit}
    if any(device.sunspec is not None for device in mine.values()):
        return SimulatedSunSpec(f"{bus}-{unit}", seed_of(seed, bus, unit))
    points = {
        f"{name}/{point}": place
        for name, device in mine.items()
        for point, place in cast("Mapping[str, ModbusPoint]", device.points).items()
    }
    name = ", ".join(mine)
    profile = next((device.profile for device in mine.values() if device.profile), "simulated")
    identity = {0: b"edged", 1: profile.encode()[:64], 2: b"1.0", 4: name.encode()[:64], 5: f"unit {unit}".encode()}
    return SimulatedUnit(points, identity, seed_of(seed, bus, unit))


class _Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, simulator: ModbusSimulator, answer: _Answer) -> None:
        self._simulator, self._answer = simulator, answer
        self._transport: asyncio.Transport
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._simulator.open.add(self._transport)
        self._simulator.count("connections")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._simulator.open.discard(self._transport)


class _TcpServer(_Server):
    """One connection that speaks Modbus TCP."""

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        while len(data) > _HEAD:
            number, protocol, length, unit = _MBAP.unpack_from(data)
            end = 6 + length
            if protocol or not 2 <= length <= _LONGEST:  # noqa: PLR2004  # unit and function at least
                self._transport.abort()
                return
            if len(data) < end:
                break
            reply = self._answer(unit, data[_HEAD:end])
            data = data[end:]
            if reply is not None:
                self._transport.write(_tcp_frame(number, unit, reply))
        self._data = data


def _tcp_frame(number: int, unit: int, reply: bytes) -> bytes:
    return reply if reply is _GARBAGE else _MBAP.pack(number, 0, len(reply) + 1, unit) + reply


class _UdpServer(asyncio.DatagramProtocol):
    def __init__(self, answer: _Answer) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) <= _HEAD:
            return
        number, protocol, length, unit = _MBAP.unpack_from(data)
        if protocol or len(data) != 6 + length:
            return
        reply = self._answer(unit, data[_HEAD:])
        if reply is not None:
            self._transport.sendto(_tcp_frame(number, unit, reply), addr)


class _RtuServer(_Server):
    """One connection to a serial server in transparent mode, with the units on its line."""

    def data_received(self, data: bytes) -> None:
        data = (self._data + data)[-_MOST_UNREAD:]
        while len(data) > 1:
            size = _request_size(data)
            if size is not None and len(data) < size:
                break
            if size is None or crc16(data[:size]):
                data = data[1:]  # noise: look for a request from the next byte on
                continue
            reply = self._answer(data[0], data[1 : size - 2])
            if reply is not None:
                self._transport.write(reply if reply is _GARBAGE else rtu_frame(data[0], reply))
            data = data[size:]
        self._data = data


def _request_size(data: bytes) -> int | None:
    """How long the frame of the request that begins so is; None if no request begins so."""
    at = _RTU_COUNTED.get(data[1])
    if at is None:
        return _RTU_SIZES.get(data[1])
    return at + 3 + data[at] if len(data) > at else at + 3


@asynccontextmanager
async def simulate(
    buses: Mapping[str, tuple[Any, Mapping[str, ModbusDevice]]], *, host: str, seed: int
) -> AsyncIterator[ModbusSimulator]:
    """See `edged.adapter.Adapter.simulate`."""
    simulator = ModbusSimulator()
    async with AsyncExitStack() as stack:
        stack.callback(simulator.disconnect)
        for name, (config, devices) in buses.items():
            if isinstance(config, ModbusRtuBus | ModbusAsciiBus):
                answer = simulator.answerer(name, devices, seed, line=True)
                units = {device.unit for device in devices.values()}
                line = await stack.enter_async_context(simulated_line(config, answer, units, seed))
                where = await stack.enter_async_context(reachable(line, name, config.port, host))
                simulator.lines[name], simulator.endpoints[name] = line, where
                continue
            if isinstance(config, ModbusTlsBus):
                raise ConfigError(f"bus {name}: TLS cannot be simulated; try it with `adapter: modbus-tcp`")
            answer = simulator.answerer(name, devices, seed, line=isinstance(config, ModbusRtuOverTcpBus))
            simulator.endpoints[name] = await _serve(stack, name, config, _factory(config, simulator, answer), host)
        yield simulator


def _factory(config: object, simulator: ModbusSimulator, answer: _Answer) -> Callable[[], asyncio.BaseProtocol]:
    if isinstance(config, ModbusUdpBus):
        return lambda: _UdpServer(answer)
    return lambda: (_RtuServer if isinstance(config, ModbusRtuOverTcpBus) else _TcpServer)(simulator, answer)


async def _serve(
    stack: AsyncExitStack, name: str, config: _Config, factory: Callable[[], asyncio.BaseProtocol], host: str
) -> str:
    """Serve one bus until the stack closes; returns where. Raises ConfigError."""
    places = _places(config, host)
    for where, port in places:
        try:
            actual = await _listen(stack, config, factory, where, port)
        except OSError as exc:
            if (where, port) != places[-1]:
                continue
            raise ConfigError(
                f"bus {name}: cannot listen on {where}:{port} ({exc.strerror or exc}): "
                f"give the bus another port above 1023, or stop what uses this one"
            ) from exc
        return f"[{where}]:{actual}" if ":" in where else f"{where}:{actual}"
    raise AssertionError


def _places(config: _Config, host: str) -> list[tuple[str, int]]:
    """Where to listen: exactly as configured if that is this machine; else at the same port if it is free, or any."""
    if config.host == "localhost":
        return [("127.0.0.1", config.port)]
    try:
        here = ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        here = False
    return [(config.host, config.port)] if here else [(host, config.port), (host, 0)]


async def _listen(
    stack: AsyncExitStack, config: _Config, factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> int:
    """Open one socket; returns its port. Raises OSError."""
    loop = asyncio.get_running_loop()
    if isinstance(config, ModbusUdpBus):
        datagrams = cast("Callable[[], asyncio.DatagramProtocol]", factory)
        transport, _ = await loop.create_datagram_endpoint(datagrams, local_addr=(host, port))
        stack.callback(transport.close)
        return int(transport.get_extra_info("sockname")[1])
    server = await loop.create_server(factory, host, port)
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])
