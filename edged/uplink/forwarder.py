"""Carries the readings of the buffer to one receiver, and the receiver's word back into the buffer.

One forwarder per connection. It owns order, lanes, window, retries and the cursor; it knows no protocol. A message
leaves the buffer only when the receiver took responsibility for it, or when it never will: then to the dead letters.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from edged.buffer.batch import Batch
from edged.buffer.cursor import CursorState, Intervals, Span
from edged.buffer.log import Buffer
from edged.clock import boot_id, iso, mono_us
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.uplink.api import Chunk, Encoder, Lane, Link, Serves
from edged.uplink.delivery import Delivery, Session
from edged.uplink.lanes import Chain, Route, plan, plan_beside, plan_strict
from edged.uplink.pace import Pace
from edged.uplink.pages import Pages, Read
from edged.uplink.state import ForwarderState, LaneState, Shares, Story
from edged.uplink.window import Window, background_slots
from edged.wallclock import Clock

log = logging.getLogger("edged.uplink")

FRESH = 10.0
"""Seconds. What is older when a session begins goes the historical lane."""
_STABLE = 10.0
"""Seconds that a session must last before its end counts as a new outage."""
_FIRST_REPORT = 5.0
"""Seconds after which a session is worth a report of the counters."""
_READ_AGAIN = 1.0
"""Seconds to wait when the buffer cannot be read."""
_LAST_WORD = 1.0
"""Seconds that a stop waits for messages in flight."""


class Forwarder:
    """One connection's way up."""

    def __init__(
        self, name: str, encoder: Encoder, link: Link, buffer: Buffer, clock: Clock | None = None,
        read: Read | None = None,
    ) -> None:  # fmt: skip
        """Without a clock, all times are taken to be right. `read` takes the place of the buffer's own."""
        self._name = name
        self._encoder = encoder
        self._link = link
        self._buffer = buffer
        self._read_log: Read = read or buffer.read
        self._clock = clock
        self._retry_max = link.pacing.retry_max
        self._backoff = wait_random_exponential(multiplier=1, max=self._retry_max)
        steps = link.pacing.retry_steps
        shares = link if isinstance(link, Shares) else None
        self._label = shares.label if shares else name
        self._story = Story(name, self._pending, steps[-1][0] if steps else self._retry_max, shares)
        self._delivery = Delivery(name, encoder, link, buffer, clock, self._story)
        self.encoder = encoder
        self._session: Session | None = None
        self._dialling = 0.0
        """When an attempt to connect or to hang up began that is under way, monotonic seconds; else 0."""

    # -- what people see -------------------------------------------------------------------------------------------

    def state(self) -> ForwarderState:
        """How the connection is doing."""
        session, counters, story = self._session, self._delivery.counters, self._story
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
            lanes={
                lane.value: LaneState(self._delivery.chains[lane].last, route.through)
                for lane, route in routes.items()
                if not route.target or self._delivery.chains[lane].last
            },
            state=story.state,
            next_try=iso(story.next_try) if story.next_try else "",
            last_error=story.last_error,
        )

    @property
    def progress(self) -> int:
        """Rises with each message that was settled, and with each attempt to connect."""
        return self._delivery.counters.delivered + self._delivery.counters.rejected + self._story.tries

    def dialling_since(self) -> float | None:
        """When the attempt to connect or to hang up began that is under way: monotonic seconds."""
        return self._dialling or None

    def stuck_since(self) -> float | None:
        """Since when the session has messages to send, or under way, and none of them gets on: monotonic seconds.

        None without a session, without messages, and while the disk takes no confirmations: that explains it.
        """
        if self._session is None or self._buffer.stats().alarm == "failing":
            return None
        return self._session.window.busy_since()

    def _pending(self) -> int:
        stats = self._buffer.stats().connections.get(self._name)
        return stats.pending if stats else 0

    async def drained(self) -> None:
        """Wait until everything that is in the buffer now is settled."""
        head = self._buffer.head
        while self._buffer.cursor(self._name).low < head:
            self._delivery.progress.clear()
            await self._delivery.progress.wait()

    # -- one session after the other -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect and forward until cancelled; never gives up."""
        retrying = AsyncRetrying(wait=self._pause, retry=retry_if_exception_type(EdgedError), reraise=True)
        async for attempt in retrying:
            with attempt:
                await self._one_session(attempt.retry_state)

    def _pause(self, state: RetryCallState) -> float:
        """Full jitter, so that a thousand gateways do not come back at once. Slow where only a person can help."""
        seconds = self._seconds_to_next_try(state)
        self._story.wait(seconds)
        return seconds

    def _seconds_to_next_try(self, state: RetryCallState) -> float:
        pause = self._link.pacing.step(self._story.outage)
        if pause is not None and state.attempt_number > 1:
            return pause * random.uniform(0.9, 1.1)  # noqa: S311  # spreads load, keeps no secret
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ConfigError | PermanentError):
            return random.uniform(self._retry_max / 2, self._retry_max)  # noqa: S311  # spreads load, keeps no secret
        return self._backoff(state)

    async def _one_session(self, attempt: RetryCallState) -> None:
        """Connect, forward until the session ends, and raise EdgedError with the reason why."""
        self._story.opening()
        self._dialling = mono_us() / 1e6
        try:
            line = await self._link.connect(self._buffer.epoch)
            self._dialling = 0.0
            try:
                await self._forward(line, attempt)
            finally:
                self._dialling = mono_us() / 1e6
                await self._link.close()
        except EdgedError as exc:
            self._story.off(exc)
            raise
        finally:
            self._dialling = 0.0
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
                group.create_task(self._report(session.window), name=f"{self._name} report"),
            ]
            if isinstance(self._link, Serves):
                helpers.append(group.create_task(self._link.serve(session.window.slot), name=f"{self._name} commands"))
            try:
                why = await self._link.lost()
            finally:
                for task in [*lanes, *helpers]:
                    task.cancel()
                await self._last_word(session)
        raise TransientError(why)

    async def _begin(self) -> Session:
        delivery, pacing, size = self._delivery, self._link.pacing, self._link.window
        cursor = self._buffer.cursor(self._name)
        if not delivery.chains:
            delivery.chains = {lane: Chain(cursor.lanes.get(lane, 0)) for lane in Lane}
        pace = Pace(background_slots(size, pacing.historical_share))
        window = Window(size, pacing.historical_share, lambda: self._buffer.durable(self._name), pace)
        routes = {route.lane: route for route in await self._routes(cursor)}
        for lane, route in routes.items():
            if not route.target or (lane is Lane.PRIORITY and delivery.chains[lane].last):
                window.open(lane)
            if delivery.suspicion.aroused:
                window.be_careful(lane)
        delivery.suspicion.aroused = False
        return Session(window, routes)

    async def _routes(self, cursor: CursorState) -> list[Route]:
        if self._link.pacing.strict:
            return plan_strict(cursor.low)
        head, sent = self._buffer.head, cursor.lanes.get(Lane.LIVE, 0)
        ends = {cursor.low, cursor.islands[-1][1] if cursor.islands else cursor.low}
        # The live lane does not go back: what it has left behind, such as the last of an older backlog, is historical.
        fresh = [end for end in ends if sent <= end < head and await self._is_fresh(end + 1)]
        ordinary = plan(Intervals(cursor.low, cursor.islands), head, fresh)
        return [*ordinary, *plan_beside(self._name, cursor.low, cursor.ahead)]

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

    async def _last_word(self, session: Session) -> None:
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

    async def _report(self, window: Window) -> None:
        """Tell how the counters stand, now and then."""
        await asyncio.sleep(_FIRST_REPORT)
        while True:
            await window.take(Lane.LIVE)
            try:
                await self._link.report()
            finally:
                window.give_back(Lane.LIVE)
            await asyncio.sleep(self._link.pacing.report_every)

    async def _save(self, window: Window) -> None:
        """Make confirmations durable early when the window is full of them."""
        buffer, name = self._buffer, self._name
        while True:
            await window.starved.wait()
            window.starved.clear()
            await buffer.saved(name, max(1, window.size // 2))
            window.changed()

    # -- one lane --------------------------------------------------------------------------------------------------

    async def _run_lane(self, session: Session, route: Route) -> None:
        """Start the lane's messages, in order, as the window allows."""
        pages = Pages(self._read_log, route, lambda: self._buffer.head)
        try:
            await self._send_all(session, route, pages)
        finally:
            pages.close()
        session.window.close(route.lane)
        log.info("%s: everything left over from the outage is on its way", self._label)

    async def _send_all(self, session: Session, route: Route, pages: Pages) -> None:
        lane, window = route.lane, session.window
        async for chunk in self._chunks(session, route, pages):
            window.open(lane)
            todo = [chunk]
            while todo:
                piece = todo.pop(0)
                if self._delivery.suspicion.skips(piece):
                    session.skipped.setdefault(lane, []).append(piece)
                    continue
                await window.take(lane)
                given_up = not self._missing(piece)(piece.first, piece.last)  # while it waited for its turn
                if given_up or not self._delivery.start(session, lane, piece, todo):
                    window.give_back(lane)

    async def _chunks(self, session: Session, route: Route, pages: Pages) -> AsyncIterator[Chunk]:
        """What the lane has to send; waits for more where the lane has no end."""
        buffer = self._buffer
        while route.through is None or route.reached < route.through:
            try:
                head, batches = await pages.next()
            except TransientError as exc:
                self._story.warn_once(str(exc))
                await asyncio.sleep(_READ_AGAIN)
                continue
            for batch in batches:
                if batch.priority and route.lane is not Lane.PRIORITY:
                    buffer.pass_over(self._name, batch.first, batch.last)
                    self._delivery.progress.set()
                if route.takes(batch):
                    async for piece in self._pieces(route, batch):
                        yield piece
                    route.taken = batch.last
                route.reached = batch.last
            if not batches and route.reached < head:
                route.reached = head  # what was there has been given up to make room, or is for another lane
            elif not batches:
                if route.target and route.lane is not Lane.PRIORITY:
                    session.window.rest(route.lane)
                await buffer.wait_beyond(route.reached)

    async def _pieces(self, route: Route, batch: Batch) -> AsyncIterator[Chunk]:
        """The parts of a batch that are not settled."""
        if self._clock:
            await self._clock.ready(batch.boot)
        # From the last of them on, so that what is settled ahead stays one range, however much lies between.
        since = route.taken + 1 if route.target and batch.priority else 0
        for chunk in self._encoder.split(batch):
            whole = chunk
            if chunk.boot != batch.boot or chunk.priority != batch.priority:
                whole = replace(chunk, boot=batch.boot, priority=batch.priority)
            for piece in route.unsettled(whole, self._missing(whole)):
                yield replace(piece, since=since) if since else piece
                since = piece.last + 1 if since else 0

    def _missing(self, chunk: Chunk) -> Callable[[int, int], list[Span]]:
        """What tells which of a chunk's samples are not settled now."""
        return partial(self._buffer.missing, self._name, priority=chunk.priority)
