from __future__ import annotations

import asyncio
import gc
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edged.adapter import Duration, Sample, TransientError
from edged.polling import Assignment, BusPoller
from edged_ble.bluez import _bleak_bus
from edged_ble.bus import Bus
from edged_ble.config import BleBus
from edged_ble.watchdog import Watchdog
from tests.support.fakebluez import FakeBluez
from tests.support.privatebus import PrivateBus, private_bus
from tests.wire.ble.rig import QUICK, TAG, device, opened, polled, ruuvi, until

BOTH = ["temperature", "rssi"]


async def failure(bus: Bus) -> str:
    """Why the radio cannot be polled, in one line."""
    with pytest.raises(TransientError) as caught:
        await bus.poll(bus.prepare("tag", BOTH))
    assert caught.value.reason == "unreachable"
    text = str(caught.value)
    assert "\n" not in text
    return text


async def heals(bus: Bus, bluez: FakeBluez, number: int = 1) -> None:
    """Readings come again, without anybody's doing."""
    bus.radio.start()
    await until(bus.radio.up.is_set)
    job = bus.prepare("tag", BOTH)
    await until(lambda: bluez.advertise(TAG, {0x0499: ruuvi(number)}))
    assert await polled(bus, job)


async def test_without_dbus_it_says_so_and_heals(dbus: PrivateBus) -> None:
    dbus.stop()
    async with opened(tag=device()) as bus:
        assert "there is no D-Bus system bus here" in await failure(bus)
        dbus.start()
        bluez = await FakeBluez().start()
        await heals(bus, bluez)
        bluez.stop()


async def test_without_bluetoothd_it_says_so_and_heals(dbus: PrivateBus) -> None:
    async with opened(tag=device()) as bus:
        assert "bluetoothd does not run: sudo apt install bluez" in await failure(bus)
        bluez = await FakeBluez().start()
        await heals(bus, bluez)
        bluez.stop()


async def test_without_a_radio_it_says_so_and_heals(dbus: PrivateBus) -> None:
    bluez = await FakeBluez({}).start()
    async with opened(tag=device()) as bus:
        assert "there is no Bluetooth radio: plug it in" in await failure(bus)
        bluez.plug("hci0", "00:00:00:00:00:01")
        await heals(bus, bluez)
    bluez.stop()


async def test_without_the_radio_that_is_meant_the_others_are_named(bluez: FakeBluez) -> None:
    async with opened(BleBus(adapter="ble", radio="hci7"), tag=device()) as bus:
        text = await failure(bus)
        assert "there is no Bluetooth radio hci7" in text
        assert "there is hci0 (00:00:00:00:00:01)" in text


async def test_without_permission_it_says_so(daemon: None, tmp_path: Path) -> None:
    with private_bus(tmp_path, '<deny send_destination="org.bluez"/>'):
        bluez = await FakeBluez().start()
        async with opened(tag=device()) as bus:
            assert "usermod -aG bluetooth" in await failure(bus)
        bluez.stop()


async def test_a_radio_held_off_by_rfkill_is_told_and_heals(bluez: FakeBluez) -> None:
    bluez.block("hci0", on=True)
    async with opened(tag=device()) as bus:
        assert "rfkill unblock bluetooth" in await failure(bus)
        bluez.block("hci0", on=False)
        await heals(bus, bluez)


@pytest.mark.parametrize(("hard", "word"), [("0", "sudo rfkill unblock"), ("1", "hardware switch")])
async def test_rfkill_is_also_seen_in_sysfs(bluez: FakeBluez, tmp_path: Path, hard: str, word: str) -> None:
    entry = tmp_path / "rfkill" / "rfkill0"
    entry.mkdir(parents=True)
    for name, text in {"type": "bluetooth", "name": "hci0", "soft": "1", "hard": hard}.items():
        (entry / name).write_text(text + "\n")
    bluez.power("hci0", on=False)
    async with opened(tag=device()) as bus:
        bus.radio.rfkill = entry.parent
        assert word in await failure(bus)


