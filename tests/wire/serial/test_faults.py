"""What can go wrong on a line, one thing at a time, on a real pseudo terminal at the true speed.

In every case: no wrong value, no shifted value, and the next poll is good again.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import edged_modbus
from edged.adapter import Duration, Name, TransientError
from edged.testing.line import (
    Burst,
    Fault,
    Line,
    corrupted,
    dead,
    dropped,
    late,
    noise_after,
    noise_before,
    noise_inside,
    paused,
    truncated,
    twice,
)  # fmt: skip
from edged_modbus.config import ModbusDevice
from edged_modbus.frame import rtu_frame
from edged_modbus.point import ModbusPoint
from edged_modbus.serial_bus import ModbusRtuBus
from tests.wire.serial.rig import Kind, Rig, changed, rig

_TIMEOUT = 0.2
_TOGETHER = 8

FAULTS: dict[str, Fault] = {
    "stray byte before": noise_before(1),
    "stray bytes before": noise_before(3),
    "stray byte inside": noise_inside(1),
    "stray byte after": noise_after(1),
    "stray bytes after": noise_after(4),
    "truncated": truncated(3),
    "only the first byte": truncated(1000),
    "one byte missing": dropped(1),
    "wrong checksum": corrupted(1),
    "late by 1.2 of the time-out": late(1.2 * _TIMEOUT),
    "late by 1.9 of the time-out": late(1.9 * _TIMEOUT),
    "pause of 50 ms inside": paused(0.05),
    "pause of 150 ms inside": paused(0.15),
    "silent": dead(),
    "answered twice": twice(),
}
RTU_FAULTS: dict[str, Fault] = {
    "another unit": changed(unit_offset=1),
    "another function": changed(function=4),
    "a longer answer": changed(count_offset=1),
    "a shorter answer": changed(count_offset=-1),
}


KINDS: tuple[Kind, ...] = ("rtu", "ascii", "rtu-over-tcp")
MATRIX = [(kind, fault) for kind in KINDS for fault in (*FAULTS, *(RTU_FAULTS if kind != "ascii" else ()))]


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[Kind, str], BaseException | None]:
    """What came of each fault. They mostly wait, so that they do it together."""

    async def all_of_them() -> list[BaseException | None]:
        few = asyncio.Semaphore(_TOGETHER)

        async def one(kind: Kind, fault: str) -> None:
            async with few:
                await _once(kind, (FAULTS | RTU_FAULTS)[fault])

        return await asyncio.gather(*(one(*case) for case in MATRIX), return_exceptions=True)

    return dict(zip(MATRIX, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize(("kind", "fault"), MATRIX)
def test_fault_yields_no_wrong_value_and_the_next_poll_is_good(
    kind: Kind, fault: str, outcomes: dict[tuple[Kind, str], BaseException | None]
) -> None:
    if (outcome := outcomes[kind, fault]) is not None:
        raise outcome


async def _once(kind: Kind, fault: Fault) -> None:
    async with rig(kind, timeout=_TIMEOUT) as line:
        for unit in (1, 2, 3):
            await line.polls_well(unit)
        line.line.fault = fault
        await line.poll(1)
        line.line.fault = None
        await line.polls_well(1)
        for unit in (2, 1, 3, 1):
            await line.polls_well(unit)
        if kind != "rtu-over-tcp":  # there the server keeps the silences
            assert line.line.early == 0


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_device_that_is_busy_for_long_yields_no_wrong_value_and_comes_back(kind: Kind) -> None:
    async with rig(kind, timeout=_TIMEOUT) as line:
        await line.polls_well(1)
        line.line.fault = late(5 * _TIMEOUT)
        await line.times_out(1)
        line.line.fault = None
        for _ in range(5):  # its answers to what it was asked come first
            await line.polls_well(2)
            if await line.poll(1) is not None:
                break
        await line.polls_well(1)


async def test_noise_around_a_good_reply_costs_nothing() -> None:
    async with rig() as line:
        await line.polls_well(1)
        for fault in (noise_before(2), noise_after(2)):
            line.line.fault = fault
            before, held_up = line.line.requests, line.stalls.count
            await line.polls_well(1)
            assert line.line.requests == before + 1 or line.stalls.count > held_up


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_answer_in_time_is_taken_though_the_machine_stood_still_until_after_the_time_out(kind: Kind) -> None:
    async with rig(kind, timeout=_TIMEOUT) as line:
        await line.polls_well(1)
        line.line.fault = late(0.5 * _TIMEOUT)

        async def asked_once() -> bool | None:
            before = line.line.requests
            asyncio.get_running_loop().call_later(0.3 * _TIMEOUT, time.sleep, 1.5 * _TIMEOUT)
            await line.poll(1)
            return line.line.requests == before + 1 or None

        assert await line.stalls.again(asked_once), "it need not be asked again"
        assert line.wrong == []


async def test_wrong_baud_rate_shows_what_came_and_asks_for_the_settings() -> None:
    async with rig(timeout=0.1) as line:
        line.line.fault = lambda _request, _bursts, _random: [Burst(b"\xe6\x00\xf8\x80\xfe", 0.004)]
        with pytest.raises(TransientError, match=r"5 bytes came .*e6 00 f8 80 fe; are baudrate, parity and stop bits"):
            await line.bus.poll(line.jobs[1])


async def test_late_reply_is_counted_and_named() -> None:
    async with rig(timeout=0.2) as line:
        await line.polls_well(1)
        line.line.fault = late(0.4)
        await line.times_out(1)
        line.line.fault = None
        result = await line.poll(1)
        assert result is not None
        assert line.master.late >= 1
        assert any("unit 1 answered" in note and "timeout" in note for note in result.notes)
        assert line.wrong == []


async def test_unit_that_answers_a_single_read_and_nothing_else_is_left_alone_and_then_read_again() -> None:
    async with rig(count=1, timeout=0.1) as line:
        line.master.forget = 1.0
        respond = line.line.respond
        only = rtu_frame(1, bytes((3, 0, 0, 0, 1)))
        line.line.respond = lambda heard: respond(heard) if heard == only else ()
        await line.polls_well(1)
        line.line.fault = dead()
        await line.times_out(1)
        line.line.fault = None
        began = time.monotonic()
        while await line.poll(1) is None:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.1)
        assert time.monotonic() - began > 0.9
        await line.polls_well(1)


async def test_unit_with_a_single_register_is_read_again_at_once_if_it_refuses_everything_else() -> None:
    async with rig(count=1, timeout=0.1) as line:
        for _ in range(3):
            await line.polls_well(1)
            line.line.fault = late(0.15)
            await line.times_out(1)
            line.line.fault = None
            await line.polls_well(1)


async def test_cancelled_poll_leaves_no_reply_behind() -> None:
    async with rig() as line:
        await line.polls_well(1)
        line.line.fault = late(0.1)
        for delay in (0.002, 0.01, 0.05, 0.12):
            task = asyncio.create_task(line.poll(1))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        line.line.fault = None
        for unit in (1, 2, 1):
            await line.polls_well(unit)


async def test_echo_is_found_and_taken_out() -> None:
    async with rig() as line:
        line.line.echo = True
        result = await line.poll(1)
        assert result is not None
        assert any("hears what it sends" in note for note in result.notes)
        await line.polls_well(1)
        await line.bus.write("u1", "p3", 7)
        assert [pdu.hex() for _, pdu in line.written] == ["0600030007"]


@pytest.mark.parametrize("echo", [True, False])
async def test_configured_echo_does_not_matter_when_there_is_none(echo: bool) -> None:
    async with rig(echo=True) as line:
        line.line.echo = echo
        for unit in (1, 2, 1):
            await line.polls_well(unit)


async def test_echo_is_not_taken_for_the_confirmation_of_a_write() -> None:
    async with rig() as line:
        line.line.echo = True
        line.line.fault = dead()
        with pytest.raises(TransientError):
            await line.bus.write("u1", "p3", 7)
        with pytest.raises(TransientError):
            await line.bus.write("u1", "p3", 7)


async def test_echo_of_a_read_that_looks_like_its_own_answer_is_not_taken_for_it() -> None:
    """A read of 17 to 24 coils from 0x0300 on is, byte for byte, an answer with three bytes of coils."""
    points: dict[Any, ModbusPoint] = {f"c{i}": ModbusPoint(coil=0x300 + i) for i in range(24)}
    device = ModbusDevice(bus=Name("b"), unit=1, timeout=Duration(0.05), points=points)
    async with Line(lambda _: (), baudrate=19_200) as line:
        line.echo = True
        bus = edged_modbus.RTU.open("b", ModbusRtuBus(adapter="modbus-rtu", port=line.port), {"d": device})
        try:
            for _ in range(3):
                with pytest.raises(TransientError, match="no answer"):
                    await bus.poll(bus.prepare("d", list(points)))
        finally:
            await bus.close()


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_echo_out_of_place_confirms_no_write(kind: Kind) -> None:
    async with rig(kind, timeout=0.1, echo=True) as line:
        line.line.echo = True
        await line.polls_well(1)
        line.line.fault = dead()
        line.line.before_echo = b"\xfe"
        with pytest.raises(TransientError):
            await line.bus.write("u1", "p0", 7)


@pytest.mark.parametrize("kind", ["rtu", "ascii"])
async def test_echo_out_of_place_of_a_write_given_up_settles_nothing_older(kind: Kind) -> None:
    """Were it taken for the write's answer, the read before would seem done, and its late answer the next one's."""
    async with rig(kind, count=1, timeout=0.1, echo=True) as line:
        line.line.echo = True
        await line.polls_well(1)
        line.line.fault = late(0.3)
        assert await line.poll(1, probe=True) is None
        line.line.fault = dead()
        line.line.before_echo = b"\xfe"
        write = asyncio.create_task(line.bus.write("u1", "p0", 7))
        await asyncio.sleep(0.003)
        write.cancel()
        await asyncio.wait([write])
        await asyncio.sleep(0.05)
        line.line.fault = None
        line.line.before_echo = b""
        began = time.monotonic()
        while await line.poll(1) is None:
            assert time.monotonic() - began < 20
        await line.polls_well(1)


async def test_broadcast_reaches_all_and_waits_for_no_answer() -> None:
    async with rig(units=(0, 1, 2)) as line:
        await line.bus.write("u0", "p3", 7)
        await line.polls_well(1)
        assert sorted(unit for unit, _ in line.written) == [0, 1, 2]
        with pytest.raises(TransientError, match="all devices at once"):
            await line.bus.poll(line.jobs[0])


async def test_second_master_is_named_and_its_answers_are_never_taken() -> None:
    async with rig() as line:
        notes: list[str] = []
        # A question of the very same shape, to the same unit, about other registers.
        question = rtu_frame(1, bytes((3, 0, 10, 0, 10)))
        polls = asyncio.create_task(_poll_often(line, 10, notes))
        while not polls.done():
            line.line.second_master(question)
            await asyncio.sleep(0.173)
        assert await polls > 0
        assert any("another master" in note for note in notes)
        await asyncio.sleep(0.1)
        await line.polls_well(1)


async def _poll_often(line: Rig, times: int, notes: list[str]) -> int:
    good = 0
    for _ in range(times):
        result = await line.poll(1)
        good += result is not None
        notes += result.notes if result is not None else ()
    return good


async def test_slow_answer_to_another_master_is_never_taken() -> None:
    async with rig(turnaround=0.03) as line:
        await line.polls_well(1)
        line.line.second_master(rtu_frame(1, bytes((3, 0, 10, 0, 10))))
        await asyncio.sleep(0.015)  # its question is over, its answer not yet there
        await line.poll(1)
        await line.polls_well(1)


async def test_dead_unit_among_good_ones_costs_them_nothing_but_time() -> None:
    async with rig(units=tuple(range(1, 11)), timeout=0.2) as line:
        respond = line.line.respond
        line.line.respond = lambda heard: () if heard[0] == 4 else respond(heard)
        for _ in range(2):
            for unit in range(1, 11):
                if unit == 4:
                    assert await line.poll(unit, probe=True) is None
                else:
                    await line.polls_well(unit)
        line.line.respond = respond
        await line.polls_well(4)


async def test_unplugging_is_noticed_at_once_and_replugging_by_the_next_poll(tmp_path: Path) -> None:
    async with rig() as line, Line(line.line.respond, baudrate=19_200, link=tmp_path / "port") as stick:
        config = ModbusRtuBus(adapter="modbus-rtu", port=stick.port, baudrate=19_200)
        bus = edged_modbus.RTU.open("stick", config, line.bus._devices)  # the same devices on another port
        job = bus.prepare("u1", ["p1", "p2"])
        try:
            for _ in range(2):
                assert list((await bus.poll(job)).samples[0].values) == [0x101, 0x102]
                stick.fault = late(5)
                asked = stick.requests
                polling = asyncio.create_task(bus.poll(job))
                while stick.requests == asked:
                    await asyncio.sleep(0.001)
                stick.unplug()
                for _ in range(50):  # turns of the loop, each some microseconds: nothing waits for any time to pass
                    await asyncio.sleep(0)
                assert polling.done()
                with pytest.raises(TransientError, match="unplugged") as gone:
                    await polling
                assert gone.value.reason == "unreachable"
                with pytest.raises(TransientError, match="there is no port"):
                    await bus.poll(job)
                stick.fault = None
                stick.plug()
        finally:
            await bus.close()
