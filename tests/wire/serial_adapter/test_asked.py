"""Devices that are asked, over a pseudo terminal: whatever happens on the line, no wrong value and quick recovery."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from edged.config.load import load
from edged.errors import PermanentError, TransientError
from edged.testing import line as faults
from edged.testing.line import Burst, Line
from edged_serial import SERIAL
from edged_serial.bus import Bus
from edged_serial.codecs.checks import CRCS, Check
from tests.support.stalls import stalls

ADDRESSED = """
    address: {address}
    timeout: 1s
    retries: 0
    send: ":{{address:02d}}R{{check}}\\r"
    check: {{type: sum8, first: 1, notation: hex}}
    framing: {{type: markers, start: ":", stop: ";", trailer: 2, max: 64}}
    decode: {{regex: ':(?P<address>\\d\\d)V(?P<value>[-\\d.]+);..'}}
    points: {{value: {{unit: bar}}}}
"""
HASTY = ADDRESSED.replace("timeout: 1s", "timeout: 150ms")
NUMBERED = """
    timeout: 150ms
    retries: 0
    send: "?{sequence:03d}\\r"
    decode: {regex: '=(?P<sequence>\\d{3}) (?P<value>[-\\d.]+)'}
    points: {value: {}}
"""


def devices(tmp_path: Path, port: str, **settings: str) -> tuple[Any, dict[str, Any]]:
    path = tmp_path / "edged.yaml"
    listed = "".join(f"  {name}:\n    bus: line\n{text.strip(chr(10))}\n" for name, text in settings.items())
    path.write_text(
        f"gateway: {{id: test}}\nbuses:\n  line: {{adapter: serial, port: {port}}}\ndevices:\n{listed}",
        encoding="utf-8",
    )
    loaded = load(path)
    assert loaded.config is not None, loaded.problems
    return loaded.config.buses["line"], dict(loaded.config.devices)


@asynccontextmanager
async def opened(tmp_path: Path, line: Line, **settings: str) -> AsyncIterator[Bus]:
    config, known = devices(tmp_path, line.port, **settings)
    bus = SERIAL.open("line", config, known)
    try:
        yield bus
    finally:
        await bus.close()


async def value(bus: Bus, device: str = "a") -> Any:
    result = await bus.poll(bus.prepare(device, ["value"]))
    (sample,) = result.samples
    (reading,) = sample.readings()
    assert reading.quality.status == "good", reading
    return reading.value


async def late(bus: Bus, devices_: Pressure) -> None:
    """A poll whose answer comes too late, or in time after all because the machine held us up."""
    async with stalls() as held_up:
        with contextlib.suppress(TransientError):
            assert await value(bus) == pytest.approx(7 + devices_.asked / 1000)
            assert held_up.count


async def again(bus: Bus, device: str = "a") -> Any:
    """The value, of the next poll if the machine held this one up; None if there is none."""

    async def attempt() -> Any:
        with contextlib.suppress(TransientError):
            return await value(bus, device)
        return None

    async with stalls() as held_up:
        return await held_up.again(attempt)


class Pressure:
    """Devices that answer their address with their address as value, and then a count of what they were asked."""

    def __init__(self, *addresses: int) -> None:
        self.addresses = addresses
        self.asked = 0
        self.answer_as: int | None = None
        self.spoil = False
        self.after = 0.002

    def frame(self, address: int) -> bytes:
        content = b":%02dV%d.%03d;" % (address, address, self.asked)
        total = sum(content[1:]) + self.spoil
        return content + b"%02X" % (total & 0xFF)

    def __call__(self, request: bytes) -> Sequence[Burst]:
        address = int(request[1:3]) if request[:1] == b":" and request[1:3].isdigit() else -1
        if address not in self.addresses or request[4:6] != b"%02X" % (sum(request[1:4]) & 0xFF):
            return []
        self.asked += 1
        return [Burst(self.frame(address if self.answer_as is None else self.answer_as), self.after, address)]


async def test_asks_and_reads(tmp_path: Path) -> None:
    async with Line(Pressure(7)) as line, opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
        assert await value(bus) == 7.001
        assert await value(bus) == 7.002


@pytest.mark.parametrize(
    "fault", [faults.noise_before(3), faults.noise_after(3), faults.paused(0.01)], ids=["before", "after", "pause"]
)
async def test_noise_around_an_answer_does_no_harm(tmp_path: Path, fault: faults.Fault) -> None:
    async with Line(Pressure(7), seed=3) as line, opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
        line.fault = fault
        for count in range(1, 6):
            assert await value(bus) == pytest.approx(7 + count / 1000)


@pytest.mark.parametrize(
    "fault",
    [faults.noise_inside(2), faults.truncated(2), faults.corrupted(), faults.dropped(1), faults.dead()],
    ids=["noise inside", "truncated", "corrupted", "dropped", "dead"],
)
async def test_a_damaged_answer_is_no_value_and_the_next_poll_is_right(tmp_path: Path, fault: faults.Fault) -> None:
    devices_ = Pressure(7)
    async with Line(devices_, seed=5) as line, opened(tmp_path, line, a=HASTY.format(address=7)) as bus:
        for _ in range(3):
            line.fault = fault
            with pytest.raises(TransientError):
                await value(bus)
            line.fault = None
            assert await again(bus) == pytest.approx(7 + devices_.asked / 1000)


async def test_a_late_answer_is_never_taken_for_the_next_one(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    async with Line(devices_) as line, opened(tmp_path, line, a=HASTY.format(address=7)) as bus:
        for _ in range(3):
            line.fault = faults.late(0.15 * 1.2)
            await late(bus, devices_)
            line.fault = None
            assert await again(bus) == pytest.approx(7 + devices_.asked / 1000)


@pytest.mark.parametrize("times", [1.2, 2.5, 3.5])
async def test_an_answer_later_than_the_next_request_would_be_ends_the_rest_and_is_no_value(
    tmp_path: Path, times: float
) -> None:
    devices_ = Pressure(7)
    async with Line(devices_) as line, opened(tmp_path, line, a=HASTY.format(address=7)) as bus:
        line.fault = faults.late(0.15 * times)
        async with stalls() as held_up:
            await late(bus, devices_)
        line.fault = None
        assert await again(bus) == pytest.approx(7 + devices_.asked / 1000)
        assert bus._line.late >= 1 or held_up.count


async def test_a_machine_that_stands_still_takes_neither_a_late_answer_nor_one_in_time_for_what_it_is_not(
    tmp_path: Path,
) -> None:
    devices_ = Pressure(7)
    loop = asyncio.get_running_loop()
    async with Line(devices_) as line, opened(tmp_path, line, a=HASTY.format(address=7)) as bus:
        assert await value(bus) == 7.001
        line.fault = faults.late(0.1)
        loop.call_later(0.05, time.sleep, 0.2)  # over the answer and the time-out
        assert await value(bus) == 7.002
        line.fault = faults.late(0.3)
        with pytest.raises(TransientError):
            await value(bus)
        line.fault = None
        debt = bus._line._owed[next(iter(bus._line._owed))]
        loop.call_later(0.05, time.sleep, debt.until - time.monotonic())  # over the answer and the end of the rest
        assert await value(bus) == 7.004
        assert bus._line.late == 1


async def test_others_whose_answers_say_whose_they_are_do_not_wait_for_a_late_one(tmp_path: Path) -> None:
    devices_ = Pressure(7, 8)
    both = {"a": HASTY.format(address=7), "b": HASTY.format(address=8)}
    async with Line(devices_) as line, opened(tmp_path, line, **both) as bus:
        line.fault = faults.late(0.5)
        with pytest.raises(TransientError):
            await value(bus)
        line.fault = None
        async with stalls() as held_up:
            assert await again(bus, "b") == pytest.approx(8 + devices_.asked / 1000)
        assert bus._line.late == 0 or held_up.count, "it was asked before the late answer came"
        assert await again(bus) == pytest.approx(7 + devices_.asked / 1000)
        assert bus._line.late >= 1


async def test_a_cancelled_request_leaves_no_answer_behind(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    devices_.after = 0.08
    async with Line(devices_) as line, opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
        task = asyncio.create_task(value(bus))
        await asyncio.sleep(0.04)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await value(bus) == pytest.approx(7 + devices_.asked / 1000)


async def test_the_answer_of_another_device_is_not_taken(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    devices_.answer_as = 8
    async with Line(devices_) as line, opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
        with pytest.raises(TransientError, match="answer of device 08 came") as caught:
            await value(bus)
        assert caught.value.reason == "protocol"


async def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    devices_.spoil = True
    async with Line(devices_) as line, opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
        with pytest.raises(TransientError, match="wrong checksum"):
            await value(bus)


async def test_an_answer_with_another_number_is_not_taken(tmp_path: Path) -> None:
    stale = False

    def respond(request: bytes) -> Sequence[Burst]:
        number = int(request[1:4]) - stale
        return [Burst(b"=%03d %d.5\r\n" % (number, number), 0.001)]

    async with Line(respond) as line, opened(tmp_path, line, a=NUMBERED) as bus:
        assert await value(bus) == 1.5
        stale = True
        with pytest.raises(TransientError, match="answer to request 001 came"):
            await value(bus)
        stale = False
        assert await value(bus) == 3.5


async def test_two_devices_share_a_line_and_a_dead_third_changes_nothing(tmp_path: Path) -> None:
    devices_ = Pressure(1, 2)
    texts = {name: HASTY.format(address=number) for name, number in (("a", 1), ("b", 2), ("c", 3))}
    async with Line(devices_) as line, opened(tmp_path, line, **texts) as bus:
        for _ in range(3):
            assert int(await again(bus, "a")) == 1
            with pytest.raises(TransientError):
                await value(bus, "c")
            assert int(await again(bus, "b")) == 2


async def test_random_faults_give_no_wrong_value(tmp_path: Path) -> None:
    devices_ = Pressure(1, 2)
    texts = {name: HASTY.format(address=number).replace("150ms", "30ms") for name, number in (("a", 1), ("b", 2))}
    good = 0
    async with Line(devices_, seed=11) as line, opened(tmp_path, line, **texts) as bus:
        line.fault = faults.sometimes(
            0.5, faults.noise_before(4), faults.noise_inside(1), faults.truncated(1), faults.corrupted(2),
            faults.late(0.036), faults.twice(0.001), faults.noise_after(9),
        )  # fmt: skip
        for count in range(90):
            name, number = ("a", 1) if count % 2 else ("b", 2)
            try:
                found = await value(bus, name)
            except TransientError:
                continue
            good += 1
            assert found == pytest.approx(number + devices_.asked / 1000)
    assert good > 40


async def test_an_echo_is_taken_out(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    async with Line(devices_) as line:
        line.echo = True
        config, known = devices(tmp_path, f"{line.port}, echo: true", a=ADDRESSED.format(address=7))
        bus = SERIAL.open("line", config, known)
        try:
            assert await value(bus) == 7.001
            assert await value(bus) == 7.002
        finally:
            await bus.close()


async def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    devices_ = Pressure(7)
    async with Line(devices_, link=tmp_path / "port") as line:
        async with opened(tmp_path, line, a=ADDRESSED.format(address=7)) as bus:
            assert await value(bus) == 7.001
            line.unplug()
            with pytest.raises(TransientError) as caught:
                await value(bus)
            assert caught.value.reason == "unreachable"
            with pytest.raises(TransientError, match="is the adapter plugged in"):
                await value(bus)
            line.plug()
            assert await value(bus) == 7.002


async def test_a_scale_in_kilograms_is_not_read_as_grams(tmp_path: Path) -> None:
    answers = iter([b"S S     12.340 g\r\n", b"S S      1.500 kg\r\n", b"S S      1.500 lb\r\n"])
    async with (
        Line(lambda request: [Burst(next(answers), 0.001)] if request == b"SI\r\n" else []) as line,
        opened(tmp_path, line, a="    profile: kern-kcp") as bus,
    ):
        job = bus.prepare("a", ["weight"])
        found = [(await bus.poll(job)).samples[0] for _ in range(3)]
        assert [sample.values[0] for sample in found] == [12.34, 1500.0, None]


async def test_wakes_a_weather_station_and_reads_behind_its_acknowledgement(tmp_path: Path) -> None:
    vector = YAML(typ="safe").load(SERIAL.profiles() / "davis-vantage-pro.yaml")["tests"][0]  # type: ignore[operator]  # it has a folder
    packet = bytes.fromhex(vector["hex"])[1:]
    heard: list[bytes] = []

    def respond(request: bytes) -> Sequence[Burst]:
        heard.append(request)
        if request == b"\n":
            return [Burst(b"\n\r", 0.001)] if len(heard) > 1 else []
        return [Burst(b"\x06", 0.001), Burst(packet, 0.002)]

    async with Line(respond) as line, opened(tmp_path, line, a="    profile: davis-vantage-pro\n    retries: 0") as bus:
        (sample,) = (await bus.poll(bus.prepare("a", ["humidity", "wind_direction"]))).samples
        assert list(sample.values) == [60, 225]
        await bus.poll(bus.prepare("a", ["humidity"]))
    assert heard == [b"\n", b"\n", b"LOOP 1\n", b"LOOP 1\n"]


async def test_answers_of_several_frames(tmp_path: Path) -> None:
    text = (
        """
    retries: 0
    timeout: 200ms
    send: "ALL\\r"
    messages: {}
    decode: {regex: 'P=(?P<pressure>[\\d.]+)\\nT=(?P<value>[\\d.]+)'}
    points: {value: {}, pressure: {}}
