"""What a technician writes about a serial line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.config.base import STRICT
from edged.config.types import Duration

Parity = Literal["none", "even", "odd", "mark", "space"]

_USB = re.compile(r"usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(/\S+)?")
_REMOTE = re.compile(r"(socket|rfc2217)://(\[[0-9a-fA-F:.]+\]|[^\s/:]+):([0-9]+)/?")


@dataclass(frozen=True, kw_only=True)
class LineSettings:
    """One serial line: which port, and how bits become characters on it.

    To be inherited by an adapter's bus configuration: `class MyBus(LineSettings, BusConfig)`.
    """

    __pydantic_config__: ClassVar = STRICT

    port: str
    """The port: `usb:0403:6001/FT4XYZ` (vendor, product and serial number of a USB adapter, best), a path such as
    `/dev/serial/by-path/…` or `/dev/ttyS0`, or a serial server: `socket://host:port`, `rfc2217://host:port`."""
    baudrate: int = 9600
    """Bits per second."""
    bytesize: Literal[5, 6, 7, 8] = 8
    """Data bits of a character."""
    parity: Parity = "none"
    """The check bit of a character."""
    stopbits: float = 1
    """Stop bits of a character: 1, 1.5 or 2."""
    xonxoff: bool = False
    """Flow control by XON and XOFF characters."""
    rtscts: bool = False
    """Flow control by the RTS and CTS wires."""
    rts: bool | None = None
    """Sets the RTS wire for good; some adapters are powered by it."""
    dtr: bool | None = None
    """Sets the DTR wire for good; some adapters, and the reading heads of meters, are powered by it."""
    rs485: Literal["none", "kernel", "rts"] = "none"
    """Who switches an RS-485 transceiver between sending and listening: the adapter itself (`none`, nearly all USB
    adapters do), the kernel's driver (`kernel`, for UARTs on the board), or edged through the RTS wire (`rts`)."""
    rs485_inverted: bool = False
    """With `rs485: kernel` or `rts`: RTS is low while sending."""
    rs485_before: Duration = Duration(0)
    """With `rs485: kernel` or `rts`: pause between switching to sending and the first bit."""
    rs485_after: Duration = Duration(0)
    """With `rs485: kernel` or `rts`: pause between the last bit and switching to listening."""
    echo: bool = False
    """The adapter hears what it sends (two-wire RS-485 with the receiver always on); take that out again."""
    low_latency: bool = True
    """Ask the adapter to hand over what it received at once. FTDI adapters otherwise wait up to 16 ms."""
    connect_timeout: Duration = Duration(3)
    """For serial servers: how long to wait for a connection."""

    def __post_init__(self) -> None:
        # Where it is one of several bases, the others check themselves too.
        following = getattr(super(), "__post_init__", None)
        if following is not None:
            following()
        check_port(self.port)
        if not 50 <= self.baudrate <= 10_000_000:  # noqa: PLR2004  # any real line
            raise ValueError(f"`baudrate: {self.baudrate}` is not the speed of a serial line, such as 9600 or 19200")
        if self.stopbits not in {1, 1.5, 2}:
            raise ValueError(f"`stopbits: {self.stopbits:g}`: a character ends with 1, 1.5 or 2 stop bits")
        if self.rs485 == "rts" and (self.rtscts or self.rts is not None):
            raise ValueError("`rs485: rts` uses the RTS wire, so `rtscts` and `rts` cannot")
        if self.rs485 != "none" and self.remote:
            raise ValueError("RS-485 is the serial server's business: set it there, and leave `rs485` away here")
        if self.rs485 == "none" and (self.rs485_inverted or self.rs485_before or self.rs485_after):
            raise ValueError("`rs485_inverted`, `rs485_before` and `rs485_after` need `rs485: kernel` or `rs485: rts`")
        if max(self.rs485_before, self.rs485_after) > 1:
            raise ValueError("`rs485_before` and `rs485_after` are at most 1s; a few ms is usual")
        if self.connect_timeout <= 0:
            raise ValueError("`connect_timeout` must be longer than 0")

    @property
    def remote(self) -> bool:
        """Whether the port is behind a network."""
        return "://" in self.port

    @property
    def character_bits(self) -> float:
        """Bits of one character on the line, start and stop bits included."""
        return 1 + self.bytesize + (self.parity != "none") + self.stopbits

    @property
    def character(self) -> float:
        """How long one character takes on the line, seconds."""
        return self.character_bits / self.baudrate


def check_port(port: str) -> None:
    """Whether this can name a port. Raises ValueError with what can."""
    if port.startswith("usb:"):
        if not _USB.fullmatch(port):
            raise ValueError(
                f"`port: {port}`: write usb:VENDOR:PRODUCT/SERIAL in hexadecimal, as in usb:0403:6001/FT4XYZ"
            )
    elif "://" in port:
        remote = _REMOTE.fullmatch(port)
        if not remote or not 1 <= int(remote[3]) <= 65535:  # noqa: PLR2004  # what TCP allows
            raise ValueError(f"`port: {port}`: write socket://HOST:PORT or rfc2217://HOST:PORT")
    elif not port.startswith("/"):
        raise ValueError(
            f"`port: {port}` is not a port: write a path such as /dev/ttyUSB0, usb:0403:6001/FT4XYZ, or socket://host:port"
        )


def remote_address(port: str) -> tuple[str, int]:
    """Host and TCP port of `socket://…` or `rfc2217://…`. Raises ValueError."""
    match = _REMOTE.fullmatch(port)
    if not match:
        raise ValueError(f"{port!r} is not the address of a serial server")
    return match[2].strip("[]"), int(match[3])
