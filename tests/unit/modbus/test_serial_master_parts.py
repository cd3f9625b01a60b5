"""The pure parts of the serial master: ASCII frames, doubts, learnt time-outs, foreign traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_modbus import pdu
from edged_modbus.ascii import AsciiReplyParser, ascii_frame, lrc
from edged_modbus.doubt import Doubts
from edged_modbus.frame import rtu_frame
from edged_modbus.pace import Pace
from edged_modbus.planner import Table
from edged_modbus.traffic import ascii_frames, rtu_frames

READ = pdu.read_registers(Table.HOLDING, 100, 10)
REPLY = bytes((3, 20)) + bytes(range(20))


def test_ascii_frame_is_that_of_the_specification() -> None:
    # The example of a read of holding registers with its LRC, as manuals print it.
    assert ascii_frame(1, bytes.fromhex("03 00 00 00 0A")) == b":01030000000AF2\r\n"
    assert lrc(bytes.fromhex("F7 03 13 89 00 0A")) == 0x60


@given(st.binary(max_size=30).filter(lambda noise: b":" not in noise), st.integers(1, 60))
def test_ascii_reply_is_found_behind_noise_and_in_pieces(noise: bytes, size: int) -> None:
    parser = AsciiReplyParser(7, READ)
    data = noise + ascii_frame(7, REPLY)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    found = [reply for piece in pieces if (reply := parser.feed(piece)) is not None]
    assert found == [REPLY]


@pytest.mark.parametrize("unit", [0, 6, 8, 255])
def test_ascii_reply_of_another_unit_is_none(unit: int) -> None:
    assert AsciiReplyParser(7, READ).feed(ascii_frame(unit, REPLY)) is None


def test_request_is_in_doubt_only_while_a_reply_like_its_own_is_owed() -> None:
    doubts = Doubts()
    doubts.add(7, READ, 10.0)
    assert doubts.since(7, READ, 11.0) == 10.0
    assert doubts.since(8, READ, 11.0) is None
    assert doubts.since(7, pdu.read_registers(Table.HOLDING, 100, 9), 11.0) is None
    assert doubts.since(7, pdu.read_registers(Table.INPUT, 100, 10), 11.0) is None
    assert doubts.since(7, READ, 100.0) is None
    doubts.settled(7)
    assert doubts.since(7, READ, 11.0) is None


@given(st.integers(1, 125), st.integers(0, 20))
def test_barrier_stays_within_the_request_and_looks_like_nothing_owed(count: int, failures: int) -> None:
    doubts = Doubts()
    request = pdu.read_registers(Table.HOLDING, 100, count)
    doubts.add(7, request, 1.0)
    sizes = {request.reply_size}
    for _ in range(failures):
        barrier = doubts.barrier(7, request)
        if barrier is None:
            assert len(sizes) >= min(count, 16)
            return
        start, number = int.from_bytes(barrier.pdu[1:3], "big"), int.from_bytes(barrier.pdu[3:5], "big")
        assert start >= 100
        assert start + number <= 100 + count
        assert barrier.reply_size not in sizes
        sizes.add(barrier.reply_size)
        doubts.add(7, barrier, 1.0)


def test_late_frame_pays_its_own_debt_and_all_older_ones() -> None:
    doubts = Doubts()
    sizes = (10, 1, 2)
    for at, count in enumerate(sizes):
        doubts.add(7, pdu.read_registers(Table.HOLDING, 100, count), float(at))
    owed = doubts.claim(7, 3, 2 + 2 * 1)
    assert owed is not None
    assert owed.sent == 1.0
    assert doubts.claim(7, 3, 2 + 2 * 10) is None
    assert doubts.claim(7, 3, 2 + 2 * 2) is not None


def test_time_out_is_learnt_between_floor_and_ceiling() -> None:
    pace = Pace()
    assert pace.patience(1.0) == 1.0
    for _ in range(20):
        pace.answered(0.01)
    assert pace.patience(1.0) == pytest.approx(0.2)
    assert pace.patience(0.1) == pytest.approx(0.1)
    pace.missed()
    assert pace.patience(1.0) == pytest.approx(0.4)
    pace.came_late(0.3)
    pace.answered(0.01)
    assert pace.patience(1.0) == pytest.approx(2.5 * 0.3 + 0.05, rel=0.01)


@given(st.binary(max_size=6), st.binary(max_size=6))
def test_frames_are_found_in_traffic(before: bytes, after: bytes) -> None:
    frames = list(rtu_frames(before + rtu_frame(9, READ.pdu) + rtu_frame(9, REPLY) + after))
    assert [(frame.pdu, frame.asks) for frame in frames if frame.unit == 9][-2:] == [(READ.pdu, True), (REPLY, False)]


def test_ascii_frames_are_found_in_traffic() -> None:
    heard = list(ascii_frames(b"x" + ascii_frame(9, READ.pdu) + ascii_frame(9, REPLY)))
    assert [(frame.unit, frame.asks) for frame in heard] == [(9, True), (9, False)]
