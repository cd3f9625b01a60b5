"""What becomes of one message: encoded, divided, sent until there is a verdict, and settled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Literal

from edged.buffer.cursor import Span
from edged.buffer.log import Buffer
from edged.discretion import discreet
from edged.errors import PermanentError
from edged.uplink.api import (
    ENDED,
    NO_SUBSCRIBER,
    OFFLINE,
    TOO_LARGE,
    Chunk,
    Encoder,
    Envelope,
    Lane,
    Link,
    Message,
    Outcome,
    Verdict,
)
from edged.uplink.lanes import Chain, Route, halves
from edged.uplink.state import Counters, Story
from edged.uplink.suspicion import Suspicion
from edged.uplink.together import Together
from edged.uplink.window import Window
from edged.wallclock import Clock

_REFUSALS = 60
"""So many refusals in a row are not the messages' fault: from then on only one message per pause is tried."""

_POISON = "the receiver ends the session over it, but takes others"


@dataclass(slots=True)
class Session:
    """What lasts as long as one session."""

    window: Window
    routes: Mapping[Lane, Route]
    group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    skipped: dict[Lane, list[Chunk]] = field(default_factory=dict)
    """What a lane has set aside under suspicion, in order."""
    together: list[Together] = field(default_factory=list)
    """What is to be settled all at once, and is not yet."""


