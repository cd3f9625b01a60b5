"""M-Bus and IEC 62056-21 over a pseudo terminal, and all shipped profiles against their own simulation."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import termios
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.cli.serial import serial
from edged.errors import ConfigError, TransientError
from edged.media import LineSettings
from edged.testing import line as faults
from edged.testing.line import Burst, Line
from edged_serial import SERIAL
from edged_serial.codecs import mbus
from edged_serial.line import Line as OpenLine
from edged_serial.scan import scan, scan_primary

Opened = Callable[..., AbstractAsyncContextManager[Any]]
FIRST = bytes.fromhex("0801724523010 02D2C0A042A0000000C06123456001F".replace(" ", ""))
LAST = bytes.fromhex("0801724523010 02D2C0A042B00000002594A1A".replace(" ", ""))
SECONDARY = "000123452D2C0A04"
HEAT = "profile: mbus-heat-meter\naddress: {}\nretries: 0\ntimeout: 1s"


class Meter:
    """One M-Bus meter with two telegrams, primary address 1."""

    def __init__(self) -> None:
        self.count: bool | None = None
        self.at = 0
        self.selected = False
        self.requests = 0

    def __call__(self, request: bytes) -> Sequence[Burst]:
        self.requests += 1
        if request == mbus.reset_link(1):
            self.count, self.at = None, 0
            return [Burst(mbus.ACK, 0.001)]
        if request == mbus.reset_link(mbus.SELECTED):
            self.selected = False
            return []
        if request[:1] == b"\x68" and request[6] == 0x52:
            identification = request[7:11][::-1].hex().upper()
            wanted = all(a in {"F", b} for a, b in zip(identification, SECONDARY, strict=False))
            self.selected, self.count, self.at = wanted, None, 0
            return [Burst(mbus.ACK, 0.001)] if wanted else []
        for count in (True, False):
            if request in {mbus.request_data(1, count=count)} | (
                {mbus.request_data(0xFD, count=count)} if self.selected else set()
            ):
                if self.count is not None and count != self.count:
                    self.at += 1
                self.count = count
                return [Burst(mbus.long_frame((FIRST, LAST)[min(self.at, 1)]), 0.002)]
        return []


async def values(bus: Any, *points: str) -> list[Any]:
    (sample,) = (await bus.poll(bus.prepare("a", points))).samples
    return list(sample.values)


async def test_mbus_by_primary_address_and_in_two_telegrams(opened: Opened) -> None:
    async with Line(Meter(), baudrate=2400, character_bits=11) as line, opened(line.port, a=HEAT.format(1)) as bus:
        assert await values(bus, "energy", "flow_temperature") == [563412, 67.3]
        assert await values(bus, "energy", "flow_temperature") == [563412, 67.3]


@pytest.mark.parametrize("address", ["'00012345'", "'000123452D2C0A04'", "'0001FFFF'"])
async def test_mbus_by_secondary_address(opened: Opened, address: str) -> None:
    async with Line(Meter()) as line, opened(line.port, a=HEAT.format(address)) as bus:
        assert await values(bus, "energy", "flow_temperature") == [563412, 67.3]


async def test_mbus_never_takes_the_answer_of_another_meter(opened: Opened) -> None:
    other = mbus.long_frame(b"\x08\x02" + FIRST[2:])
    respond = Meter()
    async with (
        Line(lambda request: [Burst(other, 0.001)] if request[1] & 0x5F == 0x5B else respond(request)) as line,
        opened(line.port, a=HEAT.format(1)) as bus,
    ):
        with pytest.raises(TransientError, match="another device than 1"):
            await values(bus, "energy")


@pytest.mark.parametrize("fault", [faults.corrupted(), faults.truncated(), faults.late(1.2), faults.noise_inside()])
async def test_mbus_recovers_within_one_poll(opened: Opened, fault: faults.Fault) -> None:
    async with Line(Meter(), seed=2) as line, opened(line.port, a=HEAT.format(1)) as bus:
        line.fault = fault
        with pytest.raises(TransientError):
            await values(bus, "energy")
        line.fault = None
        assert await values(bus, "energy") == [563412]


async def test_mbus_scan_by_secondary_address() -> None:
    found: list[str] = []
    async with Line(Meter()) as line:
        await scan(LineSettings(port=line.port), found.append, every=False, within=0.1)
    assert found == [f'address: "{SECONDARY}"']


async def test_the_command_scan_finds_it_for_machines_too() -> None:
    async with Line(Meter()) as line:
        arguments = ["scan", line.port, "--baud", "9600", "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, serial, arguments)
    assert json.loads(result.stdout) == {"address": SECONDARY, "note": ""}


async def test_mbus_scan_by_primary_address() -> None:
    found: list[str] = []
    async with Line(Meter()) as line:
        opened = OpenLine(LineSettings(port=line.port), "line")
        try:
            await scan_primary(opened, 0.1, found.append, range(4))
        finally:
            await opened.close()
    assert found == [f"address: 1  secondary {SECONDARY}"]


async def test_mbus_scan_tells_two_meters_apart() -> None:
    meters = {"00012345": Meter(), "90012345": Meter()}
    selected: list[str] = []

    def respond(request: bytes) -> Sequence[Burst]:
        if request[:1] == b"\x68" and request[6] == 0x52:
            wanted = request[7:11][::-1].hex().upper()
            selected[:] = [one for one in meters if all(a in {"F", b} for a, b in zip(wanted, one, strict=True))]
            return [Burst(mbus.ACK, 0.001)] if selected else []
        if request in {mbus.request_data(0xFD, count=count) for count in (True, False)} and selected:
            number = bytes.fromhex(selected[0])[::-1]
            answer = mbus.long_frame(LAST.replace(bytes.fromhex("45230100"), number))
            return [Burst(answer if len(selected) == 1 else bytes(b | 0x41 for b in answer), 0.001)]
        return []

    found: list[str] = []
    async with Line(respond) as line:
        await scan(LineSettings(port=line.port), found.append, every=False, within=0.05)
    assert [text[10:18] for text in found] == ["00012345", "90012345"]


def test_mbus_addresses_are_checked(configured: Callable[..., Any]) -> None:
    for address, message in (("251", "go from 0 to 250"), ("'12AB'", "secondary"), ("", "needs `address`")):
        text = HEAT.format(address).replace("address: \n", "")
        with pytest.raises(ConfigError, match=message):
            SERIAL.open("line", *configured("/dev/ttyS0", a=text))


READOUT = b"0.0.0(12345678)\r\n1.8.0(0001234.567*kWh)\r\n2.8.0(0000000.000*kWh)\r\n!\r\n"


def block(data: bytes) -> bytes:
    body = data + b"\x03"
    return b"\x02" + body + bytes([reduce(xor, body, 0)])


class Readout:
    """A meter that hands over to 9600 baud; answers only at the speed that it expects."""

    def __init__(self) -> None:
        self.line: Line
        self.speeds: list[int] = []
        self.block = block(READOUT)
        self.answering: asyncio.Task[None] | None = None

    def speed(self) -> int:
        return int(termios.tcgetattr(self.line._slave)[5])

    def __call__(self, request: bytes) -> Sequence[Burst]:
        self.speeds.append(self.speed())
        if request in {b"/?!\r\n", b"/?12345678!\r\n"}:
            return [Burst(b"/ELS5\\@V10.04\r\n", 0.005)]
        if request == b"\x06050\r\n":
            self.answering = asyncio.create_task(self.answer())
        return []

    async def answer(self) -> None:
        """At the new speed, as soon as it is heard there."""
        while self.speed() == termios.B300:
            await asyncio.sleep(0.005)
        self.speeds.append(self.speed())
        self.line.say(Burst(self.block, 0.01))


@pytest.mark.parametrize("address", ["", "address: '12345678'\n"])
async def test_readout_with_a_hand_over_of_the_speed_while_the_port_stays_open(
    opened: Opened, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edged.media")
    meter = Readout()
    async with (
        Line(meter) as line,
        opened(line.port, a=f"profile: iec62056-21-meter\nretries: 0\ntimeout: 2s\n{address}") as bus,
    ):
        meter.line = line
        assert await values(bus, "energy", "export") == [1234.567, 0.0]
        assert await values(bus, "energy") == [1234.567]
        assert meter.speed() == termios.B300
    assert meter.speeds == [termios.B300, termios.B300, termios.B9600] * 2
    assert [record.getMessage().split()[0] for record in caplog.records] == ["opened"]


async def test_a_readout_with_a_wrong_block_check_is_no_value(opened: Opened) -> None:
    meter = Readout()
    async with (
        Line(meter) as line,
        opened(line.port, a="profile: iec62056-21-meter\nretries: 0\ntimeout: 2s") as bus,
    ):
        meter.line = line
        right, meter.block = meter.block, meter.block.replace(b"1234.567", b"1234.568")
        with pytest.raises(TransientError, match="wrong checksum"):
            await values(bus, "energy")
        meter.block = right
        assert await values(bus, "energy") == [1234.567]


async def test_a_garbled_identification_is_no_answer(opened: Opened) -> None:
    said = [b"/ELS\xb5\\@V10.04\r\n"]
    async with (
        Line(lambda _request: [Burst(said[0], 0.005)]) as line,
        opened(line.port, a="profile: iec62056-21-meter\nretries: 0\ntimeout: 300ms") as bus,
    ):
        with pytest.raises(TransientError, match="no identification of a meter"):
            await values(bus, "energy")


@pytest.mark.parametrize("address", ["'5€'", "'12!'", "'/3'"])
def test_an_address_that_no_meter_can_have_is_told(configured: Callable[..., Any], address: str) -> None:
    with pytest.raises(ConfigError, match="a: `address"):
        SERIAL.open("line", *configured("/dev/ttyS0", a=f"profile: iec62056-21-meter\naddress: {address}"))


PROFILES = sorted(path.stem for path in (SERIAL.profiles() or Path()).glob("*.yaml"))


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_simulated_device_is_read(configured: Callable[..., Any], tmp_path: Path, profile: str) -> None:
    text = f"profile: {profile}\nevery: 200ms\n" + ("address: 5\n" if profile.startswith("mbus") else "")
    config, devices = configured(str(tmp_path / "line"), a=text)
    async with SERIAL.simulate({"line": (config, devices)}) as simulator:
        assert simulator.endpoints == {"line": str(tmp_path / "line")}
        bus = SERIAL.open("line", config, devices)
        try:
            result = await bus.poll(bus.prepare("a", list(devices["a"].points)))
        finally:
            await bus.close()
    readings = [reading for sample in result.samples for reading in sample.readings()]
    assert any(reading.quality.status == "good" for reading in readings)


async def test_a_device_behind_a_serial_server_is_simulated_there(configured: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = f"socket://127.0.0.1:{free.getsockname()[1]}"
    config, devices = configured(port, a="profile: mettler-toledo-mt-sics\nevery: 200ms\n")
    async with SERIAL.simulate({"line": (config, devices)}) as simulator:
        assert simulator.endpoints == {"line": port}
        for _ in range(2):  # who comes again is served again
            bus = SERIAL.open("line", config, devices)
            try:
                (sample,) = (await bus.poll(bus.prepare("a", ["weight"]))).samples
            finally:
                await bus.close()
            assert [reading.quality.status for reading in sample.readings()] == ["good"]


async def test_what_cannot_be_simulated_is_told(configured: Callable[..., Any]) -> None:
    config, devices = configured("rfc2217://127.0.0.1:4001", a="profile: mettler-toledo-mt-sics\nevery: 200ms\n")
    with pytest.raises(ConfigError, match=r"bus line: .* try it with socket://"):
        async with SERIAL.simulate({"line": (config, devices)}):
            pass
