"""Our own bus master for Modbus RTU and ASCII on a serial line.

One request at a time, after the silence that the specification demands; the answer may come in any pieces, with noise
around it. What counts is unit, function, length, checksum and, for writes, content. A request that was not answered is
remembered, so that its late answer is recognised and never taken for another's (`doubt.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, cast

from edged.adapter import Reason, TransientError
from edged.media import Medium, held_up

from . import pdu as pdus
from .barrier import Barriers, limits_of
from .config import ModbusDevice
from .doubt import Doubts
from .framing import ASCII, RTU, Framing, Parser
from .link import Moment, hexdump, now
from .pace import Pace
from .pdu import DeviceFailureError, InvalidReplyError, RefusedError, Request
from .planner import Limits, Table
from .serial_bus import ModbusAsciiBus, ModbusRtuBus
from .traffic import Heard

T = TypeVar("T")

BROADCAST = 0
_TURNAROUND = 0.1
"""Seconds that devices get to carry out a broadcast (Modbus over Serial Line V1.02, 2.4.1: 100 to 200 ms)."""
_STALL = 0.1
"""Seconds without a further byte after which the rest of an answer is not expected any more. Adapters deliver in lots,
and some devices pause in the middle."""
_CHATTER = 1.0
"""Seconds to wait for a silence on a line that is never silent."""
_A_REQUEST = 7
"""So many bytes before a reply may have been a request, with one byte lost."""
_POLITE = 0.1
"""Seconds in which the answer to another master is let pass."""
_ARRIVALS = 0.1
"""Seconds in which answers to whoever had the port before may arrive."""
_FORGET = 10.0
_LATER = 4.0
"""Or so many times as long as it ever was late, or ten time-outs, if that is longer."""
_SILENCES = 3
"""After so many requests in a row that nothing was heard after, a connection is given up: a router on the way may have
forgotten it."""
_PATIENT = 1.0
"""Seconds that a unit behind a network is given at least: what gets lost there is sent again after 0.2 s and more."""
_UNASKED = 1024
"""Most bytes to keep that are no answer, to see what they are."""


class SerialMaster:
    """A link (see `link.Link`) on a serial line. Learnt things are in `news`, each once."""

    def __init__(
        self, medium: Medium, framing: Framing, silence: float, limits: Mapping[int, Limits] | None = None
    ) -> None:
        self.arrived: Moment = (0, 0)
        self.foreign = 0
        self.late = 0
        """Answers that came after they were given up, ever."""
        self.news: list[str] = []
        self.forget = _FORGET
        """Seconds at least that a unit is left alone which answers nothing by which a late answer could be told."""
        self.ring = medium.ring
        self._medium = medium
        self._framing = framing
        self._silence = silence
        self._doubts = Doubts()
        self._barriers = Barriers(limits or {})
        self._fresh = True
        """The port was never opened."""
        self._paces: dict[int, Pace] = {}
        self._told: set[str] = set()
        self._echo_known = medium.echo
        self._echo_errors = 0
        """Of the medium, when the last request was sent."""
        self._last_rx = 0.0
        """When something was heard last, `time.monotonic()`."""
        self._not_before = 0.0
        """Nothing is sent before this moment."""
        self._remote = medium.settings.remote
        self._silences = 0
        """Requests in a row after which nothing at all came."""
        self._parser: Parser | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._request: Request[Any]
        self._sent: tuple[int, bytes] = (0, b"")
        """Unit and PDU of the last request."""
        self._heard = bytearray()
        """What came during the exchange under way, or after the last one."""
        medium.on_receive(self._received, self._lost)

    async def exchange(self, unit: int, request: Request[T], within: float) -> T:
        """See `Link`. `within` is the most that a unit is given; those that are known to be quicker get less.

        A failure takes half as long again, because of the silence after it.
        """
        await self._open()
        await self._settle()
        await self._open()  # it may have gone while we listened
        if unit == BROADCAST:
            return await self._broadcast(request)
        try:
            await self._dispel_doubts(unit, request, within)
            reply = await self._transact(unit, request, within)
        except (RefusedError, DeviceFailureError):
            raise
        except TransientError:
            if self._medium.is_open:
                await self._settle()
            raise
        return request.parse(reply)

    async def close(self) -> None:
        """See `Link`."""
        self._medium.close()
        await asyncio.sleep(0)  # asyncio closes a socket in the next turn of its loop

    async def _open(self) -> None:
        if not self._medium.is_open:
            await self._medium.open()
            if self._fresh:
                self._not_before = time.monotonic() + _ARRIVALS
            self._fresh = False

    # -- before a request --------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Listen, without sending, until the line was silent for long enough and no late answer is to be expected."""
        limit = 0.0
        while True:
            moment = time.monotonic()
            start = max(self._not_before, self._last_rx + self._silence)
            if start <= moment:
                if self._heard:
                    self._judge()
                elif not self._medium.catch_up():
                    return
                continue
            limit = limit or max(self._not_before, moment) + _CHATTER
            if moment > limit:
                self._judge()
                raise TransientError(f"the line is never silent{self._looks()}", reason=Reason.PROTOCOL)
            await self._medium.until(start)

    async def _dispel_doubts(self, unit: int, request: Request[Any], within: float) -> None:
        """Make sure that no late answer, and no echo, can be taken for the answer to this request."""
        if not self._echo_known and _answered_by_echo(request):
            await self._find_echo(unit, request, within)
        since = self._doubts.since(unit, request)
        if since is None:
            return
        sure = self._echo_known and not self._medium.echo
        barrier = self._barriers.choose(unit, request, self._doubts, loopback=sure)
        longest = self._longest(unit, within)
        rest = since + longest - time.monotonic()
        if self._doubts.full(unit, time.monotonic() - longest):
            barrier = None
        if rest < 0 and (barrier is None or self._barriers.tried(unit, barrier)):
            self._doubts.forget(unit, request.function)
        elif barrier is None:
            raise TransientError(
                f"no answer, nor to anything else by which a late answer could be told from a new one: "
                f"unit {unit} is left alone for {rest:.3g} s",
                reason=Reason.TIMEOUT,
            )
        else:
            await self._clear(unit, barrier, request, within)

    async def _clear(self, unit: int, barrier: Request[Any], request: Request[Any], within: float) -> None:
        """Have the barrier answered. Raises TransientError while an answer like that to `request` may still come."""
        try:
            await self._pass(unit, barrier, within)
        except TransientError as exc:
            self._barriers.missed(unit, barrier)
            if exc.reason == Reason.UNREACHABLE:
                raise
            await self._settle()
            if self._doubts.since(unit, request) is not None:
                raise

    def _pace(self, unit: int) -> Pace:
        pace = self._paces.get(unit)
        if pace is None:
            pace = self._paces[unit] = Pace(_PATIENT) if self._remote else Pace()
        return pace

    def _longest(self, unit: int, within: float) -> float:
        """Seconds after which no answer is expected any more, where nothing better can be known."""
        pace = self._paces.get(unit)
        return max(self.forget, 10 * within, _LATER * pace.latest if pace else 0.0)

    async def _find_echo(self, unit: int, request: Request[Any], within: float) -> None:
        """Ask something whose answer does not look like the question."""
        tables = {1: Table.COIL, 2: Table.DISCRETE, 4: Table.INPUT, 5: Table.COIL}
        table = tables.get(request.function, Table.HOLDING)
        try:
            await self._pass(unit, pdus.read(table, int.from_bytes(request.pdu[1:3], "big"), 1), within)
        except TransientError:
            if not self._echo_known:
                raise
            await self._settle()

    async def _pass(self, unit: int, request: Request[Any], within: float) -> None:
        """Have it answered, no matter how. Raises TransientError if it is not."""
        with contextlib.suppress(RefusedError, DeviceFailureError):
            request.parse(await self._transact(unit, request, within))
        await self._settle()

    # -- a request and its answer ------------------------------------------------------------------------------------

    async def _broadcast(self, request: Request[T]) -> T:
        if request.function <= 4 or request.function == 43:  # noqa: PLR2004  # what reads
            raise TransientError(
                "unit 0 means all devices at once: it can be written, and never answers", reason=Reason.PROTOCOL
            )
        self._heard.clear()
        self._sent = BROADCAST, request.pdu
        end = await self._medium.send(self._framing.frame(BROADCAST, request.pdu), wait=False)
        self._not_before = end + _TURNAROUND
        await self._medium.until(end)
        return cast("T", None)  # all of these return None

    async def _transact(self, unit: int, request: Request[Any], within: float) -> bytes:
        pace = self._pace(unit)
        frame = self._framing.frame(unit, request.pdu)
        patience = pace.patience(within)
        self._request = request
        self._sent = unit, request.pdu
        self._heard.clear()
        self._doubts.asking(unit, request.pdu)
        self._doubts.echoes = self._medium.echo or not self._echo_known
        self._echo_errors = self._medium.echo_errors
        self._parser = parser = self._framing.parser(unit, request)
        self._answer = asyncio.get_running_loop().create_future()
        end = time.monotonic()
        try:
            end = await self._medium.send(frame, wait=False)
            reply = await self._wait(end, patience, request)
        except TimeoutError:
            self._give_up(unit, request, end, patience)
            raise self._why(unit, frame, patience) from None
        except BaseException:
            self._give_up(unit, request, end, patience)
            raise
        finally:
            self._parser = self._answer = None
        before = parser.received - len(parser.rest) - self._framing.length(len(reply))
        if before > 0:
            self._check_prefix(unit, frame, bytes(self._heard[:before]), end)
        del self._heard[: len(self._heard) - len(parser.rest)]
        self._echo_known = True
        wall, mono = now()
        rx = self._last_rx
        self.arrived = (wall - mono + int(rx * 1e6), int(rx * 1e6))
        pace.answered(rx - end - self._framing.length(len(reply)) * self._medium.character)
        if reply != request.pdu or not self._doubts.echoes:
            self._doubts.settled(unit)
            self._barriers.answered(unit, request, granted=reply[0] == request.function)
        return reply

    async def _wait(self, end: float, patience: float, request: Request[Any]) -> bytes:
        """The PDU of the reply. Raises TimeoutError, TransientError `unreachable`."""
        loop = asyncio.get_running_loop()
        answer = cast("asyncio.Future[bytes]", self._answer)
        needed = self._framing.length(request.reply_size or 2) * self._medium.character
        stall = min(_STALL, patience)
        first = end + patience + needed
        last = first + needed + 2 * stall

        def expire(*, excused: bool = False) -> None:
            self._medium.catch_up()  # what came in time is not late because we are
            # Bytes that keep coming may be the answer, unless they are more than enough.
            until, moment = min(max(first, self._last_rx + stall), last), time.monotonic()
            more = 0.0 if excused else held_up(until, moment)
            if moment < until:
                timers[0] = loop.call_at(until, expire)
            elif more:
                timers[0] = loop.call_later(min(more, patience), partial(expire, excused=True))
            elif not answer.done():
                answer.set_exception(TimeoutError())

        timers = [loop.call_at(first, expire)]
        try:
            return await answer
        finally:
            timers[0].cancel()

    def _received(self, data: bytes, moment: int) -> None:
        self._last_rx = moment / 1e6
        self._silences = 0
        if len(self._heard) < _UNASKED:
            self._heard += data
        parser, answer = self._parser, self._answer
        if parser is None or answer is None or answer.done():
            return
        reply = parser.feed(data)
        while reply is not None:
            try:
                self._request.parse(reply)
            except InvalidReplyError:
                # Right in form, but not what this request can be answered with, such as the echo of another write.
                reply = parser.feed(b"")
                continue
            except (RefusedError, DeviceFailureError):
                pass
            if self._doubts.claim(self._sent[0], reply) is None and not self._may_be_echo(reply):
                answer.set_result(reply)
                return
            # It may be the answer to what was asked before, so it is.
            reply = parser.feed(b"")

    def _may_be_echo(self, reply: bytes) -> bool:
        """Whether this may be the echo of the request, since something else came where that was expected."""
        return reply == self._request.pdu and self._medium.echo and self._medium.echo_errors != self._echo_errors

    def _lost(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            # A serial server that closes a connection is there: it may do so after each failure, or when it is idle.
            reason = Reason.PROTOCOL if self._remote else Reason.UNREACHABLE
            self._answer.set_exception(TransientError(why, reason=reason))

    def _give_up(self, unit: int, request: Request[Any], end: float, patience: float) -> None:
        self._doubts.add(unit, request, end)
        if self._medium.is_open:
            self._paces[unit].missed()
            self._not_before = max(time.monotonic(), end) + patience / 2
            self._silences += 1
            if self._remote and self._silences >= _SILENCES:
                self._silences = 0
                self._medium.close()  # the next one opens another

    def _why(self, unit: int, frame: bytes, patience: float) -> TransientError:
        heard = self._without_echo(bytes(self._heard), frame)
        if not heard:
            self._echo_known = True  # an echo would have come
            return TransientError(f"no answer within {patience:.3g} s", reason=Reason.TIMEOUT)
        frames = list(self._framing.frames(heard))
        others = [each.unit for each in frames if each.unit != unit]
        if others:
            return InvalidReplyError(f"unit {others[0]} answered when unit {unit} was asked")
        looks = "" if frames else self._looks()
        return InvalidReplyError(f"{len(heard)} bytes came that are no reply to the request: {hexdump(heard)}{looks}")

    # -- what else is on the line --------------------------------------------------------------------------------------

    def _check_prefix(self, unit: int, frame: bytes, prefix: bytes, end: float) -> None:
        """What came before the reply. Raises InvalidReplyError if the reply may be to somebody else's request."""
        prefix = self._without_echo(prefix, frame)
        if not prefix:
            return
        conflict = self._sort(prefix, asked=unit)
        if "master" in self._told or len(prefix) >= _A_REQUEST:
            # A request of another master may have been garbled for us and not for the unit.
            conflict = conflict or not any(self._framing.frames(prefix))
        if conflict:
            self._doubts.add(unit, self._request, end)
            raise InvalidReplyError(f"another master seems to have asked unit {unit}, so the answer may be to it")

    def _judge(self) -> None:
        """Look at what came unasked."""
        heard = bytes(self._heard)
        self._heard.clear()
        if not self._echo_known:
            heard = self._without_echo(heard, self._framing.frame(*self._sent))
        if heard:
            self._sort(heard)

    def _sort(self, data: bytes, asked: int | None = None) -> bool:
        """Name the frames in what is no reply. Returns whether one of them asks the unit `asked`."""
        self.foreign += 1
        conflict = False
        for heard in self._framing.frames(data):
            if self._doubts.may_be_echo(heard.unit, heard.pdu):
                continue
            owed = self._doubts.claim(heard.unit, heard.pdu)
            if owed is not None:
                self._not_before = min(self._not_before, self._last_rx)
                if not owed.foreign:
                    self._came_late(heard.unit, self._last_rx - owed.sent)
            elif heard.asks and heard[:2] != self._sent:  # there may be an echo that we do not know of
                conflict = conflict or heard.unit == asked
                # Do not talk over the answer, and do not take it for ours.
                self._doubts.overheard(heard.unit, heard.pdu, self._last_rx)
                self._not_before = max(self._not_before, self._last_rx + _POLITE)
                self._other_master(heard)
            elif heard.unit not in self._paces:
                self._other_master(heard)
            else:
                self._doubts.unasked(heard.unit, heard.pdu, self._last_rx)
        return conflict

    def _other_master(self, heard: Heard) -> None:
        self._tell(
            "master",
            f"another master is on this line: it asks unit {heard.unit}, function {heard.pdu[0] & 0x7F}; "
            f"two masters garble each other's frames",
        )

    def _came_late(self, unit: int, took: float) -> None:
        self.late += 1
        pace = self._pace(unit)
        pace.came_late(took)
        self._tell(
            f"late {unit}", f"unit {unit} answered {took:.3g} s after it was asked, too late: raise its `timeout`"
        )

    def _without_echo(self, heard: bytes, frame: bytes) -> bytes:
        """What is left when the adapter turns out to repeat what it sends."""
        if self._medium.echo or not heard.startswith(frame):
            return heard
        self._medium.echo = self._echo_known = True
        says_so = "" if self._remote else " (`echo: true` says so)"  # RTU over TCP has no such setting
        self._tell("echo", f"the adapter hears what it sends; that is taken out from now on{says_so}")
        return heard[len(frame) :]

    def _tell(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.news.append(text)

    def _looks(self) -> str:
        """A hint for a line on which nothing was ever understood."""
        if any(pace.known for pace in self._paces.values()):
            return ""
        errors = self._medium.errors()
        counted = f" ({errors.framing} framing errors)" if errors is not None and errors.framing else ""
        where = " of the serial server" if self._remote else ""
        return f"; are baudrate, parity and stop bits{where} right{counted}?"


def serial_links(config: ModbusRtuBus | ModbusAsciiBus, devices: Mapping[str, ModbusDevice]) -> list[SerialMaster]:
    """The one link of a serial line."""
    framing = ASCII if isinstance(config, ModbusAsciiBus) else RTU
    return [SerialMaster(Medium(config), framing, config.gap, limits_of(devices))]


def _answered_by_echo(request: Request[Any]) -> bool:
    """Whether the request itself looks like an answer to it: single writes do, and reads of some bits."""
    try:
        request.parse(request.pdu)
    except InvalidReplyError:
        return False
    return True
