"""Requests and replies byte by byte; the examples are those of the specification (V1.1b3, section 6)."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.pdu import DecodePDU

from edged.adapter import EdgedError, PermanentError, TransientError
from edged_modbus import pdu
from edged_modbus.pdu import DeviceFailureError, InvalidReplyError, RefusedError, Request
from edged_modbus.planner import Table

HOLDING = Table.HOLDING

EXAMPLES: list[tuple[Request[Any], str, str, object]] = [
    (
        pdu.read(Table.COIL, 19, 19),
        "01 00 13 00 13",
        "01 03 cd 6b 05",
        tuple(bit == "1" for bit in "1011001111010110101"),
    ),
    (
        pdu.read(Table.DISCRETE, 196, 22),
        "02 00 c4 00 16",
        "02 03 ac db 35",
        tuple(bit == "1" for bit in "0011010111011011101011"),
    ),
    (pdu.read(HOLDING, 107, 3), "03 00 6b 00 03", "03 06 02 2b 00 00 00 64", (0x022B, 0, 0x64)),
    (pdu.read(Table.INPUT, 8, 1), "04 00 08 00 01", "04 02 00 0a", (10,)),
    (pdu.write_coil(172, value=True), "05 00 ac ff 00", "05 00 ac ff 00", None),
    (pdu.write_coil(172, value=False), "05 00 ac 00 00", "05 00 ac 00 00", None),
    (pdu.write_register(1, 3), "06 00 01 00 03", "06 00 01 00 03", None),
    (
        pdu.write_coils(19, [bit == "1" for bit in "1011001110"]),
        "0f 00 13 00 0a 02 cd 01",
        "0f 00 13 00 0a",
        None,
    ),
    (pdu.write_registers(1, [10, 0x102]), "10 00 01 00 02 04 00 0a 01 02", "10 00 01 00 02", None),
    (pdu.mask_write(4, 0xF2, 0x25), "16 00 04 00 f2 00 25", "16 00 04 00 f2 00 25", None),
    (
        pdu.read_write(3, 6, 14, [0xFF, 0xFF, 0xFF]),
        "17 00 03 00 06 00 0e 00 03 06 00 ff 00 ff 00 ff",
        "17 0c 00 fe 0a cd 00 01 00 03 00 0d 00 ff",
        (0xFE, 0xACD, 1, 3, 13, 0xFF),
    ),
    (
        pdu.read_identification(),
        "2b 0e 01 00",
        "2b 0e 01 01 00 00 03 00 02 43 6f 01 01 58 02 00",
        pdu.Identification({0: b"Co", 1: b"X", 2: b""}, None),
    ),
    (
        pdu.read_identification(3, 0x80),
        "2b 0e 03 80",
        "2b 0e 03 03 ff 81 01 80 01 58",
        pdu.Identification({0x80: b"X"}, 0x81),
    ),
]
IDS = [f"{example[0].function}" for example in EXAMPLES]


@pytest.mark.parametrize(("request_", "asked", "answered", "value"), EXAMPLES, ids=IDS)
def test_the_examples_of_the_specification(request_: Request[Any], asked: str, answered: str, value: object) -> None:
    assert request_.pdu == bytes.fromhex(asked)
    assert request_.parse(bytes.fromhex(answered)) == value


@pytest.mark.parametrize(("request_", "asked", "answered", "value"), EXAMPLES, ids=IDS)
def test_any_other_reply_is_an_error_and_never_a_value(
    request_: Request[Any], asked: str, answered: str, value: object
) -> None:
    reply = bytes.fromhex(answered)
    for wrong in (b"", reply[:-1], reply + b"\0", *(bytes((code,)) + reply[1:] for code in (0, 1, 2, 3, 4, 5, 0x2C))):
        if wrong[:1] != reply[:1] or len(wrong) != len(reply):
            with pytest.raises(InvalidReplyError) as caught:
                request_.parse(wrong)
            assert caught.value.reason == "protocol"
    if value is None:
        for i in range(1, len(reply)):
            with pytest.raises(InvalidReplyError, match="confirmed"):
                request_.parse(reply[:i] + bytes((reply[i] ^ 1,)) + reply[i + 1 :])


@pytest.mark.parametrize(("request_", "asked", "answered", "value"), EXAMPLES, ids=IDS)
def test_the_length_of_a_reply_is_known_as_early_as_its_bytes_tell(
    request_: Request[Any], asked: str, answered: str, value: object
) -> None:
    reply = bytes.fromhex(answered)
    sizes = [request_.size_of(reply[:n]) for n in range(len(reply) + 1)]
    assert sizes[0] is None
    assert sizes[-1] == len(reply)
    assert all(size in {None, len(reply)} for size in sizes)


@given(st.sampled_from(EXAMPLES), st.binary(max_size=30))
def test_no_bytes_whatever_raise_anything_unexpected(
    example: tuple[Request[Any], str, str, object], data: bytes
) -> None:
    request = example[0]
    for reply in (data, bytes((request.function,)) + data, bytes((request.function | 0x80,)) + data):
        with contextlib.suppress(EdgedError):
            request.parse(reply)
        try:
            size = request.size_of(reply)
        except InvalidReplyError:
            size = 0
        assert size is None or size <= 260 * 256


@pytest.mark.parametrize(
    ("code", "kind", "reason", "name"),
    [
        (1, RefusedError, "exception", "illegal function"),
        (2, RefusedError, "exception", "illegal data address"),
        (3, RefusedError, "exception", "illegal data value"),
        (4, DeviceFailureError, "exception", "server device failure"),
        (5, DeviceFailureError, "exception", "acknowledge"),
        (6, DeviceFailureError, "exception", "server device busy"),
        (8, DeviceFailureError, "exception", "memory parity error"),
        (10, DeviceFailureError, "unreachable", "gateway path unavailable"),
        (11, DeviceFailureError, "timeout", "gateway target device failed to respond"),
        (99, DeviceFailureError, "exception", "not a code of the specification"),
    ],
)
def test_exceptions_are_named_and_sorted_by_what_to_do(code: int, kind: type[Any], reason: str, name: str) -> None:
    with pytest.raises(kind, match=f"function 3 with exception {code} \\({name}\\)") as caught:
        pdu.read(HOLDING, 0, 1).parse(bytes((0x83, code)))
    assert caught.value.code == code
    assert caught.value.reason == reason
    assert isinstance(caught.value, PermanentError if kind is RefusedError else TransientError)


@pytest.mark.parametrize("reply", ["83", "83 02 00", "84 02"])
def test_an_exception_that_is_malformed_or_not_ours_is_none(reply: str) -> None:
    with pytest.raises(InvalidReplyError):
        pdu.read(HOLDING, 0, 1).parse(bytes.fromhex(reply))


def test_a_reply_whose_byte_count_lies_is_invalid() -> None:
    with pytest.raises(InvalidReplyError, match="announces 4 bytes of data and has 2"):
        pdu.read(HOLDING, 0, 1).parse(bytes.fromhex("03 04 00 01"))


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (pdu.read, (HOLDING, 0, 0)),
        (pdu.read, (HOLDING, 0, 126)),
        (pdu.read, (HOLDING, 65535, 2)),
        (pdu.read, (HOLDING, -1, 1)),
        (pdu.read, (Table.COIL, 0, 2001)),
        (pdu.write_register, (65536, 0)),
        (pdu.write_register, (0, 65536)),
        (pdu.write_registers, (0, [])),
        (pdu.write_registers, (0, [0] * 124)),
        (pdu.write_registers, (0, [-1])),
        (pdu.write_coils, (0, [True] * 1969)),
        (pdu.mask_write, (0, 65536, 0)),
        (pdu.read_write, (0, 1, 0, [0] * 122)),
        (pdu.read_identification, (5,)),
    ],
)
def test_what_the_protocol_does_not_allow_is_not_sent(make: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes|go from|level"):
        make(*arguments)


@pytest.mark.parametrize(
    "request_",
    [
        pdu.read(HOLDING, 0, 125),
        pdu.read(Table.COIL, 0, 2000),
        pdu.write_registers(0, [0] * 123),
        pdu.write_coils(0, [True] * 1968),
        pdu.read_write(0, 125, 0, [0] * 121),
    ],
)
def test_the_largest_requests_and_replies_fit_a_pdu(request_: Request[Any]) -> None:
    assert len(request_.pdu) <= 253
    assert (request_.reply_size or 0) <= 253


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_bits_unpack_as_they_were_packed(bits: list[bool]) -> None:
    data = pdu.pack_bits(bits)
    assert len(data) == (len(bits) + 7) // 8
    assert pdu.unpack_bits(data, len(bits)) == tuple(bits)
    assert all(type(bit) is bool for bit in pdu.unpack_bits(data, len(bits)))


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20), st.integers(0, 1000))
def test_pymodbus_understands_our_requests_and_we_its_replies(values: list[int], start: int) -> None:
    server, client = DecodePDU(is_server=True), DecodePDU(is_server=False)
    asked = server.decode(pdu.write_registers(start, values).pdu)
    assert asked is not None
    assert (asked.address, asked.registers) == (start, values)
    reply = b"\x03" + bytes((2 * len(values),)) + struct.pack(f">{len(values)}H", *values)
    theirs = client.decode(reply)
    assert theirs is not None
    assert pdu.read(HOLDING, start, len(values)).parse(reply) == tuple(theirs.registers)
