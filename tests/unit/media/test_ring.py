from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.media import Frame, FrameRing


def test_pieces_that_belong_together_become_one_frame() -> None:
    ring = FrameRing()
    ring.add(1_000, "tx", b"ask")
    for time, data in ((9_000, b"an"), (10_000, b"sw"), (11_000, b"er"), (30_000, b"late")):
        ring.add(time, "rx", data)
    assert ring.frames() == [Frame(1_000, "tx", b"ask"), Frame(11_000, "rx", b"answer"), Frame(30_000, "rx", b"late")]


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 10), st.integers(40, 100))
def test_it_keeps_the_newest_and_never_more_than_it_may(pieces: list[bytes], frames: int, size: int) -> None:
    ring = FrameRing(frames=frames, size=size)
    for time, piece in enumerate(pieces):
        ring.add(time * 1_000_000, "rx", piece)
    kept = [frame.data for frame in ring.frames()]
    assert len(kept) <= frames
    assert sum(map(len, kept)) <= size
    assert kept == pieces[len(pieces) - len(kept) :]
    if len(kept) < min(len(pieces), frames):
        assert sum(map(len, kept)) + len(pieces[-len(kept) - 1]) > size


def test_listeners_hear_everything_until_they_leave() -> None:
    ring = FrameRing()
    heard: list[Frame] = []
    leave = ring.listen(heard.append)
    ring.add(1, "tx", b"a")
    leave()
    ring.add(2, "tx", b"b")
    assert heard == [Frame(1, "tx", b"a")]
