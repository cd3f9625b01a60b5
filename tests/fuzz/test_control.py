"""Hostile requests on the control socket of a real gateway: it answers, it goes on, and nothing in it breaks."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from edged.control.routes import ROUTES
from tests.fuzz.mutate import mutated
from tests.support.gateway import Gateway, running

COUNT = 4_000 if "EDGED_SOAK" in os.environ else 150
CONFIG = {
    "gateway": {"id": "plant-7"},
    "buses": {"demo": {"adapter": "sim"}},
    "devices": {"tank": {"bus": "demo", "every": "200ms", "points": {"level": {}, "valve": {"writable": True}}}},
}
QUERIES = ("", "?watch=3", "?value=1&confirm=0", "?count=5&table=holding&start=0", "?follow=1", "?begin=1&connection=x")


def seeds() -> list[bytes]:
    """A request for each route, as the commands send them."""
    targets = [
        f"{method} {path.replace('*', name, 1).replace('*', 'level')}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for method, path in ROUTES
        for name in ("tank", "demo", "stats")
        for query in QUERIES
    ]
    body = 'POST /v1/write/tank/valve HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"a": 1}\n'
    return [target.encode() for target in [*targets, body]]


def hostile(source: random.Random, good: list[bytes]) -> bytes:
    """A damaged request, or a whole one for a damaged target."""
    request = source.choice(good)
    if source.random() < 0.4:
        return mutated(source, request, good)
    method, target, rest = request.split(b" ", 2)
    others = [one.split(b" ", 2)[1] for one in source.sample(good, 5)]
    visible = bytes(byte for byte in mutated(source, target, others) if 0x21 <= byte <= 0x7E)
    return b" ".join([method, visible or b"/", rest])


async def ask(socket: Path, request: bytes) -> bytes:
    """Send it, hear what comes within a moment, and hang up."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request)
        async with asyncio.timeout(0.04):
            return await reader.read(65_536)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()


@pytest.mark.timeout(1200)
async def test_hostile_requests_neither_stop_nor_break_the_gateway(tmp_path: Path) -> None:
    source, good = random.Random(20261121), seeds()
    gateway = Gateway(tmp_path, CONFIG)
    async with running(gateway):
        await gateway.status()
        answers = [await ask(gateway.socket, hostile(source, good)) for _ in range(COUNT)]
        status = await gateway.status()
        assert status["faults"] == {}
        assert status["stalled"] == []
    assert all(answer.startswith(b"HTTP/1.1 ") for answer in answers if answer)
    assert not [answer for answer in answers if answer.startswith(b"HTTP/1.1 5") and b" 503 " not in answer[:13]]
    assert "Traceback" not in gateway.lines()
    assert "bug in edged" not in gateway.lines()
    assert sum(answer != b"" for answer in answers) > COUNT // 4
