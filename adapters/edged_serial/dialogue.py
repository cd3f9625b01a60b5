"""Protocols that take more than a request and its answer: IEC 62056-21 readout (mode C) and wired M-Bus."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import xor

from edged.adapter import ConfigError

from .codecs import mbus
from .codecs.framing import DelimiterFramer, MarkerFramer
from .line import Line, RejectedError

Moment = int
_BAUDRATES = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
_MODE_B = {"A": 600, "B": 1200, "C": 2400, "D": 4800, "E": 9600, "F": 19200}
_LONGEST_READOUT = 16_384
_MOST_TELEGRAMS = 16


async def read_meter(line: Line, address: str, within: float) -> tuple[bytes, Moment]:
    """The data of a meter, IEC 62056-21 modes A, B and C (§6.3): its identification line and its data block.

    The line is at 300 baud, the meter says at which speed it goes on. Raises TransientError.
    """
    try:
        request = f"/?{address}!\r\n".encode("latin-1")
        identification, _ = await line.ask(request, DelimiterFramer(b"\r\n", 64), _identification, within)
        letter = identification[4:5].decode("ascii")
        acknowledge = b""
        if letter in _BAUDRATES:
            acknowledge = b"\x060" + letter.encode() + b"0\r\n"
        speed = _BAUDRATES.get(letter) or _MODE_B.get(letter)

        async def hand_over() -> None:
            if acknowledge:
                await line.medium.send(acknowledge)
            if speed:
                line.reconfigure(baudrate=speed)

        framer = MarkerFramer(b"\x02", b"\x03", _LONGEST_READOUT, _checked, trailer=1)
        block, moment = await line.ask(hand_over, framer, _as_it_is, within, longest=_LONGEST_READOUT)
    finally:
        line.reconfigure()
    return identification + b"\r\n" + block[1:-2], moment


def _identification(frame: bytes, moment: Moment) -> tuple[bytes, Moment]:
    at = frame.rfind(b"/")
    found = frame[at:]
    if at < 0 or len(found) < len(b"/XXXZ") or not found.isascii() or found[1:2] == b"?":  # our own echo
        raise RejectedError("no identification of a meter came")
    return found, moment


def _checked(frame: bytes) -> bool:
    return reduce(xor, frame[1:-1], 0) == frame[-1]


def _as_it_is(frame: bytes, moment: Moment) -> tuple[bytes, Moment]:
    return frame, moment


async def read_mbus(line: Line, address: int | str, within: float) -> tuple[bytes, Moment]:
    """All telegrams of one readout, joined for the decoder, and when the last came. Raises TransientError."""
    primary = mbus.SELECTED if isinstance(address, str) else address
    if isinstance(address, str):
        await _select(line, address, within)
    else:
        await line.ask(mbus.reset_link(primary), mbus.MbusFramer(), _acknowledged, within)
    telegrams: list[bytes] = []
    moment, count = 0, True
    while len(telegrams) < _MOST_TELEGRAMS:
        frame, moment = await line.ask(
            mbus.request_data(primary, count=count), mbus.MbusFramer(), _answer_of(address, primary), within
        )
        telegrams.append(frame)
        if not _more(frame):
            break
        count = not count
    return mbus.join(telegrams), moment


def _more(frame: bytes) -> bool:
    try:
        return mbus.more_follows(frame)
    except ValueError:
        return False  # the decoder will say so


async def _select(line: Line, address: str, within: float) -> None:
    await line.tell(mbus.reset_link(mbus.SELECTED), pause=min(within, 0.1))  # whoever was selected may acknowledge
    await line.ask(mbus.select(address), mbus.MbusFramer(), _acknowledged, within)


def _acknowledged(frame: bytes, _moment: Moment) -> None:
    if frame != mbus.ACK:
        raise RejectedError("something else than an acknowledgement came")


def _answer_of(address: int | str, primary: int) -> Callable[[bytes, Moment], tuple[bytes, Moment]]:
    def accept(frame: bytes, moment: Moment) -> tuple[bytes, Moment]:
        if not mbus.answers(frame, address):
            raise RejectedError(f"the answer of another device than {address} came")
        if isinstance(address, str) and frame[5] not in {primary, *range(251)}:
            raise RejectedError("an answer from an impossible address came")
        return frame, moment

    return accept


def check_address(dialogue: str, name: str, address: int | str | None) -> int | str:
    """The address as the dialogue takes it. Raises ConfigError."""
    if dialogue == "iec62056-21":
        text = str(address or "")
        if not (text.isascii() and text.isprintable()) or set(text) & set("/!"):
            raise ConfigError(f"{name}: `address: {text}`: a meter's address has letters, digits and spaces")
        return text
    if address is None:
        raise ConfigError(f"{name}: an M-Bus device needs `address`: 0 to 250, or its secondary address in quotes")
    try:
        return mbus.parse_address(address)
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}") from None
