"""A flow between the log and the encoder of a connection. Pure.

A message covers a range of the log, whole: what the flow leaves out of it is settled with it. So `seq` and `prev` prove
the completeness of what the flow sends as they do without one, and what is sent again after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from edged.buffer.batch import Batch
from edged.flows.flow import Flow, Result
from edged.flows.pieces import Window
from edged.flows.steps import Cut
from edged.model import Sample
from edged.uplink.api import Chunk, Encoder, Envelope, Message
from edged.uplink.together import Together


@dataclass(frozen=True, slots=True)
class Interval(Chunk):
    """What an interval is worked out of. However it is divided, each part knows all of it."""

    base: int = 0
    """The seq of the first of all samples."""
    all: Sequence[Sample] = ()
    cut: Cut = field(default_factory=Cut)
    made: list[tuple[Result, list[int]]] = field(default_factory=list)
    """Once it is worked out: what came of them, and how many readings stand before each sample and after the last."""


class FlowEncoder:
    """Puts samples through a flow before the encoder of the connection."""

    def __init__(self, name: str, flow: Flow, encoder: Encoder) -> None:
        self._name = name
        self._flow = flow
        self._encoder = encoder
        self.errors = flow.errors
        """What went wrong in its steps since the start."""

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """As the connection does; with an interval the batch is one, and becomes one message if that is possible."""
        if not self._flow.interval:
            return self._encoder.split(batch)
        cut = batch.cut if isinstance(batch, Window) else Cut()
        whole = Interval(
            batch.first, batch.samples, batch.readings, batch.boot, batch.replay,
            together=Together(batch.first, batch.last), base=batch.first, all=batch.samples, cut=cut,
        )  # fmt: skip
        return iter([whole])

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message; or one that is to be skipped, where nothing is left. Raises PermanentError."""
        samples, left_out = self._share(chunk) if isinstance(chunk, Interval) else self._applied(chunk)
        if not samples:
            return Message("", b"", skip=True, left_out=left_out)
        readings = sum(len(sample.points) for sample in samples)
        inner = replace(chunk, samples=samples, readings=readings)
        message = self._encoder.encode(inner, replace(envelope, flow=self._name))
        return replace(message, left_out=chunk.readings if message.skip else left_out)

    def _applied(self, chunk: Chunk) -> tuple[Sequence[Sample], int]:
        result = self._flow.apply(chunk.samples)
        return result.samples, result.left_out

    def _share(self, chunk: Interval) -> tuple[Sequence[Sample], int]:
        """The samples that this part of an interval carries, and its share of what is left out.

        Both are spread evenly over the range, so that they depend on nothing but the interval and the part.
        """
        if not chunk.made:
            readings = accumulate((len(sample.points) for sample in chunk.all), initial=0)
            chunk.made.append((self._flow.apply(chunk.all, cut=chunk.cut), list(readings)))
        result, before = chunk.made[0]
        rows, count, of = result.samples, len(chunk.all), max(1, before[-1])
        begin, end = chunk.first - chunk.base, chunk.last - chunk.base
        own = [row for i, row in enumerate(rows) if begin <= i * count // len(rows) <= end]
        return own, result.left_out * before[end + 1] // of - result.left_out * before[begin] // of
