"""What a technician writes about one Modbus point, and what is wrong with it.

A plain frozen dataclass that checks itself, so that a contradiction is found when the configuration is read and never
on the wire.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from edged.adapter import STRICT, PointConfig

from .planner import ADDRESSES, MAX_REGISTERS, Span, Table

DataType = Literal[
    "bit", "int8l", "int8h", "uint8l", "uint8h", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "bcd16", "bcd32", "bcd64", "string",
]  # fmt: skip
Order = Literal[
    "AB", "BA", "ABCD", "CDAB", "BADC", "DCBA",
    "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA", "CDABGHEF", "EFGHABCD", "DCBAHGFE", "FEHGBADC",
]  # fmt: skip
Encoding = Literal["ascii", "latin-1", "utf-8", "utf-16"]
Trim = Literal["both", "right", "nul", "none"]

WIDTHS: Mapping[str, int] = {
    "bit": 1, "int8l": 8, "int8h": 8, "uint8l": 8, "uint8h": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32,
    "int64": 64, "uint64": 64, "float16": 16, "float32": 32, "float64": 64, "bcd16": 16, "bcd32": 32, "bcd64": 64,
}  # fmt: skip
"""How many bits the value of a type has; a string has as many as `length` says."""
INTEGERS = frozenset({"int16", "uint16", "int32", "uint32", "int64", "uint64"})
_SHORT = frozenset({"int8l", "int8h", "uint8l", "uint8h"})
_LEADING = {"0": Table.COIL, "1": Table.DISCRETE, "3": Table.INPUT, "4": Table.HOLDING}
_IN_FULL = {"ABCD": "ABCDEFGH", "CDAB": "GHEFCDAB", "BADC": "BADCFEHG", "DCBA": "HGFEDCBA"}


def modicon(address: int | str) -> tuple[Table, int]:
    """Table and zero-based address of Modicon notation: 40101 and "400101" are (holding, 100).

    The first of five or six digits tells the table, the rest counts from 1. Raises ValueError for anything else:
    what is meant is never guessed.
    """
    text = str(address).strip()
    help_ = "; or write the zero-based address with its table, such as `holding: 100`"
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f"{address!r} is not an address in Modicon notation, such as 40101{help_}")
    if len(text) not in {5, 6}:
        raise ValueError(
            f"`address: {text}` does not say which table: Modicon notation has five or six digits, such as 40101 "
            f'(holding register 1 is 40001, coil 1 is "00001" in quotes){help_}'
        )
    table, number = _LEADING.get(text[0]), int(text[1:])
    if table is None:
        raise ValueError(
            f"`address: {text}`: no table begins with {text[0]}. It is 4 for holding registers, 3 for input registers, "
            f"1 for discrete inputs, 0 for coils, with six digits beyond the 9999th, such as 410000{help_}"
        )
    if not 1 <= number <= ADDRESSES:
        top = text[0] + ("9999" if len(text) == 5 else str(ADDRESSES))  # noqa: PLR2004  # the short notation
        raise ValueError(f"`address: {text}`: this table goes from {text[0]}{'1':0>{len(text) - 1}} to {top}{help_}")
    return table, number - 1


@dataclass(frozen=True, kw_only=True)
class ModbusPoint(PointConfig):
    """One value of a Modbus device: where it lies and how its bits are read.

    Exactly one of `holding`, `input`, `coil`, `discrete` and `address` says where it lies.
    """

    __pydantic_config__: ClassVar = STRICT

    holding: int | None = None
    """The holding register, counted from 0 as in the protocol."""
    input: int | None = None
    """The input register, counted from 0."""
    coil: int | None = None
    """The coil, counted from 0."""
    discrete: int | None = None
    """The discrete input, counted from 0."""
    address: int | str | None = None
    """The same in Modicon notation, as manuals print it: 40101 is `holding: 100`. Put quotes around coils: "00001"."""
    type: DataType | None = None
    """What the bits mean; `uint16` for registers and `bit` for coils unless given. `int8l` and `uint8h` are the low
    and the high byte of a register."""
    order: Order | None = None
    """How the device orders the bytes, A being the most significant: AB or BA for 16 bits and strings; ABCD, CDAB,
    BADC, DCBA for 32 bits. For 64 bits the same four mean the whole value (CDAB: last word first; BADC: bytes swapped
    in each word; DCBA: both), or write all eight letters."""
    length: int | None = None
    """How many registers a string has."""
    encoding: Encoding = "ascii"
    """How a string is encoded."""
    trim: Trim = "both"
    """A string ends at its first NUL (`nul`), loses the spaces at its end too (`right`) or at both ends (`both`), or
    is left as it is (`none`)."""
    bit: int | None = None
    """One bit of a register as true or false; 0 is the least significant."""
    bits: tuple[int, int] | None = None
    """Some bits of the value as a number: the lowest and the highest, e.g. `[4, 7]`; 0 is the least significant."""
    enum: dict[int, str] = field(default_factory=dict)
    """Words for numbers, e.g. `{0: off, 1: on}`. Any other number is `bad(decode)`."""
    flags: dict[int, str] = field(default_factory=dict)
    """Words for bits, e.g. `{0: overheat, 3: door}`. The value lists those that are set, as in `overheat,door`."""
    invalid: tuple[int, ...] = ()
    """Raw numbers by which the device says that it has no value, e.g. `[0x7FFF]`. They become `bad(decode)`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # a configuration that went through JSON has text for keys and lists for tuples
        object.__setattr__(self, "enum", {int(key): text for key, text in self.enum.items()})
        object.__setattr__(self, "flags", {int(key): text for key, text in self.flags.items()})
        object.__setattr__(self, "bits", None if self.bits is None else tuple(self.bits))
        object.__setattr__(self, "invalid", tuple(self.invalid))
        _check_place(self)
        _check_type(self)
        _check_order(self)
        _check_parts(self)
        _check_words(self)
        _check_invalid(self)
        _check_numeric(self)
        _check_end(self)
        _check_writable(self)

    @property
    def table(self) -> Table:
        """Where it lies."""
        return self._place[0]

    @property
    def start(self) -> int:
        """Its first address, counted from 0."""
        return self._place[1]

    @property
    def count(self) -> int:
        """How many registers, or bits of a bit table, it takes."""
        if self.table.is_bits:
            return 1
        return self.length or 0 if self.data_type == "string" else max(1, self.width // 16)

    @property
    def span(self) -> Span:
        """The addresses it takes."""
        return Span(self.table, self.start, self.count)

    @property
    def data_type(self) -> DataType:
        """`type`, or what it is without. A point with `bit` has the type of the value the bit is taken from."""
        if self.table.is_bits:
            return "bit"
        return "uint16" if self.type in {None, "bit"} else self.type

    @property
    def width(self) -> int:
        """How many bits its type has."""
        return 16 * (self.length or 0) if self.data_type == "string" else WIDTHS[self.data_type]

    @property
    def byte_order(self) -> str:
        """Its order with a letter for each byte of the type; the bytes of a string go in pairs."""
        order = self.order or "ABCDEFGH"[: min(self.width // 8, 8)]
        if self.data_type == "string":
            return self.order or "AB"
        return _IN_FULL[order] if self.width == 64 and len(order) == 4 else order  # noqa: PLR2004  # bits, letters

    @property
    def partial(self) -> bool:
        """Whether it is only a part of its registers, so that writing it must leave the other bits alone."""
        return bool(self.bit is not None or self.bits or self.flags or self.data_type in _SHORT)

    @cached_property
    def _place(self) -> tuple[Table, int]:
        if self.address is not None:
            return modicon(self.address)
        for table, start in _places(self):
            return table, start
        raise ValueError("a point needs a register: one of `holding`, `input`, `coil`, `discrete` or `address`")


def _places(point: ModbusPoint) -> list[tuple[Table, int]]:
    return [(table, at) for table in Table if (at := getattr(point, table)) is not None]


def _check_place(point: ModbusPoint) -> None:
    given = [table.value for table, _ in _places(point)] + (["address"] if point.address is not None else [])
    if not given:
        raise ValueError("say where the point lies: one of `holding`, `input`, `coil`, `discrete` or `address`")
    if len(given) > 1:
        raise ValueError(f"a point lies in one place: give only one of {_listed(given)}")
    if not 0 <= point.start < ADDRESSES:
        raise ValueError(f"`{given[0]}: {point.start}`: addresses go from 0 to {ADDRESSES - 1}")


def _check_type(point: ModbusPoint) -> None:
    if point.table.is_bits:
        if point.type not in {None, "bit"}:
            raise ValueError(f"a {point.table.item} is a single bit: it cannot be `type: {point.type}`")
        for key in ("bit", "bits", "flags", "length", "order"):
            if getattr(point, key) not in (None, {}):
                raise ValueError(f"a {point.table.item} is a single bit: `{key}` has no meaning here")
    elif point.type == "bit" and point.bit is None:
        raise ValueError("`type: bit` in a register needs `bit`, the number of the bit (0 is the least significant)")
    if point.data_type == "string":
        if point.length is None:
            raise ValueError("a string needs `length`, its number of registers (two characters each)")
        if not 1 <= point.length <= MAX_REGISTERS:
            raise ValueError(f"`length` must lie between 1 and {MAX_REGISTERS} registers")
    else:
        for key, default in (("length", None), ("encoding", "ascii"), ("trim", "both")):
            if getattr(point, key) != default:
                raise ValueError(f"`{key}` is for strings, and the type here is {point.data_type}")


def _check_order(point: ModbusPoint) -> None:
    if point.order is None:
        return
    if point.data_type in _SHORT:
        raise ValueError(f"`order` has no meaning for {point.data_type}: end the type in `l` or `h` to choose the byte")
    allowed = {16: (2,), 32: (4,), 64: (4, 8)}.get(0 if point.data_type == "string" else point.width, (2,))
    if len(point.order) not in allowed:
        fitting = {2: "AB or BA", 4: "ABCD, CDAB, BADC or DCBA"}[allowed[0]]
        raise ValueError(f"`order: {point.order}` does not fit {point.data_type}: use {fitting}")


def _check_parts(point: ModbusPoint) -> None:
    used = [key for key in ("bit", "bits", "flags") if getattr(point, key) not in (None, {})]
    if not used:
        return
    if ("bit" in used and len(used) > 1) or (point.flags and point.enum):
        raise ValueError(f"{_listed([*used, 'enum'] if point.enum else used)} contradict each other: use one")
    if point.data_type not in INTEGERS:
        raise ValueError(
            f"`{used[0]}` needs an integer of 16, 32 or 64 bits such as uint16, and the type here is {point.data_type}"
        )
    if point.bit is not None and not 0 <= point.bit < point.width:
        raise ValueError(f"`bit: {point.bit}`: the bits of {point.data_type} go from 0 to {point.width - 1}")
    if point.bits is not None and not 0 <= point.bits[0] <= point.bits[1] < point.width:
        raise ValueError(
            f"`bits: {list(point.bits)}`: the bits of {point.data_type} go from 0 to {point.width - 1}, "
            f"the lowest comes first"
        )
    if point.flags:
        if point.data_type.startswith("int"):
            raise ValueError(f"`flags` needs an unsigned type: use u{point.data_type}")
        top = field_width(point)
        if wrong := [bit for bit in point.flags if not 0 <= bit < top]:
            raise ValueError(f"`flags` names bit {wrong[0]}, and there are only the bits 0 to {top - 1}")


def field_width(point: ModbusPoint) -> int:
    """How many bits are left after `bit` or `bits`."""
    if point.bit is not None:
        return 1
    return point.bits[1] - point.bits[0] + 1 if point.bits is not None else point.width


def _check_words(point: ModbusPoint) -> None:
    for key, words in (("enum", point.enum), ("flags", point.flags)):
        if any(not text.strip() or text != text.strip() for text in words.values()):
            raise ValueError(f"the words of `{key}` cannot be empty or begin or end with a space")
    if any("," in text for text in point.flags.values()):
        raise ValueError("the words of `flags` cannot contain a comma: the value lists them with commas")
    if len(set(point.flags.values())) != len(point.flags):
        raise ValueError("`flags` has the same word for two bits")
    if not point.enum:
        return
    if point.data_type.startswith(("float", "bcd")) or point.data_type == "string":
        raise ValueError(f"`enum` needs an integer, and the type here is {point.data_type}")
    low, high = integer_range(point)
    if wrong := [number for number in point.enum if not low <= number <= high]:
        raise ValueError(f"`enum` has {wrong[0]}, and the value can only be {low} to {high}")


def integer_range(point: ModbusPoint) -> tuple[int, int]:
    """Lowest and highest number that the integer, or the bits of it, can be before scaling."""
    width = field_width(point)
    if point.data_type.startswith("int") and point.bit is None:
        return -(1 << width - 1), (1 << width - 1) - 1
    return 0, (1 << width) - 1


def signed_invalid(point: ModbusPoint) -> frozenset[int]:
    """`invalid` as the numbers that decoding yields: 0x8000 of an int16 is -32768."""
    if not point.data_type.startswith("int"):
        return frozenset(point.invalid)
    half = 1 << point.width - 1
    return frozenset(raw - 2 * half if raw >= half else raw for raw in point.invalid)


def _check_invalid(point: ModbusPoint) -> None:
    if not point.invalid:
        return
    if point.data_type not in INTEGERS | _SHORT:
        raise ValueError(f"`invalid` needs an integer, and the type here is {point.data_type}")
    low = -(1 << point.width - 1) if point.data_type.startswith("int") else 0
    if wrong := [raw for raw in point.invalid if not low <= raw < 1 << point.width]:
        raise ValueError(f"`invalid` has {wrong[0]}, which is no value of {point.data_type}")
    if (
        point.bit is None
        and point.bits is None
        and (both := set(point.enum) & {*point.invalid, *signed_invalid(point)})
    ):
        raise ValueError(f"{min(both)} is both in `enum` and in `invalid`")


def _check_numeric(point: ModbusPoint) -> None:
    """Text and switches have nothing to scale."""
    what = "text" if point.enum or point.flags or point.data_type == "string" else ""
    if not what and (point.table.is_bits or point.bit is not None):
        what = "true or false"
    if what:
        defaults = {f.name: f.default for f in dataclasses.fields(PointConfig)}
        for key in ("scale", "offset", "map", "decimals", "range", "deadband"):
            if getattr(point, key) != defaults[key]:
                raise ValueError(f"`{key}` is for numbers, and this value is {what}")


def _check_end(point: ModbusPoint) -> None:
    if point.span.end > ADDRESSES:
        raise ValueError(
            f"{point.data_type} at {point.start} takes {point.count} registers and ends beyond {ADDRESSES - 1}"
        )


def _check_writable(point: ModbusPoint) -> None:
    if not point.writable:
        return
    if point.table in {Table.INPUT, Table.DISCRETE}:
        other = "holding register" if point.table is Table.INPUT else "coil"
        raise ValueError(f"{point.table.item}s cannot be written: remove `writable`, or is it a {other}?")
    if point.partial and point.count > 1:
        raise ValueError(
            "bits of a value of several registers cannot be written in one step; use those of one register"
        )
    if len(set(point.enum.values())) != len(point.enum):
        raise ValueError("`enum` has the same word twice, so writing it would be ambiguous")


def _listed(keys: list[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)
