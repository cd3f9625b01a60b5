"""The connector `modbus-server`: a PLC or SCADA beside the gateway asks it for the points of any device.

It shows what is known now and keeps nothing back. A value that is bad or stale is never shown as if it were fresh.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal
from uuid import uuid4

from edged.adapter import STRICT, ConfigError, Duration, Reason, Value
from edged.config.base import CommandingConfig
from edged.downlink.api import Command, CommandResult, Commands, State
from edged.uplink.api import ConnectionContext, ServerState
from edged.uplink.links.listener import Listener
from edged.uplink.listening import ListeningConnection

from .point import DataType, Encoding, ModbusPoint, Order
from .served import (
    BUSY,
    FAILURE,
    FUNCTION,
    NO_ANSWER,
    VALUE,
    Reading,
    RefusedError,
    Shown,
    Unit,
    Writing,
    answer,
    parse,
    written,
)  # fmt: skip

log = logging.getLogger("edged.modbus-server")

_MBAP = struct.Struct(">HHHB")
_LONGEST = 254
"""Bytes after the length field: unit and PDU (Modbus Messaging on TCP/IP V1.0b, 3.1.3)."""
_GIVE_UP = 10.0
"""Seconds a client may take for the rest of a request it has begun, or to take its reply."""
_MOST_UNIT = 255


@dataclass(frozen=True, kw_only=True)
class ServedPoint:
    """Where a point is shown, and how. Exactly one of `holding`, `input`, `coil` and `discrete` says where."""

    __pydantic_config__: ClassVar = STRICT

    holding: int | None = None
    """The holding register, counted from 0 as in the protocol."""
    input: int | None = None
    """The input register, counted from 0."""
    coil: int | None = None
    """The coil, counted from 0."""
    discrete: int | None = None
    """The discrete input, counted from 0."""
    unit: int = 1
    """The unit identifier under which it is shown, 0 to 255."""
    type: DataType | None = None
    """How the value is written into the registers; `float32` unless given."""
    order: Order | None = None
    """The order of its bytes, A being the most significant; most significant first unless given."""
    length: int | None = None
    """How many registers a string has."""
    encoding: Encoding = "ascii"
    """How a string is encoded."""
    scale: float = 1.0
    """What one step of the register is worth: 21.5 with `scale: 0.1` is shown as 215."""
    offset: float = 0.0
    """The value that a register of 0 stands for."""
    enum: dict[int, str] = field(default_factory=dict)
    """Numbers for the words of a point, e.g. `{0: off, 1: on}`."""

    def __post_init__(self) -> None:
        if not 0 <= self.unit <= _MOST_UNIT:
            raise ValueError(f"`unit` must lie between 0 and {_MOST_UNIT}")
        if self.type in {"bit", "int8l", "int8h", "uint8l", "uint8h"}:
            raise ValueError(f"`type: {self.type}` is a part of a register; use a whole one, or a coil")
        object.__setattr__(self, "enum", {int(key): text for key, text in self.enum.items()})
        _ = self.place

    @cached_property
    def place(self) -> ModbusPoint:
        """The same as a point of a Modbus device. Raises ValueError."""
        bits = self.coil is not None or self.discrete is not None
        kind = self.type or (None if bits else "uint16" if self.enum else "float32")
        return ModbusPoint(
            holding=self.holding, input=self.input, coil=self.coil, discrete=self.discrete, type=kind,
            order=self.order, length=self.length, encoding=self.encoding, scale=self.scale, offset=self.offset,
            enum=self.enum,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModbusServerConnection(ListeningConnection, CommandingConfig):
    """A Modbus TCP server for the PLC or SCADA beside the gateway.

    Modbus has no passwords: whoever reaches it may read, and with `commands: true` write.
    """

    __pydantic_config__: ClassVar = STRICT

    points: dict[str, ServedPoint]
    """By address, `device/point`: where it is shown."""
    bad: Literal["exception", "sentinel"] = "exception"
    """What is answered where a value is bad, stale or not known yet: exception 11 for the whole read, or, in the place
    of this value alone, the number that means none: not-a-number, the lowest signed or the highest unsigned integer.
    A coil or discrete input has no such number: it is always the exception."""
    idle_timeout: Duration = Duration(600)
    """A client that asks nothing for so long is disconnected."""
    command_timeout: Duration = Duration(5)
    """With `commands: true`: how long a write may take. Later it is not carried out any more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.points:
            raise ValueError("`points` is empty: name at least one, such as `chiller/supply: {input: 0}`")
        if self.idle_timeout <= 0 or self.command_timeout <= 0:
            raise ValueError("`idle_timeout` and `command_timeout` must be longer than 0")
        for address in self.points:
            if address.count("/") != 1 or not all(address.split("/")):
                raise ValueError(f"`points` has {address!r}: write `device/point`")
        _ = self.units

    @cached_property
    def units(self) -> Mapping[int, Unit]:
        """What is shown, by unit identifier. Raises ValueError where points overlap."""
        shown: dict[int, list[Shown]] = {}
        for address, one in self.points.items():
            device, _, point = address.partition("/")
            shown.setdefault(one.unit, []).append(Shown(device, point, one.place))
        return {unit: Unit(ones) for unit, ones in shown.items()}

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from super().idle()
        if not self.commands:
            yield "command_timeout", "it needs `commands: true`"


