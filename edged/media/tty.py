"""A serial port of this machine: opened and configured by pyserial, read and written by the event loop."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import grp
import os
import pwd
import select
import stat
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edged.errors import TransientError
from edged.model import Reason

from .ports import SYSFS, NoPortError, find_port
from .ring import LineErrors
from .settings import LineSettings

if TYPE_CHECKING:
    import serial

_READ = 4096
_PTY_MAJORS = range(136, 144)
_TIOCGICOUNT = 0x545D
ASYNC_LOW_LATENCY = 1 << 13
"""The flag that drivers know (linux/tty_flags.h)."""
_FLAGS_AT = 16
"""Where `flags` lies in the kernel's serial_struct (linux/serial.h: after type, line, port and irq)."""
_LSR_EMPTY = 1


def open_tty(settings: LineSettings) -> tuple[serial.Serial, str, str]:
    """The open port, its device file, and a warning or "". Blocks: USB adapters are asked things.

    Raises TransientError `unreachable` with what to try.
    """
    import serial  # noqa: PLC0415  # only who has a serial port pays for it

    try:
        path, warning = find_port(settings.port)
    except NoPortError as exc:
        raise TransientError(str(exc), reason=Reason.UNREACHABLE) from exc
    port = serial.Serial()
    _configure(port, settings, path)
    try:
        port.open()
        _prepare(port, settings, path)
    except (OSError, ValueError, termios.error) as exc:  # SerialException is an OSError
        port.close()
        raise TransientError(_explain(exc, path, settings), reason=Reason.UNREACHABLE) from exc
    except BaseException:
        port.close()
        raise
    return port, path, warning


def _configure(port: serial.Serial, settings: LineSettings, path: str) -> None:
    port.port = path
    port.exclusive = True
    port.timeout = 0
    port.xonxoff = settings.xonxoff
    _shape(port, settings, path)
    if not _is_pty(path):
        port.rtscts = settings.rtscts
    if settings.rs485 == "rts":
        port.rts = settings.rs485_inverted
    elif settings.rts is not None:
        port.rts = settings.rts
    if settings.dtr is not None:
        port.dtr = settings.dtr


def _shape(port: serial.Serial, settings: LineSettings, path: str) -> None:
    """How bits become characters."""
    port.baudrate = settings.baudrate
    if not _is_pty(path):
        # A pseudo terminal has no bits, and the kernel refuses a parity on it from the second time on.
        port.bytesize = settings.bytesize
        port.parity = settings.parity[0].upper()
        port.stopbits = settings.stopbits


def _prepare(port: serial.Serial, settings: LineSettings, path: str) -> None:
    if settings.rs485 == "kernel":
        from serial.rs485 import RS485Settings  # noqa: PLC0415  # hardly anybody needs it

        port.rs485_mode = RS485Settings(
            rts_level_for_tx=not settings.rs485_inverted,
            rts_level_for_rx=settings.rs485_inverted,
            delay_before_tx=settings.rs485_before,
            delay_before_rx=settings.rs485_after,
        )
    if settings.parity != "none":
        check_parity(port.fileno())
    if _is_pty(path):
        return
    # The lock only keeps out who asks for it; this keeps out everybody but root.
    fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    if settings.low_latency:
        ask_for_low_latency(port.fileno(), path)


def check_parity(fd: int) -> None:
    """Have the driver look at the parity that arrives; pyserial leaves that off.

    A character with a wrong parity is then read as NUL instead of as if it were right (termios(3), INPCK): no text and
    no checksum passes with that, and some protocols have nothing but the parity to protect them.
    """
    attributes = termios.tcgetattr(fd)
    attributes[0] |= termios.INPCK
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def ask_for_low_latency(fd: int, path: str, sysfs: Path = SYSFS, ioctl: Callable[..., object] = fcntl.ioctl) -> None:
    """Whatever the driver offers; that it offers nothing is no failure."""
    serial_struct = bytearray(128)
    with contextlib.suppress(OSError):
        ioctl(fd, termios.TIOCGSERIAL, serial_struct)
        (flags,) = struct.unpack_from("i", serial_struct, _FLAGS_AT)
        struct.pack_into("i", serial_struct, _FLAGS_AT, flags | ASYNC_LOW_LATENCY)
        ioctl(fd, termios.TIOCSSERIAL, serial_struct)
    timer = sysfs / "class" / "tty" / Path(os.path.realpath(path)).name / "device" / "latency_timer"
    if timer.exists():  # FTDI's own; a udev rule may have made it writable
        with contextlib.suppress(OSError):
            timer.write_text("1", encoding="ascii")


