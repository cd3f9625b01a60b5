"""However the bytes are cut, the frames are the same; noise costs no more than it must; nothing wrong gets through."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edged_serial.codecs import framing as f
from edged_serial.codecs.checks import CRCS, Check
from edged_serial.codecs.framing import Framer
from edged_serial.codecs.mbus import MbusFramer, long_frame
from edged_serial.codecs.mbus import valid as mbus_valid
from edged_serial.codecs.sml import SmlFramer, file_of, parse, transmission

CRC = Check("crc16-ccitt-false", CRCS["crc16-ccitt-false"])
SUM = Check("sum8")
LENGTH = f.LengthField(at=1, adds=4)


def with_crc(content: bytes) -> bytes:
    return content + CRC.encode(content)


FRAMERS: dict[str, Callable[[], Framer]] = {
    "lines": lambda: f.LineFramer(12),
    "delimiter": lambda: f.DelimiterFramer(b"\r\n", 12),
    "delimiter kept": lambda: f.DelimiterFramer(b"ab", 12, keep=True),
    "fixed": lambda: f.FixedFramer(4, start=b"ab", stop=b"c"),
    "fixed checked": lambda: f.FixedFramer(4, SUM.valid),
    "length": lambda: f.LengthFramer(LENGTH, 12, start=b"a"),
    "length checked": lambda: f.LengthFramer(LENGTH, 20, CRC.valid, start=b"a"),
    "markers": lambda: f.MarkerFramer(b"a", b"c", 12),
    "markers checked": lambda: f.MarkerFramer(b"ab", b"c", 12, SUM.valid, trailer=1),
    "slip": lambda: f.StuffedFramer(f.SLIP, 12),
    "hdlc": lambda: f.StuffedFramer(f.HDLC, 12, CRC.valid),
    "dle": lambda: f.DleFramer(12, trailer=1),
    "sml": lambda: SmlFramer(64),
    "mbus": MbusFramer,
}
ALPHABET = b"ab\r\nc\x01\x02\x03\x10\xc0\xdb\xdc\x7e\x7d\x1b\x1a\x00\x68\xe5\x16"
STREAMS = st.lists(st.sampled_from([bytes([b]) for b in ALPHABET]), max_size=60).map(b"".join)


def fed(framer: Framer, pieces: list[bytes]) -> list[bytes]:
    return [frame for piece in pieces for frame in framer.feed(piece)]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(a % (len(data) + 1) for a in at)})
    return [data[i:j] for i, j in pairwise(places)]


@pytest.mark.parametrize("name", FRAMERS)
@settings(deadline=None, max_examples=150)
@given(data=STREAMS, places=st.lists(st.integers(0, 60), max_size=12))
def test_how_the_stream_is_cut_makes_no_difference(name: str, data: bytes, places: list[int]) -> None:
    whole, pieces, single = (FRAMERS[name]() for _ in range(3))
    expected = fed(whole, [data])
    assert fed(pieces, cut(data, places)) == expected
    assert fed(single, [bytes([b]) for b in data]) == expected
    assert pieces.rejected == whole.rejected
    assert pieces.skipped + len(pieces.partial) == whole.skipped + len(whole.partial)


@pytest.mark.parametrize("name", FRAMERS)
@given(data=st.binary(max_size=400))
def test_the_buffer_is_bounded(name: str, data: bytes) -> None:
    framer = FRAMERS[name]()
    for byte in data * 20:
        framer.feed(bytes([byte]))
        assert len(framer.partial) <= 300


CHECKED: dict[str, tuple[Callable[[], Framer], Callable[[bytes], bool], Callable[[bytes], bytes]]] = {
    "length": (
        lambda: f.LengthFramer(LENGTH, 40, CRC.valid, start=b"a"),
        CRC.valid,
        lambda content: with_crc(b"a" + bytes([len(content)]) + content),
    ),
    "fixed": (lambda: f.FixedFramer(10, CRC.valid), CRC.valid, lambda content: with_crc((content + bytes(8))[:8])),
    "markers": (
        lambda: f.MarkerFramer(b"\x02", b"\x03", 40, CRC.valid, trailer=2),
        CRC.valid,
        lambda content: with_crc(b"\x02" + content.translate(None, b"\x02\x03") + b"\x03"),
    ),
    "hdlc": (
        lambda: f.StuffedFramer(f.HDLC, 40, CRC.valid),
        CRC.valid,
        lambda content: f.stuff(with_crc(content), f.HDLC),
    ),
    "slip": (
        lambda: f.StuffedFramer(f.SLIP, 40, CRC.valid),
        CRC.valid,
        lambda content: f.stuff(with_crc(content), f.SLIP),
    ),
    "dle": (
        lambda: f.DleFramer(40, CRC.valid, trailer=2),
        CRC.valid,
        lambda content: f.stuff_dle(content, CRC.encode(content)),
    ),
    "mbus": (MbusFramer, mbus_valid, lambda content: long_frame(b"\x08\x01\x72" + content)),
}


@pytest.mark.parametrize("name", CHECKED)
@given(noise=st.binary(max_size=200))
def test_garbage_never_gives_a_frame_with_a_wrong_check(name: str, noise: bytes) -> None:
    make, valid, _ = CHECKED[name]
    assert all(valid(frame) for frame in make().feed(noise))


@pytest.mark.parametrize("name", CHECKED)
@settings(deadline=None)
@given(contents=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), noise=st.binary(max_size=30))
@example(contents=[b"\x02\x03\x10\x7e\xc0"], noise=b"")
def test_whole_frames_come_through_and_noise_between_them_costs_at_most_the_next(
    name: str, contents: list[bytes], noise: bytes
) -> None:
    make, _, build = CHECKED[name]
    frames = [build(content) for content in contents]
    clean = make().feed(b"".join(frames))
    assert len(clean) == len(frames)
    after = make().feed(noise + b"".join(frames) + bytes(64) + b"".join(frames))
    assert [frame for frame in after if frame in clean][-1:] == clean[-1:]


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_in_an_sml_transmission_gives_no_frame(at: int, bit: int) -> None:
    data = bytearray(transmission(file_of([(bytes([1, 0, 1, 8, 0, 255]), 30, -1, 0x1B1B1B1B1B1B)])))
    assert len(SmlFramer().feed(bytes(data))) == 1
    data[at % len(data)] ^= 1 << bit
    assert SmlFramer().feed(bytes(data)) == []


@given(st.binary(max_size=80))
def test_sml_escapes_what_looks_like_an_end(content: bytes) -> None:
    data = (content + bytes(-len(content) % 4)).replace(b"\x01", b"\x1b")
    assert SmlFramer().feed(b"\x1b\x1b" + transmission(data) + b"\x1b") == [data]


@given(st.binary(max_size=100))
def test_any_bytes_are_sml_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except ValueError:
        return


def test_lines_end_in_any_way_and_too_long_ones_are_dropped_whole() -> None:
    framer = f.LineFramer(8)
    assert framer.feed(b"one\r\ntwo\nthree\r" + b"x" * 9 + b"\r\nfour\r\n") == [b"one", b"two", b"three", b"four"]
    assert framer.skipped == 9


def test_a_frame_that_begins_inside_a_broken_one_is_found() -> None:
    good = with_crc(b"a\x03xyz")[:7]
    framer = f.LengthFramer(f.LengthField(at=1, adds=4), 40, CRC.valid, start=b"a")
    assert framer.feed(b"a\x05" + good) == [good]
    assert framer.skipped == 2


def test_markers_take_the_last_start_without_a_checksum_and_the_right_one_with_it() -> None:
    assert f.MarkerFramer(b"<", b">", 20).feed(b"<ab<cd>") == [b"<cd>"]
    frame = b"<a<b>" + SUM.encode(b"<a<b>")
    assert f.MarkerFramer(b"<", b">", 20, SUM.valid, trailer=1).feed(frame) == [frame]


def test_a_silence_ends_a_frame() -> None:
    framer = f.GapFramer(8, SUM.valid)
    frame = b"ab" + SUM.encode(b"ab")
    assert framer.feed(frame[:1]) == framer.feed(frame[1:]) == []
    assert framer.gap() == [frame]
    framer.feed(b"abc")
    assert framer.gap() == []
    assert framer.rejected == 1
    framer.feed(bytes(20))
    assert framer.gap() == []
    framer.feed(frame)
    assert framer.gap() == [frame]
