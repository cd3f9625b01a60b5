"""RTU frames, and finding the reply in what a line delivers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer.rtu import FramerRTU

from edged_modbus import pdu
from edged_modbus.frame import RtuReplyParser, crc16, rtu_frame
from edged_modbus.planner import Table

REQUEST = pdu.read(Table.HOLDING, 0x0400, 2)
REPLY = bytes.fromhex("03 04 00 01 00 02")
FRAME = rtu_frame(5, REPLY)


def received(data: bytes, *, piece: int = 1000) -> tuple[bytes | None, RtuReplyParser]:
    parser = RtuReplyParser(5, REQUEST)
    for at in range(0, len(data), piece):
        if (found := parser.feed(data[at : at + piece])) is not None:
            return found, parser
    return None, parser


def test_the_example_of_the_specification_has_the_right_checksum() -> None:
    # Modbus over Serial Line V1.02, appendix B: 02 07 gives 41 12 on the wire
    assert rtu_frame(2, b"\x07") == bytes.fromhex("02 07 41 12")


@given(st.binary(max_size=300))
def test_the_checksum_is_the_one_pymodbus_computes(data: bytes) -> None:
    assert crc16(data).to_bytes(2, "little") == FramerRTU.compute_CRC(data).to_bytes(2, "big")


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
def test_a_reply_is_complete_with_its_last_byte(piece: int) -> None:
    found, parser = received(FRAME, piece=piece)
    assert found == REPLY
    assert (parser.skipped, parser.rest) == (0, b"")
    assert received(FRAME[:-1], piece=piece)[0] is None


@pytest.mark.parametrize(
    "noise",
    [
        b"\0",
        b"\xff\xff",
        b"\x05",
        b"\x05\x03",
        b"\x05\x03\x04",
        rtu_frame(5, REQUEST.pdu),
        rtu_frame(6, REPLY),
        rtu_frame(5, bytes.fromhex("04 04 00 01 00 02")),
        rtu_frame(5, bytes.fromhex("03 02 00 01")),
        FRAME[:-1] + b"\0",
    ],
    ids=["zero", "ff", "unit", "start", "head", "echo", "unit 6", "function 4", "1 register", "bad checksum"],
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_noise_echoes_and_foreign_frames_before_the_reply_are_skipped(noise: bytes, piece: int) -> None:
    assert received(noise, piece=piece)[0] is None
    found, parser = received(noise + FRAME, piece=piece)
    assert found == REPLY
    assert parser.skipped == len(noise)


def test_an_exception_is_a_reply() -> None:
    assert received(rtu_frame(5, b"\x83\x02"))[0] == b"\x83\x02"


def test_what_follows_the_reply_is_kept_apart() -> None:
    assert received(FRAME + b"\x07\x08")[1].rest == b"\x07\x08"


@given(st.data())
def test_a_reply_with_any_bit_flipped_is_none(data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 8 * len(FRAME) - 1))
    torn = bytearray(FRAME)
    torn[bit // 8] ^= 1 << bit % 8
    assert received(bytes(torn))[0] is None


@given(st.binary(max_size=40), st.integers(1, 7))
def test_the_reply_is_found_after_any_noise_in_any_pieces(noise: bytes, piece: int) -> None:
    found, parser = received(noise + FRAME, piece=piece)
    assert found == REPLY or found == b"\x83" + (found or b"")[1:]
    assert parser.skipped <= len(noise)


def test_endless_noise_does_not_fill_the_memory() -> None:
    parser = RtuReplyParser(5, REQUEST)
    for _ in range(50):
        assert parser.feed(b"\x55" * 500) is None
    assert parser.received == 25_000
    assert len(parser.rest) <= 1024
    assert parser.feed(FRAME) == REPLY
    assert parser.skipped == 25_000


@pytest.mark.parametrize(("asked", "answered"), [
    (pdu.read_identification(), "2b 0e 01 01 00 00 02 00 02 43 6f 01 01 58"),
    (pdu.write_registers(1, [10, 258]), "10 00 01 00 02"),
    (pdu.read(Table.COIL, 19, 19), "01 03 cd 6b 05"),
])  # fmt: skip
def test_replies_of_other_shapes(asked: pdu.Request[object], answered: str) -> None:
    parser = RtuReplyParser(1, asked)
    reply = bytes.fromhex(answered)
    *first, last = rtu_frame(1, reply)
    assert all(parser.feed(bytes((byte,))) is None for byte in first)
    assert parser.feed(bytes((last,))) == reply


def test_silence_and_garbage_are_told_apart() -> None:
    assert received(b"")[1].complaint() == "no answer"
    assert received(b"\x05\x99")[1].complaint() == "2 bytes came that are no reply to the request: 05 99"
