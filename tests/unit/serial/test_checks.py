from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged_serial.codecs.checks import CRCS, Check, Crc, algorithm

CATALOGUE = {
    "crc8": 0xF4, "crc8-maxim": 0xA1, "crc16-modbus": 0x4B37, "crc16-arc": 0xBB3D, "crc16-ccitt-false": 0x29B1,
    "crc16-x25": 0x906E, "crc16-kermit": 0x2189, "crc16-xmodem": 0x31C3, "crc32": 0xCBF43926,
}  # fmt: skip
"""The check values of the catalogue of parametrised CRC algorithms."""


@pytest.mark.parametrize(("name", "value"), CATALOGUE.items())
def test_the_check_value_of_the_catalogue(name: str, value: int) -> None:
    assert algorithm(name)[1](b"123456789") == value


def test_every_named_crc_is_in_the_catalogue_above() -> None:
    assert CATALOGUE.keys() == CRCS.keys()


@pytest.mark.parametrize(
    ("crc", "value"),
    [
        (Crc(16, 0x3D65, 0, reflect=True, xorout=0xFFFF), 0xEA82),  # CRC-16/DNP
        (Crc(16, 0x8BB7), 0xD0DB),  # CRC-16/T10-DIF
        (Crc(8, 0x2F, 0xFF, xorout=0xFF), 0xDF),  # CRC-8/AUTOSAR
        (Crc(16, 0x1021, 0xB2AA, reflect=True), 0x63D0),  # CRC-16/RIELLO: the start value is mirrored too
        (Crc(24, 0x864CFB, 0xB704CE), 0x21CF02),  # CRC-24/OPENPGP
        (Crc(32, 0x04C11DB7), 0x89A1897F),  # CRC-32/CKSUM without its final inversion
    ],
)
def test_a_crc_by_its_parameters(crc: Crc, value: int) -> None:
    assert crc(b"123456789") == value


def test_sums() -> None:
    data = b"\x01\x02\xff"
    assert {name: algorithm(name)[1](data) for name in ("lrc", "xor", "sum8", "sum8-negated", "sum16")} == {
        "lrc": 0xFE, "xor": 0xFC, "sum8": 0x02, "sum8-negated": 0xFD, "sum16": 0x0102,
    }  # fmt: skip


@given(st.binary(max_size=50))
def test_crc32_is_that_of_zlib(data: bytes) -> None:
    assert algorithm("crc32")[1](data) == zlib.crc32(data)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match="no check"):
        algorithm("crc17")


@pytest.mark.parametrize(
    ("check", "frame"),
    [
        (Check("xor", first=1, last=-3, notation="hex"), b"$GPGLL,5057.970,N,00146.110,E,142451,A*27"),
        (Check("sum8", first=2, at=-2), bytes.fromhex("AAC08C009400BCF9D5AB")),
        (Check("crc16-modbus", CRCS["crc16-modbus"], order="little"), bytes.fromhex("010300000001840A")),
        (Check("lrc", first=1, notation="hex"), b":ABF"),
    ],
)
def test_where_a_checksum_lies(check: Check, frame: bytes) -> None:
    assert check.valid(frame)
    for place in range(check.first, len(frame) - (frame[-1:] == b"\xab")):
        changed = bytearray(frame)
        changed[place] ^= 1
        covered = not (check.last is not None and place == len(frame) + check.last)
        assert check.valid(bytes(changed)) is not covered


@pytest.mark.parametrize("frame", [b"", b"a", b"ab"])
def test_a_frame_too_short_for_its_checksum_is_wrong(frame: bytes) -> None:
    assert not Check("crc16-modbus", CRCS["crc16-modbus"], first=2).valid(frame)
    assert not Check("sum8", at=5).valid(frame)


@pytest.mark.parametrize("notation", ["binary", "hex", "hex-lower", "decimal"])
@given(data=st.binary(min_size=1, max_size=30))
def test_what_is_appended_is_valid(notation: str, data: bytes) -> None:
    for order in ("big", "little"):
        check = Check("sum16", notation=notation, order=order)  # type: ignore[arg-type]  # plain words
        assert check.valid(data + check.encode(data))
        assert not check.valid(data + check.encode(data + b"\x01"))


def test_hexadecimal_digits_may_have_either_case() -> None:
    check = Check("xor", notation="hex")
    assert check.valid(b"\xaa\x01AB")
    assert check.valid(b"\xaa\x01ab")
