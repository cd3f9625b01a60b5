"""What a person can ask of a buffer, as plain data: through the control socket, or on a file of a stopped gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Protocol

from edged.buffer.again import Choice, Progress, check_known, meant, purge, replay, retry
from edged.buffer.batch import Batch
from edged.buffer.counters import BufferStats, Verification
from edged.buffer.log import Buffer
from edged.buffer.store import Letter
from edged.clock import iso
from edged.errors import ConfigError, TransientError
from edged.model import Sample

_PATIENCE = 15.0
"""Seconds to wait for what has not been flushed yet."""
_EVER = 2**62
"""Microseconds; what SQLite can compare with a time."""
Options = Mapping[str, Sequence[str]]
"""As in the query of a URL: each may be given more than once."""


async def perform(buffer: Buffer, action: str, options: Options) -> dict[str, Any]:
    """Do it; returns what to tell. Raises KeyError (no such action), ConfigError and other EdgedErrors."""
    return await ACTIONS[action](buffer, options)


async def _stats(buffer: Buffer, _options: Options) -> dict[str, Any]:
    return asdict(buffer.stats())


async def _verify(buffer: Buffer, _options: Options) -> dict[str, Any]:
    await _flushed(buffer)
    return verification(buffer.stats(), await buffer.verify())


async def _letters(buffer: Buffer, options: Options) -> dict[str, Any]:
    return {
        "letters": letter_records(await buffer.letters(), _one(options, "connection"), known=buffer.stats().connections)
    }


async def _retry(buffer: Buffer, options: Options) -> dict[str, Any]:
    connection, progress = _one(options, "connection"), Progress()
    ids, unknown = await _chosen(buffer, options, connection)
    while not progress.over:
        progress = await buffer.change(partial(_call, retry, ids, connection, progress))
    return {"letters": progress.items, "readings": progress.readings, "skipped": progress.skipped | unknown}


async def _purge(buffer: Buffer, options: Options) -> dict[str, Any]:
    connection = _one(options, "connection")
    ids, unknown = await _chosen(buffer, options, connection)
    return {"letters": await buffer.change(partial(_call, purge, ids, connection)), "skipped": unknown}


async def _chosen(buffer: Buffer, options: Options, connection: str) -> tuple[frozenset[int], dict[str, int]]:
    """(The dead letters that are named, none for all; why some are none, and how many). Raises ConfigError."""
    ids = _ids(options)
    letters = letter_records(await buffer.letters(), connection, known=buffer.stats().connections)
    unknown = len(ids - {one["id"] for one in letters})
    return ids, {"`edged buffer dead list` shows no such number": unknown} if unknown else {}


async def _replay(buffer: Buffer, options: Options) -> dict[str, Any]:
    connection, chosen, progress = _one(options, "connection"), choice(options), Progress()
    await _flushed(buffer)
    through, interval = buffer.head, buffer.intervals.get(connection, 0)
    if interval:  # half an interval would yield other values
        end = -(-chosen.end // interval) * interval
        chosen = replace(chosen, begin=chosen.begin // interval * interval, end=end)
    while not progress.over:
        progress = await buffer.change(partial(_call, replay, connection, chosen, through, interval, progress))
    return {"readings": progress.readings, "rows": progress.items}


async def _repair(buffer: Buffer, _options: Options) -> dict[str, Any]:
    await _flushed(buffer)
    problems = (await buffer.verify()).problems
    if problems:
        await buffer.rewrite(f"repair was asked for: {problems[0]}")
    left = (await buffer.verify()).problems
    return {"ok": not left, "found": list(problems), "left": list(left), "lost": buffer.stats().lost}


async def _vacuum(buffer: Buffer, _options: Options) -> dict[str, Any]:
    await _flushed(buffer)
    before = buffer.stats().file_bytes
    await buffer.rewrite()
    return {"before": before, "after": buffer.stats().file_bytes}


ACTIONS: dict[str, Callable[[Buffer, Options], Awaitable[dict[str, Any]]]] = {
    "stats": _stats,
    "verify": _verify,
    "letters": _letters,
    "retry": _retry,
    "purge": _purge,
    "replay": _replay,
    "repair": _repair,
    "vacuum": _vacuum,
}
LOOKS = frozenset({"stats", "verify", "letters"})
"""Those that change nothing."""


async def _flushed(buffer: Buffer) -> None:
    """Have everything in the file; but do not keep a person waiting for a disk that refuses."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await buffer.flush()
    except TimeoutError:
        detail = buffer.stats().detail or "the disk does not answer"
        raise TransientError(f"not now: {detail}", reason="disk") from None


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(writer, done, *arguments)` for `Buffer.change`, which gives writer and done last."""
    *own, writer, done = arguments
    return function(writer, done, *own)


def verification(stats: BufferStats, found: Verification) -> dict[str, Any]:
    """The proof that counters add up: the equations, and what counting yielded."""
    names = ("stored_for", "delivered", "pending", "expired", "evicted", "dead", "filtered")
    return {
        "ok": found.ok,
        "problems": list(found.problems),
        "epoch": stats.epoch,
        "head": stats.head,
        "rows": found.rows,
        "readings": found.readings,
        "read": stats.read,
        "stored": stats.stored,
        "suppressed": stats.suppressed,
        "rejected": stats.rejected,
        "waiting": stats.waiting,
        "connections": {
            name: {key: getattr(one, key) for key in names} for name, one in stats.connections.items()
        },
        "lost": stats.lost,
    }  # fmt: skip


def letter_records(letters: Sequence[Letter], connection: str, *, known: Iterable[str]) -> list[dict[str, Any]]:
    """Dead letters of one connection and its flows, or of all, as plain data.

    Raises ConfigError for a connection that has none and is not among the `known` ones.
    """
    check_known([*known, *(letter.connection for letter in letters)], connection)
    return [
        {**letter._asdict(), "time": iso(letter.time)} for letter in letters if meant(letter.connection, connection)
    ]


def choice(options: Options) -> Choice:
    """Which readings are meant: `from`, `to` (microseconds since 1970) and `device`. Raises ConfigError."""
    try:
        begin, end = int(_one(options, "from") or -_EVER), int(_one(options, "to") or _EVER)
    except ValueError:
        raise ConfigError("`from` and `to` are whole microseconds since 1970") from None
    if not max(abs(begin), abs(end)) <= _EVER:
        raise ConfigError("`from` or `to` is no time: they are whole microseconds since 1970")
    return Choice(begin, end, frozenset(options.get("device", ())))


class Times(Protocol):
    """What is known of the times of samples."""

    def settled(self, samples: Sequence[Sample], boot: str) -> Sequence[Sample]:
        """The samples with the right times, as far as they are known, and flagged where they are not."""
        ...

    @property
    def doubtful(self) -> Mapping[str, int]:
        """Which may have been stored with wrong ones: see `Buffer.history`."""
        ...


async def export(buffer: Buffer, options: Options, times: Times | None = None) -> AsyncIterator[tuple[int, Sample]]:
    """(seq, sample) of all readings in the file that are meant, in the order in which they were stored.

    As they would be sent now; without `times` as they were stored.
    """
    chosen = choice(options)
    async for batch in buffer.history(chosen.begin, chosen.end, times.doubtful if times else {}):
        for found in chosen_of(batch, chosen, times):
            yield found


def chosen_of(batch: Batch, chosen: Choice, times: Times | None) -> Iterator[tuple[int, Sample]]:
    """(seq, sample) of those that are meant."""
    samples = times.settled(batch.samples, batch.boot) if times else batch.samples
    return ((seq, sample) for seq, sample in enumerate(samples, batch.first) if chosen.takes(sample))


def _one(options: Options, name: str) -> str:
    return next(iter(options.get(name, ())), "")


def _ids(options: Options) -> frozenset[int]:
    try:
        return frozenset(map(int, options.get("id", ())))
    except ValueError:
        raise ConfigError("the number of a dead letter is a whole number") from None
