"""A flow between the log and the encoder of a connection. Pure.

A message covers a range of the log, whole: what the flow leaves out of it is settled with it. So `seq` and `prev` prove
the completeness of what the flow sends as they do without one, and what is sent again after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edged.buffer.batch import Batch
from edged.flows.flow import Flow
from edged.uplink.api import Chunk, Encoder, Envelope, Message


class FlowEncoder:
    """Puts samples through a flow before the encoder of the connection."""

    def __init__(self, name: str, flow: Flow, encoder: Encoder) -> None:
        self._name = name
        self._flow = flow
        self._encoder = encoder
        self.errors = flow.errors
        """What went wrong in its steps since the start."""

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """As the connection does; with an interval the batch is one, and becomes one message."""
        if not self._flow.interval:
            return self._encoder.split(batch)
        return iter([Chunk(batch.first, batch.samples, batch.readings, batch.boot, batch.replay)])

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message; or one that is to be skipped, where nothing is left. Raises PermanentError."""
        result = self._flow.apply(chunk.samples)
        if not result.samples:
            return Message("", b"", skip=True, left_out=chunk.readings)
        readings = sum(len(sample.points) for sample in result.samples)
        inner = replace(chunk, samples=result.samples, readings=readings)
        message = self._encoder.encode(inner, replace(envelope, flow=self._name))
        return replace(message, left_out=result.left_out)
