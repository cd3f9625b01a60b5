"""Puts readings back into the way of one connection: refused ones, and past times. Within the writer's changes.

They become new rows at the end of the log, with new numbers, that are settled for all other connections.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from edged.buffer.batch import PRIORITY
from edged.buffer.codec import decode_batch
from edged.buffer.counters import Account
from edged.buffer.jobs import Done
from edged.buffer.rows import Row, make_rows
from edged.buffer.table import decode_row, read_rows
from edged.buffer.writer import Writer
from edged.config.flows import connection_of
from edged.errors import ConfigError, PermanentError
from edged.model import Sample

_HELD = 100_000
"""Readings of one interval that are gathered: more are sent in parts in any case."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which readings. Times in microseconds since 1970, UTC; `end` is not included."""

    begin: int = -(2**62)
    end: int = 2**62
    devices: frozenset[str] = frozenset()
    """Empty: all."""

    def takes(self, sample: Sample) -> bool:
        """Whether the sample is one of them."""
        wanted = not self.devices or sample.device in self.devices
        return bool(sample.points) and wanted and self.begin <= sample.time < self.end


@dataclass(slots=True)
class Progress:
    """How far a request has got that takes several transactions."""

    readings: int = 0
    items: int = 0
    """Letters or rows."""
    after: int = 0
    """The last one looked at."""
    over: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    """Why some were left, and how many."""
    held: list[tuple[str, list[Sample]]] = field(default_factory=list)
    """With their boots: of an interval that may not be all here yet."""
    torn: set[int] = field(default_factory=set)
    """Intervals of which some readings are not to be had any more, or wait."""


def retry(writer: Writer, done: Done, ids: Collection[int], connection: str, so_far: Progress) -> Progress:
    """Send dead letters again: those with these ids, or all, of one connection or all."""
    most = writer.store.max_transaction
    query = "SELECT id, connection, readings, boot, data FROM dead_letters WHERE id > ? ORDER BY id"
    rows = writer.store.db.execute(query, (so_far.after,))
    chosen: list[tuple[int, str, int, str, bytes]] = []
    for row in rows:
        if meant(row[1], connection) and (not ids or row[0] in ids):
            most -= len(row[4])
            if chosen and most < 0:
                break
            chosen.append(row)
    rows.close()
    for id_, name, booked, boot, data in chosen:
        so_far.after = id_
        account = writer.ledger.accounts.get(name)
        if account is None:
            _skip(so_far, f"connection {name} is no longer configured")
        elif not writer.retention.has_room(len(data)):
            _skip(so_far, "the buffer has no room")
        else:
            _put_back(writer, done, account, name, booked, boot, data, so_far)
            writer.store.db.execute("DELETE FROM dead_letters WHERE id = ?", (id_,))
    so_far.over = not chosen
    return so_far


def _put_back(
    writer: Writer, done: Done, account: Account, name: str, booked: int, boot: str, data: bytes, so_far: Progress
) -> None:
    """What was dead waits again; all counters but these two stay."""
    try:
        samples = decode_batch(data, 1, boot, booked).samples
    except ValueError:
        _skip(so_far, "they are damaged")
        return
    readings = sum(len(sample.values) for sample in samples)
    revived = min(booked, account.dead)
    account.dead -= revived
    account.stored_for += readings - revived
    writer.insert_again(Row(samples, readings, data), boot, name, done)
    so_far.items += 1
    so_far.readings += readings


def _skip(so_far: Progress, why: str) -> None:
    so_far.skipped[why] = so_far.skipped.get(why, 0) + 1


