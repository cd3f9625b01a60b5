"""What the answers of an HTTP server mean for a message, and for all others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.config.types import Duration, Secret
from edged.uplink.state import State
from tests.support.forwarding import context_of
from tests.support.httpsending import WINDOW, assert_all_there, sending
from tests.support.httpserver import (
    GOOD,
    Answer,
    HttpServer,
    Taken,
    audit_of,
    in_turn,
)
from tests.support.waiting import until

MOVED = "has moved to https://new.example.com/: change `url`"


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
