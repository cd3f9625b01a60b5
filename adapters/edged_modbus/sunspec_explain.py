"""How the value of a SunSpec point is made of registers, step by step, for `edged explain`.

Needs no memory of what was found out: each model is read with its number and length in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edged.adapter import RawRead, Step

from .sunspec import definition
from .sunspec_model import HEADER, Field, decode, family, fields


def explain(point: str, raw: Sequence[RawRead]) -> list[Step]:
    """The steps from the registers that were read to the value."""
    registers = {each.address + i: word for each in raw for i, word in enumerate(each.words)}
    called, _, name = point.partition(".")
    for number, model, start, words in _models(registers, sorted({each.address for each in raw})):
        if model != called:
            continue
        for one in fields(definition(number) or {}, words):
            if one.name == name:
                return _steps(one, number, start, words)
    failed = next((f"{each.what}: {each.error}" for each in raw if each.error), f"no model {called} with it was read")
    return [Step("registers", failed)]


def _models(registers: Mapping[int, int], starts: Sequence[int]) -> Iterator[tuple[int, str, int, list[int]]]:
    """Number, name, first address and registers of each model among what was read, as far as it was."""
    seen: dict[str, int] = {}
    for start in starts:
        number, length = registers.get(start), registers.get(start + 1)
        known = None if number is None or length is None else definition(number)
        if number is None or length is None or known is None:
            continue
        words: list[int] = []
        while len(words) < HEADER + length and start + len(words) in registers:
            words.append(registers[start + len(words)])
        if len(words) <= HEADER:
            continue  # it was only asked what it is
        name = family(number, known)
        seen[name] = seen.get(name, 0) + 1
        yield number, name if seen[name] == 1 else f"{name}_{seen[name]}", start, words


def _steps(one: Field, number: int, start: int, words: Sequence[int]) -> list[Step]:
    first = start + one.offset
    where = f"holding {first}" + (f"-{first + one.size - 1}" if one.size > 1 else "")
    held = " ".join(f"{word:04X}" for word in words[one.offset : one.end])
    steps = [
        Step("model", f"{number}, at holding {start}"),
        Step("registers", f"{one.name} at {where}", held),
        Step("type", f"{one.type}, {one.size} register{'s' if one.size > 1 else ''}"),
    ]
    if one.scale_at is not None and 0 < one.scale_at < len(words):
        exponent = words[one.scale_at] - ((words[one.scale_at] & 0x8000) << 1)
        steps.append(Step("scale", f"its scale factor, holding {start + one.scale_at}", f"× 10^{exponent}"))
    value, why = decode(one, words)
    return [*steps, Step("decoded", f"in {one.unit}" if one.unit else "", why or str(value))]
