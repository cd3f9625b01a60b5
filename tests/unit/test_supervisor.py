"""A part that dies is started again; what it died of is told once, and called a bug only if it is one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edged.errors import ConfigError, TransientError
from edged.supervisor import Supervisor


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConfigError("no secret"), "part: no secret"),
        (
            ExceptionGroup("several", [ExceptionGroup("", [TransientError("disk is slow", reason="disk")])]),
            "part: disk",
        ),
        (ZeroDivisionError("division"), "this is a bug in edged"),
    ],
)
async def test_a_fault_is_told_once_and_the_part_goes_on(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edged")
    runs = 0
    twice = asyncio.Event()

    async def part() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
        raise error

    supervisor = Supervisor()
    async with asyncio.TaskGroup() as supervisor.group:
        supervisor.spawn("part", part)
        async with asyncio.timeout(30):
            await twice.wait()
        assert supervisor.faults["part"].restarts >= 1
        await supervisor.end(["part"])
    assert len(caplog.records) == 1
    assert told in caplog.text
    assert ("Traceback" in caplog.text) == ("bug" in told)
    assert supervisor.faults == {}
