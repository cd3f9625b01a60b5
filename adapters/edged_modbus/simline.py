"""Simulated Modbus devices on a simulated serial line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edged.testing.line import Burst, Line, Respond

from .ascii import ascii_body, ascii_frame
from .frame import crc16, rtu_frame
from .serial_bus import ModbusAsciiBus, ModbusRtuBus

TURNAROUND = 0.005
"""Seconds that a simulated device thinks before it answers."""
_SHORTEST = 4

Answer = Callable[[int, bytes], bytes | None]
"""Unit and request PDU → reply PDU, or None for silence. What is longer than any PDU is sent as it is."""


def responder(answer: Answer, units: Iterable[int], *, ascii: bool, turnaround: float = TURNAROUND) -> Respond:  # noqa: A002  # the mode's name
    """What the units of a line send on hearing something. A broadcast reaches all, and none answers."""
    known = tuple(units)
    frame, body_of = (ascii_frame, _ascii_request) if ascii else (rtu_frame, _rtu_request)

    def respond(heard: bytes) -> Sequence[Burst]:
        body = body_of(heard)
        if body is None:
            return ()
        unit, pdu = body[0], body[1:]
        if unit == 0:
            for each in known:
                answer(each, pdu)
            return ()
        reply = answer(unit, pdu)
        return () if reply is None else (Burst(frame(unit, reply), turnaround, unit),)

    return respond


def _rtu_request(heard: bytes) -> bytes | None:
    return heard[:-2] if len(heard) >= _SHORTEST and not crc16(heard) else None


def _ascii_request(heard: bytes) -> bytes | None:
    start, end = heard.rfind(b":"), heard.rfind(b"\r\n")
    return ascii_body(heard[start + 1 : end]) if 0 <= start < end else None


def simulated_line(config: ModbusRtuBus | ModbusAsciiBus, answer: Answer, units: Iterable[int], seed: int) -> Line:
    """The line of one bus, as fast as the real one."""
    return Line(
        responder(answer, units, ascii=isinstance(config, ModbusAsciiBus)),
        baudrate=config.baudrate,
        character_bits=config.character_bits,
        silence=config.gap,
        link=_link(config.port),
        seed=seed,
    )


def _link(port: str) -> Path | None:
    """Where the configured port is to appear, if that is a place where we may put it: never below /dev."""
    path = Path(port)
    if not path.is_absolute() or path.is_relative_to("/dev") or not os.access(path.parent, os.W_OK):
        return None
    return path if path.is_symlink() or not path.exists() else None
