"""What a receiver can prove from the messages alone: nothing missing, what came twice, what came late. Pure.

The reference implementation of the receiver's algorithm in docs/reference/mqtt.md. A backend that keeps the same few
numbers can do the same for years of messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

REPLAY = "replay"
"""Counted as a lane of its own: what a person had sent once more stands in the order of the live lane."""


class MessageId(NamedTuple):
    """What identifies a message for ever."""

    gateway: str
    epoch: str
    seq: int
    flow: str = ""
    """Empty where the connection has no flows."""


class LaneId(NamedTuple):
    """One sequence of messages."""

    gateway: str
    epoch: str
    lane: str
    flow: str = ""
    """Each flow has sequences of its own; empty where the connection has none."""


@dataclass(slots=True)
class LaneCount:
    """What came on one lane."""

    messages: int = 0
    """Different ones."""
    readings: int = 0
    """The readings of these."""
    duplicates: int = 0
    """Messages that had come before, on whatever lane."""
    out_of_order: int = 0
    """New messages that came after one with a higher seq."""
    last: int = 0
    """The highest seq."""


@dataclass(slots=True)
class _Epoch:
    """What is known of one flow in one gateway's epoch; without flows: of all readings in it."""

    seen: dict[int, int] = field(default_factory=dict)
    """The messages that came, by seq, and the smallest `first` of each."""
    named: dict[int, str] = field(default_factory=dict)
    """Predecessors that were named but have not come, and the lane they were named on."""
    begins: list[int] = field(default_factory=list)
    """Where the covered ranges of samples begin, and where they end: ascending, not adjacent."""
    ends: list[int] = field(default_factory=list)


class Audit:
    """Takes the messages of readings in the order in which they arrive, of any number of gateways."""

    def __init__(self, *, from_the_beginning: bool = True) -> None:
        """Otherwise the first message of each lane proves nothing about the one before it."""
        self._whole = from_the_beginning
        self.lanes: dict[LaneId, LaneCount] = {}
        """What came, by gateway, epoch, lane and flow."""
        self._epochs: dict[tuple[str, str, str], _Epoch] = {}

    def take(self, payload: Mapping[str, Any]) -> bool:
        """Take one decoded message. True if it is new; False if it came before, and is to be dropped.

        Messages without `seq` (status, metadata) are let through. Raises KeyError if it is no message of edged.
        """
        if "seq" not in payload:
            return True
        gateway, epoch, lane, seq, prev = (payload[key] for key in ("gateway", "epoch", "lane", "seq", "prev"))
        if payload.get("replay"):
            lane = REPLAY
        flow = payload.get("flow", "")
        known = self._epochs.setdefault((gateway, epoch, flow), _Epoch())
        count = self.lanes.setdefault(LaneId(gateway, epoch, lane, flow), LaneCount())
        provable = self._whole or count.messages + count.duplicates > 0
        first = payload.get("first", seq)
        if known.seen.get(seq, first + 1) <= first:
            count.duplicates += 1
            return False
        known.seen[seq] = first
        known.named.pop(seq, None)
        if prev and provable and prev not in known.seen:
            known.named[prev] = lane
        _cover(known, first, seq)
        count.messages += 1
        count.readings += payload["readings"] if "readings" in payload else len(payload["values"])
        if seq < count.last:
            count.out_of_order += 1
        count.last = max(count.last, seq)
        return True

    @property
    def missing(self) -> list[MessageId]:
        """Messages that a later one names as its predecessor, but that never came."""
        return [
            MessageId(gateway, epoch, seq, flow)
            for (gateway, epoch, flow), known in self._epochs.items()
            for seq in sorted(known.named)
        ]

    @property
    def duplicates(self) -> int:
        """How many messages came again."""
        return sum(count.duplicates for count in self.lanes.values())

    @property
    def out_of_order(self) -> int:
        """How many new messages came behind a later one of their lane."""
        return sum(count.out_of_order for count in self.lanes.values())

    @property
    def messages(self) -> int:
        """How many different messages came."""
        return sum(count.messages for count in self.lanes.values())

    @property
    def readings(self) -> int:
        """How many readings these hold."""
        return sum(count.readings for count in self.lanes.values())

    def gaps(self, gateway: str, epoch: str, flow: str = "") -> list[tuple[int, int]]:
        """The ranges of samples between the first and the last seen that no message has covered.

        They were given up (expired, evicted, dead letter), left out by the flow, belong to another connection, or are
        still on their way.
        """
        known = self._epochs.get((gateway, epoch, flow), _Epoch())
        return [(end + 1, begin - 1) for end, begin in zip(known.ends, known.begins[1:], strict=False)]


def _cover(known: _Epoch, first: int, last: int) -> None:
    begin = bisect_right(known.ends, first - 2)
    end = bisect_right(known.begins, last + 1)
    if begin < end:
        first, last = min(first, known.begins[begin]), max(last, known.ends[end - 1])
    known.begins[begin:end], known.ends[begin:end] = [first], [last]
