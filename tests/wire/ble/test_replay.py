"""A recording in the place of the radio: through the daemon's own way, without D-Bus."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from edged.adapter import ConfigError, Duration, FileName, Name, TransientError, load_adapter
from edged_ble.bus import Bus
from edged_ble.codecs.advert import Advertisement
from edged_ble.config import BleBus, BlePoint, Replay
from edged_ble.decoders import identify, new_decoder
from edged_ble.recording import record, recorded
from tests.support.stalls import stalls
from tests.wire.ble.rig import TAG, device, polled, ruuvi, until

RECORDING = Path(__file__).parents[3] / "config/demo-ble.jsonl"


def lines(*numbers: int, step: float = 0.05) -> list[str]:
    return [
        record(Advertisement(TAG, "Tag", -60, {0x0499: ruuvi(number, 20 + number)}), i * step)
        for i, number in enumerate(numbers)
    ]


def bus_of(path: Path, text: str | list[str], **settings: Any) -> Bus:
    path.write_text(text if isinstance(text, str) else "\n".join(text) + "\n", "utf-8")
    return Bus("radio", BleBus(adapter="ble", replay=Replay(file=FileName(str(path)), **settings)), {"tag": device()})


async def test_each_line_is_a_sample_at_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bus = bus_of(tmp_path / "r", lines(1, 2, 3, step=0.4), loop=False)
    job = bus.prepare("tag", ["temperature", "rssi"])
    samples: list[Any] = []
    end = time.monotonic() + 10
    async with stalls() as held_up:
        while len(samples) < 3 and time.monotonic() < end:
            samples += (await bus.poll(job)).samples
            await asyncio.sleep(0.01)
    await bus.close()
    assert [list(sample.values) for sample in samples] == [[21.0, -60], [22.0, -60], [23.0, -60]]
    assert samples[2].mono - samples[0].mono == pytest.approx(800_000, abs=200_000 + held_up.seconds * 1e6)
    assert abs(samples[0].time / 1e6 - time.time()) < 10
    assert caplog.text.count("no radio is used") == 1


async def test_a_recording_begins_again_and_says_the_same_anew(tmp_path: Path) -> None:
    bus = bus_of(tmp_path / "r", lines(7), speed=100)
    job = bus.prepare("tag", ["temperature"])
    for _ in range(3):
        (sample,) = await polled(bus, job)
        assert list(sample.values) == [27.0]
    await bus.close()


async def test_a_recording_that_has_ended_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r"
    bus = bus_of(path, lines(1), loop=False)
    bus._devices = {"tag": device(expect=Duration(0.3))}
    job = bus.prepare("tag", ["temperature"])
    assert await polled(bus, job)
    await asyncio.sleep(1.5)
    with pytest.raises(TransientError, match=r"not heard for .*; the recording .* has ended") as caught:
        await bus.poll(job)
    assert caught.value.reason == "stale"
    await bus.close()


async def test_torn_and_foreign_lines_are_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = lines(1, 2)
    bus = bus_of(tmp_path / "r", ["# ours", "", good[0], good[1][:40], "{}", "\x00\xff", good[1]], speed=10)
    job = bus.prepare("tag", ["temperature"])
    await polled(bus, job)
    await until(lambda: "line 4: this is no line of a recording" in caplog.text)
    await polled(bus, job)
    await bus.close()
    assert caplog.text.count("it is left out") == 1


async def test_a_recording_that_goes_away_is_told_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "r"
    bus = bus_of(path, lines(1))
    job = bus.prepare("tag", ["temperature"])
    await polled(bus, job)
    path.unlink()

    async def failure() -> str:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                await bus.poll(job)
            except TransientError as exc:
                return f"{exc.reason}: {exc}"
            await asyncio.sleep(0.02)
        return ""

    text = await failure()
    assert text.startswith("unreachable: ")
    assert "cannot be read: No such file" in text
    path.write_text("\n".join(lines(2)) + "\n", "utf-8")
    end = time.monotonic() + 10
    found: list[Any] = []
    while not found and time.monotonic() < end:
        await asyncio.sleep(0.05)
        try:
            found += (await bus.poll(job)).samples
        except TransientError:
            continue
    assert list(found[0].values) == [22.0]
    await bus.close()


def test_no_such_recording_and_connections_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recording .*nowhere"):
        Bus("radio", BleBus(adapter="ble", replay=Replay(file=FileName(str(tmp_path / "nowhere")))), {"tag": device()})
    spec = device(points={Name("battery"): BlePoint(characteristic="2A19")}, every=Duration(300), decoder="")
    with pytest.raises(ConfigError, match="tag is connected to for a `characteristic`"):
        Bus("radio", BleBus(adapter="ble", replay=Replay(file=FileName("x"))), {"tag": spec})


async def test_simulated_sensors_reach_the_bus_through_a_socket() -> None:
    adapter = load_adapter("ble")
    devices = {"tag": device(), "named": device(address="", name="Other", every=Duration(0.2))}
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            adapter.simulate({"radio": (BleBus(adapter="ble"), devices)}, host="127.0.0.1", seed=1)
        )
        where = simulator.endpoints["radio"]
        bus = Bus("radio", BleBus(adapter="ble", replay=Replay(file=FileName(where))), devices)
        for name in devices:
            samples = await polled(bus, bus.prepare(name, ["temperature", "rssi"]))
            value = samples[0].values[0]
            assert isinstance(value, float)
            assert 15 <= value <= 28
        assert simulator.state()["advertisements"] >= 2
        await bus.close()


async def test_a_simulation_that_ends_is_told() -> None:
    adapter = load_adapter("ble")
    devices = {"tag": device(every=Duration(0.2))}
    async with adapter.simulate({"radio": (BleBus(adapter="ble"), devices)}) as simulator:
        where = simulator.endpoints["radio"]
    bus = Bus("radio", BleBus(adapter="ble", replay=Replay(file=FileName(where))), devices)
    with pytest.raises(TransientError, match="cannot be read") as caught:
        await bus.poll(bus.prepare("tag", ["temperature"]))
    assert caught.value.reason == "unreachable"
    await bus.close()


def vectors() -> Mapping[str, Mapping[str, Any]]:
    """Sender → (decoder, the narrowest range of each of its values) of the shipped recording."""
    return {
        "CB:B8:33:4C:88:4F": {"decoder": "ruuvi", "temperature": (4.0, 6.5), "pressure": (1009, 1011)},
        "A4:C1:38:56:53:84": {"decoder": "bthome", "temperature": (20.5, 22.5), "battery": (97, 97)},
        "A4:C1:38:6D:1A:20": {"decoder": "atc", "temperature": (-19.5, -17.5), "battery": (83, 83)},
    }


def test_every_line_of_the_shipped_recording_is_a_reading() -> None:
    texts = [text for text in RECORDING.read_text("utf-8").splitlines() if not text.startswith("#")]
    found = [recorded(text) for text in texts]
    assert [line.seconds for line in found] == sorted(line.seconds for line in found)
    assert {line.advertisement.address for line in found} == set(vectors())
    for line in found:
        expected = dict(vectors()[line.advertisement.address])
        decoder = expected.pop("decoder")
        assert identify(line.advertisement) == decoder
        decoded = new_decoder(decoder).decode(line.advertisement)
        assert decoded is not None
        for name, (low, high) in expected.items():
            value = decoded.values[name]
            assert isinstance(value, int | float)
            assert low - 0.01 <= value <= high + 0.01


def test_a_replay_loads_neither_bleak_nor_dbus() -> None:
    code = (
        "import asyncio, sys\n"
        "from edged.adapter import load_adapter, Name, Duration\n"
        "from edged_ble.config import BleBus, BleDevice, Replay\n"
        f"spec = BleDevice(bus=Name('radio'), address={TAG!r}, decoder='ruuvi')\n"
        f"config = BleBus(adapter='ble', replay=Replay(file={str(RECORDING)!r}))\n"
        "bus = load_adapter('ble').open('radio', config, {'t': spec})\n"
        "async def main():\n"
        "    job = bus.prepare('t', ['temperature'])\n"
        "    while not (await bus.poll(job)).samples: await asyncio.sleep(0.01)\n"
        "    await bus.close()\n"
        "asyncio.run(main())\n"
        "assert not {'bleak', 'dbus_fast'} & set(sys.modules), 'loaded'\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
