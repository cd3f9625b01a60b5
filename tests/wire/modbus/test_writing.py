"""Writes: the right function, the right bytes, and never a success that was none."""

from __future__ import annotations

import struct

import pytest

from edged.adapter import LinearMap, PermanentError, TransientError
from edged_modbus.point import ModbusPoint
from tests.support import rogue
from tests.support.modbus import device, holding, opened, values
from tests.support.rogue import Request, Rogue

POINTS = {
    "word": ModbusPoint(holding=10, writable=True),
    "celsius": ModbusPoint(holding=11, type="int16", scale=0.1, offset=-50, range=(-40, 120), writable=True),
    "bar": ModbusPoint(holding=12, type="uint16", map=LinearMap(raw=(0, 27648), to=(0, 10)), writable=True),
    "long": ModbusPoint(holding=14, type="int32", order="CDAB", writable=True),
    "mode": ModbusPoint(holding=16, enum={0: "off", 1: "cooling"}, writable=True),
    "bit": ModbusPoint(holding=17, bit=4, writable=True),
    "coil": ModbusPoint(coil=3, writable=True),
    "fixed": ModbusPoint(holding=18),
}


@pytest.mark.parametrize(
    ("point", "value", "pdu"),
    [
        ("word", 0x1234, "06 000a 1234"),
        ("celsius", 21.5, "06 000b 02cb"),
        ("celsius", -40, "06 000b 0064"),
        ("bar", 5, "06 000c 3600"),
        ("long", -2, "10 000e 0002 04 fffe ffff"),
        ("mode", "cooling", "06 0010 0001"),
        ("bit", True, "16 0011 ffef 0010"),
        ("coil", True, "05 0003 ff00"),
        ("coil", False, "05 0003 0000"),
    ],
)
async def test_a_value_goes_out_unscaled_in_the_right_function(point: str, value: float | str, pdu: str) -> None:
    async with Rogue([rogue.good]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        await bus.write("m", point, value)
    assert [request.pdu.hex() for request in server.requests] == [pdu.replace(" ", "")]


@pytest.mark.parametrize(
    ("point", "value", "reason", "message"),
    [
        ("fixed", 1, "not-writable", r"m/fixed \(holding 18\): it is not writable"),
        ("nowhere", 1, "unknown", "there is no point m/nowhere"),
        ("word", 65_536, "range", "65536"),
        ("word", -1, "range", "-1"),
        ("word", 1.5, "range", "1.5 is not a whole number"),
        ("word", float("nan"), "range", "not a finite number"),
        ("word", "7", "range", "'7' is not a whole number"),
        ("word", None, "range", "None"),
        ("word", True, "range", "True"),
        ("celsius", 121, "range", "outside its range, -40 to 120"),
        ("mode", "heating", "range", "'heating' is none of off, cooling"),
        ("coil", 2, "range", "neither true nor false"),
    ],
)
async def test_what_cannot_be_written_never_reaches_the_wire(
    point: str, value: float | str | None, reason: str, message: str
) -> None:
    async with Rogue([rogue.good]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        with pytest.raises(PermanentError, match=message) as caught:
            await bus.write("m", point, value)
    assert caught.value.reason == reason
    assert server.requests == []


async def test_a_refusal_is_permanent_and_named() -> None:
    async with Rogue([rogue.refuse(2)]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        with pytest.raises(
            PermanentError, match=r"m/word \(holding 10\): .*exception 2 \(illegal data address\)"
        ) as caught:
            await bus.write("m", "word", 1)
    assert caught.value.reason == "exception"
    assert len(server.requests) == 1


async def test_a_busy_device_is_a_passing_trouble() -> None:
    async with Rogue([rogue.refuse(6)]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        with pytest.raises(TransientError, match=r"m/word .*busy"):
            await bus.write("m", "word", 1)


@pytest.mark.parametrize("kind", ["tcp", "rtu-over-tcp"])
async def test_a_write_that_was_not_answered_is_not_sent_again(kind: str) -> None:
    server = Rogue([rogue.good, rogue.silent, rogue.good], framing="tcp" if kind == "tcp" else "rtu")
    async with server, opened(kind, server.port, device(POINTS, retries=3, timeout=0.1)) as bus:
        await bus.poll(bus.prepare("m", ["word"]))
        with pytest.raises(TransientError, match="no answer") as caught:
            await bus.write("m", "word", 1)
        assert caught.value.reason == "timeout"
        assert [request.function for request in server.requests] == [3, 6]
        await bus.write("m", "word", 2)


async def test_a_write_on_a_connection_that_closes_is_not_sent_again() -> None:
    async with Rogue([rogue.good, rogue.closing, rogue.good]) as server:
        async with opened("tcp", server.port, device(POINTS)) as bus:
            await bus.write("m", "word", 1)
            with pytest.raises(TransientError, match="closed the connection"):
                await bus.write("m", "word", 2)
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", ["tcp", "rtu-over-tcp"])
@pytest.mark.parametrize("place", [1, 3])
async def test_a_confirmation_of_something_else_is_no_success(kind: str, place: int) -> None:
    def confirm_other(request: Request) -> list[bytes]:
        pdu = bytearray(request.pdu)
        pdu[place] ^= 1
        return [request.frame(bytes(pdu))]

    server = Rogue([confirm_other], framing="tcp" if kind == "tcp" else "rtu")
    async with server, opened(kind, server.port, device(POINTS, timeout=0.1)) as bus:
        with pytest.raises(TransientError, match=r"confirmed|no reply to the request") as caught:
            await bus.write("m", "word", 1)
    assert caught.value.reason == "protocol"


async def test_a_device_without_function_6_gets_function_16_from_then_on() -> None:
    behaviour = rogue.refuse_where(lambda r: r.function == 6, code=1)
    async with Rogue([behaviour]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        await bus.write("m", "word", 7)
        await bus.write("m", "word", 8)
    assert [request.function for request in server.requests] == [6, 16, 16]
    assert server.requests[-1].pdu == struct.pack(">BHHBH", 16, 10, 1, 2, 8)


async def test_a_device_without_masks_gets_the_register_read_changed_and_written() -> None:
    behaviour = rogue.refuse_where(lambda r: r.function == 22, code=1)
    async with Rogue([behaviour]) as server, opened("tcp", server.port, device(POINTS)) as bus:
        await bus.write("m", "bit", True)
    assert [request.function for request in server.requests] == [22, 3, 6]
    assert server.requests[-1].pdu == struct.pack(">BHH", 6, 17, 17 | 1 << 4)


async def test_a_device_that_knows_no_way_to_write_says_so() -> None:
    async with Rogue([rogue.refuse(1)]) as server, opened("tcp", server.port, device(POINTS | holding(1))) as bus:
        for _ in range(2):
            with pytest.raises(PermanentError, match="illegal function"):
                await bus.write("m", "coil", True)
    assert [request.function for request in server.requests] == [5, 15]


async def test_a_write_between_polls_disturbs_none() -> None:
    points = POINTS | holding(1)
    async with Rogue([rogue.good]) as server, opened("tcp", server.port, device(points)) as bus:
        job = bus.prepare("m", ["h1"])
        for _ in range(3):
            assert values(await bus.poll(job)) == {"h1": 1}
            await bus.write("m", "word", 5)
    assert server.connections == 1
