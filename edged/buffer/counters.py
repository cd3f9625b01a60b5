"""The book of the log: what came in, what each connection got of it, and what was given up. Pure.

It is saved in the same transaction as the rows it speaks of, so that after any crash it adds up:

    read = stored + suppressed + rejected
    stored_for = delivered + pending + expired + evicted + dead        for each connection
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from edged.buffer.cursor import CursorState, Intervals, Span

GivenUp = Literal["expired", "evicted", "corrupt", "thinned"]
LOST_RANGES = 20
"""How many of the ranges that the disk lost are remembered."""


@dataclass(frozen=True, slots=True)
class Settle:
    """What a connection learnt of the samples first..last."""

    connection: str
    first: int
    last: int
    readings: int
    lane: str
    outcome: Literal["delivered", "dead", "passed"]
    """`passed`: it is settled already, being of priority, and now its place in the log is reached."""
    reason: str = ""
    detail: str = ""
    ahead_from: int = 0
    """Settled ahead of its place in the log: from here on to `last` all with priority are. 0 if it is not."""
    in_place: bool = True
    """Whether what stands before it in the log is settled or on its way, too."""
    left_out: int = 0
    """Those of the readings that a flow left out of the message."""


@dataclass(slots=True)
class Totals:
    """What the pipeline saw."""

    read: int = 0
    suppressed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def add(self, other: Totals) -> None:
        """Add what `other` counted."""
        self.read += other.read
        self.suppressed += other.suppressed
        self.rejected.update(other.rejected)

    def copy(self) -> Totals:
        """An independent copy."""
        return Totals(self.read, self.suppressed, self.rejected.copy())


@dataclass(slots=True)
class Account:
    """One connection: its cursor, and what became of the readings stored since it began."""

    cursor: Intervals
    lanes: dict[str, int] = field(default_factory=dict)
    stored_for: int = 0
    delivered: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    """The part of `evicted` that the disk lost, not we."""
    thinned: int = 0
    """The part of `evicted` for which others of the same interval stand."""
    dead: int = 0
    filtered: int = 0
    """The part of `delivered` that a flow left out."""
    ahead: Intervals = field(default_factory=Intervals)
    """Of the rows with priority those that were settled ahead of their place. It says nothing of the rows between them:
    so it stays short however many those are."""

    @property
    def pending(self) -> int:
        """Readings that wait for this connection."""
        return self.stored_for - self.delivered - self.expired - self.evicted - self.dead

    def state(self) -> CursorState:
        """The cursor as it is now."""
        return CursorState(self.cursor.low, self.cursor.islands, dict(self.lanes), self.ahead.low)

    def missing(self, first: int, last: int, *, priority: bool) -> list[Span]:
        """The parts of first..last, all of one row, that are not settled. `priority`: whether the row has it."""
        found = self.cursor.missing(first, last)
        return [span for part in found for span in self.ahead.missing(*part)] if priority and found else found

    def settled_ahead(self, first: int, last: int) -> list[Span]:
        """The parts of first..last, all of one row with priority, that are settled, but not in the cursor yet."""
        found: list[Span] = []
        for begin, end in self.cursor.missing(first, last):
            for gap, gap_end in [*self.ahead.missing(begin, end), (end + 1, end + 1)]:
                if gap > begin:
                    found.append((begin, gap - 1))
                begin = gap_end + 1  # noqa: PLW2901  # what remains of the part
        return found

    def take(self, settle: Settle) -> list[Span]:
        """Put what a settle says into the sets; returns the parts that were new."""
        first, last, ahead = settle.first, settle.last, settle.ahead_from > 0
        new = self.missing(first, last, priority=ahead or settle.outcome == "passed")
        if settle.outcome == "passed" and new:
            return new  # it is not, after all
        if ahead:
            self.ahead.add(settle.ahead_from, last)
        if settle.in_place:
            self.cursor.add(first, last)
        if self.ahead.low < self.cursor.low and len(self.ahead):
            self.ahead.add(1, self.cursor.low)  # what the cursor says anyway need not be said twice
        return new

    def send(self, settle: Settle) -> None:
        """Note what the receiver took on a lane: the next message there names it. What it refused is no part of it."""
        if settle.lane and settle.outcome == "delivered":
            self.lanes[settle.lane] = max(self.lanes.get(settle.lane, 0), settle.last)

    def settle(self, settle: Settle, readings: int) -> None:
        """Book a settle of which `readings` are new. The caller has let the account `take` it."""
        self.send(settle)
        if settle.outcome == "delivered":
            self.delivered += readings
            self.filtered += min(settle.left_out, readings)
        else:
            self.dead += readings

    def give_up(self, readings: int, why: GivenUp) -> None:
        """Book unsettled readings that leave the log. The caller has put their range into the cursor."""
        if why == "expired":
            self.expired += readings
        else:
            self.evicted += readings
        if why == "corrupt":
            self.corrupt += readings
        elif why == "thinned":
            self.thinned += readings

    def copy(self) -> Account:
        """An independent copy."""
        return Account(
            Intervals(self.cursor.low, self.cursor.islands), dict(self.lanes), self.stored_for, self.delivered,
            self.expired, self.evicted, self.corrupt, self.thinned, self.dead, self.filtered,
            Intervals(self.ahead.low, self.ahead.islands),
        )  # fmt: skip


@dataclass(slots=True)
class Ledger:
    """The whole book, as of one commit."""

    head: int = 0
    """The last seq given; 0 if none."""
    stored: int = 0
    rows: int = 0
    kept: int = 0
    """Readings in the rows that are still there."""
    totals: Totals = field(default_factory=Totals)
    accounts: dict[str, Account] = field(default_factory=dict)
    thinned: int = 0
    """Rows up to this seq have been thinned."""
    lost: tuple[Span, ...] = ()
    """What damage has cost: the newest ranges of samples."""

    def copy(self) -> Ledger:
        """An independent copy, to go back to when a transaction fails."""
        accounts = {name: account.copy() for name, account in self.accounts.items()}
        return Ledger(
            self.head, self.stored, self.rows, self.kept, self.totals.copy(), accounts, self.thinned, self.lost
        )

    def lose(self, spans: Iterable[Span]) -> None:
        """Remember that damage has cost these ranges."""
        self.lost = (*self.lost, *spans)[-LOST_RANGES:]

    def append(self, samples: int, readings: int) -> int:
        """Book a new row; returns the seq of its first sample."""
        first = self.head + 1
        self.head += samples
        self.stored += readings
        self.rows += 1
        self.kept += readings
        for account in self.accounts.values():
            account.stored_for += readings
        return first

    def append_again(self, samples: int, readings: int, target: str) -> int:
        """Book a row that only the connection `target` is to get, once more; returns the seq of its first sample."""
        first = self.head + 1
        self.head += samples
        self.rows += 1
        self.kept += readings
        for name, account in self.accounts.items():
            if name != target:
                account.cursor.add(first, self.head)
        return first

    def open_account(self, name: str, gaps: Iterable[Span], kept: int) -> None:
        """Begin a connection at the oldest row: all but the `gaps`, together `kept` readings, wait for it."""
        self.accounts[name] = Account(Intervals(0, gaps), stored_for=kept)

    def dump(self, waiting: int = 0) -> bytes:
        """As JSON. `waiting` readings are read already, but only a later transaction will store them."""
        accounts = {
            name: {
                "low": account.cursor.low,
                "islands": account.cursor.islands,
                "lanes": account.lanes,
                "stored_for": account.stored_for,
                "delivered": account.delivered,
                "expired": account.expired,
                "evicted": account.evicted,
                "corrupt": account.corrupt,
                "thinned": account.thinned,
                "dead": account.dead,
                "filtered": account.filtered,
                "ahead": [account.ahead.low, account.ahead.islands],
            }
            for name, account in self.accounts.items()
        }
        return orjson.dumps(
            {
                "stored": self.stored,
                "rows": self.rows,
                "kept": self.kept,
                "read": self.totals.read - waiting,
                "suppressed": self.totals.suppressed,
                "rejected": dict(self.totals.rejected),
                "connections": accounts,
                "thinned": self.thinned,
                "lost": self.lost,
            }
        )

    @classmethod
    def parse(cls, head: int, text: bytes) -> Ledger:
        """What `dump` wrote. Raises ValueError if it is something else."""
        try:
            book = orjson.loads(text)
            totals = Totals(book["read"], book["suppressed"], Counter(book["rejected"]))
            accounts = {name: _account(entry) for name, entry in book["connections"].items()}
            lost = tuple((int(first), int(last)) for first, last in book.get("lost", ()))
            thinned = int(book.get("thinned", 0))
            return cls(head, book["stored"], book["rows"], book["kept"], totals, accounts, thinned, lost)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"the counters are not readable: {exc!r}") from exc


def _account(entry: Mapping[str, Any]) -> Account:
    islands: Iterable[Span] = map(tuple, entry["islands"])
    numbers = {name: int(entry[name]) for name in ("stored_for", "delivered", "expired", "evicted", "corrupt", "dead")}
    thinned = int(entry.get("thinned", 0))  # format 1 had none
    filtered = int(entry.get("filtered", 0))  # without flows there were none
    low, beyond = entry.get("ahead", (0, ()))  # format 2 had none
    ahead = Intervals(low, map(tuple, beyond))
    cursor = Intervals(entry["low"], islands)
    return Account(cursor, dict(entry["lanes"]), thinned=thinned, filtered=filtered, ahead=ahead, **numbers)


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """One connection's counters, in readings, as of the last commit."""

    stored_for: int = 0
    """Stored since the connection began."""
    delivered: int = 0
    pending: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    """The part of `evicted` that the disk lost."""
    thinned: int = 0
    """The part of `evicted` for which others of the same interval stand."""
    dead: int = 0
    low: int = 0
    islands: int = 0
    filtered: int = 0
    """The part of `delivered` that a flow left out: settled, but not sent."""

    @classmethod
    def of(cls, account: Account) -> ConnectionStats:
        """The counters of an account."""
        return cls(
            account.stored_for, account.delivered, account.pending, account.expired, account.evicted,
            account.corrupt, account.thinned, account.dead, account.cursor.low, len(account.cursor), account.filtered,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BufferStats:
    """The state of the buffer, for people and machines. `dataclasses.asdict` of it is JSON.

    read = stored + suppressed + rejected + waiting, provided that the pipeline counts a sample's readings in the same
    step in which it puts the sample.
    """

    epoch: str
    head: int
    read: int
    stored: int
    suppressed: int
    rejected: int
    rejected_by: dict[str, int]
    """The same by reason: those of the pipeline, and `inbox_full`, `buffer_full`, `too_large`, `unencodable`."""
    waiting: int
    """Readings put but not yet durable."""
    rows: int
    readings: int
    """Readings in the file, delivered ones included until their row is deleted."""
    file_bytes: int
    wal_bytes: int
    used_bytes: int
    """The part of the file that is in use; the rest is free for new rows."""
    alarm: Literal["", "full", "failing"]
    """`full`: readings are being given up or refused. `failing`: the disk refuses; readings wait in memory."""
    detail: str
    """One line for people about the alarm."""
    commits: int
    commit_seconds: float
    """How long the last commit took."""
    connections: dict[str, ConnectionStats]
    removed: dict[str, ConnectionStats]
    """Connections that are no longer configured, as they were at start."""
    lost: tuple[Span, ...]
    """The newest ranges of samples that damage has cost."""

    def told(self, connection: str) -> dict[str, int]:
        """The two equations in numbers, for a connection's receiver."""
        one = self.connections.get(connection, ConnectionStats())
        book = {name: getattr(self, name) for name in ("read", "stored", "suppressed", "rejected", "waiting")}
        names = ("stored_for", "delivered", "pending", "expired", "evicted", "dead")
        return book | {name: getattr(one, name) for name in names}


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for one connection."""

    readings: int
    samples: int
    oldest_age: float
    """Seconds since the oldest waiting sample was taken; 0 if none waits."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What counting the rows anew yielded."""

    problems: tuple[str, ...]
    """One line for each number that does not add up; empty if all do."""
    rows: int = 0
    readings: int = 0
    """What was found."""

    @property
    def ok(self) -> bool:
        """Whether everything adds up."""
        return not self.problems
