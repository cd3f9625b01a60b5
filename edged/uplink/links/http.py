"""The HTTP link: messages as requests to one server, over connections that are kept.

A session is nothing that HTTP knows. Here it lasts as long as the server can be reached and takes us for who we are: it
ends when a connection breaks and cannot be made anew at once, when no answer comes, and when the server refuses us.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from edged.errors import EdgedError, PermanentError, TransientError
from edged.uplink.api import CLOSED, DELIVERED, OFFLINE, SILENT, TOO_LARGE, Message, Outcome, Pacing, Verdict
from edged.uplink.dialects.http import (
    OF_WHOM,
    Doubt,
    Meaning,
    Origin,
    Reply,
    meaning,
    not_now,
    refusal,
    retry_after,
    target,
)
from edged.uplink.links.http_turns import Turns, unless
from edged.uplink.links.http_wire import Names, Request, Wire
from edged.uplink.links.reach import unreachable
from edged.uplink.links.tls import Tls, files_of, make_context

log = logging.getLogger("edged.uplink")

Signer = Callable[[str, str, bytes, float], Mapping[str, str]]
"""(method, target, body, seconds since 1970) → headers that say who we are."""
_NEWS = 3600.0
"""Seconds after which it is told anew what the server says."""
_KEPT = 60.0
"""Seconds. A connection on which nothing was asked for so long may be dead without our knowing."""
_PATIENCE = 5
"""So often a message is tried over which we are refused, while others are taken."""
_TRIALS = 3
"""So often a message over which we were refused is tried before anything else; then others get a chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server, and how to be its client. Times in seconds."""

    origin: Origin
    tls: Tls | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    signer: Callable[[], Signer] = lambda: lambda *_: {}
    """Called when a session begins, so that renewed secrets count. Raises ConfigError."""
    query: Callable[[], str] = str
    """What goes into the query of each URL besides: called like the signer. Raises ConfigError."""
    credentials: str = "the URL"
    """The settings that the signer uses, for people."""
    probe: str = ""
    """What is asked for when a session begins; empty: nothing."""
    connect_timeout: float = 10.0
    response_timeout: float = 20.0
    window: int = 4
    ordered: bool = True
    """One request of a lane at a time."""
    own_addresses: bool = False
    """Whether messages have different addresses, so that one that is not there is the message's."""
    patience: int = 12
    """So often a message is tried over which the server fails, while it takes others."""
    max_message: int = 1024 * 1024
    renewal: float = 30.0
    """How often certificates are looked at."""