class ModbusServerConnector:
    """Builds the server of a `modbus-server` connection."""

    connection_config: type[ListeningConnection] = ModbusServerConnection

    def server(self, config: ModbusServerConnection, context: ConnectionContext) -> ModbusServer:
        """The server. Raises ConfigError where it is to show a point that does not exist."""
        for address in config.points:
            device, _, point = address.partition("/")
            known = context.devices.get(device)
            if known is None:
                raise ConfigError(f"`points: {address}`: there is no device {device!r}")
            if known.points and point not in known.points:
                names = ", ".join(sorted(map(str, known.points))[:8])
                raise ConfigError(f"`points: {address}`: {device} has no point {point!r}; it has {names}")
        return ModbusServer(config, context)


SERVER = ModbusServerConnector()


class ModbusServer:
    """Answers clients; see `edged.uplink.api.Server`."""

    def __init__(self, config: ModbusServerConnection, context: ConnectionContext) -> None:
        self._config = config
        self._context = context
        self._listener = Listener(context.name, config, self._serve)
        self._waiting: dict[str, asyncio.Future[CommandResult]] = {}

    def state(self) -> ServerState:
        """See `edged.uplink.api.Server`."""
        return self._listener.state()

    async def run(self) -> None:
        """See `edged.uplink.api.Server`."""
        hearing = None
        if self._context.commands is not None:
            hearing = asyncio.create_task(self._hear(self._context.commands), name=f"{self._context.name} results")
        try:
            await self._listener.run()
        finally:
            if hearing is not None:
                hearing.cancel()
                await asyncio.wait({hearing})

    async def _hear(self, commands: Commands) -> None:
        async for result in commands.results():
            commands.told(result)
            waiting = self._waiting.get(result.id) if result.state.final else None
            if waiting is not None and not waiting.done():
                waiting.set_result(result)

    # -- one client ------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        while await self._one(reader, writer, peer):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> bool:
        """Answer one request. False where what comes is not Modbus TCP."""
        async with asyncio.timeout(self._config.idle_timeout):
            start = await reader.readexactly(1)
        async with asyncio.timeout(_GIVE_UP):
            number, protocol, length, unit = _MBAP.unpack(start + await reader.readexactly(_MBAP.size - 1))
            if protocol or not 2 <= length <= _LONGEST:  # noqa: PLR2004  # unit and function at least
                return False
            request = await reader.readexactly(length - 1)
        self._listener.requests += 1
        try:
            reply = await self._reply(unit, request, peer)
        except RefusedError as exc:
            self._listener.refused += 1
            reply = bytes((request[0] | 0x80, exc.code))
        writer.write(_MBAP.pack(number, 0, 1 + len(reply), unit) + reply)
        async with asyncio.timeout(_GIVE_UP):
            await writer.drain()
        return True

    async def _reply(self, unit: int, request: bytes, peer: str) -> bytes:
        served = self._config.units.get(unit)
        if served is None:
            raise RefusedError(NO_ANSWER)
        asked = parse(request)
        if isinstance(asked, Writing):
            return await self._write(served, asked, peer)
        shown = served.within(asked.table, asked.start, asked.count)
        return await self._read(asked, shown)

    async def _read(self, asked: Reading, shown: Sequence[Shown]) -> bytes:
        values: dict[Shown, Value] = {}
        twin = self._context.twin
        for device in dict.fromkeys(one.device for one in shown):
            known = await twin.device(device) if twin else {}
            for one in shown:
                now = known[one.point].reported if one.device == device and one.point in known else None
                if now is None or now.quality.status == "bad" or now.quality.reason == Reason.STALE:
                    continue
                values[one] = now.value
        return answer(asked, shown, values, sentinel=self._config.bad == "sentinel")

    # -- writes ----------------------------------------------------------------------------------------------------

    async def _write(self, served: Unit, asked: Writing, peer: str) -> bytes:
        if self._context.commands is None:
            raise RefusedError(FUNCTION)
        for one, value in written(asked, served.within(asked.table, asked.start, asked.count)):
            await self._command(self._context.commands, one, value, peer)
        return asked.echo

    async def _command(self, commands: Commands, one: Shown, value: Value, peer: str) -> None:
        """Have a point written and wait for the result. Raises RefusedError."""
        limit = float(self._config.command_timeout)
        command = Command(
            id=uuid4().hex, device=one.device, point=one.point, value=value, valid_for=limit, requester=f"modbus {peer}"
        )
        future = self._waiting[command.id] = asyncio.get_running_loop().create_future()
        try:
            result = await commands.submit(command)
            if not result.state.final:
                with suppress(TimeoutError):
                    async with asyncio.timeout(limit):
                        result = await future
        finally:
            del self._waiting[command.id]
        if result.state not in {State.EXECUTED, State.VERIFIED}:
            raise RefusedError(_code(result))


def _code(result: CommandResult) -> int:
    """The exception that tells what became of a write."""
    if result.state is State.REJECTED:
        return VALUE
    if result.state is State.FAILED:
        return NO_ANSWER if result.reason == "timeout" else FAILURE
    return BUSY
