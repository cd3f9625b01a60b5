"""A buffer and its forwarder in one process, with a real link to a real broker, and what a subscriber makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us, wall_us
from edged.config.base import ConnectionConfig
from edged.config.model import BufferConfig, GatewayConfig
from edged.config.types import Duration, Name
from edged.model import Sample, Value
from edged.testing.audit import Audit
from edged.uplink.api import ConnectionContext
from edged.uplink.connectors import load_forwarding
from edged.uplink.forwarder import Forwarder
from tests.support.subscriber import Subscriber
from tests.support.waiting import until

POINTS = tuple(f"p{i}" for i in range(50))
WINDOW = 20
TOPIC = "edged/plant-7/data"


def context_of(**settings: Any) -> ConnectionContext:
    """What a connector is told, with whatever a test wants otherwise."""
    return replace(ConnectionContext("cloud", GatewayConfig(id=Name("plant-7")), {}, lambda _: ""), **settings)


class Gateway:
    """A buffer and its forwarder."""

    def __init__(self, buffer: Buffer, forwarder: Forwarder) -> None:
        self.buffer = buffer
        self.forwarder = forwarder
        self.polls = 0

    def alarm(self, number: int, *, age: float = 0.0) -> None:
        """Put a reading of a point with priority."""
        shift = round(age * 1e6)
        self.buffer.count(read=1)
        sample = Sample("alarms", wall_us() - shift, mono_us() - shift, ("alarm",), [number])
        assert self.buffer.put_first(sample, at_once=True)

    def poll(self, count: int = 1, *, age: float = 0.0, devices: int = 10, value: Value = None) -> None:
        """Put so many rounds of samples, each device one, `age` seconds old."""
        shift = round(age * 1e6)
        for _ in range(count):
            self.polls += 1
            values: list[Value] = [float(self.polls) if value is None else value] * len(POINTS)
            for device in range(devices):
                sample = Sample(f"d{device}", wall_us() - shift, mono_us() - shift, POINTS, values)
                self.buffer.count(read=len(values))
                assert self.buffer.put(sample)

    async def drained(self, seconds: float = 30) -> None:
        await self.buffer.flush()
        async with asyncio.timeout(seconds):
            await self.forwarder.drained()

    async def saved(self) -> dict[str, int]:
        """The counters of the connection, all of them durable."""
        await self.buffer.flush()
        counters = self.buffer.stats().connections["cloud"]
        assert counters.stored_for == (
            counters.delivered + counters.pending + counters.expired + counters.evicted + counters.dead
        )
        return {name: getattr(counters, name) for name in ("delivered", "pending", "dead")}


@contextlib.asynccontextmanager
async def gateway(
    path: Path,
    port: int,
    /,
    *,
    flush: float = 0.1,
    retention: float = 0.0,
    max_age: float = 0.0,
    running: bool = True,
    dialect: type[ConnectionConfig] | None = None,
    context: ConnectionContext | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """`dialect`: another class than the connector's own for the settings of the connection."""
    connector = load_forwarding(settings.setdefault("connector", "mqtt"))
    dialect = dialect or connector.connection_config
    usual = {"retry_max": Duration(0.3), "connect_timeout": Duration(2), "url": f"mqtt://127.0.0.1:{port}"}
    known = {one.name for one in fields(dialect)}
    config = dialect(**{**{name: one for name, one in usual.items() if name in known}, **settings})
    limits = BufferConfig(flush=Duration(flush), retention=Duration(retention))
    buffer = Buffer(path, limits, ["cloud"], boot=boot_id(), max_age={"cloud": max_age})
    context = replace(context or context_of(), counters=lambda: buffer.stats().told("cloud"))
    await buffer.start()
    forwarder = Forwarder("cloud", connector.encoder(config, context), connector.link(config, context), buffer)
    task = asyncio.create_task(forwarder.run()) if running else None
    try:
        yield Gateway(buffer, forwarder)
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()
        await buffer.stop()


def audited(subscriber: Subscriber) -> Audit:
    audit = Audit()
    for message in subscriber.messages:
        audit.take(orjson.loads(message.payload))
    return audit


async def arrived(subscriber: Subscriber, readings: int) -> Audit:
    """Wait until so many different readings have arrived, and a moment for what should not come."""
    audit = Audit()
    taken = 0
    async with asyncio.timeout(20):
        while audit.readings < readings:
            await asyncio.sleep(0.02)
            messages = subscriber.messages
            for message in messages[taken:]:
                audit.take(orjson.loads(message.payload))
                taken += 1
    await asyncio.sleep(0.1)
    return audited(subscriber)


class Stoppable(Protocol):
    """A broker or another receiver."""

    def stop(self) -> None: ...

    def start(self) -> None: ...


async def through_an_outage(one: Gateway, broker: Stoppable, *, before: int, after: int) -> None:
    """Polls that arrive, ten that are an hour old when the stopped broker comes back, and polls again."""
    await until(lambda: one.forwarder.state().connected)
    one.poll(before)
    await one.drained()
    broker.stop()
    one.poll(10, age=3600)
    await one.buffer.flush()
    broker.start()
    await one.drained()
    one.poll(after)
    await one.drained()


def assert_complete(audit: Audit, gateway: Gateway, *, duplicates: int = 0) -> None:
    """Everything came, once (or as often more as allowed), in order."""
    assert audit.missing == []
    assert audit.gaps("plant-7", gateway.buffer.epoch) == []
    assert audit.out_of_order == 0
    assert audit.duplicates <= duplicates