class HttpLink:
    """Implements `edged.uplink.api.Link`."""

    def __init__(self, name: str, server: Server, pacing: Pacing) -> None:
        self._name = name
        self.server = server
        self._pacing = pacing
        self._names = Names()
        self._doubt = Doubt()
        self._where = str(server.origin)
        self._sign: Signer = lambda *_: {}
        self._query = ""
        self._context: ssl.SSLContext | None = None
        self._files: tuple[tuple[int, int, int], ...] = ()
        self._looked = 0.0
        self._told = ""
        self._idle: list[tuple[Wire, float]] = []
        """Connections on which nothing is asked, and since when."""
        self._turns = Turns()
        self._refused: Message | None = None
        """The message over which we were refused: the next session begins with it."""
        self._accused: Message | None = None
        """The first over which we were refused since something was taken, though that may be its own fault."""
        self._trials = 0
        self._settled = ""
        """The identity of one that was delivered with that, before the forwarder asked."""
        self._heard: dict[int, tuple[float, Reply]] = {}
        """Status → when it was answered first, and how."""
        self._not_before = 0.0
        """Monotonic seconds until which the server wants to be left alone."""
        self._lost: asyncio.Future[str] | None = None
        self._closed: asyncio.Future[None] | None = None

    @property
    def window(self) -> int:
        """As configured."""
        return self.server.window

    @property
    def pacing(self) -> Pacing:
        """As configured."""
        return self._pacing

    def fits(self, message: Message) -> bool:
        """Whether the configuration allows a body of this size."""
        return len(message.payload) <= self.server.max_message

    # -- a session begins and ends ---------------------------------------------------------------------------------

    async def connect(self, epoch: str) -> str:  # noqa: ARG002  # nothing announces the gateway
        """Open a connection, and find out as far as possible whether the server takes us for who we are."""
        loop = asyncio.get_running_loop()
        self._lost = self._closed = None
        self._sign, self._query = self.server.signer(), self.server.query()
        self._turns = Turns()
        self._doubt.begin()
        self._accused = None
        await self._renew(first=True)
        begun = False
        try:
            wire = await self._open()
            wire.rest()
            self._idle.append((wire, monotonic()))
            notes = [wire.version]
            if self.server.probe:
                notes.append(await self._ask(self.server.probe))
            if self._refused is not None:
                await self._try_again(self._refused)
            begun = True
        finally:
            if not begun:
                await self.close()
        self._lost, self._closed = loop.create_future(), loop.create_future()
        return ", ".join(notes)

    async def _ask(self, probe: str) -> str:
        """What the server says to the probe, for people, if it is good. Raises EdgedError."""
        path = self._asked(probe)
        reply = await self._exchange(lambda: Request("GET", path, self._headers("GET", path)))
        match meaning(reply.status, own_address=False):
            case Meaning.DELIVERED:
                return f"{probe} answers {reply.status}"
            case Meaning.WAIT | Meaning.AGAIN:
                raise not_now(self._as_before(reply), self._where)
            case _:
                raise self._refusal(reply, "GET")

    async def _try_again(self, message: Message) -> None:
        """Whether the message over which we were refused is taken now, or at least not refused for our sake."""
        reply = await self._exchange(lambda: self._request(message))
        what = meaning(reply.status, own_address=self.server.own_addresses)
        if what is Meaning.WAIT:
            raise not_now(self._as_before(reply), self._where)
        if what is Meaning.US:
            self._trials += reply.status in OF_WHOM
            if self._trials >= _TRIALS:
                self._refused, self._trials = None, 0
            raise self._refusal(reply, self.server.method)
        self._refused, self._trials = None, 0
        if what is Meaning.DELIVERED:
            self._doubt.delivered(_identity(message))
            self._settled = _identity(message)

    async def _open(self) -> Wire:
        server = self.server
        name = server.tls.server_name if server.tls else ""
        try:
            async with asyncio.timeout(server.connect_timeout):
                return await Wire.open(server.origin, self._names, self._context, name, server.connect_timeout)
        except (OSError, UnicodeError) as exc:
            raise unreachable(
                exc, self._where, server.origin.host, server.connect_timeout, "server", tls=server.tls is not None
            ) from exc

    async def lost(self) -> str:
        """Wait until the session has ended; returns why."""
        return await asyncio.shield(self._lost) if self._lost else "not connected"

    async def close(self) -> None:
        """Close all connections."""
        self._end("closed by us")
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        idle, self._idle = self._idle, []
        for wire, _ in idle:
            await wire.close()

    def _end(self, why: str) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(why)

    async def announce(self) -> None:
        """There is nothing to announce."""

    async def report(self) -> None:
        """There is nothing to report."""

    # -- certificates ----------------------------------------------------------------------------------------------

    async def _renew(self, *, first: bool = False) -> None:
        """Read certificates anew when their files have changed, and belong together. Raises ConfigError at `first`."""
        tls = self.server.tls
        if tls is None or (monotonic() - self._looked < self.server.renewal and not first):
            return
        self._looked = monotonic()
        files = await asyncio.to_thread(files_of, tls)
        if files == self._files and not first:
            return
        try:
            context = await asyncio.to_thread(make_context, tls)
        except EdgedError as exc:
            if first:
                raise
            if str(exc) != self._told:
                self._told = str(exc)
                log.warning("%s: a certificate has changed, but cannot be used yet: %s", self._name, exc)
            return
        if self._files and files != self._files:
            log.info("%s: a certificate has been renewed", self._name)
        self._context, self._files = context, files

    # -- a message -------------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> Outcome:
        """One request, and what its answer means."""
        if self._lost is None or self._closed is None or self._lost.done():
            return Outcome(Verdict.RETRY, OFFLINE, "not connected")
        if self._settled and self._settled == _identity(message):
            self._settled = ""
            return DELIVERED
        if not self.fits(message):
            return Outcome(Verdict.REJECTED, TOO_LARGE, "larger than `max_message` allows")
        work = asyncio.create_task(self._deliver(message, self._lost), name=f"{self._name} request")
        try:
            both: list[asyncio.Future[Any]] = [work, self._closed]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else Outcome(Verdict.RETRY, OFFLINE, "the session has ended")
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])

    async def _deliver(self, message: Message, lost: asyncio.Future[str]) -> Outcome:
        """In its turn. The turn is kept where the server takes nothing now, so that order is."""
        lane = _lane(message) if self.server.ordered else ""
        kept = False
        try:
            if lane:
                await unless(lost, self._turns.take(lane, message))
            await unless(lost, self._patiently())
            if lost.done():
                return Outcome(Verdict.RETRY, OFFLINE, "the session has ended")
            reply = await self._exchange(lambda: self._request(message))
            kept = meaning(reply.status, own_address=self.server.own_addresses) is Meaning.WAIT
            return self._judge(message, reply)
        except TransientError as exc:
            self._end(str(exc))
            return Outcome(Verdict.RETRY, exc.reason if exc.reason in {CLOSED, SILENT} else OFFLINE, str(exc))
        except EdgedError as exc:  # TLS: the next session begins with this message, so that its error is seen there
            return self._give_up(message, exc)
        finally:
            if lane and not kept:
                self._turns.end(lane, message)

    async def _patiently(self) -> None:
        """Leave the server alone as long as it wants."""
        while (pause := self._not_before - monotonic()) > 0:  # noqa: ASYNC110  # the moment may be put off meanwhile
            await asyncio.sleep(pause)

    async def _exchange(self, made: Callable[[], Request]) -> Reply:
        """The answer. Where a connection breaks, the request is made anew on a new one at once. Raises EdgedError."""
        await self._renew()
        broken = ""
        while True:
            try:
                wire = (None if broken else await self._idle_one()) or await self._open()
            except TransientError as exc:
                raise TransientError(str(exc), reason=broken or exc.reason) from exc
            reply = None
            try:
                reply = await wire.exchange(made(), self.server.response_timeout)
            except TransientError as exc:
                if broken or exc.reason != CLOSED:
                    raise TransientError(f"{self._where}: {exc}", reason=exc.reason) from exc
                broken = OFFLINE if wire.untouched else CLOSED  # it may have been closed before we asked
            finally:
                await (wire.close() if reply is None else self._put_back(wire))
            if reply is not None:
                return reply

    async def _idle_one(self) -> Wire | None:
        """A connection that can be used again; those that cannot are closed."""
        while self._idle:
            wire, since = self._idle.pop()
            if await wire.wake() and monotonic() - since < _KEPT and wire.tls is self._context:
                return wire
            await wire.close()
        return None

    async def _put_back(self, wire: Wire) -> None:
        closed = self._closed is not None and self._closed.done()
        if not closed and len(self._idle) < self.server.window and wire.reusable():
            wire.rest()
            self._idle.append((wire, monotonic()))
        else:
            await wire.close()

    def _request(self, message: Message) -> Request:
        path = self._asked(target(message.topic))
        headers = self._headers(self.server.method, path, message.payload)
        own = [("Content-Type", message.content_type), *message.properties.items()]
        return Request(self.server.method, path, [*headers, *own], message.payload)

    def _asked(self, path: str) -> str:
        """The path with what goes into its query besides."""
        return f"{path}{'&' if '?' in path else '?'}{self._query}" if self._query else path

    def _headers(self, method: str, path: str, body: bytes = b"") -> list[tuple[str, str]]:
        given = {**self.server.headers, **self._sign(method, path, body, time())}
        return [("Host", self.server.origin.authority), *given.items()]

    # -- what an answer means --------------------------------------------------------------------------------------

    def _judge(self, message: Message, reply: Reply) -> Outcome:
        server, identity = self.server, _identity(message)
        what = meaning(reply.status, own_address=server.own_addresses)
        refused = Outcome(Verdict.REJECTED, f"status_{reply.status}", str(reply))
        later = Outcome(Verdict.RETRY, f"status_{reply.status}", str(self._as_before(reply)))
        match what:
            case Meaning.DELIVERED:
                self._doubt.delivered(identity)
                self._refused = self._accused = None
                return DELIVERED
            case Meaning.REFUSED:
                return refused
            case Meaning.TOO_LARGE:
                return Outcome(Verdict.REJECTED, TOO_LARGE, str(reply))
            case Meaning.WAIT:
                self._not_before = max(self._not_before, monotonic() + retry_after(reply, time()))
                return later
            case Meaning.AGAIN:
                return refused if self._doubt.convicts(identity, server.patience) else later
        if reply.status in OF_WHOM:
            if self._doubt.convicts(identity, _PATIENCE):
                return refused
            if not self._doubt.suspects_us():
                self._accused = self._accused or message
                return later
        return self._give_up(message, self._refusal(reply, server.method))

    def _refusal(self, reply: Reply, method: str) -> PermanentError:
        return refusal(self._as_before(reply), self._where, method, self.server.credentials)

    def _as_before(self, reply: Reply) -> Reply:
        """The first answer of this status within an hour: others may differ in a number, and would be told as news."""
        known = self._heard.get(reply.status)
        if known is not None and monotonic() - known[0] < _NEWS:
            return known[1]
        self._heard[reply.status] = monotonic(), reply
        return reply

    def _give_up(self, message: Message, error: EdgedError) -> Outcome:
        """We are refused: nothing else is sent until that has changed."""
        self._refused = self._refused or self._accused or message
        self._end(str(error))
        return Outcome(Verdict.RETRY, OFFLINE, str(error))


def _identity(message: Message) -> str:
    """What tells a message from all others, however often and on whatever lane it is sent."""
    return "/".join(message.properties.get(f"edged-{name}", "") for name in ("epoch", "flow", "first", "seq"))


def _lane(message: Message) -> str:
    """Its lane, each flow and replays apart; never empty."""
    return "/".join(message.properties.get(f"edged-{name}", "") for name in ("flow", "lane", "replay"))
