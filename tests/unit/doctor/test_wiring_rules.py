"""The rules of the wiring doctor: what they say, and when they say that they do not know."""

from __future__ import annotations

from random import Random

import pytest

from edged.doctor.wiring import LineFacts, classify
from edged.media import Frame, FrameNote, Parity
from edged.media.uart import Format, heard
from edged_modbus.annotate import annotate
from edged_modbus.frame import rtu_frame

FACTS = LineFacts(baudrate=19200)


def exchanges(count: int, answer: object) -> list[FrameNote]:
    """So many reads of units 1 to 3, answered by what `answer(unit, right)` makes of the right answer."""
    pieces = []
    for i in range(count):
        unit, at = i % 3 + 1, 1_000_000 * (i + 1)
        right = rtu_frame(unit, b"\x03\x04" + bytes((i, 1, 2, 3)))
        pieces.append(Frame(at, "tx", rtu_frame(unit, b"\x03\x00\x00\x00\x02")))
        data = answer(unit, right)  # type: ignore[operator]  # a function
        if data:
            pieces.append(Frame(at + 15_000, "rx", data))
    return annotate([*pieces, Frame(10**10, "tx", rtu_frame(9, b"\x03\x00\x00\x00\x02"))], 10 / 19200, framing="rtu")[
        :-1
    ]


def codes(notes: list[FrameNote], facts: LineFacts = FACTS) -> list[tuple[str, bool]]:
    return [(one.code, one.sure) for one in classify(notes, facts)]


def test_a_good_line_is_good() -> None:
    assert codes(exchanges(20, lambda _unit, right: right)) == []


def test_too_little_is_not_judged() -> None:
    assert codes(exchanges(3, lambda _unit, _right: b"")) == [("too-little", False)]


def test_garbage_that_nothing_explains_is_not_given_a_cause() -> None:
    random = Random(1)
    notes = exchanges(12, lambda _unit, _right: random.randbytes(9))
    assert codes(notes) == [("wrong-settings", False)]
    mixed = exchanges(12, lambda unit, right: right if unit == 1 else random.randbytes(9))
    assert codes(mixed) == [("not-sure", False)]


@pytest.mark.parametrize("baudrate", [1200, 2400, 4800, 9600, 14400, 28800])
@pytest.mark.parametrize("ours", [19200, 38400])
def test_the_baudrate_of_the_device_is_named(baudrate: int, ours: int) -> None:
    notes = exchanges(12, lambda _unit, right: heard(right, Format(baudrate), Format(ours)))
    (found, *_) = classify(notes, LineFacts(baudrate=ours))
    if found.sure:
        assert (found.code, f"{baudrate} baud" in found.title) == ("wrong-baud", True)
    else:  # a device that is much slower looks like one that is slower still
        assert found.code == "wrong-settings" or f"{baudrate} baud" in found.title


@pytest.mark.parametrize(("ours", "theirs"), [("none", "even"), ("none", "odd")])
def test_the_parity_of_the_device_is_named(ours: Parity, theirs: Parity) -> None:
    notes = exchanges(12, lambda _unit, right: heard(right, Format(19200, theirs), Format(19200, ours)))
    (found, *_) = classify(notes, LineFacts(baudrate=19200, parity=ours))
    assert (found.code, theirs in found.title) == ("wrong-parity", True)


def test_an_expected_echo_is_no_fault() -> None:
    def echoed(unit: int, right: bytes) -> bytes:
        return rtu_frame(unit, b"\x03\x00\x00\x00\x02") + right

    assert codes(exchanges(9, echoed)) == [("echo", True)]
    assert codes(exchanges(9, echoed), LineFacts(baudrate=19200, echo=True)) == []


def test_one_silent_device_is_not_the_line() -> None:
    (found,) = classify(exchanges(12, lambda unit, right: right if unit != 2 else b""), FACTS)
    assert (found.code, "unit 2 never answers, while others do" in found.title) == ("silence", True)


def test_a_latency_timer_of_16_ms_is_told() -> None:
    facts = LineFacts(baudrate=19200, latency_ms=16)
    assert codes(exchanges(9, lambda _unit, right: right), facts) == [("latency-timer", True)]


def test_a_single_spoilt_answer_in_many_is_everyday_life() -> None:
    spoilt = iter([b"\x01"])
    notes = exchanges(200, lambda _unit, right: right[:-1] + next(spoilt, right[-1:]))
    assert codes(notes) == []
