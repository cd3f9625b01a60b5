"""Finds M-Bus devices on a line: by secondary address, or by asking each primary address."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edged.adapter import Reason, TransientError
from edged.media import LineSettings

from .codecs import mbus
from .dialogue import read_mbus
from .line import Line

_WITHIN = 0.35
"""Seconds for an answer to begin: 330 bits at 2400 baud and 50 ms (EN 13757-2), and some for serial servers."""
_DIGITS = 8


async def scan(settings: LineSettings, found: Callable[[str], None], *, every: bool, within: float = _WITHIN) -> None:
    """Tell `found`, in words, each device as it is found: by secondary address, with `every` at all primary ones.

    Raises TransientError `unreachable` when the port is gone. Takes up to some minutes.
    """
    line = Line(settings, settings.port)
    try:
        if every:
            await scan_primary(line, within, found)
        else:
            await scan_secondary(line, within, found)
    finally:
        await line.close()


async def scan_primary(
    line: Line, within: float, found: Callable[[str], None], addresses: Iterable[int] = range(251)
) -> None:
    """Ask each primary address."""
    for address in addresses:
        try:
            frame, _ = await read_mbus(line, address, within)
        except TransientError as exc:
            if exc.reason == Reason.UNREACHABLE:
                raise
            if exc.reason != Reason.TIMEOUT:
                found(f"address: {address}  (several devices, or noise: {exc})")
            continue
        found(f"address: {address}  secondary {mbus.secondary_of(mbus.split(frame)[0])}")


async def scan_secondary(line: Line, within: float, found: Callable[[str], None], prefix: str = "") -> None:
    """Select by ever more digits of the identification, until only one device answers."""
    several = False
    try:
        frame, _ = await read_mbus(line, prefix.ljust(_DIGITS, "F"), within)
        found(f'address: "{mbus.secondary_of(mbus.split(frame)[0])}"')
    except TransientError as exc:
        if exc.reason == Reason.UNREACHABLE:
            raise
        several = exc.reason != Reason.TIMEOUT
    if several and len(prefix) < _DIGITS:
        for digit in "0123456789":
            await scan_secondary(line, within, found, prefix + digit)
