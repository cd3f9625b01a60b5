"""What a UART makes of bytes sent with other settings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.media.settings import Parity
from edged.media.uart import Format, heard

PARITIES: list[Parity] = ["none", "even", "odd"]


@given(st.binary(max_size=40), st.sampled_from(PARITIES), st.sampled_from([1200, 9600, 115200]))
def test_with_the_same_settings_everything_arrives(data: bytes, parity: Parity, baudrate: int) -> None:
    same = Format(baudrate, parity)
    assert heard(data, same, same) == data


def test_half_the_speed_turns_each_bit_into_two() -> None:
    # 0x55 on the wire is 0 1 0 1 0 1 0 1 0 1; each twice: a start bit, then 0 1 1 0 0 1 1 0, and a 0 as the stop bit,
    # which is wrong and so the next start bit, then 1 1 0 0 1 1 0 0 and a right stop bit
    assert heard(b"\x55", Format(9600), Format(19200)) == b"\x66\x33"


def test_the_parity_bit_is_taken_for_the_stop_bit() -> None:
    # 0x03 has an even number of ones, so its parity bit is 0: a wrong stop bit, taken for the next start bit
    assert heard(b"\x03", Format(9600, "even"), Format(9600)) == b"\x03\xff"
    # 0x01 has an odd one, so the parity bit looks like the stop bit it should be
    assert heard(b"\x01\x02", Format(9600, "even"), Format(9600)) == b"\x01\x02"


@given(st.binary(min_size=1, max_size=12), st.binary(max_size=6), st.sampled_from([4800, 9600, 38400]))
def test_what_is_foretold_of_a_beginning_is_what_comes(begin: bytes, rest: bytes, baudrate: int) -> None:
    sent, listening = Format(baudrate, "even"), Format(19200)
    foretold = heard(begin, sent, listening, goes_on=True)
    assert heard(begin + rest, sent, listening).startswith(foretold)


@given(st.binary(max_size=30), st.sampled_from(PARITIES), st.booleans(), st.sampled_from([300, 14400, 115200]))
def test_it_always_ends(data: bytes, parity: Parity, inverted: bool, baudrate: int) -> None:
    heard(data, Format(baudrate, parity, inverted), Format(9600))
