"""The HTTP link in bad weather: answers that are none, outages, cuts, kills."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edged.clock import mono_us, wall_us
from edged.config.types import Duration
from edged.model import Sample
from edged.testing.proxy import FaultProxy
from edged.uplink.state import State
from tests.support.draining import killed
from tests.support.forwarding import through_an_outage
from tests.support.httpsending import WINDOW, assert_all_there, poll, sending
from tests.support.httpserver import (
    GOOD,
    Answer,
    HttpServer,
    audit_of,
    in_turn,
    listening,
)
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"


@pytest.mark.parametrize(
    "bad",
    [
        Answer(reset=True),
        Answer(raw=b"HTTP/1.1 20", reset=True),
        Answer(raw=OK + b"Content-Length: 100\r\n\r\nshort"),
        Answer(raw=OK + b"Content-Length: 100\r\n\r\nshort", reset=True),
        Answer(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
        Answer(raw=OK + b"Content-Length: x\r\n\r\n"),
        Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Answer(raw=b""),
        Answer(wait=0.6),
        Answer(raw=OK + b"X: " + b"y" * 200_000),
    ],
    ids=["reset", "reset in the head", "truncated", "truncated by a reset", "torn chunk", "wrong length", "no HTTP",
         "hangs up", "silent", "endless head"],
)  # fmt: skip
async def test_an_answer_that_is_none_costs_nothing(tmp_path: Path, bad: Answer) -> None:
    with HttpServer(in_turn(GOOD, bad, GOOD, GOOD, bad, bad)) as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            await poll(one, 3)
            await one.drained()
            audit = audit_of(server.taken)
            assert (audit.missing, audit.gaps("plant-7", one.buffer.epoch), audit.out_of_order) == ([], [], 0)
            assert (await one.saved()) == {"delivered": 1500, "pending": 0, "dead": 0}


@pytest.mark.parametrize(
    "odd",
    [
        Answer(200, body=b"x" * 3_000_000),
        Answer(raw=OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        Answer(raw=EARLY + OK + b"Content-Length: 0\r\n\r\n"),
        Answer(raw=b"HTTP/1.0 200 OK\r\n\r\nuntil the end"),
    ],
    ids=["large", "chunked", "100 continue", "HTTP/1.0"],
)  # fmt: skip
async def test_odd_but_right_answers_count(tmp_path: Path, odd: Answer) -> None:
    with HttpServer(lambda _: odd) as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 500, "pending": 0, "dead": 0}
    keys = [one.header("idempotency-key") for one in server.requests]
    assert len(keys) == len(set(keys)) == 10


async def test_an_answer_that_never_ends_does_not_count(tmp_path: Path) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async with listening(drip) as url, sending(tmp_path, url) as one:
        one.poll(1)
        await until(lambda: "its answer did not end within 1.5 s" in one.forwarder.state().last_error)
        assert (await one.saved()) == {"delivered": 0, "pending": 500, "dead": 0}


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    """Some servers say 408 on a connection that was idle for long; a late or second answer would be worse."""
    twice = b"HTTP/1.1 204 No Content\r\n\r\n"
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(65_536))
        writer.write(twice)
        await asyncio.sleep(0.05)
        writer.write(twice)
        await reader.read(65_536)

    async with listening(answer) as url, sending(tmp_path, url) as one:
        for number in range(1, 4):
            one.poll(1)
            await one.drained()
            await asyncio.sleep(0.1)
            assert len(asked) == number


async def test_a_server_that_refuses_a_body_before_it_has_come_is_heard(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbah")
        await asyncio.sleep(60)

    async with listening(refuse) as url, sending(tmp_path, url) as one:
        points = tuple(f"p{i}" for i in range(100))
        one.buffer.put(Sample("d", wall_us(), mono_us(), points, ["x" * 9000] * 100))
        await one.drained()
        assert "(bah)" in one.forwarder.state().last_rejection


async def test_an_outage_loses_nothing(tmp_path: Path) -> None:
    with HttpServer() as server:
        async with sending(tmp_path, server.url) as one:
            await through_an_outage(one, server, before=3, after=3)
            assert_all_there(server, one, 16, duplicates=WINDOW)
            assert (await one.saved()) == {"delivered": 8000, "pending": 0, "dead": 0}


async def test_a_server_that_is_stopped_and_started_while_readings_come(tmp_path: Path) -> None:
    with HttpServer() as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            await poll(one, 10)
            server.stop()
            await poll(one, 10)
            await until(lambda: one.forwarder.state().state is State.UNREACHABLE)
            assert "nothing listens at http://localhost" in one.forwarder.state().detail
            server.start()
            await poll(one, 10)
            await one.drained()
            assert_all_there(server, one, 30, duplicates=WINDOW)


async def test_a_silent_link_and_resets_cost_nothing(tmp_path: Path) -> None:
    with HttpServer() as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            proxy.delay = 0.003
            url = f"http://127.0.0.1:{proxy.port}"
            async with sending(tmp_path, url, layout="samples", connect_timeout=Duration(0.3)) as one:
                cuts = 0
                for step in range(30):
                    one.poll(1)
                    await asyncio.sleep(0.03)
                    if step == 8:
                        proxy.blackhole()
                    if step == 16:
                        await proxy.restore()
                    if step % 7 == 3:
                        proxy.reset()
                        cuts += 1
                await one.drained()
                assert_all_there(server, one, 30, duplicates=(cuts + 3) * WINDOW)


async def test_a_name_that_is_not_known(tmp_path: Path) -> None:
    async with sending(tmp_path, "http://nowhere.invalid") as one:
        await until(lambda: one.forwarder.state().state is State.UNREACHABLE)
        assert "cannot find the host 'nowhere.invalid'" in one.forwarder.state().detail


async def test_kill_9_while_a_backlog_drains_repeats_no_more_than_the_window(tmp_path: Path) -> None:
    with HttpServer() as server:
        kills = await killed(
            tmp_path / "buffer.db", 0, 120, lambda: len(server.taken), 200, 700,
            connector="http", url=server.url, layout="samples",
        )  # fmt: skip
        audit = audit_of(server.taken)
    assert kills
    assert (audit.missing, audit.out_of_order, audit.readings) == ([], 0, 120 * 500)
    assert audit.duplicates <= kills * WINDOW
    keys = {one.header("idempotency-key") for one in server.taken}
    assert len(keys) == len(server.taken) - audit.duplicates, "a receiver knows duplicates by their key"
