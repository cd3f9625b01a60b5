"""The pure parts of the serial master: ASCII frames, doubts, learnt time-outs, foreign traffic."""

from __future__ import annotations

import struct
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.adapter import Name
from edged_modbus import pdu
from edged_modbus.ascii import AsciiReplyParser, ascii_frame, lrc
from edged_modbus.barrier import Barriers, limits_of
from edged_modbus.config import ModbusDevice
from edged_modbus.doubt import Doubts
from edged_modbus.frame import rtu_frame
from edged_modbus.pace import Pace
from edged_modbus.planner import Limits, Span, Table
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


def holding(count: int) -> pdu.Request[Any]:
    return pdu.read_registers(Table.HOLDING, 100, count)


def words(count: int) -> bytes:
    return bytes((3, 2 * count)) + bytes(2 * count)


def test_request_is_in_doubt_while_an_answer_of_its_function_is_owed() -> None:
    doubts = Doubts()
    doubts.add(7, READ, 10.0)
    assert doubts.since(7, READ) == 10.0
    assert doubts.since(8, READ) is None
    assert doubts.since(7, holding(9)) == 10.0, "either may be refused"
    assert doubts.since(7, pdu.read_registers(Table.INPUT, 100, 10)) is None
    doubts.settled(7)
    assert doubts.since(7, READ) is None


def test_late_frame_pays_its_own_debt_and_all_older_ones() -> None:
    doubts = Doubts()
    for at, count in enumerate((10, 1, 2)):
        doubts.add(7, holding(count), float(at))
    owed = doubts.claim(7, words(1))
    assert owed is not None
    assert owed.sent == 1.0
    assert doubts.claim(7, words(10)) is None
    assert doubts.claim(7, words(2)) is not None


def test_exception_pays_the_oldest_debt_of_its_function_only() -> None:
    doubts = Doubts()
    doubts.add(7, holding(10), 0.0)
    doubts.add(7, pdu.loopback(1), 1.0)
    doubts.add(7, holding(10), 2.0)
    assert doubts.claim(7, b"\x83\x02") is not None
    assert doubts.since(7, holding(10)) == 2.0
    assert doubts.claim(7, b"\x88\x01") is not None
    assert doubts.since(7, holding(10)) == 2.0


def test_echo_of_a_write_pays_nothing() -> None:
    doubts = Doubts()
    doubts.add(7, holding(10), 0.0)
    doubts.add(7, pdu.write_register(1, 5), 1.0)
    assert doubts.claim(7, pdu.write_register(1, 5).pdu) is not None
    assert doubts.since(7, holding(10)) == 0.0
    doubts.asking(7, b"")
    doubts.echoes = False
    assert doubts.claim(7, pdu.write_register(1, 5).pdu) is not None
    assert doubts.since(7, holding(10)) is None


@pytest.mark.parametrize(
    ("owed", "given_up", "echo"),
    [
        (holding(10), pdu.read_identification(), pdu.read_identification()),
        # A read of coils from 0x0300 on looks like an answer with three bytes of them.
        (pdu.read_bits(Table.COIL, 0, 8), pdu.read_bits(Table.COIL, 0, 24), pdu.read_bits(Table.COIL, 0x300, 8)),
    ],
)
def test_echo_of_what_is_asked_or_was_given_up_pays_nothing(
    owed: pdu.Request[Any], given_up: pdu.Request[Any], echo: pdu.Request[Any]
) -> None:
    doubts = Doubts()
    doubts.add(7, owed, 0.0)
    doubts.add(7, given_up, 1.0)
    doubts.asking(7, echo.pdu)
    doubts.claim(7, echo.pdu)
    assert doubts.to_settle(7, owed, owed) == 1


def test_frame_that_comes_twice_pays_once() -> None:
    doubts = Doubts()
    doubts.add(7, holding(10), 0.0)
    doubts.add(7, holding(10), 1.0)
    assert doubts.claim(7, words(10)) is not None
    assert doubts.claim(7, words(10)) is not None
    assert doubts.since(7, holding(10)) == 1.0


def test_repeated_answer_is_in_the_way_until_something_else_is_answered() -> None:
    doubts = Doubts()
    doubts.unasked(7, words(10), 0.0)
    for _ in range(3):
        doubts.asking(7, b"")
        assert doubts.claim(7, words(10)) is not None
    assert doubts.since(7, holding(10)) == 0.0
    assert doubts.to_settle(7, holding(10), holding(10)) is None
    assert doubts.to_settle(7, holding(10), holding(1)) == 0


