"""The connector `prometheus`: what the daemon answers, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import free_port

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def device() -> Iterator[int]:
    with pymodbus_server("tcp", 1) as port:
        yield port


def config(device: int, port: int, **settings: Any) -> dict[str, Any]:
    points = {
        "level": {"holding": 33, "scale": 0.5, "unit": "°C"},
        "odd": {"coil": 7},
        "mode": {"holding": 1, "enum": {1: 'say "heat"\\'}},
        "missing": {"holding": 60_000},
    }
    labels = {"room": "plant", "the-floor": "2"}
    return {
        "gateway": {"id": "plant-7"},
        "buses": {"plc": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": device, "retry_max": "1s"}},
        "devices": {
            "plc": {
                "bus": "plc", "unit": 1, "every": "200ms", "timeout": "1s", "retries": 0, "labels": labels,
                "points": points,
            },
        },
        "connections": {"metrics": {"connector": "prometheus", "listen": f"127.0.0.1:{port}", **settings}},
    }  # fmt: skip


def ask(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type, body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310  # it begins with http:
            return reply.status, reply.headers["content-type"], reply.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.headers["content-type"], exc.read().decode()


def parsed(text: str) -> Samples:
    """By Prometheus' own parser; each sample may be there once."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def listening(gateway: Gateway) -> None:
    await gateway.until(lambda status: status["servers"].get("metrics", {}).get("listening"))


async def scraped(gateway: Gateway, port: int, wanted: tuple[str, frozenset[tuple[str, str]]], value: float) -> Samples:
    """The metrics, as soon as one of them has this value."""
    await listening(gateway)
    async with asyncio.timeout(30):
        while True:
            samples = parsed((await asyncio.to_thread(ask, port))[2])
            if samples.get(wanted) == value:
                return samples
            await asyncio.sleep(0.05)


async def test_values_and_health_are_there_and_bad_values_are_not(tmp_path: Path, device: int) -> None:
    port = free_port()
    labels = {"label_room": "plant", "label_the_floor": "2"}
    async with running(Gateway(tmp_path, config(device, port))) as gateway:
        level = key("edged_reading", device="plc", point="level", unit="°C", **labels)
        samples = await scraped(gateway, port, level, 16.5)
        assert samples[key("edged_reading", device="plc", point="odd", unit="", **labels)] == 1
        text = key("edged_reading_text", device="plc", point="mode", unit="", text='say "heat"\\', **labels)
        assert samples[text] == 1
        assert not [one for one in samples if one[0] == "edged_reading" and ("point", "missing") in one[1]]
        assert samples[key("edged_reading_quality", device="plc", point="missing")] == 2
        assert samples[key("edged_reading_quality", device="plc", point="level")] == 0
        assert samples[key("edged_reading_time_seconds", device="plc", point="level")] > 1.7e9
        assert samples[key("edged_connection_up", connection="metrics")] == 1
        assert samples[key("edged_device_up", bus="plc", device="plc")] == 1
        read = samples[key("edged_readings_total", what="read")]
        parts = [samples[key("edged_readings_total", what=one)] for one in ("stored", "suppressed", "rejected")]
        assert 0 <= read - sum(parts) < 1000
        status, kind, _ = await asyncio.to_thread(ask, port)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert (await asyncio.to_thread(ask, port, "/other"))[0] == 404
        assert (await asyncio.to_thread(ask, port, "/metrics", "POST"))[0] == 405
        assert (await asyncio.to_thread(ask, port, "/metrics", "HEAD"))[::2] == (200, "")
        state: Mapping[str, Any] = (await gateway.status())["servers"]["metrics"]
        assert state["refused"] == 2


async def test_a_device_that_falls_silent_has_no_value_any_more(tmp_path: Path) -> None:
    port = free_port()
    with pymodbus_server("tcp", 1) as device:
        gateway = Gateway(tmp_path, config(device, port))
        await gateway.start()
        await scraped(gateway, port, key("edged_device_up", bus="plc", device="plc"), 1)
    try:
        samples = await scraped(gateway, port, key("edged_reading_quality", device="plc", point="level"), 2)
        assert not [one for one in samples if one[0] == "edged_reading"]
    finally:
        await gateway.stop()


async def test_who_has_not_the_token_learns_nothing(tmp_path: Path, device: int) -> None:
    port, token = free_port(), "t0ken-of-the-scraper"
    (tmp_path / "secrets.env").write_text(f"scraper={token}\n")
    (tmp_path / "secrets.env").chmod(0o600)
    gateway = Gateway(tmp_path, config(device, port, token="SECRET"))
    gateway.config.write_text(gateway.config.read_text().replace('"SECRET"', "!secret scraper"))
    async with running(gateway):
        await listening(gateway)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
            status, _, text = await asyncio.to_thread(ask, port, **headers)
            assert status == 401
            assert "edged_" not in text
        status, _, text = await asyncio.to_thread(ask, port, Authorization=f"Bearer {token}")
        assert status == 200
        assert token not in text
    assert token not in gateway.lines()


async def test_garbage_and_dawdlers_do_not_disturb_it(tmp_path: Path, device: int) -> None:
    port = free_port()
    async with running(Gateway(tmp_path, config(device, port, max_clients=3))) as gateway:
        await scraped(gateway, port, key("edged_device_up", bus="plc", device="plc"), 1)
        for garbage in (
            b"\x00\xff" * 40,
            b"GET\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 20_000,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage)
            async with asyncio.timeout(20):
                with suppress(ConnectionError):
                    await reader.read()
            writer.close()
        dawdlers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in dawdlers:
            writer.write(b"GET /metrics HTTP/1.1\r\n")
        assert (await asyncio.to_thread(ask, port))[0] == 200
        for _, writer in dawdlers:
            writer.close()
    assert "Traceback" not in gateway.lines()
