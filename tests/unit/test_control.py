"""The control socket: what it serves, to whom, and what it does with clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edged.adapter import PollResult, RawRead
from edged.cli import NoDaemonError, client
from edged.control import ControlApi, ControlServer
from edged.errors import ConfigError, EdgedError, TransientError
from edged.hub import Hub
from edged.model import Sample, bad

SAMPLE = Sample("meter", 1_700_000_000_123_456, 5, ("u", "i"), (230.1, None), {1: bad("timeout")})


async def _read(device: str) -> list[PollResult]:
    if device == "silent":
        raise TransientError("silent on line: no answer within 1s")
    if device != "meter":
        raise KeyError(device)
    return [PollResult([SAMPLE], raw=[RawRead("holding 0-1", (1, 2))], notes=["a note"])]


@asynccontextmanager
async def serving(path: Path, hub: Hub | None = None) -> AsyncIterator[Hub]:
    hub = hub or Hub()
    server = ControlServer(path, ControlApi(lambda: {"gateway": "g"}, _read, hub))
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(started=ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        await task
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_status_and_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path):
        assert await asyncio.to_thread(client.call, path, "/v1/status") == {"gateway": "g"}
        (result,) = await asyncio.to_thread(client.call, path, "/v1/read/meter", method="POST")
    assert result == {
        "samples": [
            {
                "device": "meter",
                "time": "2023-11-14T22:13:20.123456Z",
                "values": {"u": 230.1, "i": None},
                "quality": {"i": "bad(timeout)"},
            }
        ],
        "raw": [{"what": "holding 0-1", "words": [1, 2], "error": "", "address": 0}],
        "transactions": 1,
        "units": {},
        "notes": ["a note"],
    }


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/v1/read/nobody", "there is no enabled device 'nobody'"),
        ("/v1/read/silent", "silent on line: no answer within 1s"),
        ("/v1/nothing", "there is no POST /v1/nothing"),
    ],
)
async def test_errors_are_told_in_words(tmp_path: Path, target: str, words: str) -> None:
    async with serving(tmp_path / "s"):
        with pytest.raises(EdgedError, match=words):
            await asyncio.to_thread(client.call, tmp_path / "s", target, method="POST")


async def test_tail_streams_what_is_published_and_filters(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(path) as hub:

        def first_line() -> dict[str, object]:
            lines = client.lines(path, "/v1/tail?device=meter")
            record: dict[str, object] = json.loads(next(lines))
            lines.close()  # type: ignore[attr-defined]  # it is a generator
            return record

        reading = asyncio.create_task(asyncio.to_thread(first_line))
        while not reading.done():
            hub.publish(Sample("other", 1, 1, ("x",), (1,)))
            hub.publish(SAMPLE)
            await asyncio.sleep(0.01)
        assert reading.result()["device"] == "meter"


async def test_a_tail_whose_client_left_ends_although_nothing_is_published(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as hub:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"GET /v1/tail HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readline()
        assert hub.watched
        writer.close()
        while hub.watched:
            await asyncio.sleep(0.005)


async def test_a_slow_watcher_loses_the_oldest_and_is_told() -> None:
    hub = Hub()
    with hub.subscribe(bound=2) as samples:
        for i in range(5):
            hub.publish(Sample("d", i, i, ("p",), (i,)))
        assert samples.missed == 3
        stream = aiter(samples)
        assert [(await anext(stream)).time, (await anext(stream)).time] == [3, 4]


@pytest.mark.parametrize("garbage", [b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 200_000, b""])
async def test_garbage_ends_that_client_only(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "s"
    async with serving(path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(garbage)
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):  # the server may close with our garbage unread
            await reader.read()
        writer.close()
        assert await asyncio.to_thread(client.call, path, "/v1/status") == {"gateway": "g"}


async def test_the_socket_is_for_its_group_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s"
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()
    with pytest.raises(NoDaemonError, match="is the service running"):
        client.call(path, "/v1/status")


async def test_a_socket_left_by_a_crash_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(path):
        assert await asyncio.to_thread(client.call, path, "/v1/status") == {"gateway": "g"}


async def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "s"):
        with pytest.raises(ConfigError, match="another edged already answers"):
            async with serving(tmp_path / "s"):
                pass
        assert await asyncio.to_thread(client.call, tmp_path / "s", "/v1/status") == {"gateway": "g"}