class Delivery:
    """Hands the messages of one connection over to its link, and the receiver's word to the buffer."""

    def __init__(
        self, name: str, encoder: Encoder, link: Link, buffer: Buffer, clock: Clock | None, story: Story
    ) -> None:
        """Without a clock, all times are taken to be right."""
        self._name = name
        self._encoder = encoder
        self._link = link
        self._buffer = buffer
        self._clock = clock
        self._story = story
        self._retry_max = link.pacing.retry_max
        self.counters = Counters()
        self.suspicion = Suspicion()
        self.chains: dict[Lane, Chain] = {}
        self.progress = asyncio.Event()
        """Set when something was settled."""

    def start(self, session: Session, lane: Lane, piece: Chunk, rest: list[Chunk]) -> bool:
        """Encode a piece and begin to send it, in a slot that was taken. False if it needs none.

        Where it is too large, its halves are put before the rest.
        """
        message = self._encode(session, lane, piece, rest)
        if message is None:
            return False
        self.chains[lane].add(piece.last)
        name = f"{self._name} {lane} {piece.last}"
        alone = session.window.alone(lane)  # a lane that ends with this message forgets that
        session.group.create_task(self._deliver(session, lane, piece, message, alone=alone), name=name)
        return True

    def _encode(self, session: Session, lane: Lane, piece: Chunk, rest: list[Chunk]) -> Message | None:
        """The message, or None: then its halves are put before the rest, or a single sample into the dead letters."""
        envelope = Envelope(self._buffer.epoch, piece.last, self.chains[lane].before(piece.first), lane)
        reason, detail = TOO_LARGE, "a single sample is larger than the receiver takes"
        try:
            message = self._encoder.encode(self._with_right_times(piece), envelope)
            if message.skip:
                self._settle(session, "", piece, "delivered", left_out=message.left_out)
                return None
            small_enough = len(message.payload) <= self.suspicion.limit or len(piece.samples) == 1
            if small_enough and self._link.fits(message):  # the limit is a guess, which condemns nothing
                return message
        except PermanentError as exc:
            reason, detail = exc.reason, str(exc)
        if len(piece.samples) > 1:
            rest[:0] = halves(piece)
        else:
            self._reject(session, lane, piece, reason, detail)
        return None

    def _with_right_times(self, piece: Chunk) -> Chunk:
        """As late as possible, so that what waits for its turn profits from a clock that is set meanwhile."""
        if self._clock is None:
            return piece
        samples = self._clock.settled(piece.samples, piece.boot)
        return piece if samples is piece.samples else replace(piece, samples=samples)

    async def _deliver(self, session: Session, lane: Lane, piece: Chunk, message: Message, *, alone: bool) -> None:
        """Send one message until there is a verdict or the session is over. `alone`: with nothing else in flight."""
        try:
            outcome, took = await self._send_when_due(session, piece, message, alone=alone)
            if outcome.verdict is Verdict.RETRY:
                self.chains[lane].drop(piece.last)
                size = len(message.payload)
                if self.suspicion.died(piece, size, outcome.reason, alone=alone, took=took):
                    self._reject(session, lane, piece, "poison", _POISON)
                return
            session.window.trust(lane)
            if outcome.verdict is Verdict.DELIVERED:
                self._delivered(session, lane, piece, outcome, message.left_out)
            elif outcome.reason == TOO_LARGE and len(piece.samples) > 1:
                await self._divide(session, lane, piece, message)
            else:
                self.chains[lane].drop(piece.last)
                self._reject(session, lane, piece, outcome.reason, f"{outcome.detail}: {message.topic}")
                await self._slow_down(session, lane)
        finally:
            session.window.give_back(lane)

    async def _send_when_due(
        self, session: Session, piece: Chunk, message: Message, *, alone: bool
    ) -> tuple[Outcome, float]:
        """Send it, under suspicion after a wait. See `_send`."""
        pause = self.suspicion.pause(piece) if alone else 0.0
        if pause:
            try:
                async with asyncio.timeout(pause):
                    await session.over.wait()
            except TimeoutError:
                pass  # it is due
            else:
                self.suspicion.interrupted()
                return Outcome(Verdict.RETRY, OFFLINE, "the session ended"), 0.0
        return await self._send(session, message)

    async def _send(self, session: Session, message: Message) -> tuple[Outcome, float]:
        """The receiver's final word in this session, and how many seconds after it was sent (last) that came.

        A RETRY only when the session is over.
        """
        pause = 1.0
        while True:
            begun = monotonic()
            outcome = await self._link.send(message)
            now = monotonic()
            session.window.alive()
            if outcome.verdict is Verdict.DELIVERED:
                session.window.heard(now, now - begun)
            if outcome.verdict is not Verdict.RETRY or outcome.reason in ENDED:
                return outcome, now - begun
            self.counters.retried += 1
            self._story.warn_once(f"the receiver does not take a message now ({outcome.detail}); trying again")
            try:
                async with asyncio.timeout(random.uniform(0, min(pause, self._retry_max))):  # noqa: S311  # no secret
                    await session.over.wait()
            except TimeoutError:
                pause *= 2
            else:
                return outcome, now - begun

    async def _divide(self, session: Session, lane: Lane, piece: Chunk, message: Message) -> None:
        """The receiver found the message too large: send its parts, in the same slot. Later ones are cut beforehand."""
        self.suspicion.learn_limit(len(message.payload))
        self.chains[lane].drop(piece.last)
        todo = list(halves(piece))
        while todo:
            part = todo.pop(0)
            smaller = self._encode(session, lane, part, todo)
            if smaller is None:
                continue
            self.chains[lane].add(part.last)
            outcome, _ = await self._send(session, smaller)
            if outcome.verdict is Verdict.DELIVERED:
                self._delivered(session, lane, part, outcome, smaller.left_out)
                continue
            self.chains[lane].drop(part.last)
            if outcome.verdict is Verdict.RETRY:
                return
            if outcome.reason == TOO_LARGE and len(part.samples) > 1:
                self.suspicion.learn_limit(len(smaller.payload))
                todo[:0] = halves(part)
            else:
                self._reject(session, lane, part, outcome.reason, f"{outcome.detail}: {smaller.topic}")

    def _delivered(self, session: Session, lane: Lane, piece: Chunk, outcome: Outcome, left_out: int) -> None:
        self._settle(session, lane, piece, "delivered", left_out=left_out)
        counters = self.counters
        counters.delivered += 1
        counters.readings += piece.readings
        counters.refused_in_a_row = 0
        if outcome.reason == NO_SUBSCRIBER:
            counters.unheard += 1
            self._story.warn_once("the receiver accepts messages, but says that nobody subscribes to them")
        self.suspicion.taken(piece)
        skipped = session.skipped.get(lane)
        if skipped and skipped[0].last < piece.first and not session.over.is_set():
            self.suspicion.vouched = True
            again = self._once_more(session, lane, skipped.pop(0))
            session.group.create_task(again, name=f"{self._name} {lane} once more")

    async def _once_more(self, session: Session, lane: Lane, piece: Chunk) -> None:
        """The receiver takes what comes after it: whether it still ends the session over this one."""
        session.window.be_careful(lane)
        await session.window.take(lane)
        if not self.start(session, lane, piece, []):
            session.window.give_back(lane)

    def _reject(self, session: Session, lane: Lane, piece: Chunk, reason: str, detail: str) -> None:
        """To the dead letters, so that the others can go on."""
        detail = discreet(detail)  # an address may hold a key, too
        self._settle(session, lane, piece, "dead", reason, detail)
        counters = self.counters
        counters.rejected += 1
        counters.refused_in_a_row += 1
        counters.last_rejection = detail or reason
        self._story.warn_once(f"a message was refused for good and went to the dead letters ({detail or reason})")

    def _settle(
        self, session: Session, lane: Lane | Literal[""], piece: Chunk, outcome: Literal["delivered", "dead"],
        reason: str = "", detail: str = "", left_out: int = 0,
    ) -> None:  # fmt: skip
        """Without a lane: nothing of it was sent, so that it is no part of a chain."""
        in_place = not piece.since or any(route.has_passed(piece) for route in session.routes.values())
        settle = partial(
            self._buffer.settle, self._name, piece.first, piece.last, piece.readings, lane=str(lane), outcome=outcome,
            reason=reason, detail=detail, ahead_from=piece.since, in_place=in_place, left_out=left_out,
        )  # fmt: skip
        if piece.together is None:
            settle()
        else:
            piece.together.add(piece.first, piece.last, settle)
            if piece.together not in session.together:
                session.together.append(piece.together)
        session.together = [one for one in session.together if not one.settle(self._missing(one))]
        self.progress.set()

    def _missing(self, together: Together) -> list[Span]:
        return self._buffer.missing(self._name, together.first, together.last, priority=False)

    async def _slow_down(self, session: Session, lane: Lane) -> None:
        """When everything is refused, somebody must change something: do not turn all there is into dead letters."""
        if self.counters.refused_in_a_row < _REFUSALS or session.over.is_set():
            return
        self._story.warn_once("every message is refused; from now on only one is tried from time to time")
        session.window.be_careful(lane)
        try:
            async with asyncio.timeout(random.uniform(0.5, 1) * self._retry_max):  # noqa: S311  # spreads load
                await session.over.wait()
        except TimeoutError:
            return
