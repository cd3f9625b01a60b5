"""Where a batch is cut into messages. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edged.buffer.batch import Batch
from edged.uplink.api import Chunk


def cut(batch: Batch, limit: int, *, one_device: bool) -> Iterator[Chunk]:
    """Chunks of up to `limit` readings, or of a single sample that has more; with `one_device` of one device each.

    Samples that thinning has emptied go with a neighbour: only their numbers are left.
    """
    begin = count = 0
    device = ""
    for i, sample in enumerate(batch.samples):
        size = len(sample.points)
        if size and count and (count + size > limit or (one_device and sample.device != device)):
            yield Chunk(batch.first + begin, batch.samples[begin:i], count, batch.boot, batch.replay)
            begin, count = i, 0
        if size:
            device = sample.device
        count += size
    if begin < len(batch.samples):
        yield Chunk(batch.first + begin, batch.samples[begin:], count, batch.boot, batch.replay)
