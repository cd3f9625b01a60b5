"""The four links against Modbus servers that share no code with ours: libmodbus, and pymodbus' own simulator."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import pytest

from edged.adapter import Duration, PermanentError, TransientError
from edged_modbus.point import ModbusPoint
from tests.support.libmodbus import libmodbus_server
from tests.support.modbus import device, faults, holding, make_bus, names, opened, pymodbus_server, values
from tests.support.rogue import Rogue, good, late, refuse, silent


@pytest.fixture(scope="module")
def libmodbus() -> Iterator[int]:
    with libmodbus_server(1, 2, 17) as port:
        yield port


ALL_TABLES = {
    "word": ModbusPoint(holding=101),
    "long": ModbusPoint(holding=102, type="uint32"),
    "swapped": ModbusPoint(holding=102, type="uint32", order="CDAB"),
    "far": ModbusPoint(holding=900),
    "input": ModbusPoint(input=33),
    "odd": ModbusPoint(coil=7),
    "even": ModbusPoint(coil=8),
    "discrete": ModbusPoint(discrete=9),
    "bit": ModbusPoint(holding=5, bit=2),
}
EXPECTED = {
    "word": 101,
    "long": 102 << 16 | 103,
    "swapped": 103 << 16 | 102,
    "far": 900,
    "input": 33,
    "odd": True,
    "even": False,
    "discrete": True,
    "bit": True,
}


async def test_libmodbus_serves_every_table(libmodbus: int) -> None:
    async with opened("tcp", libmodbus, device(ALL_TABLES, timeout=5)) as bus:
        result = await bus.poll(bus.prepare("m", list(ALL_TABLES)))
    assert values(result) == EXPECTED
    assert faults(result) == {}


@pytest.mark.parametrize("kind", ["tcp", "udp", "rtu-over-tcp"])
async def test_pymodbus_serves_every_table(kind: str) -> None:
    with pymodbus_server(kind, 1) as port:
        async with opened(kind, port, device(ALL_TABLES, timeout=5)) as bus:
            result = await bus.poll(bus.prepare("m", list(ALL_TABLES)))
    assert values(result) == EXPECTED
    assert faults(result) == {}


async def test_the_largest_reads_the_protocol_allows_arrive_whole(libmodbus: int) -> None:
    points = holding(*range(1000, 1125)) | {f"c{n}": ModbusPoint(coil=n) for n in range(2000)}
    async with opened("tcp", libmodbus, device(points)) as bus:
        job = bus.prepare("m", list(points))
        assert [request.what for request in bus.plan(job).requests] == ["holding 1000-1124", "coil 0-1999"]
        result = await bus.poll(job)
    expected = {f"h{n}": n for n in range(1000, 1125)} | {f"c{n}": bool(n % 2) for n in range(2000)}
    assert values(result) == expected


async def test_twenty_polls_of_one_shape_share_one_tuple_of_names(libmodbus: int) -> None:
    points = holding(*range(10)) | {"far": ModbusPoint(holding=5000)}
    async with opened("tcp", libmodbus, device(points)) as bus:
        job = bus.prepare("m", list(points))
        shapes = set()
        for _ in range(20):
            result = await bus.poll(job)
            shapes |= {id(sample.points) for sample in result.samples if len(sample.points) == 11}
    assert len(shapes) <= 1


async def test_a_sample_carries_the_time_of_its_reply(libmodbus: int) -> None:
    async with opened("tcp", libmodbus, device(holding(1))) as bus:
        job = bus.prepare("m", ["h1"])
        wall, mono = time.time_ns() // 1000, time.monotonic_ns() // 1000
        (sample,) = (await bus.poll(job)).samples
        assert wall <= sample.time <= time.time_ns() // 1000
        assert mono <= sample.mono <= time.monotonic_ns() // 1000


async def test_several_units_share_one_connection_and_keep_apart() -> None:
    with pymodbus_server("tcp", 1, 2, 3) as port:
        devices = {f"m{unit}": device(holding(unit), unit=unit) for unit in (1, 2, 3)}
        async with opened("tcp", port, devices) as bus:
            for unit in (1, 2, 3, 2, 1):
                result = await bus.poll(bus.prepare(f"m{unit}", [f"h{unit}"]))
                assert values(result) == {f"h{unit}": unit}
                assert {sample.device for sample in result.samples} == {f"m{unit}"}


async def test_several_connections_are_used_at_once_when_asked_for(libmodbus: int) -> None:
    points = holding(*range(40))
    devices = {f"m{n}": device(points, unit=1) for n in range(4)}
    async with opened("tcp", libmodbus, devices, connections=3) as bus:
        assert bus.concurrency == 3
        jobs = [bus.prepare(name, list(points)) for name in devices]
        for _ in range(10):
            for result in await asyncio.gather(*(bus.poll(job) for job in jobs)):
                assert values(result) == {f"h{n}": n for n in range(40)}


async def test_raw_shows_the_transactions(libmodbus: int) -> None:
    points = {"word": ModbusPoint(holding=7), "coil": ModbusPoint(coil=3), "gone": ModbusPoint(holding=60_000)}
    async with opened("tcp", libmodbus, device(points)) as bus:
        result = await bus.poll(bus.prepare("m", list(points)), raw=True)
    first, refused, coil = result.raw
    assert (first.what, first.words, first.address, first.error) == ("holding 7", (7,), 7, "")
    assert refused.what == "holding 60000"
    assert "illegal data address" in refused.error
    assert (coil.what, coil.words, coil.address) == ("coil 3", (1,), 3)
    assert names(result) == sorted(points)


async def test_values_written_are_read_back_from_libmodbus() -> None:
    points = {
        "word": ModbusPoint(holding=10, writable=True),
        "scaled": ModbusPoint(holding=11, type="int16", scale=0.1, writable=True),
        "long": ModbusPoint(holding=12, type="float32", order="CDAB", writable=True),
        "coil": ModbusPoint(coil=4, writable=True),
        "bit": ModbusPoint(holding=15, bit=3, writable=True),
        "text": ModbusPoint(holding=20, type="string", length=4, writable=True),
    }
    with libmodbus_server(1) as port:
        async with opened("tcp", port, device(points)) as bus:
            for point, value in (
                ("word", 4242), ("scaled", -3.5), ("long", 0.5), ("coil", True), ("bit", False), ("text", "edged"),
            ):  # fmt: skip
                await bus.write("m", point, value)
            result = await bus.poll(bus.prepare("m", list(points)))
            register = await bus.poll(bus.prepare("m", ["bit"]), raw=True)
    assert values(result) == {
        "word": 4242, "scaled": -35, "long": 0.5, "coil": True, "bit": False, "text": "edged",
    }  # fmt: skip
    assert register.raw[0].words == (15 & ~8,), "the other bits of the register were touched"


@pytest.mark.parametrize("kind", ["tcp", "udp", "rtu-over-tcp"])
async def test_a_device_identifies_itself(kind: str) -> None:
    with pymodbus_server(kind, 1) as port:
        async with opened(kind, port, device(holding(1))) as bus:
            assert await bus.identify("m") == {
                "VendorName": "Fabrikam", "ProductCode": "P1", "MajorMinorRevision": "2.0",
            }  # fmt: skip


async def test_a_device_that_ignores_the_question_who_it_is_does_not_block_the_bus() -> None:
    async with (
        Rogue([silent, good]) as server,
        opened("tcp", server.port, device(holding(1), timeout=0.1)) as bus,
    ):
        with pytest.raises(TransientError, match="m does not identify itself: no answer"):
            await bus.identify("m")
        assert values(await bus.poll(bus.prepare("m", ["h1"]))) == {"h1": 1}


async def test_libmodbus_does_not_say_who_it_is(libmodbus: int) -> None:
    async with opened("tcp", libmodbus, device(holding(1), timeout=5)) as bus:  # it waits half a second for more bytes
        with pytest.raises(PermanentError, match=r"m does not identify itself: .*illegal function"):
            await bus.identify("m")
        assert values(await bus.poll(bus.prepare("m", ["h1"]))) == {"h1": 1}


async def test_a_device_that_refuses_to_say_who_it_is() -> None:
    async with Rogue([refuse(1)]) as server, opened("tcp", server.port, device(holding(1))) as bus:
        with pytest.raises(PermanentError, match=r"m does not identify itself: .*illegal function"):
            await bus.identify("m")


async def test_reads_that_lie_apart_get_samples_with_times_of_their_own() -> None:
    points = holding(0, 1000, 2000)
    async with Rogue([late(0.02)]) as server, opened("tcp", server.port, device(points, timeout=2)) as bus:
        result = await bus.poll(bus.prepare("m", list(points)))
    assert [sample.points for sample in result.samples] == [("h0",), ("h1000",), ("h2000",)]
    times = [(sample.time, sample.mono) for sample in result.samples]
    for (wall, mono), (later_wall, later_mono) in itertools.pairwise(times):
        assert later_wall - wall >= 19_000
        assert later_mono - mono >= 19_000


async def test_a_device_is_left_alone_between_requests_if_it_needs_that() -> None:
    points = holding(0, 1000, 2000)
    async with (
        Rogue([good]) as server,
        opened("tcp", server.port, device(points, pause=Duration(0.03))) as bus,
    ):
        began = time.monotonic()
        assert len(values(await bus.poll(bus.prepare("m", list(points))))) == 3
        assert time.monotonic() - began >= 0.06


async def test_a_unit_is_left_alone_whichever_of_its_entries_was_read_last() -> None:
    entries = {
        "meter": device(holding(0), pause=Duration(0.03)),
        "its-settings": device(holding(1000)),
        "another": device(holding(0), unit=2),
    }
    async with Rogue([good]) as server, opened("tcp", server.port, entries) as bus:
        jobs = {name: bus.prepare(name, list(entry.points)) for name, entry in entries.items()}
        began = time.monotonic()
        await bus.poll(jobs["its-settings"])
        await bus.poll(jobs["another"])
        await bus.poll(jobs["meter"])
        assert time.monotonic() - began >= 0.03


def test_only_a_line_of_known_speed_has_a_predicted_load() -> None:
    points = holding(*range(20))
    for kind, settings, seconds in (
        ("tcp", {}, 0.0), ("rtu-over-tcp", {}, 0.0), ("rtu-over-tcp", {"baudrate": 9600}, pytest.approx(0.08, rel=0.2)),
    ):  # fmt: skip
        bus = make_bus(kind, 1502, device(points), **settings)
        (request,) = bus.plan(bus.prepare("m", list(points))).requests
        assert (request.what, request.seconds) == ("holding 0-19", seconds)
