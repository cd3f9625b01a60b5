"""Calls into bleak come to an end, whatever they do about it."""

from __future__ import annotations

import asyncio

import pytest

from edged_ble.bluez import bounded


async def stubborn(cancellations: int, end: asyncio.Event) -> str:
    """Ends only after so many cancellations, or when `end` is set."""
    for _ in range(cancellations):
        try:
            await end.wait()
        except asyncio.CancelledError:
            continue
        break
    return "done"


@pytest.mark.parametrize("cancellations", [2, 3, 9])
async def test_a_call_that_takes_too_long_ends_with_a_result_or_a_timeout(cancellations: int) -> None:
    end = asyncio.Event()
    call = bounded(stubborn(cancellations, end), 0.01, "call", grace=0.01)
    if cancellations <= 3:
        assert await call == "done"
    else:
        with pytest.raises(TimeoutError):
            await call
    end.set()
    await asyncio.sleep(0)


async def test_whoever_is_cancelled_does_not_wait_for_a_call_that_hangs() -> None:
    end = asyncio.Event()
    waiting = asyncio.create_task(bounded(stubborn(9, end), 60, "call", grace=0.01))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    end.set()
    await asyncio.sleep(0)
