"""What a technician writes about a serial line with Modbus devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.adapter import STRICT, BusConfig, DeviceConfig, Duration
from edged.media import LineSettings, Parity

from .config import line_doubts
from .planner import Costs

_TURNAROUND = 0.005
"""Seconds from a request to its answer that are reckoned with, the silence between them included."""
_SLOW = 19_200
"""Up to this speed a silence is 3.5 characters, above it 1.75 ms (Modbus over Serial Line V1.02, 2.5.1.1)."""


@dataclass(frozen=True, kw_only=True)
class ModbusRtuBus(LineSettings, BusConfig):
    """Modbus RTU on a serial line."""

    __pydantic_config__: ClassVar = STRICT

    retry_min: Duration = Duration(0.5)
    """First pause before a device or the port is tried again when it does not answer; it doubles each time."""
    retry_max: Duration = Duration(0.8)
    """Longest such pause. A short one costs nothing: `dead_share` bounds what silent devices cost."""
    silence: Duration | None = None
    """Silence before each request, for devices that need more than the standard's 3.5 characters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytesize != 8:  # noqa: PLR2004  # what RTU is
            raise ValueError(
                f"`bytesize: {self.bytesize}`: RTU characters have 8 bits; did you mean adapter modbus-ascii?"
            )
        _check_silence(self.silence)

    def doubts(self, device: DeviceConfig) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from line_doubts(device)

    @property
    def gap(self) -> float:
        """The silence before each request, seconds."""
        return _gap(self, self.silence)


@dataclass(frozen=True, kw_only=True)
class ModbusAsciiBus(LineSettings, BusConfig):
    """Modbus ASCII on a serial line."""

    __pydantic_config__: ClassVar = STRICT

    bytesize: Literal[5, 6, 7, 8] = 7
    """Data bits of a character: 7, or 8 with some devices."""
    parity: Parity = "even"
    """The check bit of a character."""
    retry_min: Duration = Duration(0.5)
    """First pause before a device or the port is tried again when it does not answer; it doubles each time."""
    retry_max: Duration = Duration(0.8)
    """Longest such pause. A short one costs nothing: `dead_share` bounds what silent devices cost."""
    silence: Duration | None = None
    """Silence before each request, for devices that need more than 3.5 characters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytesize < 7:  # noqa: PLR2004  # ASCII
            raise ValueError(f"`bytesize: {self.bytesize}`: ASCII characters have 7 bits, or 8 with some devices")
        _check_silence(self.silence)

    def doubts(self, device: DeviceConfig) -> Iterator[tuple[str, str]]:
        """See the base class."""
        yield from line_doubts(device)

    @property
    def gap(self) -> float:
        """The silence before each request, seconds. ASCII needs none; this one shows that nobody else is talking."""
        return _gap(self, self.silence)


def _gap(line: LineSettings, silence: float | None) -> float:
    standard = 3.5 * line.character if line.baudrate <= _SLOW else 0.00175
    return standard if silence is None else max(silence, standard)


def _check_silence(silence: float | None) -> None:
    if silence is not None and not 0 <= silence <= 1:
        raise ValueError("`silence` is at most 1s; a few ms is usual")


def serial_costs(config: ModbusRtuBus | ModbusAsciiBus) -> Costs:
    """What its requests cost."""
    character = config.character
    if isinstance(config, ModbusRtuBus):
        return Costs(13 * character + config.gap + _TURNAROUND, 2 * character, character / 8)
    # Unit, function, LRC and so on as two digits each, and colon, CR and LF.
    return Costs(28 * character + config.gap + _TURNAROUND, 4 * character, character / 4)
