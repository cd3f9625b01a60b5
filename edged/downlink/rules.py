"""What a point may be told to be, and whether it is. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

from edged.adapter import Bus, Payloads
from edged.config.base import DeviceConfig, PointConfig
from edged.downlink.api import Command
from edged.errors import PermanentError
from edged.model import Reason, Sample, Value
from edged.pipeline import DevicePipeline

LONGEST_TEXT = 4096
"""Characters of a value, and bytes of a raw payload."""
LONGEST_ID = 128
_BRIEF = 160
"""Characters of a value, or of what is said of it, where people read it."""


def brief(text: str) -> str:
    """A text as it fits a line: a value may have thousands of characters, and what is said of it repeats them."""
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF * 2 // 3]}…{text[-_BRIEF // 3 :]}"


def check_form(command: Command) -> None:
    """Whether it is a command at all. Raises PermanentError."""
    if not 1 <= len(command.id) <= LONGEST_ID:
        raise PermanentError(f"an `id` has 1 to {LONGEST_ID} characters", reason="id")
    for name, text, reason in (("id", command.id, "id"), ("requester", command.requester, "malformed")):
        if not text.isprintable():  # it stands in the log and on screens
            raise PermanentError(f"`{name}` has characters that cannot be printed", reason=reason)
    if (command.value is None) == (command.raw is None):
        raise PermanentError("it needs either a `value` or a `raw` payload", reason="value")
    size = len(command.value) if isinstance(command.value, str) else len(command.raw or b"")
    if size > LONGEST_TEXT:
        raise PermanentError(f"it is longer than {LONGEST_TEXT} characters", reason="value")
    if any(text and len(text) > LONGEST_TEXT for text in (command.requester, command.reply.topic)):
        raise PermanentError("`requester` or reply topic is too long", reason="value")


def settings_of(device: DeviceConfig | None, command: Command) -> PointConfig:
    """The point that it is for. Raises PermanentError `unknown` or `not-writable`."""
    if device is None or not device.enabled:
        raise PermanentError(f"there is no enabled device {command.device!r}", reason="unknown")
    settings = next((one for name, one in device.points.items() if name == command.point), None)
    if settings is None:
        raise PermanentError(f"{command.device} has no point {command.point!r}", reason="unknown")
    if not settings.writable:
        raise PermanentError(
            f"{command.address} is not writable: set `writable: true` if it may be written", reason="not-writable"
        )
    return settings


def payloads_of(bus: object) -> Payloads | None:
    """The bus, if it knows what values are on the wire."""
    return bus if isinstance(bus, Payloads) else None


def wanted(settings: PointConfig, bus: Bus | None, command: Command) -> Value:
    """What the point is to read as when the command has been carried out.

    Raises PermanentError if the point cannot be told that.
    """
    payloads = payloads_of(bus)
    if command.raw is not None:
        return _of_raw(settings, payloads, command)
    value = command.value
    if isinstance(value, float) and not math.isfinite(value):
        raise PermanentError(f"{value} is not a finite number", reason="value")
    _check_range(settings, command, value)
    _check_decimals(settings, command, value)
    if payloads is None:
        return value
    data = payloads.encode(command.device, command.point, value)
    return _shown(settings, command, payloads.decode(command.device, command.point, data))


def _of_raw(settings: PointConfig, payloads: Payloads | None, command: Command) -> Value:
    if payloads is None or command.raw is None:
        raise PermanentError(f"the adapter of {command.device} takes no raw payloads; give a value", reason="raw")
    value = _shown(settings, command, payloads.decode(command.device, command.point, command.raw))
    if value is None:
        raise PermanentError(f"{command.raw.hex(' ')} is no value of {command.address}", reason="raw")
    _check_range(settings, command, value)
    return value


def _shown(settings: PointConfig, command: Command, value: Value) -> Value:
    """A value as the device has it, as the point shows it, whatever its range."""
    sample = Sample(command.device, 0, 0, (command.point,), (value,))
    return DevicePipeline({command.point: replace(settings, range=None)}).compute(sample).values[0]


def _check_range(settings: PointConfig, command: Command, value: Value) -> None:
    if settings.range is None or not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, high = settings.range
    if not low <= value <= high:
        raise PermanentError(
            f"{value:g} is outside the range of {command.address}, {low:g} to {high:g}", reason=Reason.RANGE
        )


def _check_decimals(settings: PointConfig, command: Command, value: Value) -> None:
    if settings.decimals is None or not isinstance(value, float):
        return
    given = Decimal(repr(value)).normalize().as_tuple().exponent
    if isinstance(given, int) and -given > settings.decimals:
        raise PermanentError(
            f"{value} is finer than {command.address} shows, with decimals: {settings.decimals}", reason="decimals"
        )


def same(settings: PointConfig, expected: Value, read: Value) -> bool:
    """Whether a point that was told to be `expected` is so, if it reads as `read`.

    Numbers may differ by what scaling and a 32-bit float do to them, or by half of the last decimal that is shown.
    """
    if isinstance(expected, str) or isinstance(read, str) or expected is None or read is None:
        return expected == read
    step = 0.0 if settings.decimals is None else 0.5 * 10.0**-settings.decimals
    if settings.scale != 1.0 and abs(settings.scale) < 1.0:
        step = max(step, abs(settings.scale) / 2)
    return math.isclose(expected, read, rel_tol=1e-6, abs_tol=step * (1 + 1e-9))
