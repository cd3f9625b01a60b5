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
from typing import ClassVar, Literal
from uuid import uuid4

from edged.adapter import STRICT, ConfigError, Duration, Reason, Value
from edged.config.base import CommandingConfig, DeviceConfig
from edged.downlink.api import Command, CommandResult, Commands, State
from edged.uplink.api import ConnectionContext, ServerState
from edged.uplink.links.listener import Listener
from edged.uplink.listening import ListeningConnection

from .exposed import NOBODY, ServedPoint, ServedRule, show
from .served import (
    ADDRESS,
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


@dataclass(frozen=True, kw_only=True)
class ModbusServerConnection(ListeningConnection, CommandingConfig):
    """A Modbus TCP server for the PLC or SCADA beside the gateway.

    Modbus has no passwords: whoever reaches it may read, and with `commands: true` write.
    """

    __pydantic_config__: ClassVar = STRICT

    points: dict[str, ServedPoint] = field(default_factory=dict)
    """By address, `device/point`: where it is shown."""
    rules: dict[str, ServedRule] = field(default_factory=dict)
    """By a name of your choice: where the points of all devices of a kind are shown."""
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
        if not self.points and not self.rules:
            raise ValueError("`points` is empty: name at least one, such as `chiller/supply: {input: 0}`")
        if self.idle_timeout <= 0 or self.command_timeout <= 0:
            raise ValueError("`idle_timeout` and `command_timeout` must be longer than 0")
        for address in self.points:
            if address.count("/") != 1 or not all(address.split("/")):
                raise ValueError(f"`points` has {address!r}: write `device/point`")
        show(self.points, {}, {})

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
        try:
            return ModbusServer(config, context)
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc


SERVER = ModbusServerConnector()


class ModbusServer:
    """Answers clients; see `edged.uplink.api.Server`."""

    def __init__(self, config: ModbusServerConnection, context: ConnectionContext) -> None:
        self._config = config
        self._context = context
        self._listener = Listener(context.name, config, self._serve)
        self._waiting: dict[str, asyncio.Future[CommandResult]] = {}
        self._known: dict[str, DeviceConfig] = {}
        """The devices for which the rules were worked out."""
        self._units: dict[int, Unit] = {}
        self._show()

    def _show(self) -> None:
        """Work out what is shown. Raises ConfigError and ValueError."""
        self._known = dict(self._context.devices)
        self._units = show(self._config.points, self._config.rules, self._known)

    @property
    def units(self) -> Mapping[int, Unit]:
        """What is shown, by unit identifier: of the devices of this moment, as far as rules name them."""
        if self._config.rules and self._known != self._context.devices:
            try:
                self._show()
            except (ConfigError, ValueError) as exc:
                log.warning("%s: the registers stay as they were: %s", self._context.name, exc)
        return self._units

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
        served = self.units.get(unit)
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
            known = await twin.device(device) if twin and device != NOBODY else {}
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
        found = written(asked, served.within(asked.table, asked.start, asked.count))
        if any(one.device == NOBODY for one, _ in found):
            raise RefusedError(ADDRESS)
        for one, value in found:
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
