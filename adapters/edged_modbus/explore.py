"""What Modbus knows of devices that nobody has described: the pure half of `edged probe`, `find` and `scan modbus`.

The commands know no protocol; they do the I/O and the talking, and ask this for the rest (see `edged.explorer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import fingerprint, guess, match
from .fingerprint import Fingerprint
from .guess import Guess, Kind
from .match import Match, Shown
from .planner import ADDRESSES, MAX_REGISTERS, Span, Table
from .sweep import Sweep

_USUAL_RANGES = ("input 0-499", "holding 0-499")
_LINE_BAUDRATES = (9600, 19200, 38400, 115200, 57600, 4800, 2400, 1200)
_LINE_PARITIES = ("none", "even", "odd")


class ModbusExplorer:
    """See `edged.explorer.Explorer`."""

    tables = tuple(map(str, Table))
    ranges = _USUAL_RANGES
    everything = (f"input 0-{ADDRESSES - 1}", f"holding 0-{ADDRESSES - 1}")
    baudrates = _LINE_BAUDRATES
    parities = _LINE_PARITIES
    scales = guess.SCALES
    present = "holding 0"

    def sweep(self, ranges: Sequence[str], device: Any = None) -> Sweep:
        """The reads of these ranges; `device`, if it is configured, says what to avoid. Raises ValueError."""
        spans = [Span.parse(one) for one in ranges]
        if device is None:
            return Sweep(spans)
        return Sweep(spans, most=device.max_registers, avoid=device.limits.avoid)

    def pieces(self, table: str, address: int, count: int) -> list[Span]:
        """What `edged probe` reads: what was asked for, and the neighbours that are addresses. Raises ValueError."""
        kind = Table(table)
        if address < 0 or address + count > ADDRESSES or not 1 <= count <= MAX_REGISTERS - 2:
            raise ValueError(
                f"addresses go from 0 to {ADDRESSES - 1}, and one look takes at most {MAX_REGISTERS - 2} of them"
            )
        spans = [Span(kind, address, count)]
        if address > 0:
            spans.append(Span(kind, address - 1, 1))
        if address + count < ADDRESSES:
            spans.append(Span(kind, address + count, 1))
        return spans

    def guesses(self, words: Mapping[int, int], address: int) -> list[Guess]:
        """Every reading of a value that begins at an address, the plausible ones first."""
        return guess.guesses(words, address)

    def text(self, words: Sequence[int]) -> str:
        """The registers as text."""
        return guess.text(words)

    def shown(self, value: str, tolerance: float, words: Mapping[str, Mapping[int, int]]) -> Shown:
        """One look at the display. Raises ValueError."""
        return Shown.parse(value, tolerance, {Table(table): image for table, image in words.items()})

    def search(self, shown: Sequence[Shown]) -> list[Match]:
        """What shows that, the likeliest first."""
        return match.search(shown)

    def around(self, matches: Sequence[Match]) -> list[str]:
        """The ranges to read again for these matches, as few as possible."""
        cells = {(one.table, one.address + i) for one in matches for i in range(one.kind.registers)}
        spans: list[Span] = []
        for table, cell in sorted(cells):
            if spans and spans[-1].table == table and spans[-1].end == cell:
                spans[-1] = Span(table, spans[-1].start, spans[-1].count + 1)
            else:
                spans.append(Span(table, cell, 1))
        return list(map(str, spans))

    def point(self, table: str, address: int, kind: Kind, scale: float = 1.0, device: Any = None) -> dict[str, Any]:
        """The point as the configuration has it. Where the `device` has an order of its own, the point's is written."""
        point: dict[str, Any] = {str(table): address}
        if kind.type != "uint16":
            point["type"] = kind.type
        if not kind.usual_order or (kind.registers > 1 and getattr(device, "order", None) is not None):
            point["order"] = kind.order
        if scale != 1:
            point["scale"] = int(scale) if scale > 1 else scale
        return point

    def fingerprint(self, profile: Mapping[str, Any]) -> Fingerprint | None:
        """How a profile's devices are known, if it says so. Raises ValueError."""
        clauses = profile.get("fingerprint")
        settings = profile.get("device")
        order = settings.get("order") if isinstance(settings, Mapping) else None
        return None if clauses is None else fingerprint.parse(clauses, order)

    def span(self, text: str) -> Span:
        """A range of addresses, from `holding 40-49`. Raises ValueError."""
        return Span.parse(text)
