"""The fault suite: whatever happens to a gateway, nothing that was flushed is lost, and the receiver can prove it.

`make soak` runs the long versions and writes docs/explanation/faults.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.support.fault_cases import CASES, impossible
from tests.support.faultbench import SOAK, Case, Row, run
from tests.support.faultpage import keep_cases, table

pytestmark = pytest.mark.mosquitto

_AT_ONCE = int(os.environ.get("EDGED_SOAK_AT_ONCE", "8"))
"""So many gateways at a time: most of a case is waiting."""
_ONLY = os.environ.get("EDGED_SOAK_ONLY", "")
"""Cases whose name contains this; then no page is written."""


async def _run_all(cases: list[Case], folder: Path) -> list[Row | BaseException]:
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, case: Case) -> Row:
        async with places:
            return await run(case, folder / str(number))

    # Each to its end, whatever happens to the others: the table is to be whole.
    return await asyncio.gather(*(one(number, case) for number, case in enumerate(cases)), return_exceptions=True)


@pytest.mark.slow
@pytest.mark.timeout(1800 if SOAK else 240)
async def test_no_fault_loses_what_was_flushed_or_repeats_more_than_the_window(tmp_path: Path) -> None:
    cases = [case for case in CASES if _ONLY in case.name and not impossible(case)]
    began = time.monotonic()
    results = await _run_all(cases, tmp_path)
    failed = [
        f"{case.name}: {result!r}"
        for case, result in zip(cases, results, strict=True)
        if isinstance(result, BaseException)
    ]
    done = [result for result in results if isinstance(result, Row)]
    left_out = {case.name: why for case in CASES if (why := impossible(case))}
    print("\n" + table(done), *(f"not run: {name}: {why}" for name, why in left_out.items()), sep="\n")
    complaints = failed + [text for row in done for text in row.complaints()]
    logs = "\n".join(row.log for row in done if row.complaints())
    assert not complaints, "\n".join([*complaints, logs])
    if SOAK and not _ONLY:
        keep_cases(done, left_out, time.monotonic() - began, _AT_ONCE)
