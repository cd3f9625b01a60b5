"""Devices that send by themselves: values have the time of their arrival, and what is stale is never shown as fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from edged.errors import TransientError
from edged.testing.line import Burst, Line

RANGE = """
framing: {type: delimiter, end: "\\r"}
decode: {regex: 'R(?P<value>\\d{4})'}
every: 100ms
silence: 800ms
points: {value: {}}
"""
Opened = Callable[..., AbstractAsyncContextManager[Any]]


def mute(_request: bytes) -> Sequence[Burst]:
    return []


def say(line: Line, text: bytes) -> None:
    line.say(Burst(text, 0))


async def heard(bus: Any, count: int) -> None:
    """Wait until the bus has so many frames."""
    async with asyncio.timeout(5):
        while sum(listener.count for listener in bus._listeners.values()) < count:
            await asyncio.sleep(0.005)


async def test_the_first_poll_waits_for_the_first_frame(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        poll = asyncio.create_task(bus.poll(bus.prepare("a", ["value"])))
        await asyncio.sleep(0.1)
        assert not poll.done()
        before = time.time_ns() // 1000
        say(line, b"R1234\r")
        (sample,) = (await poll).samples
        assert sample.values == [1234]
        assert before <= sample.time <= time.time_ns() // 1000


async def test_nothing_new_is_no_reading_and_silence_is_a_failure(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        job = bus.prepare("a", ["value"])
        await bus._line.open()
        say(line, b"R0001\rR0002\r")
        await heard(bus, 2)
        (sample,) = (await bus.poll(job)).samples
        assert sample.values == [2]
        assert (await bus.poll(job)).samples == []
        await asyncio.sleep(0.9)
        with pytest.raises(TransientError, match="has sent nothing") as caught:
            await bus.poll(job)
        assert caught.value.reason == "timeout"
        say(line, b"R0003\r")
        await heard(bus, 3)
        (sample,) = (await bus.poll(job, probe=True)).samples
        assert sample.values == [3]


async def test_a_frame_that_grew_old_unread_is_not_shown(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        await bus._line.open()
        say(line, b"R0001\r")
        await heard(bus, 1)
        await asyncio.sleep(0.9)
        with pytest.raises(TransientError):
            await bus.poll(bus.prepare("a", ["value"]))


async def test_the_time_is_that_of_the_arrival(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        await bus._line.open()
        say(line, b"R0001\r")
        await heard(bus, 1)
        await asyncio.sleep(0.2)
        (sample,) = (await bus.poll(bus.prepare("a", ["value"]))).samples
        assert time.monotonic_ns() // 1000 - sample.mono >= 200_000
        assert time.time_ns() // 1000 - sample.time >= 199_000


async def test_every_frame_is_kept_where_every_one_counts(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE + "keep: all\n") as bus:
        await bus._line.open()
        say(line, b"R0001\rR0002\rR0003\r")
        await heard(bus, 3)
        samples = (await bus.poll(bus.prepare("a", ["value"]))).samples
        assert [sample.values[0] for sample in samples] == [1, 2, 3]


async def test_looking_takes_nothing_away(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        job = bus.prepare("a", ["value"])
        await bus._line.open()
        say(line, b"R0007\r")
        await heard(bus, 1)
        looked = await bus.poll(job, raw=True)
        assert bytes(looked.raw[0].words) == b"R0007"
        assert (await bus.poll(job)).samples[0].values == [7]


async def test_noise_costs_one_frame_at_most(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        await bus._line.open()
        say(line, b"234\rR\xff12\rR0\r\x00R0005\rR0006\r")
        await heard(bus, 1)
        assert (await bus.poll(bus.prepare("a", ["value"]))).samples[0].values == [6]


async def test_a_wrong_baud_rate_is_guessed(opened: Opened) -> None:
    async with Line(mute) as line, opened(line.port, a=RANGE) as bus:
        await bus._line.open()
        say(line, bytes(range(128, 250)))
        with pytest.raises(TransientError, match="is the baud rate right"):
            await bus.poll(bus.prepare("a", ["value"]))


async def test_two_devices_are_heard_on_one_line(opened: Opened) -> None:
    lines = RANGE.replace('{type: delimiter, end: "\\r"}', "{type: lines}")
    async with Line(mute) as line, opened(line.port, a=lines, b=lines.replace("R(", "T(")) as bus:
        await bus._line.open()
        say(line, b"R0001\r\nT0022\r\nR0003\r\n")
        await heard(bus, 3)
        assert bus.concurrency == 2
        assert (await bus.poll(bus.prepare("a", ["value"]))).samples[0].values == [3]
        assert (await bus.poll(bus.prepare("b", ["value"]))).samples[0].values == [22]


async def test_sentences_of_several_kinds(opened: Opened) -> None:
    text = """
    framing: {type: markers, start: "$", stop: "*", trailer: 2}
    every: 100ms
    silence: 800ms
    decode: {known: nmea}
    points:
      wind: {field: MWV.wind_speed}
      temperature: {field: MDA.air_temp}
    """
    text = "\n".join(line[4:] for line in text.splitlines())
    wind, weather = b"$WIMWV,214.8,R,0.1,K,A*28\r\n", b"$WIMDA,,,,,17.7,C,,,,,,,,,,,,,,*0A\r\n"
    async with Line(mute) as line, opened(line.port, a=text) as bus:
        job = bus.prepare("a", ["wind", "temperature"])
        await bus._line.open()
        say(line, wind + weather)
        await heard(bus, 2)
        samples = (await bus.poll(job)).samples
        assert {sample.points: list(sample.values) for sample in samples} == {
            ("wind",): [0.1],
            ("temperature",): [17.7],
        }
        for _ in range(9):
            await asyncio.sleep(0.1)
            say(line, wind)
        await asyncio.sleep(0.05)
        samples = (await bus.poll(job)).samples
        stale = next(sample for sample in samples if sample.points == ("temperature",))
        assert list(stale.values) == [None]
        assert stale.quality[0].reason == "timeout"


async def test_unplugged_and_plugged_in_again_without_being_asked(opened: Opened, tmp_path: Path) -> None:
    async with Line(mute, link=tmp_path / "port") as line, opened(line.port, a=RANGE) as bus:
        job = bus.prepare("a", ["value"])
        await bus._line.open()
        say(line, b"R0001\r")
        await heard(bus, 1)
        line.unplug()
        await asyncio.sleep(0.1)
        with pytest.raises(TransientError) as caught:
            await bus.poll(job)
        assert caught.value.reason == "unreachable"
        line.plug()
        async with asyncio.timeout(3):
            while not bus._line.medium.is_open:
                await asyncio.sleep(0.02)
        say(line, b"R0002\r")
        await heard(bus, 2)
        assert (await bus.poll(job, probe=True)).samples[0].values == [2]


async def test_a_port_that_vanishes_while_the_first_frame_is_awaited_is_told(opened: Opened, tmp_path: Path) -> None:
    async with Line(mute, link=tmp_path / "port") as line, opened(line.port, a=RANGE.replace("800ms", "1h")) as bus:
        poll = asyncio.create_task(bus.poll(bus.prepare("a", ["value"])))
        await asyncio.sleep(0.1)
        line.unplug()
        with pytest.raises(TransientError) as caught:
            await poll
        assert caught.value.reason == "unreachable"


async def test_halves_of_two_frames_are_never_joined(opened: Opened, tmp_path: Path) -> None:
    async with Line(mute, link=tmp_path / "port") as line, opened(line.port, a=RANGE) as bus:
        await bus._line.open()
        say(line, b"R0001\rR12")
        await heard(bus, 1)
        line.unplug()
        await asyncio.sleep(0.05)
        line.plug()
        async with asyncio.timeout(3):
            while not bus._line.medium.is_open:
                await asyncio.sleep(0.02)
        say(line, b"34\rR0005\rR56")
        await heard(bus, 2)
        assert (await bus.poll(bus.prepare("a", ["value"]))).samples[0].values == [5]
        await asyncio.sleep(1.6)  # the device was switched off in the middle of a frame
        say(line, b"78\rR0009\r")
        await heard(bus, 3)
        assert (await bus.poll(bus.prepare("a", ["value"]))).samples[0].values == [9]
        assert sum(listener.count for listener in bus._listeners.values()) == 3
