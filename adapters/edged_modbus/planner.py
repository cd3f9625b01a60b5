"""From points to block reads: the cheapest set of requests that reads every point once.

Pure: no I/O, no clock. A block may read registers nobody asked for where that is cheaper than one more request, but
never one that is to be avoided or is known not to exist, and it never cuts a point in two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

MAX_REGISTERS = 125
"""Most registers of one read (Modbus Application Protocol V1.1b3, 6.3 and 6.4)."""
MAX_BITS = 2000
"""Most coils or discrete inputs of one read (6.1 and 6.2)."""
ADDRESSES = 65536
"""Addresses of each table."""


class Table(StrEnum):
    """The four kinds of data of a Modbus device (4.3)."""

    HOLDING = "holding"
    INPUT = "input"
    COIL = "coil"
    DISCRETE = "discrete"

    @property
    def is_bits(self) -> bool:
        """Whether an address holds one bit rather than a 16-bit register."""
        return self in {Table.COIL, Table.DISCRETE}

    @property
    def item(self) -> str:
        """What one address holds, for messages."""
        return _ITEMS[self]


_ITEMS = {
    Table.HOLDING: "holding register",
    Table.INPUT: "input register",
    Table.COIL: "coil",
    Table.DISCRETE: "discrete input",
}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Consecutive addresses of one table; `start` counts from zero. It prints as a technician writes it."""

    table: Table
    start: int
    count: int

    @property
    def end(self) -> int:
        """The address after the last."""
        return self.start + self.count

    def overlaps(self, other: Span) -> bool:
        """Whether the two have an address in common."""
        return self.table == other.table and self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.table} {self.start}" if self.count == 1 else f"{self.table} {self.start}-{self.end - 1}"

    @classmethod
    def parse(cls, text: str) -> Span:
        """From `holding 40-49` or `input 7`. Raises ValueError."""
        table, _, addresses = text.strip().partition(" ")
        first, dash, last = (part.strip() for part in addresses.partition("-"))
        if table not in set(Table) or not first.isdecimal() or bool(dash) != last.isdecimal():
            raise ValueError(f"{text!r} is not a range of addresses: write `holding 40-49`, or `input 7` for one")
        start, end = int(first), int(last or first)
        if not start <= end < ADDRESSES:
            raise ValueError(f"{text!r}: addresses go from 0 to {ADDRESSES - 1}, the lower one first")
        return cls(Table(table), start, end - start + 1)


@dataclass(frozen=True, slots=True)
class Block:
    """One read request, and the points that it brings in the order of their addresses."""

    table: Table
    start: int
    count: int
    points: tuple[str, ...]

    @property
    def span(self) -> Span:
        """What it reads."""
        return Span(self.table, self.start, self.count)


@dataclass(frozen=True, slots=True)
class Costs:
    """What reading costs, in seconds."""

    request: float
    """For each request, whatever its size."""
    register: float
    """For each register read."""
    bit: float
    """For each coil or discrete input read."""

    def of(self, span: Span) -> float:
        """Seconds for reading the span in one request."""
        return self.request + span.count * (self.bit if span.table.is_bits else self.register)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one device allows."""

    max_registers: int = MAX_REGISTERS
    max_coils: int = MAX_BITS
    one_request_per_point: bool = False
    """Read exactly the addresses of a point, never more. Points with the very same addresses still share a read."""
    avoid: tuple[Span, ...] = ()
    """Addresses that must not be read."""
    dead: frozenset[tuple[Table, int]] = frozenset()
    """Addresses the device has refused."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The reads, and the points that cannot be read with the reason why."""

    blocks: tuple[Block, ...]
    unreadable: Mapping[str, str]


def network_costs(round_trip: float = 0.005) -> Costs:
    """Costs behind a network: the round trip (seconds) decides, the size hardly matters."""
    return Costs(request=round_trip, register=20e-6, bit=20e-6 / 16)


def line_costs(baudrate: int, turnaround: float = 0.005) -> Costs:
    """Costs of RTU on a serial line: 11 bits a character, silences of 3.5 characters, the device's `turnaround` (s).

    Frames as in Modbus over Serial Line V1.02, 2.5.1: a read is 8 bytes, its reply 5 bytes and the data. Above
    19,200 baud the silence is 1.75 ms.
    """
    character = 11 / baudrate
    silence = 3.5 * character if baudrate <= 19_200 else 0.00175  # noqa: PLR2004  # the limit named above
    return Costs(request=13 * character + 2 * silence + turnaround, register=2 * character, bit=character / 8)


def plan(points: Mapping[str, Span], costs: Costs, limits: Limits) -> Planned:
    """The cheapest blocks that read every point once, by table and address; O(n log n).

    Points that can never be read (too long for the device, on an address to avoid or refused) come back in
    `unreadable`.
    """
    blocks: list[Block] = []
    unreadable: dict[str, str] = {}
    for table in Table:
        named = sorted((span.start, -span.count, name) for name, span in points.items() if span.table == table)
        cells = _forbidden(table, limits)
        cap = limits.max_coils if table.is_bits else limits.max_registers
        readable: list[tuple[int, int, str]] = []
        for start, negative, name in named:
            span = Span(table, start, -negative)
            if why := _why_not(span, cap, cells, limits):
                unreadable[name] = why
            else:
                readable.append((start, span.end, name))
        if limits.one_request_per_point:
            blocks += _exact(table, readable)
        else:
            per_item = costs.bit if table.is_bits else costs.register
            blocks += _cheapest(table, readable, costs.request, per_item, cap, sorted(cells))
    return Planned(tuple(blocks), unreadable)


