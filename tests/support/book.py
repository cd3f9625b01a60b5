"""A receiver in memory that fails on request, and its book: what was sent to it, when, and what it said."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import orjson

from edged.testing.audit import Audit
from edged.uplink.api import CLOSED, DELIVERED, TOO_LARGE, Message, Outcome, Pacing, Verdict

Fault = Literal["none", "lost", "unheard", "refused", "too_large", "later"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt to send a message of one reading."""

    payload: dict[str, Any]
    fate: Literal["confirmed", "unheard", "lost", "refused", "later"]
    """`unheard`: it came, but nobody heard that it did."""
    session: int
    strict: bool
    head: int
    """The last sample that was stored when the session began."""

    @property
    def seq(self) -> int:
        """Of the message."""
        return int(self.payload["seq"])

    @property
    def came(self) -> bool:
        """Whether the receiver has it."""
        return self.fate in {"confirmed", "unheard"}

    @property
    def replay(self) -> bool:
        """Whether a person asked for it."""
        return bool(self.payload.get("replay"))

    @property
    def number(self) -> int:
        """The number that it carries; 0 for noise."""
        (value,) = self.payload["values"].values()
        return value if type(value) is int else 0

    @property
    def lane(self) -> str:
        """Which of the forwarder's lanes it came on. In strict order there is but one, whatever the message says."""
        return "live" if self.strict else "replay" if self.replay else str(self.payload["lane"])


@dataclass(slots=True)
class Book:
    """All that happened on the wire, over any number of runs of the gateway."""

    sent: list[Sent] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    """With which session each run begins."""
    sessions: int = 0

    def arrivals(self) -> Iterator[Sent]:
        """What the receiver has, in the order in which it came, and as often."""
        return (one for one in self.sent if one.came)

    def seqs(self, *fates: str) -> set[int]:
        """Of the messages that met one of these fates at least once."""
        return {one.seq for one in self.sent if one.fate in fates}

    def numbers(self, *fates: str) -> set[int]:
        """What these messages carried."""
        return {one.number for one in self.sent if one.fate in fates} - {0}

    def audited(self) -> Audit:
        """What the receiver makes of it."""
        audit = Audit()
        for one in self.arrivals():
            audit.take(one.payload)
        return audit

    def assert_confirmed_once(self) -> None:
        """What was confirmed is never sent again; and no number comes twice that nobody asked for."""
        confirmed = Counter(one.seq for one in self.sent if one.fate == "confirmed")
        assert max(confirmed.values(), default=1) == 1, confirmed.most_common(1)
        ordinary = {one.seq: one.number for one in self.arrivals() if not one.replay and one.number}
        assert len(set(ordinary.values())) == len(ordinary)

    def assert_lanes(self, first: Collection[int]) -> None:
        """Each message is on the lane where it belongs; `first` are the numbers that have priority."""
        for one in self.sent:
            said = one.payload["lane"]
            if one.replay:
                assert said == "historical", one
            elif one.strict:
                assert said == "live", one
            else:
                assert (said == "priority") == (one.number in first), one
                assert said != "historical" or one.seq <= one.head, one

    def assert_in_order(self) -> None:
        """New messages of a lane come with rising seq.

        But for those that were put off; and when the order becomes strict, what the lanes had left behind comes on the
        live one.
        """
        late, seen = self.seqs("later"), set[int]()
        last, ever, left, strict = dict[str, int](), dict[str, int](), 0, False
        for one in self.arrivals():
            if one.strict != strict:
                last, strict, left = {}, one.strict, max(left, ever.get("live", 0))
            lane = "replay" if one.replay else one.lane
            if one.seq not in seen | late:
                assert one.seq > last.get(lane, 0), one
                assert one.seq > ever.get(lane, 0) or (strict and one.seq < left), one
            seen.add(one.seq)
            for highest in (last, ever):
                highest[lane] = max(one.seq, highest.get(lane, 0))

    def assert_chained(self) -> None:
        """Each message names the one before it on its lane.

        That one came before, or was under way beside it, whatever became of it. Nothing that came is left out, but for
        the first message of a run that is sent again although a later one was settled.
        """
        tried = defaultdict[int, set[int]](set)
        for one in self.sent:
            tried[one.seq].add(one.session)
        for begin, end in pairwise([*self.begins, self.sessions + 1]):
            self._assert_run_chained(begin, end, tried)

    def _assert_run_chained(self, begin: int, end: int, tried: dict[int, set[int]]) -> None:
        came, settled = set[int](), dict[str, int]()
        before = defaultdict[str, list[int]](list)
        for one in self.sent:
            if one.session < begin and one.fate == "confirmed":
                settled[one.lane] = max(one.seq, settled.get(one.lane, 0))
        for one in self.sent:
            if one.came and begin <= one.session < end:
                prev = one.payload["prev"]
                assert prev < one.seq, one
                assert not prev or prev in came or one.session in tried[prev], one
                start = settled.get(one.lane, 0)
                earlier = [seq for seq in [start, *before[one.lane]] if seq < one.seq]
                assert prev >= max(earlier, default=0), one
                if one.fate == "confirmed":
                    before[one.lane].append(one.seq)
            if one.came and one.session < end:
                came.add(one.seq)


class Receiver:
    """The wire and who is at its end: a link in memory."""

    window = 4

    def __init__(self, *, strict: bool, book: Book | None = None, head: Callable[[], int] = lambda: 0) -> None:
        """`head` tells the last sample that is stored."""
        self.pacing = Pacing(0.5, 0.01, strict=strict)
        self.up = asyncio.Event()
        self.fault: Fault = "none"
        self.book = book or Book()
        self.book.begins.append(self.book.sessions + 1)
        self._head = head
        self._begun = 0
        self._over: asyncio.Future[str] | None = None

    async def connect(self, _epoch: str) -> str:
        await self.up.wait()
        self._over = asyncio.get_running_loop().create_future()
        self.book.sessions += 1
        self._begun = self._head()
        return "in memory"

    def fits(self, message: Message) -> bool:
        return len(message.payload) < 20_000

    async def send(self, message: Message) -> Outcome:
        await asyncio.sleep(0)
        if self._over is None or self._over.done():
            return self._note(message, "lost", Outcome(Verdict.RETRY, CLOSED, "cut"))
        fault, self.fault = self.fault, "none"
        match fault:
            case "none":
                return self._note(message, "confirmed", DELIVERED)
            case "refused":
                return self._note(message, "refused", Outcome(Verdict.REJECTED, "refused", "not wanted"))
            case "too_large":
                return self._note(message, "refused", Outcome(Verdict.REJECTED, TOO_LARGE, "too large"))
            case "later":
                return self._note(message, "later", Outcome(Verdict.RETRY, "busy", "busy"))
            case "lost" | "unheard":
                self.cut()
                return self._note(message, fault, Outcome(Verdict.RETRY, CLOSED, "cut"))

    def _note(
        self, message: Message, fate: Literal["confirmed", "unheard", "lost", "refused", "later"], outcome: Outcome
    ) -> Outcome:
        payload = orjson.loads(message.payload)
        strict = self.pacing.strict
        self.book.sent.append(Sent(payload, fate, self.book.sessions, strict, self._begun))
        return outcome

    def cut(self) -> None:
        """End the session."""
        if self._over is not None and not self._over.done():
            self._over.set_result("cut")

    async def announce(self) -> None:
        pass

    async def report(self) -> None:
        pass

    async def lost(self) -> str:
        assert self._over is not None
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        self.cut()
