"""A buffer and the flows of one connection in one process, with a real link to a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edged.buffer.log import Buffer
from edged.clock import boot_id
from edged.config.flows import FlowConfig
from edged.config.model import BufferConfig, Config, GatewayConfig
from edged.config.types import Duration, Name
from edged.uplink.brokers import BrokerConnection
from edged.uplink.connectors.mqtt import MqttConnection
from edged.uplink.forwarders import Uplink
from tests.support.forwarding import context_of


def config_of(
    port: int, connector: str = "mqtt", dialect: type[BrokerConnection] = MqttConnection, **flows: FlowConfig
) -> Config:
    """A gateway whose connection `cloud` gets these flows."""
    cloud = dialect(connector=connector, url=f"mqtt://127.0.0.1:{port}", retry_max=Duration(0.2))
    return Config(gateway=GatewayConfig(id=Name("plant-7")), connections={"cloud": cloud}, flows=flows)


@asynccontextmanager
async def running(
    path: Path, config: Config, *, retention: float = 0, boot: str = "", **context: Any
) -> AsyncIterator[tuple[Buffer, Uplink]]:
    """Its buffer and its connection, while the context lasts."""
    places = config.cursors()
    settings = BufferConfig(flush=Duration(0.05), retention=Duration(retention))
    buffer = Buffer(path, settings, list(places), boot=boot or boot_id(), max_age=places)
    await buffer.start()
    uplink = Uplink(config, "cloud", config.connections["cloud"], context_of(**context), buffer, None)
    tasks = [asyncio.create_task(uplink.run(place)) for place in uplink.places]
    try:
        yield buffer, uplink
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await buffer.stop()
