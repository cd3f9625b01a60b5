"""One serial line, wherever its port is: the bytes, when they came and went, and what happened to the port.

    medium = Medium(settings, "line-a")
    await medium.open()
    await medium.send(b"...")
    chunk = await medium.read()

It opens what it is told to and says why it cannot; when to try again is its user's affair. One user at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from edged.errors import TransientError
from edged.model import Reason

from .ring import FrameRing, LineErrors
from .settings import LineSettings
from .timer import PreciseTimer
from .tty import TtyPort, close_tty, open_tty

log = logging.getLogger("edged.media")
T = TypeVar("T")

_UNREAD = 65_536
"""Most bytes kept for a reader that does not read; older ones are dropped and counted."""
_ECHO_PATIENCE = 0.25
"""How long after its last bit an echo may take to arrive, seconds."""
_DRAIN_STEP, _DRAIN_PATIENCE = 0.001, 10.0
"""How often to ask whether all was sent once it should have been, and for how long: flow control may hold it."""


class Chunk(NamedTuple):
    """Bytes that arrived together."""

    data: bytes
    time: int
    """When: microseconds on the monotonic clock."""


class Port(Protocol):
    """What is behind a medium: a device file or a connection."""

    where: str

    def write(self, data: bytes) -> None: ...
    def sent(self) -> bool: ...
    def set_rts(self, *, level: bool) -> None: ...
    def errors(self) -> LineErrors | None: ...
    def discard_output(self) -> None: ...
    def reconfigure(self, settings: LineSettings) -> None: ...
    def catch_up(self) -> bool: ...
    def close(self) -> None: ...


Connect = Callable[[Callable[[bytes], None], Callable[[str], None]], Awaitable[Port]]
"""Opens a port, given whom to tell what arrives and when the port is gone. Raises TransientError `unreachable`."""


class Medium:
    """A serial line. `ring` has what went over it lately. `connect` opens what `settings.port` cannot name."""

    def __init__(self, settings: LineSettings, name: str = "", *, connect: Connect | None = None) -> None:
        self.settings = settings
        self._connect = connect
        self.name = name or settings.port
        self.ring = FrameRing()
        self.ring.errors = self.errors
        self.character = settings.character
        """How long one character takes, seconds."""
        self.echo = settings.echo
        """Whether what was sent comes back and is taken out; a user who finds that out may set it."""
        self.echo_errors = 0
        """How often what came back was not what was sent: somebody else was sending."""
        self.dropped = 0
        """Bytes that nobody read in time."""
        self._port: Port | None = None
        self._timer = PreciseTimer()
        self._receiver: Callable[[bytes, int], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._chunks: deque[Chunk] = deque()
        self._unread = 0
        self._arrival: asyncio.Event = asyncio.Event()
        self._gone: asyncio.Event = asyncio.Event()
        self._gone.set()
        self._why_gone = "the port is not open"
        self._sending_until = 0.0
        self._echo_due = b""
        self._echo_held = b""
        self._warned: set[str] = set()
        self._told_open = ""
        """What was last said to be open, until it is lost."""

    # -- the port ----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a port now. It becomes false within milliseconds when an adapter is unplugged."""
        return self._port is not None

    @property
    def where(self) -> str:
        """The device file or connection in use, or what was configured."""
        return self._port.where if self._port is not None else self.settings.port

    async def open(self) -> None:
        """Have a port; nothing to do if there is one. Costs little when it fails, so it may be tried twice a second.

        Raises TransientError `unreachable` with one line that says what to do.
        """
        if self._port is not None:
            return
        self._forget()
        port = await self._open()
        self._port = port
        self._gone.clear()
        if port.where != self._told_open:
            self._told_open = port.where
            log.info("opened %s%s", self.name, "" if port.where == self.name else f" ({port.where})")

    async def _open(self) -> Port:
        if self._connect is not None:
            return await self._connect(self._received, self._vanished)
        if self.settings.port.startswith("socket://"):
            from .remote import open_socket  # noqa: PLC0415  # only who has a serial server pays for it

            return await open_socket(self.settings, self._received, self._vanished)
        if self.settings.port.startswith("rfc2217://"):
            from .remote import Rfc2217Port, open_rfc2217  # noqa: PLC0415  # the same

            remote = await _in_thread(lambda: open_rfc2217(self.settings), lambda port: port.close())
            return Rfc2217Port(remote, self.settings.port, self._received, self._vanished)
        tty, path, warning = await _in_thread(lambda: open_tty(self.settings), lambda opened: close_tty(opened[0]))
        if warning and warning not in self._warned:
            self._warned.add(warning)
            log.warning("%s: %s", self.name, warning)
        return TtyPort(tty, path, self._received, self._vanished)

    async def closed(self) -> str:
        """Wait until the port is gone, unplugged or closed; says why."""
        await self._gone.wait()
        return self._why_gone

    def close(self) -> None:
        """Give the port back. Idempotent; `open` opens it again."""
        port, self._port = self._port, None
        if port is not None:
            port.close()
            self._lost("the port was closed")
        self._timer.close()

    def reconfigure(self, settings: LineSettings) -> None:
        """Change speed, bits, parity and stop bits while the port stays open. The rest must be the same.

        What was sent must have left. Raises TransientError `unreachable` if the port cannot do it.
        """
        if self._port is not None:
            try:
                self._port.reconfigure(settings)
            except TransientError:
                self.close()  # who knows how it is set now
                raise
        self.settings, self.character = settings, settings.character

    def errors(self) -> LineErrors | None:
        """The UART's error counters since it was opened, where the driver keeps them."""
        return self._port.errors() if self._port is not None else None

    # -- sending -----------------------------------------------------------------------------------------------------

    async def send(self, data: bytes, *, wait: bool = True) -> float:
        """Send; returns the moment (`time.monotonic()`) at which the last bit leaves, as far as can be known.

        With `wait` it returns at that moment, else as soon as the bytes are on their way (a port whose RTS edged
        switches makes it wait anyway). Raises TransientError `unreachable`. A cancelled send may have sent a part.
        """
        port = self._opened()
        if self.settings.rs485 == "rts":
            return await self._send_switched(port, data)
        end = self._transmit(port, data)
        if wait:
            await self._drain(port, end)
        return end

    async def until(self, when: float) -> None:
        """Return at `when` (`time.monotonic()`), some ten microseconds late at most. For one task at a time."""
        await self._timer.until(when)

    async def _send_switched(self, port: Port, data: bytes) -> float:
        on = not self.settings.rs485_inverted
        port.set_rts(level=on)
        try:
            await self.until(time.monotonic() + self.settings.rs485_before)
            end = self._transmit(port, data)
            await self._drain(port, end)
            await self.until(time.monotonic() + self.settings.rs485_after)
        except BaseException:
            port.discard_output()
            raise
        finally:
            port.set_rts(level=not on)
        return end

    def _transmit(self, port: Port, data: bytes) -> float:
        now = time.monotonic_ns()
        self.ring.add(now // 1000, "tx", data)
        if self.echo:
            self._echo_due += data
        port.write(data)
        self._sending_until = max(self._sending_until, now / 1e9) + len(data) * self.character
        return self._sending_until

    async def _drain(self, port: Port, end: float) -> None:
        await self.until(end)
        for _ in range(int(_DRAIN_PATIENCE / _DRAIN_STEP)):
            if port is not self._port or port.sent():
                break
            await self.until(time.monotonic() + _DRAIN_STEP)
        else:
            port.discard_output()
            raise TransientError(f"{self.where} does not send: is flow control on, and the device off?")
        self._opened()

    def _opened(self) -> Port:
        if self._port is None:
            raise TransientError(self._why_gone, reason=Reason.UNREACHABLE)
        return self._port

    # -- receiving ---------------------------------------------------------------------------------------------------

    def on_receive(
        self, receiver: Callable[[bytes, int], None] | None, lost: Callable[[str], None] | None = None
    ) -> None:
        """Hand everything that arrives (bytes, microseconds on the monotonic clock) to `receiver` at once.

        Then `read` gets nothing; None gives it back. `lost` is told when the port is gone, and why. Both must be quick
        and not raise.
        """
        self._receiver = receiver
        self._on_lost = lost

    def catch_up(self) -> bool:
        """Hand on what the kernel has received and the event loop not noticed yet; whether there was anything."""
        return self._port is not None and self._port.catch_up()

    async def read(self) -> Chunk:
        """The next bytes, as soon as there are any. Raises TransientError `unreachable` when the port is gone."""
        while not self._chunks:
            self._opened()
            self._arrival.clear()
            await self._arrival.wait()
        chunk = self._chunks.popleft()
        self._unread -= len(chunk.data)
        return chunk

    def pending(self) -> bytes:
        """What has arrived and was not read; from now on it counts as read."""
        data = b"".join(chunk.data for chunk in self._chunks)
        self._chunks.clear()
        self._unread = 0
        return data

    def _received(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        self.ring.add(now, "rx", data)
        if self._echo_due:
            data = self._without_echo(data, now / 1e6)
            if not data:
                return
        if self._receiver is not None:
            self._receiver(data, now)
            return
        self._chunks.append(Chunk(data, now))
        self._unread += len(data)
        while self._unread > _UNREAD:
            oldest = len(self._chunks.popleft().data)
            self._unread -= oldest
            self.dropped += oldest
        self._arrival.set()

    def _without_echo(self, data: bytes, now: float) -> bytes:
        """What is left of `data` without the echo that is due. What only looked like one comes back."""
        heard = self._echo_held + data
        due, self._echo_due, self._echo_held = self._echo_due, b"", b""
        if heard.startswith(due) and now < self._sending_until + _ECHO_PATIENCE:
            return heard[len(due) :]
        if due.startswith(heard) and now < self._sending_until + _ECHO_PATIENCE:
            self._echo_due, self._echo_held = due, heard
            return b""
        self.echo_errors += 1
        return heard

    def _vanished(self, why: str) -> None:
        self._told_open = ""
        self._lost(why)

    def _lost(self, why: str) -> None:
        self._port = None
        self._why_gone = why
        self._gone.set()
        self._arrival.set()
        if self._on_lost is not None:
            self._on_lost(why)

    def _forget(self) -> None:
        self.pending()
        self._echo_due = self._echo_held = b""
        self._sending_until = 0.0


async def _in_thread(work: Callable[[], T], undo: Callable[[T], None]) -> T:
    """The result of `work`, done in a thread. If nobody waits for it any more when it comes, it is undone."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(lambda done: undo(done.result()) if not done.exception() else None)
        raise
