"""The forwarder and the HTTP link with a real server, and the whole daemon: what arrives, and how."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import orjson

from edged.config.types import Secret
from edged.testing.audit import Audit
from edged.uplink.connectors.http import HmacConfig
from edged.uplink.dialects.http import signature
from tests.support.forwarding import context_of
from tests.support.gateway import Gateway as Daemon
from tests.support.gateway import running
from tests.support.httpsending import WINDOW, assert_all_there, poll, sending
from tests.support.httpserver import (
    Answer,
    HttpServer,
    audit_of,
    audit_of_headers,
    listening,
)
from tests.support.modbus import pymodbus_server
from tests.support.waiting import until


async def test_everything_arrives_once_and_in_order_over_one_connection(tmp_path: Path) -> None:
    with HttpServer() as server:
        async with sending(
            tmp_path, f"{server.url}/{{gateway}}?s=1", layout="samples", headers={"X-Site": "{gateway}"}
        ) as one:
            await poll(one, 5)
            await one.drained()
            assert_all_there(server, one, 5)
            assert audit_of_headers(server.taken).lanes == audit_of(server.taken).lanes
            assert (await one.saved()) == {"delivered": 2500, "pending": 0, "dead": 0}
            assert one.forwarder.state().detail == "HTTP/1.1, not encrypted"
    assert server.connections == 1
    assert {(one.method, one.target, one.header("x-site")) for one in server.taken} == {
        ("POST", "/plant-7?s=1", "plant-7")
    }
    assert len({one.header("idempotency-key") for one in server.taken}) == len(server.taken)


async def test_the_bytes_of_a_request(tmp_path: Path) -> None:
    """As they go over the wire, with another reader than our own library."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            heard.extend(data)
            if data.endswith(b"=7"):
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    settings: dict[str, Any] = {
        "layout": "template", "template": "{device}/{point}={value}", "bearer": Secret(text="t0ken"), "method": "PUT",
        "hmac": HmacConfig(secret=Secret(text="s3cret"), key_id="plant-7"), "headers": {"X-Site": "b25"},
    }  # fmt: skip
    context = context_of(secret=lambda secret: secret.text)
    async with listening(listen) as url, sending(tmp_path, f"{url}/in", context=context, **settings) as one:
        one.alarm(7)
        await one.drained()
        epoch = one.buffer.epoch
    head, _, body = bytes(heard).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    moment = next(line.partition(": ")[2] for line in lines if line.startswith("X-Timestamp"))
    assert abs(int(moment) - time.time()) < 60
    assert lines == [
        "PUT /in HTTP/1.1", f"Host: {url.removeprefix('http://')}", "User-Agent: edged/0.1.0", "X-Site: b25",
        "Authorization: Bearer t0ken", "X-Key-Id: plant-7", f"X-Timestamp: {moment}",
        f"X-Signature: {signature('s3cret', 'PUT', '/in', moment, body)}", "Content-Type: text/plain",
        "edged-gateway: plant-7", "edged-readings: 1", f"edged-epoch: {epoch}", "edged-lane: priority",
        "edged-first: 1", "edged-seq: 1", "edged-prev: 0", f'Idempotency-Key: "plant-7/{epoch}/1-1"',
        "Content-Length: 14",
    ]  # fmt: skip
    assert body == b"alarms/alarm=7"


async def test_unordered_requests_go_side_by_side(tmp_path: Path) -> None:
    with HttpServer(lambda _: Answer(wait=0.05)) as server:
        async with sending(tmp_path, server.url, layout="samples", ordered=False) as one:
            one.poll(2)
            await one.drained()
    assert server.connections == WINDOW
    assert audit_of(server.taken).missing == []


async def test_the_daemon_that_was_killed_sends_everything_by_all_three_ways(tmp_path: Path) -> None:
    """`http`, `thingworx` and `file` side by side, from a configuration with secrets; the second start is cached."""
    out = tmp_path / "out" / "readings.jsonl"
    points = {"setpoint": {"holding": 7, "type": "uint16"}, "flow": {"holding": 9, "type": "uint16", "unit": "m³/h"}}
    (tmp_path / "gateway").mkdir()
    secrets = tmp_path / "gateway" / "secrets.env"
    secrets.write_text("token=t0ken\nkey=s3cret\nhmac=h\n")
    secrets.chmod(0o600)
    with HttpServer() as server, HttpServer() as platform, pymodbus_server("tcp", 1) as port:
        config = f"""
gateway: {{id: plant-7}}
buffer: {{flush: 100ms}}
buses: {{line: {{adapter: modbus-tcp, host: 127.0.0.1, port: {port}}}}}
devices: {{chiller: {{bus: line, unit: 1, every: 20ms, points: {json.dumps(points)}}}}}
connections:
  api:
    {{connector: http, url: "{server.url}/in", retry_max: 200ms, bearer: !secret token, layout: samples,
     secret_headers: {{X-Api-Key: !secret key}}, hmac: {{secret: !secret hmac}}}}
  twx: {{connector: thingworx, url: "{platform.url}", app_key: !secret key, retry_max: 200ms}}
  archive: {{connector: file, path: {out}, min_free: 0}}
"""
        gateway = Daemon(tmp_path / "gateway", {})
        gateway.config.write_text(config)
        kills = 1
        for _ in range(kills):
            await gateway.start()
            before = len(server.taken)
            await until(lambda: len(server.taken) > before + 10)  # noqa: B023  # used up in this round
            await gateway.stop(signal.SIGKILL)
        async with running(gateway):
            status = await gateway.status()
            assert {one["detail"] for one in status["connections"].values()}
            before = len(server.taken)
            await until(lambda: len(server.taken) > before + 10)
    sent, written = audit_of(server.taken), Audit()
    for line in out.read_bytes().splitlines():
        written.take(orjson.loads(line))
    for audit in (sent, audit_of_headers(platform.taken), written):
        (epoch,) = {lane.epoch for lane in audit.lanes}
        assert (audit.missing, audit.gaps("plant-7", epoch)) == ([], [])
        assert audit.duplicates <= kills * WINDOW
        assert audit.readings > 20
    assert written.duplicates == 0
    assert {one.header("authorization") for one in server.taken} == {"Bearer t0ken"}
    assert {one.header("x-api-key") for one in server.taken} == {"s3cret"}
    assert {one.header("appkey") for one in platform.taken} == {"s3cret"}
    one = server.taken[-1]
    signed = signature("h", "POST", "/in", one.header("x-timestamp"), one.body)
    assert one.header("x-signature") == signed
    assert "s3cret" not in gateway.lines()
