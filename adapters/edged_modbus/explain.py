"""How the value of a point is made of registers, step by step, for `edged explain`.

Pure. The value itself comes from the decoder that polls use.
"""

from __future__ import annotations

from collections.abc import Sequence

from edged.adapter import RawRead, Step

from .codec import compile_decoder
from .planner import Block
from .point import ModbusPoint

_IN_FULL = {"ABCD": "ABCDEFGH", "CDAB": "GHEFCDAB", "BADC": "BADCFEHG", "DCBA": "HGFEDCBA"}
_QUAD = 64


def explain(point: ModbusPoint, raw: Sequence[RawRead]) -> list[Step]:
    """The steps from the registers that were read to the value before scaling."""
    words = _words(point, raw)
    if words is None:
        refused = next((f"{each.what}: {each.error}" for each in raw if each.error), "no read covers it")
        return [Step("registers", f"{point.span} was not read: {refused}")]
    if point.table.is_bits:
        return [Step("bits", str(point.span), "on" if words[0] else "off")]
    steps = [Step("registers", str(point.span), " ".join(f"{word:04X}" for word in words))]
    steps.append(Step("type", f"{point.data_type}, {len(words)} register{'s' if len(words) > 1 else ''}"))
    order = point.order or ("AB" if len(words) == 1 else "ABCD")
    if point.data_type != "string":
        steps.append(Step("order", order, _in_order(words, order)))
    if point.invalid:
        steps.append(Step("invalid", "no value if it is " + ", ".join(f"0x{number:X}" for number in point.invalid)))
    if point.bit is not None:
        steps.append(Step("bit", f"bit {point.bit} of it"))
    elif point.bits is not None:
        steps.append(Step("bits", f"bits {point.bits[0]} to {point.bits[1]} of it"))
    for name, known in (("enum", point.enum), ("flags", point.flags)):
        if known:
            steps.append(Step(name, ", ".join(f"{number} is {text}" for number, text in sorted(known.items()))))
    return [*steps, Step("decoded", *_decoded(point, words))]


def _words(point: ModbusPoint, raw: Sequence[RawRead]) -> tuple[int, ...] | None:
    for each in raw:
        at = point.start - each.address
        if each.what.startswith(f"{point.table} ") and each.words and 0 <= at <= len(each.words) - point.count:
            return tuple(each.words[at : at + point.count])
    return None


def _in_order(words: Sequence[int], order: str) -> str:
    """The bytes, the most significant first."""
    data = b"".join(word.to_bytes(2, "big") for word in words)
    if 8 * len(data) == _QUAD:
        order = _IN_FULL.get(order, order)
    if len(order) != len(data):
        return data.hex(" ").upper()
    ranked = sorted(zip(order, data, strict=True))
    return " ".join(f"{byte:02X}" for _, byte in ranked)


def _decoded(point: ModbusPoint, words: Sequence[int]) -> tuple[str, str]:
    decoder = compile_decoder(Block(point.table, point.start, point.count, ("p",)), {"p": point})
    values, quality = decoder.decode_registers(words)
    if quality:
        return "cannot be decoded", str(quality[0])
    number = isinstance(values[0], int | float) and not isinstance(values[0], bool)
    return "as a number" if number else "", str(values[0])