async def test_a_radio_that_is_off_is_switched_on(bluez: FakeBluez, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edged.ble")
    bluez.power("hci0", on=False)
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
    assert "hci0 was off and has been switched on" in caplog.text


async def test_a_radio_that_cannot_be_switched_on_is_told(bluez: FakeBluez) -> None:
    bluez.power("hci0", on=False)
    bluez.fail["Set"] = ("Failed", "Input/output error")
    async with opened(tag=device()) as bus:
        assert "is off and cannot be switched on (bluetoothd: Input/output error)" in await failure(bus)
        bluez.fail.clear()
        await heals(bus, bluez)


async def test_a_radio_that_is_unplugged_is_missed_at_once_and_taken_back(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
        bluez.unplug("hci0")
        await until(lambda: not bus.radio.up.is_set())
        assert "the radio was unplugged" in await failure(bus) or "there is no Bluetooth radio" in await failure(bus)
        bluez.plug("hci0", "00:00:00:00:00:01")
        await heals(bus, bluez, 2)


async def test_a_radio_that_loses_its_power_is_switched_on_again(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
        bluez.power("hci0", on=False)
        await until(lambda: not bus.radio.up.is_set())
        await heals(bus, bluez, 2)


async def test_dbus_may_be_restarted(dbus: PrivateBus) -> None:
    bluez = await FakeBluez().start()
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
        bluez.stop()
        dbus.stop()
        await until(lambda: not bus.radio.up.is_set())
        dbus.start()
        bluez = await FakeBluez().start()
        await heals(bus, bluez, 2)
    bluez.stop()


@pytest.mark.parametrize("pause", [0.0, 1.0])
async def test_readings_resume_when_bluetoothd_is_killed_and_started_again(
    bluez: FakeBluez, pause: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edged")
    found: list[Sample] = []
    config = BleBus(adapter="ble")
    spec = device(every=Duration(0.1))
    poller = BusPoller(
        "radio",
        lambda: Bus("radio", config, {"tag": spec}, pace=QUICK),
        config,
        [Assignment("tag", BOTH, 0.1)],
        found.append,
    )
    running = asyncio.create_task(poller.run())
    number = 0

    def good() -> bool:
        nonlocal number
        number += 1
        if bluez.running:
            bluez.advertise(TAG, {0x0499: ruuvi(number)})
        return bool(found) and None not in found[-1].values

    for _ in range(2):
        found.clear()
        await until(good)
        bluez.stop()
        await until(lambda: bool(found) and found[-1].values == (None, None))
        assert str(found[-1].quality[0]) == "bad(unreachable)"
        await asyncio.sleep(pause)
        await bluez.start()
        began = time.monotonic()
        found.clear()
        await until(good)
        assert time.monotonic() - began < 10
    running.cancel()
    await asyncio.wait({running})
    lines = [record.getMessage() for record in caplog.records if "reachable" in record.getMessage()]
    assert len([line for line in lines if "reachable again" in line]) == 2, lines


async def test_the_end_of_bleaks_own_connection_is_noticed(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
        connection = _bleak_bus()
        assert connection is not None
        connection.disconnect()
        await until(lambda: not bluez.scanning())
        await heals(bus, bluez, 2)


# -- bluetoothd hangs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["StartDiscovery", "SetDiscoveryFilter"])
async def test_a_bluetoothd_that_hangs_is_told_and_scanning_goes_on_when_it_is_back(
    bluez: FakeBluez, member: str
) -> None:
    bluez.hang.add(member)
    async with opened(tag=device()) as bus:
        bus.radio.start()
        await until(lambda: bus.radio.error is not None)
        assert "bluetoothd does not answer: sudo systemctl restart bluetooth" in await failure(bus)
        bluez.hang.clear()
        await heals(bus, bluez)


async def test_a_radio_that_hangs_lets_the_other_one_scan(dbus: PrivateBus) -> None:
    bluez = await FakeBluez({"hci0": "00:00:00:00:00:01", "hci1": "00:00:00:00:00:02"}).start()
    bluez.hang.add("StartDiscovery /org/bluez/hci0")
    patient = replace(QUICK, start=0.3, hung=30.0)
    other = BleBus(adapter="ble", radio="hci1")
    async with opened(tag=device(), pace=patient) as bus, opened(other, tag=device()) as second:
        bus.radio.start()
        await until(lambda: bus.radio.error is not None)
        job = second.prepare("tag", BOTH)
        second.radio.start()
        for number in range(20):
            await until(partial(bluez.advertise, TAG, {0x0499: ruuvi(number)}, index="hci1"))
            await asyncio.sleep(0.1)
        await until(second.radio.up.is_set)
        assert len((await second.poll(job)).samples) >= 10
        bluez.hang.clear()
        await heals(bus, bluez)
    bluez.stop()


async def test_a_stop_that_hangs_does_not_keep_the_radio(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)
        bluez.hang.add("StopDiscovery")
        began = time.monotonic()
        await bus.close()
        assert time.monotonic() - began < 10
        await until(lambda: not bluez.scanning())


async def test_a_scan_left_over_from_a_lost_answer_is_ended(bluez: FakeBluez) -> None:
    bluez.fail["StartDiscovery"] = [("InProgress", "Operation already in progress")]
    async with opened(tag=device()) as bus:
        await heals(bus, bluez)


# -- the radio hears nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", ["scan", "power"])
async def test_a_radio_that_falls_deaf_is_healed(
    bluez: FakeBluez, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edged.ble")
    async with opened(tag=device()) as bus:
        bus.radio.dog = Watchdog(time.monotonic(), at_least=0.3, at_most=0.3)
        await heals(bus, bluez)
        bluez.radios["hci0"].deaf = True
        bluez.radios["hci0"].deaf_until = remedy
        await until(lambda: not bluez.radios["hci0"].deaf)
        await heals(bus, bluez, 2)
        powered = [body for body in bluez.calls if body == ("Set", "/org/bluez/hci0")]
        assert bool(powered) is (remedy == "power"), "the gentlest remedy first"
    assert "has heard nothing" not in caplog.text


async def test_a_radio_that_stays_deaf_is_reported_once_and_its_recovery_once(
    bluez: FakeBluez, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edged.ble")
    async with opened(tag=device(expect=Duration(0.3))) as bus:
        bus.radio.dog = Watchdog(time.monotonic(), at_least=0.2, at_most=0.2)
        await heals(bus, bluez)
        bluez.radios["hci0"].deaf = True
        await until(lambda: bool(bus.radio.silence))
        with pytest.raises(
            TransientError, match=r"not heard for .*; the radio has heard nothing for .*restart bluetooth"
        ):
            await bus.poll(bus.prepare("tag", BOTH))
        await asyncio.sleep(1.5)
        bluez.radios["hci0"].deaf = False
        await heals(bus, bluez, 2)
    assert caplog.text.count("has heard nothing") == 1
    assert caplog.text.count("hears something again") == 1


# -- for a long time ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_memory_stays_flat_with_a_hundred_thousand_rotating_addresses(bluez: FakeBluez) -> None:
    bluez.keep = 300
    sizes: list[tuple[int, int]] = []
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        await bus.poll(job)
        sent = 0

        def counted(count: int) -> bool:
            return bus.radio.count >= count

        for batch in range(100):
            for number in range(1000):
                address = f"4A:{batch:02X}:00:00:{number >> 8:02X}:{number & 255:02X}"
                sent += bluez.advertise(address, {0x004C: address.encode()}, kind="random")
                if number % 50 == 49:
                    # no more than the socket of D-Bus takes
                    await until(partial(counted, sent))
            bluez.advertise(TAG, {0x0499: ruuvi(batch)})
            sent += 1
            assert await polled(bus, job)
            gc.collect()
            sizes.append((len(gc.get_objects()), _rss()))
            bluez.calls.clear()
    (objects, kilobytes), (last_objects, last_kilobytes) = sizes[4], sizes[-1]
    assert last_objects - objects < 1000
    assert last_kilobytes - kilobytes < 2048


def _rss() -> int:
    """Resident memory in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
