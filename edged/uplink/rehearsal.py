"""What would be sent, without sending it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edged.buffer.batch import Batch
from edged.errors import PermanentError
from edged.uplink.api import Encoder, Envelope, Lane, Message
from edged.uplink.lanes import halves

_EPOCH = "0123456789abcdef"


def rehearse(encoder: Encoder, batch: Batch) -> Iterator[Message | PermanentError]:
    """The messages that a batch becomes, divided where that is needed, and what can never be sent."""
    todo, previous = list(encoder.split(batch)), 0
    while todo:
        chunk = todo.pop(0)
        try:
            message = encoder.encode(chunk, Envelope(_EPOCH, chunk.last, previous, Lane.LIVE))
        except PermanentError as exc:
            if len(chunk.samples) > 1:
                todo[:0] = halves(chunk)
            else:
                yield exc
            continue
        if not message.skip:
            previous = chunk.last
            yield message