def bisect(block: Block, spans: Mapping[str, Span]) -> tuple[Block, ...]:
    """The two smaller blocks to try after the device refused this one (exception 2 or 3); none if it cannot be split.

    `spans` tells where the block's points lie. It is split between points, so that a refused block ends at single
    points (or several with the very same addresses), in about 2·log2(n) requests for each bad one.
    """
    shapes = sorted({spans[name] for name in block.points}, key=lambda span: (span.start, -span.count))
    if len(shapes) == 1 and shapes[0] == block.span:
        return ()
    middle = max(1, len(shapes) // 2)
    halves = (frozenset(shapes[:middle]), frozenset(shapes[middle:]))
    return tuple(
        _hull(block.table, [name for name in block.points if spans[name] in half], spans) for half in halves if half
    )


def unread(refused: Span, good: Iterable[Span]) -> frozenset[tuple[Table, int]]:
    """The addresses of a refused read which no later, smaller read could reach: what to hold for dead.

    Includes the addresses between points that only the refused block touched: reading across them is not worth a
    second failure.
    """
    cells = set(range(refused.start, refused.end))
    for span in good:
        if span.table == refused.table:
            cells.difference_update(range(span.start, span.end))
    return frozenset((refused.table, cell) for cell in cells)


def _forbidden(table: Table, limits: Limits) -> dict[int, str]:
    cells = {cell: "avoid" for span in limits.avoid if span.table == table for cell in range(span.start, span.end)}
    for dead_table, cell in limits.dead:
        if dead_table == table:
            cells[cell] = "dead"
    return cells


def _why_not(span: Span, cap: int, cells: Mapping[int, str], limits: Limits) -> str:
    if span.start < 0 or span.end > ADDRESSES or span.count < 1:
        return f"{span} is outside the addresses 0 to {ADDRESSES - 1}"
    if span.count > cap:
        return f"{span} is longer than the {cap} that the device allows in one request"
    hit = next((cell for cell in range(span.start, span.end) if cell in cells), None) if cells else None
    if hit is None:
        return ""
    if cells[hit] == "dead":
        return f"the device refused {span.table.item} {hit}"
    avoided = next(a for a in limits.avoid if a.overlaps(span))
    return f"{span} lies in `avoid: {avoided}`"


def _exact(table: Table, items: Sequence[tuple[int, int, str]]) -> list[Block]:
    groups: dict[tuple[int, int], list[str]] = {}
    for start, end, name in items:
        groups.setdefault((start, end), []).append(name)
    return [Block(table, start, end - start, tuple(names)) for (start, end), names in groups.items()]


def _cheapest(
    table: Table,
    items: Sequence[tuple[int, int, str]],
    request: float,
    per_item: float,
    cap: int,
    barriers: Sequence[int],
) -> list[Block]:
    """The cheapest blocks for points sorted by start, the longest first.

    A point inside another one rides along for nothing: only the `outer` ones, whose starts and ends both increase,
    decide where blocks begin.
    """
    outer: list[tuple[int, int]] = []
    for start, end, _ in items:
        if not outer or end > outer[-1][1]:
            outer.append((start, end))
    firsts = _first_of_blocks(outer, request, per_item, cap, barriers)
    bounds = [*firsts, len(outer)]
    hulls = [(outer[i][0], outer[j - 1][1]) for i, j in pairwise(bounds)]
    members: list[list[str]] = [[] for _ in hulls]
    starts = [outer[i][0] for i in firsts]
    block = -1
    top = -1
    for start, end, name in items:
        # the blocks may overlap, so a point inside another one goes where that one went
        if end > top:
            top = end
            block += block + 1 < len(starts) and start == starts[block + 1]
        members[block].append(name)
    return [Block(table, start, end - start, tuple(names)) for (start, end), names in zip(hulls, members, strict=True)]


def _first_of_blocks(
    outer: Sequence[tuple[int, int]], request: float, per_item: float, cap: int, barriers: Sequence[int]
) -> list[int]:
    """Which of the points begin a block in the cheapest plan; O(n).

    Some optimum gives each block consecutive points (of two that cross, the one that starts later always fits into
    the later block). So with best[j] the cost of the first j points:

        best[j + 1] = min over i <= j of (best[i] - start(i) * per_item) + request + end(j) * per_item

    The i that the cap and the barriers allow form a window that only moves forward: a monotonic queue has its minimum.
    Of two plans at the same cost the one with fewer requests wins.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    begin: list[int] = []
    window: deque[tuple[tuple[float, int], int]] = deque()
    passed, floor = 0, 0
    for j, (start, end) in enumerate(outer):
        key = (best[j][0] - start * per_item, best[j][1])
        while window and window[-1][0] >= key:
            window.pop()
        window.append((key, j))
        while passed < len(barriers) and barriers[passed] < end:
            floor = barriers[passed] + 1
            passed += 1
        while outer[window[0][1]][0] < max(floor, end - cap):
            window.popleft()
        (cost, requests), i = window[0]
        best.append((cost + request + end * per_item, requests + 1))
        begin.append(i)
    firsts: list[int] = []
    j = len(outer)
    while j:
        j = begin[j - 1]
        firsts.append(j)
    return firsts[::-1]


def _hull(table: Table, names: Sequence[str], spans: Mapping[str, Span]) -> Block:
    start = min(spans[name].start for name in names)
    end = max(spans[name].end for name in names)
    return Block(table, start, end - start, tuple(names))
