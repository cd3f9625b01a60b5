"""Carries the readings of the buffer to one receiver, and the receiver's word back into the buffer.

One forwarder per connection. It owns order, lanes, window, retries and the cursor; it knows no protocol. A message
leaves the buffer only when the receiver took responsibility for it, or when it never will: then to the dead letters.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from edged.buffer.cursor import Intervals
from edged.buffer.log import Buffer
from edged.clock import boot_id, iso, mono_us
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.uplink.api import (
    ENDED,
    NO_SUBSCRIBER,
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
from edged.uplink.lanes import Chain, Route, halves, plan
from edged.uplink.state import Counters, ForwarderState, LaneState, Story
from edged.uplink.suspicion import Suspicion
from edged.uplink.window import Window
from edged.wallclock import Clock

log = logging.getLogger("edged.uplink")

FRESH = 10.0
"""Seconds. What is older when a session begins goes the historical lane."""
_STABLE = 10.0
"""Seconds that a session must last before its end counts as a new outage."""
_PAGE = 5000
"""Readings to fetch from the buffer at a time."""
_READ_AGAIN = 1.0
"""Seconds to wait when the buffer cannot be read."""
_LAST_WORD = 1.0
"""Seconds that a stop waits for messages in flight."""
_REFUSALS = 60
"""So many refusals in a row are not the messages' fault: from then on only one message per pause is tried."""


@dataclass(slots=True)
class _Session:
    """What lasts as long as one session."""

    window: Window
    routes: dict[Lane, Route]
    group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    skipped: dict[Lane, Chunk] = field(default_factory=dict)
    """What a lane has set aside under suspicion."""