def replay(
    writer: Writer, done: Done, connection: str, choice: Choice, through: int, interval: int, so_far: Progress
) -> Progress:
    """Send readings up to seq `through` again that the connection has settled. What waits for it comes anyway.

    With an `interval`, microseconds, only whole ones, and none divided by what is stored meanwhile.
    """
    account = _account(writer, connection)
    if not so_far.after:
        _check_room(writer, choice, through)
    at_once = min(20_000, writer.store.max_transaction // 16)
    rows = read_rows(writer.store.db, so_far.after, through=through, max_readings=at_once)
    so_far.over = not rows
    if interval and not so_far.after and rows and (oldest := decode_row(rows[0])) and oldest.first > 1:
        so_far.torn |= {sample.time // interval for sample in oldest.samples}
    for stored in rows:
        so_far.after = stored[0]
        once_more = stored[9] not in {"", PRIORITY}
        batch = None if once_more or stored[4] < choice.begin or stored[3] >= choice.end else decode_row(stored)
        if batch is None:
            continue
        waiting = account.missing(batch.first, batch.last, priority=batch.priority)
        samples = [
            sample
            for seq, sample in enumerate(batch.samples, batch.first)
            if choice.takes(sample) and not any(first <= seq <= last for first, last in waiting)
        ]
        if interval:
            waits = (batch.samples[seq - batch.first] for first, last in waiting for seq in range(first, last + 1))
            so_far.torn |= {sample.time // interval for sample in waits}
        so_far.held.append((batch.boot, samples))
    for boot, samples in _released(so_far, interval):
        _insert(writer, done, account, connection, samples, boot, so_far)
    return so_far


def _released(so_far: Progress, interval: int) -> list[tuple[str, list[Sample]]]:
    """What may be sent again now: all, or whole intervals."""
    held, so_far.held = so_far.held, []
    if not interval:
        return held
    latest = max((sample.time // interval for _, some in held for sample in some), default=0)
    if not so_far.over and sum(len(sample.values) for _, some in held for sample in some) < _HELD:
        so_far.held = [(boot, [one for one in some if one.time // interval == latest]) for boot, some in held]
        held = [(boot, [one for one in some if one.time // interval < latest]) for boot, some in held]
    return [(boot, [one for one in some if one.time // interval not in so_far.torn]) for boot, some in held]


def _insert(
    writer: Writer, done: Done, account: Account, name: str, samples: Sequence[Sample], boot: str, so_far: Progress
) -> None:
    for row in make_rows(samples, writer.store.max_transaction // 2):
        if not isinstance(row, Row):
            continue  # it was stored once, so it can be stored
        account.stored_for += row.readings
        writer.insert_again(row, boot, name, done)
        so_far.items += 1
        so_far.readings += row.readings


def _check_room(writer: Writer, choice: Choice, through: int) -> None:
    """What waits must not be dropped for what was delivered before."""
    query = "SELECT coalesce(sum(length(data) + 100), 0) FROM log WHERE seq <= ? AND latest >= ? AND earliest < ?"
    size = int(writer.store.db.execute(query, (through, choice.begin, choice.end)).fetchone()[0])
    if not writer.retention.has_room(size):
        raise PermanentError(
            f"the buffer has no room for {size / 2**20:.1f} MiB of readings again: choose a shorter time, or raise "
            "`max_bytes`",
            reason="buffer_full",
        )


def _account(writer: Writer, connection: str) -> Account:
    account = writer.ledger.accounts.get(connection)
    if account is None:
        known = ", ".join(sorted(writer.ledger.accounts)) or "none"
        raise ConfigError(f"the buffer knows no connection {connection!r}; it has {known}")
    return account


def purge(writer: Writer, _done: Done, ids: Collection[int], connection: str) -> int:
    """Forget dead letters; returns how many. Their readings stay counted as dead."""
    found = writer.store.db.execute("SELECT id, connection FROM dead_letters").fetchall()
    chosen = [(id_,) for id_, place in found if meant(place, connection) and (not ids or id_ in ids)]
    writer.store.db.executemany("DELETE FROM dead_letters WHERE id = ?", chosen)
    return len(chosen)


def meant(place: str, connection: str) -> bool:
    """Whether a place in the buffer is that of the connection, or of a flow to it. Empty: of all."""
    return connection in {"", place, connection_of(place)}


def check_known(places: Iterable[str], connection: str) -> None:
    """Raises ConfigError where no place is the connection's: a wrong name must not look like an empty list."""
    known = sorted(set(places))
    if connection and not any(meant(place, connection) for place in known):
        raise ConfigError(f"the buffer knows no connection {connection!r}; it has {', '.join(known) or 'none'}")
