"""RTU frames through TCP, to a serial server in transparent mode: the serial master on a connection.

Such a server hands what comes late from its line to whoever is connected by then, so that the connection says no more
about what an answer belongs to than a wire does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from edged.media import LineSettings, Medium, SocketPort

from .barrier import limits_of
from .config import ModbusDevice, ModbusRtuOverTcpBus
from .framing import RTU
from .link import Endpoint
from .master import SerialMaster

_AT_ONCE = 10_000_000
"""The speed of a line of which nobody says how fast it is: nothing is added to what a device is given to answer."""


def rtu_over_tcp_links(config: ModbusRtuOverTcpBus, devices: Mapping[str, ModbusDevice]) -> list[SerialMaster]:
    """The link of a bus behind a serial server: one, since the line behind it carries one request at a time.

    The server keeps the silences of its line.
    """
    endpoint = Endpoint(config.host, config.port, config.timeout)
    settings = LineSettings(
        port=f"socket://{endpoint}", baudrate=config.baudrate or _AT_ONCE, parity="even", connect_timeout=config.timeout
    )

    async def connect(on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> SocketPort:
        async def attempt(address: str) -> SocketPort:
            _, port = await asyncio.get_running_loop().create_connection(
                lambda: SocketPort(str(endpoint), on_data, on_lost), address, endpoint.port
            )
            return port

        return await endpoint.open(attempt)

    medium = Medium(settings, str(endpoint), connect=connect)
    return [SerialMaster(medium, RTU, silence=0.0, limits=limits_of(devices))]
