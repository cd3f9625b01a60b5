"""SunSpec models against pysunspec2's own encoder, and against the specification's table of `not implemented`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged_modbus.sunspec import definition, folder
from edged_modbus.sunspec_model import Field, chunks, decode, fields

device = pytest.importorskip("sunspec2.device")
NUMBERS = sorted(
    number
    for file in folder().glob("model_*.json")
    if definition(number := int(file.stem.removeprefix("model_"))) is not None
)
BY_TYPE: Mapping[str, Any] = {
    "int16": -123, "int32": -123_456, "int64": -(1 << 40), "uint16": 2301, "uint32": 70_000, "uint64": 1 << 40,
    "acc16": 17, "acc32": 98_765, "acc64": 1 << 41, "float32": 1.5, "float64": 2.25, "string": "ab c", "raw16": 5,
}  # fmt: skip


def words_of(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(data) // 2}H", data)


def data_for(group: Mapping[str, Any]) -> dict[str, Any]:
    """Something in every point, and two of every group that repeats."""
    found: dict[str, Any] = {}
    for i, point in enumerate(group["points"]):
        if point["name"] in {"ID", "L"}:
            continue
        symbols = [symbol["value"] for symbol in point.get("symbols", ())]
        if point["type"] == "sunssf":
            found[point["name"]] = i % 4 - 2
        elif point["type"].startswith("enum"):
            found[point["name"]] = symbols[-1] if symbols else 3
        elif point["type"].startswith("bitfield"):
            found[point["name"]] = sum(1 << bit for bit in symbols[:2] if bit < 15) if symbols else 5
        elif point["type"] in BY_TYPE:
            found[point["name"]] = BY_TYPE[point["type"]]
    for part in group.get("groups", ()):
        count = part.get("count")
        if isinstance(count, str):
            found[count] = 2
        number = 2 if isinstance(count, str) or count == 0 else count
        found[part["name"]] = data_for(part) if number is None else [data_for(part) for _ in range(number)]
    return found


def points_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, point in group.points.items():
        yield prefix + name, point
    for name, part in group.groups.items():
        for i, one in enumerate(part if isinstance(part, list) else [part]):
            yield from points_of(one, f"{prefix}{name}_{i + 1}." if isinstance(part, list) else f"{prefix}{name}.")


def meant(point: Any, ours: Field) -> Any:
    """What the peer says of a point, in our words."""
    if point.value is None:
        return None
    if ours.type.startswith("enum") and ours.words:
        return ours.words[point.value]
    if ours.type.startswith("bitfield") and ours.words:
        return ",".join(ours.words.get(bit, f"bit_{bit}") for bit in range(32) if point.value >> bit & 1)
    return point.cvalue


@pytest.mark.parametrize("number", NUMBERS)
def test_every_model_reads_as_pysunspec2_wrote_it(number: int) -> None:
    known = definition(number)
    assert known is not None
    peer = device.Model(number, data=data_for(known["group"]))
    words = list(words_of(peer.get_mb()))
    words[0:2] = number, len(words) - 2
    ours = {one.name: one for one in fields(known, words)}
    told = dict(points_of(peer))
    silent = {name for name, point in told.items() if point.pdef["type"] in {"pad", "sunssf"}}
    assert set(ours) == set(told) - silent
    for name, one in ours.items():
        if name in {"ID", "L"}:
            continue
        value, _ = decode(one, words)
        expected = meant(told[name], one)
        if isinstance(expected, float):
            assert value == pytest.approx(expected), name
        else:
            assert value == expected, name


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("int16", [0x8000]), ("uint16", [0xFFFF]), ("acc16", [0]), ("enum16", [0xFFFF]), ("bitfield16", [0xFFFF]),
        ("int32", [0x8000, 0]), ("uint32", [0xFFFF, 0xFFFF]), ("acc32", [0, 0]), ("enum32", [0xFFFF, 0xFFFF]),
        ("bitfield32", [0xFFFF, 0xFFFF]), ("int64", [0x8000, 0, 0, 0]), ("uint64", [0xFFFF] * 4),
        ("acc64", [0] * 4), ("float32", [0x7FC0, 0]), ("string", [0, 0]), ("ipaddr", [0, 0]), ("ipv6addr", [0] * 8),
        ("eui48", [0xFFFF] * 4), ("count", [0xFFFF]),
    ],
)  # fmt: skip
def test_what_a_device_does_not_have(kind: str, words: list[int]) -> None:
    assert decode(Field("p", kind, 0, len(words)), words) == (None, "not_implemented")


@pytest.mark.parametrize(
    ("factor", "value"), [(0xFFFF, 230.1), (0xFFFE, 23.01), (0, 2301), (2, 230_100), (0x8000, None), (11, None)]
)
def test_a_scale_factor_is_an_exact_power_of_ten(factor: int, value: float | None) -> None:
    assert decode(Field("V", "uint16", 2, 1, scale_at=3), [1, 2, 2301, factor])[0] == value


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("ipaddr", [0xC000, 0x0201], "192.0.2.1"),
        ("eui48", [0, 0x0011, 0x2233, 0x4455], "00:11:22:33:44:55"),
        ("string", [0x4142, 0x2000], "AB"),
        ("bitfield16", [0b1001], "one,bit_3"),
        ("enum16", [1], "on"),
        ("enum16", [7], None),
        ("float32", [0x7F80, 0], None),
        ("string", [0xFFFE, 0], None),
        ("of a later specification", [1], None),
    ],
)
def test_texts_words_and_nonsense(kind: str, words: list[int], expected: str | None) -> None:
    meaning = {"bitfield16": {0: "one"}, "enum16": {1: "on"}}.get(kind, {})
    value, reason = decode(Field("p", kind, 0, len(words), words=meaning), words)
    assert value == expected
    assert reason == ("decode" if expected is None else "")


REGISTERS = st.integers(0, 0xFFFF) | st.sampled_from([0, 1, 10, 0x7FFF, 0x8000, 0xFFFF])


@given(st.sampled_from(NUMBERS), st.lists(REGISTERS, max_size=200))
@example(101, [*[0xFFFF] * 24, 10, *[0] * 23])  # an energy of 42 EWh has no room in 64 bits
def test_whatever_a_device_says_has_room_or_is_no_value(number: int, registers: list[int]) -> None:
    known = definition(number)
    assert known is not None
    words = [number, len(registers), *registers]
    for one in fields(known, words):
        value, reason = decode(one, words)
        assert (value is None) == bool(reason)
        if isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, int):
            assert -(2**63) <= value < 2**64


def test_an_older_shorter_version_of_a_model_lacks_the_last_points() -> None:
    known = definition(103)
    assert known is not None
    assert [one.name for one in fields(known, [0] * 20)][-1] == "VA"


def test_a_count_that_is_not_implemented_means_none() -> None:
    known = definition(714)
    assert known is not None
    words = list(words_of(device.Model(714, data={"NPrt": 1, "Prt": [{"DCA": 7}]}).get_mb()))
    place = next(one.offset for one in fields(known, words) if one.name == "NPrt")
    assert "Prt_1.DCA" in {one.name for one in fields(known, words)}
    words[place] = 0xFFFF
    assert "Prt_1.DCA" not in {one.name for one in fields(known, words)}


@given(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=60), most=st.integers(8, 125))
def test_reads_cover_everything_once_and_cut_no_point(sizes: Sequence[int], most: int) -> None:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    reads = list(chunks(ends, ends[-1], most))
    assert [at for start, count in reads for at in range(start, start + count)] == list(range(ends[-1]))
    assert all(0 < count <= most for _, count in reads)
    assert {start for start, _ in reads} <= {0, *ends}
    assert len(reads) <= math.ceil(ends[-1] / max(most - 7, 1))
