"""What the link of every connector promises: delivery, outages, sizes, refusals, and that nothing stays open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.uplink.api import (
    Verdict,
)
from tests.contract.rig import (
    SENDING,
    check_line,
    left_open,
    session,
)

pytestmark = pytest.mark.mosquitto


@pytest.mark.parametrize("name", SENDING)
async def test_a_session_delivers_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        await one.connect()  # what is loaded or opened once for all
        await one.link.close()
        before = left_open()
        for _ in range(2):
            await one.connect()
            assert 1 <= one.link.window <= 1000
            message = one.message()
            assert one.link.fits(message)
            assert await one.verdict(message) is Verdict.DELIVERED
            await one.link.announce()
            await one.link.report()
            await one.link.close()
            await one.link.close()
            assert await one.verdict() is Verdict.RETRY, "there is no session"
        async with asyncio.timeout(10):
            while any(now > then for now, then in zip(left_open(), before, strict=True)):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", [one for one in SENDING if one != "file"])
async def test_a_receiver_that_goes_and_comes_back_refuses_nothing(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        away = one.receiver.away
        assert away is not None
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED
        await asyncio.to_thread(away.stop)
        message = one.message()
        assert await one.verdict(message) is Verdict.RETRY
        async with asyncio.timeout(20):
            assert await one.link.lost()
        await one.link.close()
        with pytest.raises(EdgedError) as caught:
            await one.link.connect("0123456789abcdef")
        check_line(caught.value)
        await one.link.close()
        await asyncio.to_thread(away.start)
        await one.connect()
        assert await one.verdict(message) is Verdict.DELIVERED


@pytest.mark.parametrize("name", [one for one in SENDING if one not in {"file", "http", "thingworx"}])
async def test_what_is_too_large_is_never_sent_and_harms_nothing_else(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        await one.connect()
        large = replace(one.message(), payload=bytes(300 * 1024))
        assert not one.link.fits(large)
        outcome = await one.link.send(large)
        assert (outcome.verdict, outcome.reason) == (Verdict.REJECTED, "too_large")
        assert await one.verdict() is Verdict.DELIVERED


@pytest.mark.parametrize("name", ["http", "thingworx"])
async def test_what_is_refused_is_rejected_and_what_may_pass_is_tried_again(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        refuse = one.receiver.refuse
        assert refuse is not None
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED
        for status in (400, 413):
            refuse(status)
            assert await one.verdict() is Verdict.REJECTED, status
        message = one.message()
        for status in (503, 429):
            refuse(status)
            assert await one.verdict(message) is Verdict.RETRY, status
        refuse(204)
        assert await one.verdict(message) is Verdict.DELIVERED


@pytest.mark.parametrize("name", SENDING)
async def test_an_attempt_that_is_cancelled_leaves_the_link_usable(name: str, tmp_path: Path) -> None:
    async with session(name, tmp_path) as one:
        for pause in (0.0, 0.002):
            attempt = asyncio.ensure_future(one.link.connect("0123456789abcdef"))
            await asyncio.sleep(pause)
            attempt.cancel()
            await asyncio.wait([attempt])
            await one.link.close()
        await one.connect()
        assert await one.verdict() is Verdict.DELIVERED