class Forwarder:
    """One connection's way up."""

    def __init__(self, name: str, encoder: Encoder, link: Link, buffer: Buffer, clock: Clock | None = None) -> None:
        """Without a clock, all times are taken to be right."""
        self._name = name
        self._encoder = encoder
        self._link = link
        self._buffer = buffer
        self._clock = clock
        self._retry_max = link.pacing.retry_max
        self._backoff = wait_random_exponential(multiplier=1, max=self._retry_max)
        self._story = Story(name, self._pending, self._retry_max)
        self._counters = Counters()
        self._suspicion = Suspicion()
        self._chains: dict[Lane, Chain] = {}
        self._session: _Session | None = None
        self._progress = asyncio.Event()

    # -- what people see -------------------------------------------------------------------------------------------

    def state(self) -> ForwarderState:
        """How the connection is doing."""
        session, counters, story = self._session, self._counters, self._story
        routes = session.routes if session else {}
        return ForwarderState(
            connected=story.connected,
            since=iso(story.since),
            detail=story.detail,
            attempts=story.attempts,
            window=session.window.size if session else self._link.window,
            in_flight=session.window.in_flight if session else 0,
            unsaved=self._buffer.durable(self._name),
            pending=self._pending(),
            delivered=counters.delivered,
            delivered_readings=counters.readings,
            retried=counters.retried,
            rejected=counters.rejected,
            unheard=counters.unheard,
            last_rejection=counters.last_rejection,
            lanes={lane.value: LaneState(self._chains[lane].last, route.through) for lane, route in routes.items()},
        )

    def _pending(self) -> int:
        stats = self._buffer.stats().connections.get(self._name)
        return stats.pending if stats else 0

    async def drained(self) -> None:
        """Wait until everything that is in the buffer now is settled."""
        head = self._buffer.head
        while self._buffer.cursor(self._name).low < head:
            self._progress.clear()
            await self._progress.wait()

    # -- one session after the other -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect and forward until cancelled; never gives up."""
        retrying = AsyncRetrying(wait=self._pause, retry=retry_if_exception_type(EdgedError), reraise=True)
        async for attempt in retrying:
            with attempt:
                await self._one_session(attempt.retry_state)

    def _pause(self, state: RetryCallState) -> float:
        """Full jitter, so that a thousand gateways do not come back at once. Slow where only a person can help."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ConfigError | PermanentError):
            return random.uniform(self._retry_max / 2, self._retry_max)  # noqa: S311  # spreads load, keeps no secret
        return self._backoff(state)

    async def _one_session(self, attempt: RetryCallState) -> None:
        """Connect, forward until the session ends, and raise EdgedError with the reason why."""
        self._story.attempts += 1
        try:
            line = await self._link.connect(self._buffer.epoch)
            try:
                await self._forward(line, attempt)
            finally:
                await self._link.close()
        except EdgedError as exc:
            self._story.off(str(exc))
            raise
        finally:
            self._story.connected = False
            self._session = None

    # -- one session -----------------------------------------------------------------------------------------------

    async def _forward(self, line: str, attempt: RetryCallState) -> None:
        """Forward until the session ends; always raises."""
        session = self._session = await self._begin()
        self._story.on(line)
        async with session.group as group:
            lanes = [
                group.create_task(self._run_lane(session, route), name=f"{self._name} {lane} lane")
                for lane, route in session.routes.items()
            ]
            helpers = [
                group.create_task(self._save(session.window), name=f"{self._name} saver"),
                group.create_task(self._become_stable(attempt), name=f"{self._name} stability"),
                group.create_task(self._tell_of_the_clock(session.window), name=f"{self._name} clock"),
            ]
            try:
                why = await self._link.lost()
            finally:
                for task in [*lanes, *helpers]:
                    task.cancel()
                await self._last_word(session)
        raise TransientError(why)

    async def _begin(self) -> _Session:
        cursor = self._buffer.cursor(self._name)
        if not self._chains:
            self._chains = {lane: Chain(cursor.lanes.get(lane, 0)) for lane in Lane}
        settled = Intervals(cursor.low, cursor.islands)
        head = self._buffer.head
        ends = {cursor.low, cursor.islands[-1][1] if cursor.islands else cursor.low}
        fresh = [end for end in ends if end < head and await self._is_fresh(end + 1)]
        window = Window(self._link.window, self._link.pacing.historical_share, lambda: self._buffer.durable(self._name))
        routes = {route.lane: route for route in plan(settled, head, fresh)}
        for lane in routes:
            window.open(lane)
            if self._suspicion.aroused:
                window.be_careful(lane)
        self._suspicion.aroused = False
        return _Session(window, routes)

    async def _is_fresh(self, seq: int) -> bool:
        """Whether the sample was taken within the last seconds."""
        try:
            batches = await self._buffer.read(seq - 1, max_readings=1)
        except TransientError:
            return False
        if not batches or batches[0].boot != boot_id():
            return False
        sample = batches[0].samples[max(0, seq - batches[0].first)]
        return mono_us() - sample.mono < FRESH * 1e6

    async def _last_word(self, session: _Session) -> None:
        """Hear what the receiver says of the messages in flight, if it says so soon."""
        session.over.set()
        try:
            async with asyncio.timeout(_LAST_WORD):
                await session.window.idle()
        except TimeoutError:
            log.debug("%s: %d messages unconfirmed at the end of the session", self._name, session.window.in_flight)

    async def _become_stable(self, attempt: RetryCallState) -> None:
        await asyncio.sleep(_STABLE)
        attempt.attempt_number = 1
        self._story.stable()

    def announce(self) -> None:
        """Tell the receiver of devices that changed; without a session, the next one begins with that."""
        session = self._session
        if session is not None and not session.over.is_set():
            session.group.create_task(self._announce(session.window), name=f"{self._name} announcement")

    async def _announce(self, window: Window) -> None:
        await window.take(Lane.LIVE)
        try:
            await self._link.announce()
        finally:
            window.give_back(Lane.LIVE)

    async def _tell_of_the_clock(self, window: Window) -> None:
        """The status message said that the clock was not set; say so when it is."""
        if self._clock is None or self._clock.trusted:
            return
        await self._clock.gained()
        await self._announce(window)

    async def _save(self, window: Window) -> None:
        """Make confirmations durable early when the window is full of them."""
        buffer, name = self._buffer, self._name
        while True:
            await window.starved.wait()
            window.starved.clear()
            await buffer.saved(name, max(1, window.size // 2))
            window.changed()

    # -- one lane --------------------------------------------------------------------------------------------------

    async def _run_lane(self, session: _Session, route: Route) -> None:
        """Start the lane's messages, in order, as the window allows."""
        lane, window = route.lane, session.window
        async for chunk in self._chunks(route):
            todo = [chunk]
            while todo:
                piece = todo.pop(0)
                if piece.first == piece.last == self._suspicion.aside:
                    session.skipped[lane] = piece
                    continue
                await window.take(lane)
                message = self._encode(lane, piece, todo)
                if message is None:
                    window.give_back(lane)
                    continue
                self._chains[lane].add(piece.last)
                name = f"{self._name} {lane} {piece.last}"
                session.group.create_task(self._deliver(session, lane, piece, message), name=name)
        window.close(lane)
        log.info("%s: everything left over from the outage is on its way", self._name)

    async def _chunks(self, route: Route) -> AsyncIterator[Chunk]:
        """What the lane has to send; waits for more where the lane has no end."""
        buffer, after = self._buffer, route.after
        while route.through is None or after < route.through:
            head = buffer.head
            try:
                batches = await buffer.read(after, through=route.through, max_readings=_PAGE)
            except TransientError as exc:
                self._story.warn_once(str(exc))
                await asyncio.sleep(_READ_AGAIN)
                continue
            for batch in batches:
                if self._clock:
                    await self._clock.ready(batch.boot)
                for chunk in self._encoder.split(batch):
                    whole = chunk if chunk.boot == batch.boot else replace(chunk, boot=batch.boot)
                    for piece in route.unsettled(whole):
                        yield piece
            if batches:
                after = batches[-1].last
            elif after < head:
                after = head  # what was there has been given up to make room
            else:
                await buffer.wait_beyond(after)

    def _encode(self, lane: Lane, piece: Chunk, rest: list[Chunk]) -> Message | None:
        """The message, or None: then its halves are put before the rest, or a single sample into the dead letters."""
        envelope = Envelope(self._buffer.epoch, piece.last, self._chains[lane].before(piece.first), lane)
        reason, detail = TOO_LARGE, "a single sample is larger than the receiver takes"
        try:
            message = self._encoder.encode(self._with_right_times(piece), envelope)
            if len(message.payload) <= self._suspicion.limit and self._link.fits(message):
                return message
        except PermanentError as exc:
            reason, detail = exc.reason, str(exc)
        if len(piece.samples) > 1:
            rest[:0] = halves(piece)
        else:
            self._reject(lane, piece, reason, detail)
        return None

    def _with_right_times(self, piece: Chunk) -> Chunk:
        """As late as possible, so that what waits for its turn profits from a clock that is set meanwhile."""
        if self._clock is None:
            return piece
        samples = self._clock.settled(piece.samples, piece.boot)
        return piece if samples is piece.samples else replace(piece, samples=samples)

    # -- one message -----------------------------------------------------------------------------------------------

    async def _deliver(self, session: _Session, lane: Lane, piece: Chunk, message: Message) -> None:
        """Send one message until there is a verdict or the session is over."""
        alone = session.window.alone(lane)
        try:
            outcome = await self._send(session, message)
            if outcome.verdict is Verdict.RETRY:
                self._chains[lane].drop(piece.last)
                self._suspicion.died(piece, len(message.payload), outcome.reason, alone=alone)
                return
            session.window.trust(lane)
            if outcome.verdict is Verdict.DELIVERED:
                self._delivered(session, lane, piece, outcome)
            elif outcome.reason == TOO_LARGE and len(piece.samples) > 1:
                await self._divide(session, lane, piece, message)
            else:
                self._chains[lane].drop(piece.last)
                self._reject(lane, piece, outcome.reason, f"{outcome.detail}: {message.topic}")
                await self._slow_down(session, lane)
        finally:
            session.window.give_back(lane)

    async def _send(self, session: _Session, message: Message) -> Outcome:
        """The receiver's final word in this session: a RETRY only when the session is over."""
        pause = 1.0
        while True:
            outcome = await self._link.send(message)
            if outcome.verdict is not Verdict.RETRY or outcome.reason in ENDED:
                return outcome
            self._counters.retried += 1
            self._story.warn_once(f"the receiver does not take a message now ({outcome.detail}); trying again")
            try:
                async with asyncio.timeout(random.uniform(0, min(pause, self._retry_max))):  # noqa: S311  # no secret
                    await session.over.wait()
            except TimeoutError:
                pause *= 2
            else:
                return outcome

    async def _divide(self, session: _Session, lane: Lane, piece: Chunk, message: Message) -> None:
        """The receiver found the message too large: send its parts, in the same slot. Later ones are cut beforehand."""
        self._suspicion.learn_limit(len(message.payload))
        self._chains[lane].drop(piece.last)
        todo = list(halves(piece))
        while todo:
            part = todo.pop(0)
            smaller = self._encode(lane, part, todo)
            if smaller is None:
                continue
            self._chains[lane].add(part.last)
            outcome = await self._send(session, smaller)
            if outcome.verdict is Verdict.DELIVERED:
                self._delivered(session, lane, part, outcome)
                continue
            self._chains[lane].drop(part.last)
            if outcome.verdict is Verdict.RETRY:
                return
            if outcome.reason == TOO_LARGE and len(part.samples) > 1:
                self._suspicion.learn_limit(len(smaller.payload))
                todo[:0] = halves(part)
            else:
                self._reject(lane, part, outcome.reason, f"{outcome.detail}: {smaller.topic}")

    def _delivered(self, session: _Session, lane: Lane, piece: Chunk, outcome: Outcome) -> None:
        self._settle(lane, piece, "delivered")
        counters = self._counters
        counters.delivered += 1
        counters.readings += piece.readings
        counters.refused_in_a_row = 0
        if outcome.reason == NO_SUBSCRIBER:
            counters.unheard += 1
            self._story.warn_once("the receiver accepts messages, but says that nobody subscribes to them")
        skipped = session.skipped.get(lane)
        if skipped is not None and skipped.last < piece.first:
            del session.skipped[lane]
            self._suspicion.convicted()
            self._reject(lane, skipped, "poison", "the receiver ends the session over it, but takes the next one")

    def _reject(self, lane: Lane, piece: Chunk, reason: str, detail: str) -> None:
        """To the dead letters, so that the others can go on."""
        self._settle(lane, piece, "dead", reason, detail)
        counters = self._counters
        counters.rejected += 1
        counters.refused_in_a_row += 1
        counters.last_rejection = detail or reason
        self._story.warn_once(f"a message was refused for good and went to the dead letters ({detail or reason})")

    def _settle(
        self, lane: Lane, piece: Chunk, outcome: Literal["delivered", "dead"], reason: str = "", detail: str = ""
    ) -> None:
        self._buffer.settle(
            self._name, piece.first, piece.last, piece.readings, lane=lane.value, outcome=outcome, reason=reason,
            detail=detail,
        )  # fmt: skip
        self._progress.set()

    async def _slow_down(self, session: _Session, lane: Lane) -> None:
        """When everything is refused, somebody must change something: do not turn all there is into dead letters."""
        if self._counters.refused_in_a_row < _REFUSALS or session.over.is_set():
            return
        self._story.warn_once("every message is refused; from now on only one is tried from time to time")
        session.window.be_careful(lane)
        try:
            async with asyncio.timeout(random.uniform(0.5, 1) * self._retry_max):  # noqa: S311  # spreads load
                await session.over.wait()
        except TimeoutError:
            return
