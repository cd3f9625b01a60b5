"""What the tests of the common promises of all connectors share: devices, samples, and a session with a receiver."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from edged.adapter import PointConfig
from edged.buffer.batch import Batch
from edged.config.base import DeviceConfig
from edged.config.types import Duration, Name
from edged.downlink.api import Commands
from edged.errors import EdgedError
from edged.model import Quality, Sample, bad
from edged.uplink.api import (
    Chunk,
    ConnectionContext,
    Connector,
    Encoder,
    Envelope,
    Lane,
    Link,
    Message,
    Verdict,
)
from edged.uplink.connectors import load_forwarding
from tests.support.forwarding import context_of
from tests.support.receivers import OFFLINE_SETTINGS, RECEIVERS, Receiver

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases" / "connectors"
SERVERS = {"modbus-server", "prometheus"}
"""Those who are asked."""
SENDING = sorted(RECEIVERS)
LAYOUTS = ("samples", "senml", "senml-cbor", "influx", "template")
ENCODERS = [*SENDING, *(f"mqtt {layout}" for layout in LAYOUTS), "file columns", "file csv"]
T0 = 1_795_219_200_000_000
POINTS = {
    Name("supply"): PointConfig(unit="°C"), Name("count"): PointConfig(), Name("on"): PointConfig(writable=True),
    Name("state"): PointConfig(description="What it does"),
}  # fmt: skip
DEVICES = {
    "chiller": DeviceConfig(bus=Name("line"), labels={"room": "plant"}, points=POINTS),
    "boiler": DeviceConfig(bus=Name("line"), points=POINTS),
}
NAMES = tuple(map(str, POINTS))


def context() -> ConnectionContext:
    return context_of(devices=DEVICES, secret=lambda secret: getattr(secret, "text", secret))


def made(name: str, settings: dict[str, Any]) -> tuple[Connector, Any]:
    """The connector and the configuration of a connection."""
    connector = load_forwarding(name)
    known = {one.name for one in fields(connector.connection_config)}
    usual: dict[str, Any] = {"connect_timeout": Duration(3), "response_timeout": Duration(2), "retry_max": Duration(1)}
    quick = {key: value for key, value in usual.items() if key in known}
    return connector, connector.connection_config(connector=name, **{**quick, **settings})


def encoder_of(variant: str) -> Encoder:
    """`NAME`, or `NAME LAYOUT`."""
    name, _, layout = variant.partition(" ")
    more = {"template": "{device}/{point} {value} {iso}"} if layout == "template" else {}
    connector, config = made(name, {**OFFLINE_SETTINGS[name], **({"layout": layout} if layout else {}), **more})
    told = context()
    encoder = connector.encoder(config, told)
    connector.link(config, told)  # some need both
    return encoder


def batch_of(*samples: Sample, first: int = 5, target: str = "") -> Batch:
    return Batch(first, samples, "boot", sum(len(sample.points) for sample in samples), target)


def envelope(chunk: Chunk, prev: int = 4, lane: Lane = Lane.LIVE) -> Envelope:
    return Envelope("0123456789abcdef", chunk.last, prev, lane)


def good_batch(target: str = "") -> Batch:
    """Each type, each kind of quality, two devices."""
    odd = {0: Quality("uncertain", "clock"), 1: bad("timeout")}
    return batch_of(
        Sample("chiller", T0, 1, NAMES, [21.5, 7, True, "rün"]),
        Sample("boiler", T0 + 1_000_000, 2, NAMES, [-0.25, None, False, ""], odd),
        Sample("chiller", T0 + 2_000_000, 3, NAMES[:2], [22.5, 2**53 + 1]),
        target=target,
    )


def check_line(error: EdgedError) -> None:
    """What a person reads is one line, and says something."""
    assert str(error).strip()
    assert "\n" not in str(error)


class Session:
    """A link and what to send over it."""

    def __init__(self, name: str, receiver: Receiver, commands: Commands | None = None) -> None:
        self.receiver = receiver
        connector, config = made(name, {**receiver.settings, **({"commands": True} if commands else {})})
        told = replace(context(), commands=commands)
        self.encoder = connector.encoder(config, told)
        self.link: Link = connector.link(config, told)
        self._prev = 0

    def message(self) -> Message:
        """The next one."""
        first = self._prev + 1
        sample = Sample("chiller", T0 + first, 0, NAMES[:1], [float(first)])
        (chunk,) = self.encoder.split(batch_of(sample, first=first))
        message = self.encoder.encode(chunk, envelope(chunk, self._prev))
        self._prev = chunk.last
        return message

    async def verdict(self, message: Message | None = None) -> Verdict:
        async with asyncio.timeout(20):
            return (await self.link.send(message or self.message())).verdict

    async def connect(self, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    line = await self.link.connect("0123456789abcdef")
                except EdgedError as exc:
                    check_line(exc)
                    await self.link.close()
                    await asyncio.sleep(0.1)
                else:
                    assert line
                    assert "\n" not in line
                    return


@asynccontextmanager
async def session(name: str, folder: Path) -> AsyncIterator[Session]:
    async with RECEIVERS[name](folder) as receiver:
        one = Session(name, receiver)
        try:
            yield one
        finally:
            await one.link.close()


def left_open() -> tuple[int, int, int]:
    """Tasks, threads and descriptors."""
    threads = sum("edged" in one.name or "mqtt" in one.name.lower() for one in threading.enumerate())
    return len(asyncio.all_tasks()), threads, len(list(Path("/proc/self/fd").iterdir()))
