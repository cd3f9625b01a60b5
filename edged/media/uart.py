"""What a UART makes of bytes that were sent with other settings than its own, or with both wires swapped.

Pure. The simulated line uses it to spoil answers, the doctor to recognise what spoilt them.
"""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Parity

_DATA_BITS = 8


@dataclass(frozen=True, slots=True)
class Format:
    """How characters look on the wire: eight data bits, a parity bit or none, one stop bit."""

    baudrate: float
    parity: Parity = "none"
    inverted: bool = False
    """Both wires are swapped, so that every bit is the opposite."""


def heard(data: bytes, sent: Format, listening: Format, *, goes_on: bool = False) -> bytes:
    """What arrives of bytes sent without a pause.

    After a wrong stop bit the listener takes it for the next start bit, as a 16550 does; after a break it waits for
    the line to rest. `goes_on`: more bytes follow that are not known; only what they cannot change is returned.
    """
    bits = _on_the_wire(data, sent)
    resting = int(not sent.inverted)
    scale = sent.baudrate / listening.baudrate
    """How many of the sender's bits one of the listener's lasts."""
    known = len(bits) - 1  # the rest after them is not certain
    last = _DATA_BITS + 1 + (listening.parity != "none")
    got = bytearray()
    at, edge = 0.0, True
    while True:
        begin = _falling(bits, at, resting) if edge else at
        if begin is None:
            return bytes(got)
        moments = [begin + (i + 0.5) * scale for i in range(last + 1)]
        if goes_on and moments[-1] >= known:
            return bytes(got)
        levels = [bits[int(moment)] if moment < len(bits) else resting for moment in moments]
        if levels[0]:
            at, edge = begin + scale, True  # only a spike
            continue
        got.append(sum(level << i for i, level in enumerate(levels[1 : 1 + _DATA_BITS])))
        edge = bool(levels[-1]) or not any(levels)
        at = begin + last * scale + (scale / 2 if edge else 0)


def _on_the_wire(data: bytes, sent: Format) -> list[int]:
    """The levels, one for each of the sender's bits, from a bit of rest before to one after."""
    bits = [1]
    for byte in data:
        own = [byte >> i & 1 for i in range(_DATA_BITS)]
        check = {"none": [], "even": [sum(own) & 1], "odd": [~sum(own) & 1], "mark": [1], "space": [0]}[sent.parity]
        bits += [0, *own, *check, 1]
    bits.append(1)
    return [1 - bit for bit in bits] if sent.inverted else bits


def _falling(bits: list[int], at: float, resting: int) -> float | None:
    """Where the line goes from 1 to 0 next, from `at` on."""
    before = bits[int(at)] if at < len(bits) else resting
    for i in range(int(at) + 1, len(bits) + 1):
        level = bits[i] if i < len(bits) else resting
        if before and not level:
            return float(i)
        before = level
    return None
