"""A Modbus frame in words, field by field.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.media.notes import Part

from .pdu import EXCEPTIONS

FUNCTIONS = {
    1: "read coils", 2: "read discrete inputs", 3: "read holding registers", 4: "read input registers",
    5: "write coil", 6: "write register", 7: "read exception status", 8: "diagnostics", 15: "write coils",
    16: "write registers", 17: "report server id", 22: "mask write register", 23: "read and write registers",
    43: "read device identification",
}  # fmt: skip
_SHORT = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding", 15: "coil", 16: "holding"}
_WRITE_COIL, _WRITE_REGISTER = 5, 6
_NAMED = 8
"""So many values of an answer are shown."""


def function_name(code: int) -> str:
    """What a function code without the error bit is called."""
    return FUNCTIONS.get(code, "unknown function")


def spell_request(pdu: bytes) -> str:
    """A request in one line."""
    function = pdu[0]
    if function not in _SHORT or len(pdu) < 5:  # noqa: PLR2004  # function, address, count or value
        return function_name(function)
    verb = "read" if function in {1, 2, 3, 4} else "write"
    start, second = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if function == _WRITE_COIL:
        return f"{verb} coil {start} = {int(second != 0)}"
    if function == _WRITE_REGISTER:
        return f"{verb} holding {start} = {second}"
    last = start + second - 1
    where = f"{start}" if second <= 1 else f"{start}-{last}"
    return f"{verb} {_SHORT[function]} {where}"


def spell_answer(pdu: bytes) -> str:
    """A normal answer in one line."""
    function = pdu[0]
    if function in {3, 4, 23} and len(pdu) >= 2:  # noqa: PLR2004  # function and count
        words = [pdu[i : i + 2].hex().upper() for i in range(2, len(pdu) - 1, 2)]
        more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
        noun = "register" if len(words) == 1 else "registers"
        return f"{len(words)} {noun}: {' '.join(words[:_NAMED])}{more}"
    if function in {1, 2}:
        return f"bits: {pdu[2:].hex(' ')}"
    return f"{spell_request(pdu)}: done" if function in {5, 6, 15, 16, 22} else function_name(function)


def spell_refusal(pdu: bytes) -> str:
    """An exception answer in one line."""
    code = pdu[1] if len(pdu) > 1 else 0
    return f"exception {code} ({EXCEPTIONS.get(code, 'not a code of the specification')})"


def pdu_parts(pdu: bytes, *, asks: bool) -> list[Part]:
    """The fields of a PDU."""
    code = pdu[0]
    name = function_name(code & 0x7F)
    if code & 0x80:
        return [
            Part("function", pdu[:1], f"{code & 0x7F} {name}, refused", wrong=True),
            Part("exception", pdu[1:2], spell_refusal(pdu).removeprefix("exception "), wrong=True),
        ]
    parts = [Part("function", pdu[:1], f"{code} {name}")]
    layout = _REQUEST if asks else _ANSWER
    at = 1
    for field, size, spell in layout.get(code, ()):
        data = pdu[at : at + size]
        if not data:
            break
        parts.append(Part(field, data, spell(data)))
        at += size
    if at < len(pdu):
        parts.append(Part("data", pdu[at:], pdu[at:].hex(" ").upper()))
    return parts


def _number(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _switch(data: bytes) -> str:
    return {b"\xff\x00": "on", b"\x00\x00": "off"}.get(data, f"{data.hex().upper()}, neither on nor off")


_Layout = tuple[tuple[str, int, Callable[[bytes], str]], ...]
_RANGE: _Layout = (("address", 2, _number), ("count", 2, _number))
_REQUEST: dict[int, _Layout] = {
    1: _RANGE, 2: _RANGE, 3: _RANGE, 4: _RANGE,
    5: (("address", 2, _number), ("value", 2, _switch)),
    6: (("address", 2, _number), ("value", 2, _number)),
    15: (*_RANGE, ("bytes", 1, _number)),
    16: (*_RANGE, ("bytes", 1, _number)),
    22: (("address", 2, _number), ("and", 2, bytes.hex), ("or", 2, bytes.hex)),
    23: (("read from", 2, _number), ("count", 2, _number), ("write to", 2, _number), ("count", 2, _number),
         ("bytes", 1, _number)),
    43: (("interface", 1, _number), ("level", 1, _number), ("object", 1, _number)),
}  # fmt: skip
_COUNTED: _Layout = (("bytes", 1, _number),)
_ANSWER: dict[int, _Layout] = {
    **dict.fromkeys((1, 2, 3, 4, 23), _COUNTED),
    5: _REQUEST[5], 6: _REQUEST[6], 15: _RANGE, 16: _RANGE, 22: _REQUEST[22],
    43: (("interface", 1, _number), ("level", 1, _number), ("conformity", 1, _number), ("more follows", 1, _number),
         ("next object", 1, _number), ("objects", 1, _number)),
}  # fmt: skip