""".replace("    messages: {}\n", "")
        .replace('    send: "ALL\\r"\n', "")
        .replace("    decode", '    messages: {all: {send: "ALL\\r", until: "OK"}}\n    decode')
    )
    lines = [b"P=1.5\r\n", b"T=20.5\r\n", b"OK\r\n"]

    def respond(_request: bytes) -> Sequence[Burst]:
        return [Burst(one, 0.002) for one in lines]

    async with Line(respond) as line, opened(tmp_path, line, a=text) as bus:
        job = bus.prepare("a", ["value", "pressure"])
        assert list((await bus.poll(job)).samples[0].values) == [20.5, 1.5]
        lines.pop(0)
        with pytest.raises(TransientError):
            await bus.poll(job)


async def test_writes_and_tells_a_refusal(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def respond(request: bytes) -> Sequence[Burst]:
        heard.append(request)
        return [Burst(b"TA A     50.00 g\r\n" if b"50.00" in request else b"TA L\r\n", 0.001)]

    async with Line(respond) as line, opened(tmp_path, line, a="    profile: mettler-toledo-mt-sics") as bus:
        await bus.write("a", "tare", 50)
        with pytest.raises(PermanentError) as caught:
            await bus.write("a", "tare", 60)
        assert caught.value.reason == "refused"
        with pytest.raises(PermanentError, match="outside the range"):
            await bus.write("a", "tare", -1)
        with pytest.raises(PermanentError, match="not writable"):
            await bus.write("a", "weight", 1)
    assert heard == [b"TA 50.00 g\r\n", b"TA 60.00 g\r\n"]


async def test_frames_that_a_silence_ends(tmp_path: Path) -> None:
    text = """
    retries: 0
    timeout: 300ms
    send: "\\x01"
    framing: {type: gap, gap: 30ms}
    check: {type: crc16-modbus, order: little}
    decode: {struct: {layout: ">HH", fields: [value, _]}}
    points: {value: {}}
"""
    check = Check("crc16-modbus", CRCS["crc16-modbus"], order="little")
    frame = b"\x01\x02" + check.encode(b"\x01\x02")
    async with (
        Line(lambda _request: [Burst(frame[:2], 0.001), Burst(frame[2:], 0.005)]) as line,
        opened(tmp_path, line, a=text) as bus,
    ):
        assert await value(bus) == 0x0102
