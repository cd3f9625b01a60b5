"""`edged verify --subscribe`: judges what arrives at a broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from edged.cli import EXIT_PROBLEM
from edged.config.types import Duration
from edged.testing.audit import Audit
from edged.testing.receiver import Broker, receive

_REPORT = 10.0
"""Seconds between two lines."""


def judge(
    url: str,
    topic: str,
    duration: str | None,
    username: str | None,
    password_file: str | None,
    ca: str | None,
    *,
    as_json: bool,
) -> int:
    """Read until the time is over or Ctrl-C; returns the exit code. Raises EdgedError."""
    try:
        seconds = float(Duration.parse(duration)) if duration else None
    except ValueError as exc:
        raise click.UsageError(f"--for: {exc}") from None
    if seconds == 0:
        raise click.UsageError("--for: in no time nothing can come")
    password = Path(password_file).read_text("utf-8").rstrip("\n") if password_file else None
    audit = Audit(from_the_beginning=False)
    with contextlib.suppress(KeyboardInterrupt, TimeoutError):
        asyncio.run(_watch(Broker(url, username, password, ca), topic, audit, seconds, tell=not as_json))
    record = summary(audit)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        _print(record)
    return EXIT_PROBLEM if record["missing"] or not record["messages"] else 0


async def _watch(broker: Broker, topic: str, audit: Audit, seconds: float | None, *, tell: bool) -> None:
    report = asyncio.create_task(_report(audit), name="report") if tell else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            begin = partial(_from_now, limit, loop, seconds)
            async for payload in receive(broker, topic, subscribed=begin):
                audit.take(payload)
    finally:
        if report:
            report.cancel()


def _from_now(limit: asyncio.Timeout, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
    """Connecting does not count: it has limits of its own."""
    if seconds is not None:
        limit.reschedule(loop.time() + seconds)


async def _report(audit: Audit) -> None:
    while True:
        await asyncio.sleep(_REPORT)
        missing = len(audit.missing)
        click.echo(
            f"{audit.messages:,} messages, {audit.readings:,} readings, {missing} missing, {audit.duplicates} twice"
        )


def summary(audit: Audit) -> dict[str, Any]:
    """What came and what did not, as plain data."""
    known = {(lane.gateway, lane.epoch, lane.flow) for lane in audit.lanes}
    return {
        "messages": audit.messages,
        "readings": audit.readings,
        "duplicates": audit.duplicates,
        "out_of_order": audit.out_of_order,
        "missing": [one._asdict() for one in audit.missing],
        "not_covered": [
            {"gateway": gateway, "epoch": epoch, "first": first, "last": last, "flow": flow}
            for gateway, epoch, flow in sorted(known)
            for first, last in audit.gaps(gateway, epoch, flow)
        ],
    }


def _print(record: dict[str, Any]) -> None:
    click.echo(
        f"{record['messages']:,} messages with {record['readings']:,} readings; {record['duplicates']:,} came twice, "
        f"{record['out_of_order']:,} late"
    )
    for one in record["missing"]:
        click.echo(f"MISSING: the message {one['seq']} of {_whose(one)}")
    for one in record["not_covered"]:
        left_out = "left out by the flow, " if one["flow"] else ""
        click.echo(
            f"not seen: samples {one['first']} to {one['last']} of {_whose(one)} "
            f"({left_out}given up, for another connection, or still on their way)"
        )
    if not record["messages"]:
        click.echo(
            "no message of readings came, so nothing is proven: is --topic the one that the gateway publishes to?"
        )
    elif not record["missing"]:
        click.echo("no message is missing")


def _whose(one: dict[str, Any]) -> str:
    flow = f", flow {one['flow']}" if one["flow"] else ""
    return f"{one['gateway']}, epoch {one['epoch']}{flow}"
