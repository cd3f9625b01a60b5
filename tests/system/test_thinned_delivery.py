"""A backlog that was thinned while the broker was away arrives whole, by the numbers alone, whatever was cut before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us
from edged.config.model import BufferConfig, GatewayConfig
from edged.config.types import Duration, Name, Size
from edged.model import Sample
from edged.testing.audit import Audit
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors.mqtt import CONNECTOR, MqttConnection
from edged.uplink.forwarder import Forwarder
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import subscribed

pytestmark = pytest.mark.mosquitto

POINTS = tuple(f"register {i}" for i in range(20))
START = 1_795_219_200_000_000
CONFIG = BufferConfig(flush=Duration(60), max_bytes=Size(2**20), min_free=Size(0), when_full="thin")


async def fill(buffer: Buffer, begin: int, end: int) -> None:
    """Seconds of twenty values each."""
    rng = random.Random(begin)
    for second in range(begin, end):
        values = [rng.random() for _ in POINTS]
        assert buffer.put(Sample("meter", START + second * 1_000_000, mono_us(), POINTS, values))
        buffer.count(read=len(POINTS))
        if second % 20 == 19:
            await buffer.flush()


@asynccontextmanager
async def forwarding(buffer: Buffer, port: int, **settings: Any) -> AsyncIterator[Forwarder]:
    config = MqttConnection(connector="mqtt", url=f"mqtt://127.0.0.1:{port}", retry_max=Duration(0.2), **settings)
    context = ConnectionContext("cloud", GatewayConfig(id=Name("plant-7")), {}, lambda _: "")
    forwarder = Forwarder("cloud", CONNECTOR.encoder(config, context), CONNECTOR.link(config, context), buffer)
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("layout", ["columns", "samples"])
async def test_a_thinned_backlog_arrives_whole(tmp_path: Path, layout: str) -> None:
    audit = Audit()
    broker = Mosquitto(tmp_path / "broker", persistence=True)  # so that it keeps the subscription over its restart
    with broker, subscribed(broker.port, "edged/plant-7/data") as subscriber:
        buffer = Buffer(tmp_path / "b.db", CONFIG, ["cloud"], boot=boot_id())
        await buffer.start()
        await fill(buffer, 0, 400)
        async with forwarding(buffer, broker.port, layout=layout, max_readings=150) as forwarder:
            while len(subscriber.messages) < 5:  # some arrive before the broker goes
                await asyncio.sleep(0.005)
            await forwarder.drained() if layout == "samples" else None
            broker.stop()
            seconds = 400
            while (counts := buffer.stats().connections["cloud"]).thinned < 20_000:
                await fill(buffer, seconds, seconds + 200)
                seconds += 200
            assert counts.evicted == counts.thinned
            broker.start()
            async with asyncio.timeout(40):
                await forwarder.drained()
        await buffer.flush()
        stats = buffer.stats().connections["cloud"]
        assert (await buffer.verify()).problems == ()
        await buffer.stop()
        await asyncio.sleep(0.3)
        values: dict[int, int] = {}
        for message in subscriber.messages:
            payload = orjson.loads(message.payload)
            if audit.take(payload):
                for time, quality in _qualities(payload):
                    values[time] = max(values.get(time, 0), quality)
    assert (stats.pending, stats.dead) == (0, 0)
    assert stats.delivered + stats.evicted == seconds * len(POINTS)
    assert audit.missing == []
    if layout == "columns":  # a message of one sample does not speak of those that thinning has emptied
        assert audit.gaps("plant-7", buffer.epoch) == []
    assert audit.readings >= stats.delivered
    assert set(values.values()) == {0, 1}  # whole and thinned ones
    minutes = {time // 60_000_000 for time in values}
    assert minutes == set(range(START // 60_000_000, (START + (seconds - 1) * 1_000_000) // 60_000_000 + 1))


def _qualities(payload: dict[str, Any]) -> list[tuple[int, int]]:
    """(time, whether something of it was thinned) of each sample."""
    if "tables" not in payload:
        return [(payload["time"], int("uncertain(thinned)" in payload.get("quality", {}).values()))]
    return [
        (time, int(any(row == number and text == "uncertain(thinned)" for row, _, text in table.get("quality", []))))
        for table in payload["tables"]
        for number, time in enumerate(table["times"])
    ]
