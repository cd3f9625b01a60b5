"""Sessions with one broker, one after the other: connecting, subscribing, acknowledging."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from edged.adapter import EdgedError, PermanentError, Reason, TransientError

from .config import MqttBus
from .ledger import Ledger, Ticket
from .session import RECEIVE, Arrived, Session, VersionError

log = logging.getLogger("edged.mqtt-in")

_GRACE = 10.0
"""Seconds that a broker may be away before the values are bad: what is published meanwhile waits there."""
_TICK = 0.5
"""Seconds between two looks at what can be acknowledged."""
_MARKER = 10.0
"""Seconds of quiet after which a marker that did not come back is not waited for any more."""
_RPC = 5.0


class Link:
    """The way to a broker. It works by itself from the first `wait` on."""

    def __init__(self, name: str, config: MqttBus, filters: Sequence[str], protocol: str) -> None:
        self._name = name
        self._config = config
        self._filters = list(dict.fromkeys(filters))
        self._client_id = config.client_id or f"edged-{socket.gethostname()}-{name}"[:65]
        self._versions = [v5 for v5 in (True, False) if protocol in {"auto", "5" if v5 else "3.1.1"}]
        self._session: Session | None = None
        self._sessions = 0
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._error: EdgedError | None = None
        self._down_at = 0.0
        self._told = ""
        self.news = asyncio.Event()
        """Set when something has arrived."""
        self.ledger = Ledger()
        self.up_since = 0
        """When the (last) session began, microseconds on the monotonic clock; 0 for never."""
        self.waited = False
        """What arrives now may have waited at the broker while we were away."""
        self._shed = 0
        self._left: deque[Arrived] = deque()
        """What the last session brought and nobody would send again."""
        self._marker = b""
        self._marked_at = 0.0
        self._answers: dict[int, asyncio.Future[Mapping[str, object]]] = {}
        self._number = 0

    # -- for the bus ---------------------------------------------------------------------------------------------------

    async def wait(self, seconds: float) -> None:
        """Wait until there is a session. Raises TransientError if there is none in time, or has been none for long."""
        if self._task is None:
            self._down_at = time.monotonic()
            self._task = asyncio.create_task(self._run(), name=f"broker of {self._name}")
        elif self._task.done():
            self._task.result()
        if self._connected():
            return
        if not self.up_since:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._settled.wait()
        if not self._connected() and (not self.up_since or time.monotonic() - self._down_at > _GRACE):
            text = str(self._error) if self._error else f"{self._config.url} does not answer"
            raise TransientError(text, reason=Reason.UNREACHABLE)

    def _connected(self) -> bool:
        """A question anew each time: sessions come while one waits."""
        return self._session is not None

    def fetch(self) -> Arrived | None:
        """The oldest message that nobody has looked at; those that we had in the last session are none."""
        inbox = self._left if self._session is None else self._session.inbox
        while inbox:
            arrived = inbox.popleft()
            self._marked_at = time.monotonic()
            if not (arrived.again and self.ledger.known(arrived.number, time.monotonic())):
                return arrived
        return None

    @property
    def shed(self) -> int:
        """Messages that found no room, ever."""
        return self._shed + (self._session.shed if self._session is not None else 0)

    def is_marker(self, arrived: Arrived) -> bool:
        """Whether this is what we sent ourselves: all that came before it may have waited at the broker."""
        if arrived.topic != self._marker_topic:
            return False
        if arrived.payload == self._marker:
            self.waited = False
        return True

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1, and wait for the broker's word. Raises TransientError, PermanentError."""
        session = self._session
        if session is None:
            raise TransientError(f"there is no session with {self._config.url}", reason=Reason.UNREACHABLE)
        await session.publish(topic, payload)

    async def close(self) -> None:
        """End. What was not acknowledged comes again in the next session."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    @property
    def answer_topic(self) -> str:
        """Where devices answer calls: this with `/rpc` behind it."""
        return f"edged/{self._client_id}"

    @property
    def _marker_topic(self) -> str:
        return f"edged/{self._client_id}/mark"

    async def call(self, topic: str, request: Callable[[int, str], bytes]) -> Mapping[str, object]:
        """Publish a request and wait for its answer. Raises TransientError, PermanentError."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self.publish(topic, request(number, self.answer_topic))
            async with asyncio.timeout(_RPC):
                return await answer
        except TimeoutError:
            raise TransientError(f"no answer within {_RPC:g} s", reason=Reason.TIMEOUT) from None
        finally:
            del self._answers[number]

    def answered(self, number: object, content: Mapping[str, object]) -> None:
        """An answer came. One that nobody waits for any more is nobody's."""
        waiting = self._answers.get(number) if isinstance(number, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(content)

    # -- the sessions --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = float(self._config.retry_min)
        try:
            while True:
                try:
                    why = await self._serve()
                    pause = float(self._config.retry_min)
                except EdgedError as exc:
                    why, self._error = str(exc), exc
                self._lost(why)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # so that not all come at once
                pause = min(2 * pause, float(self._config.reconnect_max))
        finally:
            if self._session is not None:
                await self._session.close()

    def _lost(self, why: str) -> None:
        if self._session is not None:
            self._down_at = time.monotonic()
            log.warning("%s: %s; connecting anew", self._name, why)
            self._shed += self._session.shed
            self._left.extend(arrived for arrived in self._session.inbox if not arrived.number)
            self.news.set()
        self._session, self.waited = None, False
        self._error = self._error or TransientError(why, reason=Reason.UNREACHABLE)
        self._settled.set()

    async def _serve(self) -> str:
        """One session, from its beginning to its end; returns why it ended. Raises EdgedError."""
        session = await self._open()
        served = False
        try:
            self._sessions += 1
            self._session, self._error = session, None
            self.waited = session.resumed
            self.ledger.begin(self._sessions, resumed=session.resumed)
            self.news.set()
            await self._begin(session)
            self.up_since = time.monotonic_ns() // 1000
            self._settled.set()
            while not session.ended.done():
                self._acknowledge(session)
                self._give_up_marker()
                await asyncio.wait([session.ended], timeout=_TICK)
            served = True
            return session.ended.result()
        finally:
            if not served:
                self._settled.set()
            await session.close()

    async def _open(self) -> Session:
        v5 = self._versions[0]
        session = Session(self._config, self._client_id, v5=v5, wake=self.news.set)
        try:
            await session.open()
        except VersionError:
            self._versions.append(self._versions.pop(0))
            text = (
                "does not speak this version of MQTT, or is no MQTT broker" if len(self._versions) == 1 else "hung up"
            )
            raise TransientError(f"{self._config.url} {text}", reason=Reason.UNREACHABLE) from None
        self.ledger.room = RECEIVE // 2 if v5 else _UNKNOWN_ROOM
        return session

    async def _begin(self, session: Session) -> None:
        """Subscribe, and find the end of what has waited. Raises TransientError."""
        own = [self._marker_topic, f"{self.answer_topic}/rpc"]
        refused, certain = await session.subscribe([*own, *self._filters])
        notes = [f"the broker does not allow to subscribe to {one}" for one in refused if one not in own][:5]
        if not certain and "thingsstack" not in self._config.preset:
            notes.append("the broker grants QoS 0 only: what comes while the gateway is away is lost")
        kept = "session resumed" if session.resumed else "new session"
        told = "; ".join(notes)
        if told != self._told or not self.up_since:
            log.log(logging.WARNING if notes else logging.INFO, "%s: %s, %s%s", self._name, self._config.url, kept,
                    f"; {told}" if told else "")  # fmt: skip
        else:
            log.info("%s: connected again, %s", self._name, kept)
        self._told = told
        if self.waited:
            self._marker, self._marked_at = uuid.uuid4().bytes, time.monotonic()
            with contextlib.suppress(PermanentError):  # it is not allowed: the quiet after what waited has to do
                await session.publish(self._marker_topic, self._marker)

    def _give_up_marker(self) -> None:
        """What has waited comes at once. After some quiet it is over, also if our own message did not come back."""
        if self.waited and time.monotonic() - self._marked_at > _MARKER:
            self.waited = False
            log.warning(
                "%s: may not publish to, or subscribe to, %s; without that the times of what waited at the broker are "
                "less certain", self._name, self._marker_topic,
            )  # fmt: skip

    def _acknowledge(self, session: Session) -> None:
        for number in self.ledger.due(time.monotonic()):
            session.acknowledge(number)

    def release(self, ticket: Ticket | None) -> None:
        """One of the devices that a message concerns has handed its values over."""
        self.ledger.release(ticket, time.monotonic())


_UNKNOWN_ROOM = 10
"""An MQTT 3.1.1 broker does not say how many messages it sends; mosquitto sends 20."""