class TtyPort:
    """An open port in the event loop. `on_data` gets what arrives, `on_lost` is called once when the port is gone."""

    def __init__(
        self, port: serial.Serial, path: str, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self.where = path
        self._port = port
        self._fd: int = port.fileno()
        self._on_data = on_data
        self._on_lost = on_lost
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)
        self._errors_before = self._counted()

    def write(self, data: bytes) -> None:
        """Hand bytes to the kernel. A port that is gone is told by `on_lost`."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._loop.call_soon(self._lost, exc)
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def sent(self) -> bool:
        """Whether, as far as the kernel knows, the last bit has left."""
        if self._unsent:
            return False
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self._fd, termios.TIOCOUTQ, waiting)
            if waiting[0]:
                return False
            fcntl.ioctl(self._fd, termios.TIOCSERGETLSR, waiting)
        except OSError:
            return True  # not every driver tells
        return bool(waiting[0] & _LSR_EMPTY)

    def set_rts(self, *, level: bool) -> None:
        """Set the RTS wire."""
        with contextlib.suppress(OSError):  # a pseudo terminal has none; a port that is gone is told elsewhere
            self._port.rts = level

    def errors(self) -> LineErrors | None:
        """What the UART counted since it was opened, where the driver counts."""
        now, before = self._counted(), self._errors_before
        if now is None or before is None:
            return None
        return LineErrors(*(after - first for after, first in zip(now, before, strict=True)))

    def _counted(self) -> tuple[int, int, int, int] | None:
        """Framing and parity errors, overruns and breaks since the driver was loaded (linux/serial.h)."""
        counters = array.array("i", [0] * 20)
        try:
            fcntl.ioctl(self._fd, _TIOCGICOUNT, counters)
        except OSError:
            return None
        return counters[6], counters[8], counters[7], counters[9]

    def reconfigure(self, settings: LineSettings) -> None:
        """Change speed, bits, parity and stop bits. Raises TransientError `unreachable`."""
        try:
            _shape(self._port, settings, self.where)
            if settings.parity != "none":
                check_parity(self._fd)
        except (OSError, ValueError, termios.error) as exc:
            raise TransientError(_explain(exc, self.where, settings), reason=Reason.UNREACHABLE) from exc

    def discard_output(self) -> None:
        """Throw away what was not sent yet."""
        self._unsent.clear()
        with contextlib.suppress(termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)

    def close(self) -> None:
        """Give the port back at once, whatever is still to be sent."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        close_tty(self._port)
        self._fd = -1

    def catch_up(self) -> bool:
        """Read what is there; whether there was anything."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._lost(exc)
            return False
        if data:
            self._on_data(data)
        elif self._hung_up():
            self._lost(None)
        return bool(data)

    def _readable(self) -> None:
        self.catch_up()

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))

    def _writable(self) -> None:
        try:
            del self._unsent[: os.write(self._fd, self._unsent)]
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(exc)
            return
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _lost(self, exc: OSError | None) -> None:
        if self._fd < 0:
            return
        self.close()
        if exc is None or exc.errno in {errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF}:
            self._on_lost(f"{self.where} is gone: was the adapter unplugged?")
        else:
            self._on_lost(f"{self.where} failed ({exc.strerror})")


def close_tty(port: serial.Serial) -> None:
    """Close without waiting for what was not sent, which the kernel would do for half a minute."""
    if not port.is_open:
        return
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
        fcntl.ioctl(port.fileno(), termios.TIOCNXCL)
    with contextlib.suppress(OSError):
        port.close()


# -- what to say ------------------------------------------------------------------------------------------------------


def _explain(exc: OSError | ValueError | termios.error, path: str, settings: LineSettings) -> str:
    number = exc.errno if isinstance(exc, OSError) else None
    if number in {errno.EACCES, errno.EPERM}:
        return _no_permission(path)
    if number in {errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK}:
        return f"{path} is in use{_by_whom(path)}: stop that program, or give this bus another port"
    if settings.rs485 == "kernel" and "RS485" in str(exc):
        return (
            f"the driver of {path} has no RS-485 mode: leave `rs485` away if the adapter switches itself, or try `rts`"
        )
    if number == errno.ENOTTY or not _is_device(path) or "Inappropriate ioctl" in str(exc):
        return f"{path} is not a serial port"
    if number in {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO} or "(5," in str(exc):
        return f"{path} has no working hardware behind it: is it the right port, is the adapter plugged in?"
    return (
        f"{path} does not take {settings.baudrate} baud, {settings.bytesize} data bits, parity {settings.parity}, "
        f"{settings.stopbits} stop bits ({exc})"
    )


def _no_permission(path: str) -> str:
    user = _user()
    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116  # path is text everywhere here
    except (OSError, KeyError):
        group = "dialout"
    if group == "root":
        group = "dialout"
    return (
        f"no permission to open {path}: add the user to the group {group}: sudo usermod -aG {group} {user}, "
        f"then log in again or restart the service"
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _by_whom(path: str) -> str:
    """` by NAME (pid N)`, as far as /proc tells us."""
    try:
        wanted = os.stat(path).st_rdev  # noqa: PTH116  # as above
    except OSError:
        return ""
    mine = str(os.getpid())
    numbers = sorted((each.name for each in Path("/proc").iterdir() if each.name.isdecimal()), key=mine.__eq__)
    for number in numbers:  # ourselves last: whoever else has it is more of a surprise
        process = Path("/proc", number)
        if _has_open(process, wanted):
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f" by {name} (pid {number}{', this program' if number == mine else ''})"
    return " by another program" + ("" if os.geteuid() == 0 else " (sudo fuser -v " + path + " tells which)")


def _has_open(process: Path, device: int) -> bool:
    try:
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found = link.stat()
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == device:
                    return True
    except OSError:  # not ours to look into, or gone
        pass
    return False


def _is_pty(path: str) -> bool:
    try:
        return os.major(os.stat(path).st_rdev) in _PTY_MAJORS  # noqa: PTH116  # as above
    except OSError:
        return False


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)  # noqa: PTH116  # as above
    except OSError:
        return True  # it went away; that is another message
