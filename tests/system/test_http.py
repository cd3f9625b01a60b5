"""The forwarder and the HTTP link with a real server: what arrives, in good and in bad weather."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.buffer.log import Buffer
from edged.clock import boot_id, mono_us, wall_us
from edged.config.model import BufferConfig
from edged.config.types import Duration, FileName, Secret
from edged.model import Sample
from edged.testing.audit import Audit
from edged.testing.proxy import FaultProxy
from edged.uplink.connectors.http import CONNECTOR, HmacConfig, HttpConnection
from edged.uplink.dialects.http import signature
from edged.uplink.forwarder import Forwarder
from edged.uplink.links.http import HttpLink
from edged.uplink.state import State
from tests.support.draining import killed
from tests.support.forwarding import Gateway, assert_complete, context_of, gateway, through_an_outage
from tests.support.gateway import Gateway as Daemon
from tests.support.gateway import running
from tests.support.httpserver import (
    GOOD,
    Answer,
    HttpServer,
    Taken,
    audit_of,
    audit_of_headers,
    context_for,
    in_turn,
    listening,
)
from tests.support.modbus import pymodbus_server
from tests.support.pki import Pki
from tests.support.waiting import until

WINDOW = 4
MOVED = "has moved to https://new.example.com/: change `url`"


def sending(path: Path, url: str, **settings: Any) -> Any:
    """A gateway that sends there."""
    quick = {"response_timeout": Duration(0.5), "retry_max": Duration(0.2), "connector": "http", **settings}
    return gateway(path / "buffer.db", 0, url=url, **quick)


async def poll(one: Gateway, count: int, pause: float = 0.02) -> None:
    for _ in range(count):
        one.poll(1)
        await asyncio.sleep(pause)


def assert_all_there(server: HttpServer, one: Gateway, polls: int, *, duplicates: int = 0) -> None:
    audit = audit_of(server.taken)
    assert_complete(audit, one, duplicates=duplicates)
    assert audit.readings == polls * 500


# -- good weather ------------------------------------------------------------------------------------------------------


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


# -- what answers mean -------------------------------------------------------------------------------------------------


def only(wrong: Callable[[Taken], bool], answer: Answer) -> Callable[[Taken], Answer]:
    return lambda one: answer if wrong(one) else GOOD


def of_d3(one: Taken) -> bool:
    return one.target == "/d3"


async def test_a_refused_message_goes_to_the_dead_letters_with_what_the_server_says(tmp_path: Path) -> None:
    with HttpServer(only(of_d3, Answer(400, body=b'{"error": "no such device"}\nstack'))) as server:
        async with sending(tmp_path, f"{server.url}/{{device}}", layout="samples") as one:
            one.poll(3)
            await one.drained()
            assert (await one.saved()) == {"delivered": 3 * 450, "pending": 0, "dead": 150}
            state = one.forwarder.state()
    assert state.last_rejection == f'400 Bad Request ({{"error": "no such device"}}): {server.url}/d3'
    assert audit_of(server.taken).duplicates == 0


async def test_a_message_that_is_too_large_is_divided(tmp_path: Path) -> None:
    def measure(one: Taken) -> Answer:
        return Answer(413) if len(one.body) > 3000 else GOOD

    with HttpServer(measure) as server:
        async with sending(tmp_path, server.url, max_readings=2000) as one:
            one.poll(8, value=1234.5678)
            await one.drained()
            assert (await one.saved()) == {"delivered": 4000, "pending": 0, "dead": 0}
        audit = audit_of(server.taken)
    assert (audit.readings, audit.duplicates, audit.gaps("plant-7", one.buffer.epoch)) == (4000, 0, [])


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(429), Answer(408), Answer(425), Answer(502)], ids=lambda one: one.status
)
async def test_what_the_server_cannot_take_now_is_sent_again_in_order(tmp_path: Path, answer: Answer) -> None:
    with HttpServer(in_turn(GOOD, answer, answer, GOOD, answer)) as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            one.poll(2)
            await one.drained()
            assert_all_there(server, one, 2)
            assert one.forwarder.state().retried == 3


async def test_a_server_is_left_alone_as_long_as_it_wants(tmp_path: Path) -> None:
    times: list[float] = []

    def busy(_: Taken) -> Answer:
        times.append(time.monotonic())
        return Answer(429, {"Retry-After": "1"}) if len(times) == 2 else GOOD

    with HttpServer(busy) as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            one.poll(2)
            await one.drained()
            assert_all_there(server, one, 2)
    assert times[2] - times[1] >= 1
    assert len(times) == 21


async def test_a_key_that_has_expired_costs_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edged.uplink")
    known = ["Bearer old"]

    def door(one: Taken) -> Answer:
        return GOOD if one.header("authorization") in known else Answer(401, body=b"token expired")

    key = ["old"]
    context = context_of(secret=lambda _: key[0])
    with HttpServer(door) as server:
        async with sending(tmp_path, server.url, layout="samples", bearer=Secret(name="k"), context=context) as one:
            one.poll(2)
            await one.drained()
            known[:] = ["Bearer new"]
            one.poll(20)
            await until(lambda: one.forwarder.state().state is State.AUTHENTICATION_FAILED)
            assert "answers 401 Unauthorized (token expired): check `bearer`" in one.forwarder.state().last_error
            asked = len(server.requests)
            await asyncio.sleep(0.5)
            assert len(server.requests) - asked < 12, "a server that refuses us is not asked on and on"
            key[:] = ["new"]
            await one.drained()
            assert_all_there(server, one, 22, duplicates=WINDOW)
            assert (await one.saved()) == {"delivered": 22 * 500, "pending": 0, "dead": 0}


async def test_what_is_forbidden_for_one_device_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with HttpServer(only(of_d3, Answer(403))) as server:
        async with sending(tmp_path, f"{server.url}/{{device}}", layout="samples") as one:
            one.poll(1)
            await one.drained()
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 900, "pending": 0, "dead": 100}


async def test_a_forbidden_message_that_comes_first_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with HttpServer(only(lambda one: one.target == "/d0", Answer(403))) as server:
        async with sending(tmp_path, f"{server.url}/{{device}}", layout="samples") as one:
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 450, "pending": 0, "dead": 50}


async def test_a_message_over_which_the_server_fails_is_given_up_when_others_are_taken(tmp_path: Path) -> None:
    with HttpServer(only(of_d3, Answer(500))) as server:
        async with sending(tmp_path, f"{server.url}/{{device}}", layout="samples", retry_max=Duration(0.1)) as one:
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 450, "pending": 0, "dead": 50}
    assert len([one for one in server.requests if of_d3(one)]) == 12


async def test_a_server_that_fails_over_everything_loses_nothing(tmp_path: Path) -> None:
    answers = {"now": Answer(500)}
    with HttpServer(lambda _: answers["now"]) as server:
        async with sending(tmp_path, server.url, layout="samples", retry_max=Duration(0.1)) as one:
            one.poll(2)
            await until(lambda: len(server.requests) > 80)
            answers["now"] = GOOD
            await one.drained()
            assert (await one.saved()) == {"delivered": 1000, "pending": 0, "dead": 0}


@pytest.mark.parametrize(
    ("answer", "says", "state"),
    [
        (Answer(308, {"Location": "https://new.example.com/"}), MOVED, State.MISCONFIGURED),
        (Answer(302, {"Location": "http://login/"}), "sends us to http://login/", State.MISCONFIGURED),
        (Answer(404), "check the path of `url`", State.MISCONFIGURED),
        (Answer(403), "check whether the server wants", State.AUTHENTICATION_FAILED),
    ],
    ids=lambda one: one.status if isinstance(one, Answer) else "",
)  # fmt: skip
async def test_what_only_a_person_can_mend_is_said_and_loses_nothing(
    tmp_path: Path, answer: Answer, says: str, state: State
) -> None:
    answers = {"now": answer}
    with HttpServer(lambda _: answers["now"]) as server:
        async with sending(tmp_path, server.url, layout="samples") as one:
            one.poll(3)
            await until(lambda: one.forwarder.state().state is state)
            assert says in one.forwarder.state().last_error
            answers["now"] = GOOD
            await one.drained()
            assert_all_there(server, one, 3, duplicates=WINDOW)
            assert (await one.saved())["dead"] == 0


async def test_answers_that_differ_only_in_a_number_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status = [503]
    with HttpServer() as server:
        server.answer = lambda _: Answer(status[0], body=f"request {len(server.requests)}".encode())
        async with sending(tmp_path, server.url, layout="samples") as one:
            one.poll(2)
            await until(lambda: len(server.requests) > 10)
            status[:] = [401]
            await until(lambda: one.forwarder.state().attempts > 5)
    for status_line in ("503 Service Unavailable (request", "401 Unauthorized (request"):
        assert len([line for line in caplog.messages if status_line in line]) == 1


async def test_a_probe_decides_whether_there_is_a_connection(tmp_path: Path) -> None:
    answers = {"now": Answer(503)}
    with HttpServer(lambda one: answers["now"] if one.method == "GET" else GOOD) as server:
        async with sending(tmp_path, server.url, probe="/health") as one:
            one.poll(1)
            await until(lambda: one.forwarder.state().attempts > 2)
            assert "answers 503" in one.forwarder.state().detail
            answers["now"] = Answer(401)
            await until(lambda: one.forwarder.state().state is State.AUTHENTICATION_FAILED)
            assert not [one for one in server.requests if one.method == "POST"]
            answers["now"] = GOOD
            await one.drained()
            assert one.forwarder.state().detail == "HTTP/1.1, not encrypted, /health answers 204"


# -- bad weather -------------------------------------------------------------------------------------------------------

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
        await until(lambda: "its answer did not end within 0.5 s" in one.forwarder.state().last_error)
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


# -- TLS ---------------------------------------------------------------------------------------------------------------


async def test_tls_with_a_client_certificate_that_is_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    authority = Pki(tmp_path / "ca")
    old, new = authority.issue("old"), authority.issue("new")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    shutil.copy(old[0], certificate)
    shutil.copy(old[1], key)
    files: dict[str, Any] = {
        "ca": FileName(authority.certificate),
        "certificate": FileName(certificate),
        "key": FileName(key),
    }
    with HttpServer(tls=context_for(authority, clients=True)) as server:
        config = HttpConnection(connector="http", url=server.url, **files)
        made = CONNECTOR.link(config, context_of())
        assert isinstance(made, HttpLink)
        link = HttpLink("cloud", replace(made.server, renewal=0.0), made.pacing)
        buffer = Buffer(tmp_path / "b.db", BufferConfig(flush=Duration(0.1)), ["cloud"], boot=boot_id())
        await buffer.start()
        one = Gateway(buffer, Forwarder("cloud", CONNECTOR.encoder(config, context_of()), link, buffer))
        running = asyncio.create_task(one.forwarder.run())
        try:
            one.poll(1)
            await one.drained()
            assert one.forwarder.state().detail.startswith("HTTP/1.1, TLSv1.")
            shutil.copy(new[0], certificate)  # for a moment it does not belong to the key
            one.poll(1)
            await one.drained()
            shutil.copy(new[1], key)
            one.poll(1)
            await one.drained()
            assert (await one.saved()) == {"delivered": 1500, "pending": 0, "dead": 0}
        finally:
            running.cancel()
            await asyncio.wait([running])
            await buffer.stop()
    assert [taken.peer for taken in server.taken] == ["old", "old", "new"]
    assert len([line for line in caplog.messages if "cannot be used yet" in line]) == 1
    assert len([line for line in caplog.messages if "has been renewed" in line]) == 1


@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        ("DNS:localhost", {}, "issued by an authority that is not trusted"),
        ("DNS:elsewhere", {"ca": True}, "is for another name"),
        ("DNS:localhost", {"ca": True, "clients": True}, "client `certificate`"),
        ("DNS:elsewhere", {"ca": True, "server_name": "elsewhere"}, ""),
        ("DNS:elsewhere", {"insecure": True}, ""),
    ],
)
async def test_tls_that_does_not_fit_is_told(tmp_path: Path, names: str, settings: dict[str, Any], says: str) -> None:
    authority = Pki(tmp_path / "ca")
    clients = settings.pop("clients", False)
    if settings.pop("ca", False):
        settings["ca"] = FileName(authority.certificate)
    with HttpServer(tls=context_for(authority, names, clients=clients)) as server:
        async with sending(tmp_path, server.url, **settings) as one:
            one.poll(1)
            if says:
                await until(lambda: one.forwarder.state().state is State.AUTHENTICATION_FAILED)
                assert says in one.forwarder.state().last_error
            else:
                await one.drained()
            assert (await one.saved())["dead"] == 0


async def test_plain_http_where_tls_is_spoken_and_the_other_way_round(tmp_path: Path) -> None:
    authority = Pki(tmp_path / "ca")
    with HttpServer(tls=context_for(authority)) as secure, HttpServer() as plain:
        async with sending(tmp_path, f"https://localhost:{plain.port}", ca=FileName(authority.certificate)) as one:
            await until(lambda: "does not speak TLS on this port" in one.forwarder.state().last_error)
        async with sending(tmp_path, f"http://localhost:{secure.port}") as one:
            one.poll(1)
            await until(lambda: one.forwarder.state().last_error)
            assert (await one.saved())["delivered"] == 0


# -- the whole daemon --------------------------------------------------------------------------------------------------


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