@given(st.integers(1, 125), st.integers(0, 30))
def test_there_is_always_a_barrier_and_it_reads_next_to_the_request_at_most(count: int, failures: int) -> None:
    doubts, barriers = Doubts(), Barriers({})
    request = holding(count)
    doubts.add(7, request, 1.0)
    for _ in range(failures):
        barrier = barriers.choose(7, request, doubts, loopback=True)
        assert barrier is not None
        assert doubts.to_settle(7, request, barrier) == 0
        if barrier.function == request.function:
            start, number = struct.unpack(">HH", barrier.pdu[1:5])
            assert start in {99, 100}
            assert start + number <= 101 + count
            assert number != count
        doubts.add(7, barrier, 1.0)
        barriers.missed(7, barrier)


entries = st.builds(
    ModbusDevice,
    bus=st.just(Name("b")),
    unit=st.integers(1, 3),
    max_registers=st.integers(1, 125),
    max_coils=st.integers(1, 2000),
    one_request_per_point=st.booleans(),
    avoid=st.lists(st.sampled_from(["holding 1", "holding 40-49", "input 7"]), max_size=2).map(tuple),
)


@given(st.lists(entries, max_size=6))
def test_a_barrier_keeps_to_what_any_entry_of_its_unit_says(devices: list[ModbusDevice]) -> None:
    found = limits_of({str(number): device for number, device in enumerate(devices)})
    assert found.keys() == {device.unit for device in devices}
    for device in devices:
        limits = found[device.unit]
        assert limits.max_registers <= device.max_registers
        assert limits.max_coils <= device.max_coils
        assert limits.one_request_per_point >= device.one_request_per_point
        assert set(map(Span.parse, device.avoid)) <= set(limits.avoid)


@pytest.mark.parametrize(
    "limits",
    [Limits(one_request_per_point=True), Limits(max_registers=1), Limits(avoid=(Span.parse("holding 99-101"),))],
)
def test_barrier_reads_nothing_that_is_forbidden(limits: Limits) -> None:
    doubts, barriers = Doubts(), Barriers({7: limits})
    doubts.add(7, holding(1), 1.0)
    for _ in range(20):
        barrier = barriers.choose(7, holding(1), doubts, loopback=True)
        assert barrier is not None
        assert barrier.function in {7, 8, 43}
        barriers.missed(7, barrier)


def test_barrier_is_what_the_unit_has_answered_before_and_a_loopback_only_where_there_is_no_echo() -> None:
    doubts, barriers = Doubts(), Barriers({})
    doubts.add(7, holding(1), 1.0)
    first = barriers.choose(7, holding(1), doubts, loopback=True)
    assert first is not None
    assert first.function == 8
    first = barriers.choose(7, holding(1), doubts, loopback=False)
    assert first is not None
    assert first.function != 8
    known = pdu.read_registers(Table.INPUT, 5, 3)
    barriers.answered(7, known, granted=True)
    assert barriers.choose(7, holding(1), doubts, loopback=True) is known


# -- against a device that answers in order, whatever it loses, refuses or says twice ---------------------------------


@settings(max_examples=400)
@given(st.data())
def test_no_answer_is_ever_taken_for_another_by_whatever_history(data: st.DataObject) -> None:
    """The device answers each request at any later moment, in order, or never; with a value, or by refusing it."""
    doubts, barriers = Doubts(), Barriers({})
    due: deque[tuple[int, bytes]] = deque()
    wanted = [holding(1), holding(2), pdu.read_registers(Table.INPUT, 1, 1)]
    for number in range(data.draw(st.integers(1, 40))):
        request = data.draw(st.sampled_from(wanted))
        if doubts.since(7, request) is not None:
            chosen = barriers.choose(7, request, doubts, loopback=data.draw(st.booleans()))
            if chosen is None:
                continue
            request = chosen
        doubts.asking(7, b"")
        due.append((number, _reply(request, refused=data.draw(st.booleans()))))
        if data.draw(st.integers(0, 3)) == 0:
            due.pop()  # the device heard nothing, or nobody hears it
        taken = False
        for _ in range(data.draw(st.integers(0, len(due)))):
            answered, reply = due.popleft()
            for _ in range(data.draw(st.integers(1, 2))):
                if not taken and _fits(request, reply) and doubts.claim(7, reply) is None:
                    assert answered == number
                    taken = True
                elif doubts.claim(7, reply) is None:
                    doubts.unasked(7, reply, 0.0)
        if taken:
            barriers.answered(7, request, granted=True)
            doubts.settled(7)
        else:
            doubts.add(7, request, 0.0)
            barriers.missed(7, request)


def _reply(request: pdu.Request[Any], *, refused: bool) -> bytes:
    if refused or request.reply_size is None:
        return bytes((request.function | 0x80, 2))
    if request.function == 8:
        return request.pdu
    return bytes((request.function, request.reply_size - 2)) + bytes(request.reply_size - 2)


def _fits(request: pdu.Request[Any], reply: bytes) -> bool:
    try:
        request.parse(reply)
    except pdu.InvalidReplyError:
        return False
    except (pdu.RefusedError, pdu.DeviceFailureError):
        return True
    return True


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
