from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import pytest
from dbus_fast import Variant

from edged.adapter import Duration, Name, PermanentError, TransientError
from edged_ble.bus import Bus
from edged_ble.config import BleBus, BlePoint
from edged_ble.job import BleJob
from tests.support.fakebluez import DEVICE, FakeBluez
from tests.support.privatebus import PrivateBus
from tests.wire.ble.rig import TAG, device, heard, opened, polled, ruuvi, until

BOTH = ["temperature", "rssi"]


async def repeated(bus: Bus, bluez: FakeBluez, job: BleJob) -> None:
    """The same advertisement again and again, while the device is polled."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        await asyncio.sleep(0.02)
        await bus.poll(job)


async def test_every_advertisement_becomes_a_sample_with_its_own_time(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        assert not (await bus.poll(job)).samples
        times = []
        for number in range(3):
            times.append(time.time_ns() // 1000)
            bluez.advertise(TAG, {0x0499: ruuvi(number, 20 + number)}, rssi=-70 + number)
            await until(partial(heard, bus, number + 1))
            times.append(time.time_ns() // 1000)
            await asyncio.sleep(0.05)
        samples = (await bus.poll(job)).samples
        assert [list(sample.values) for sample in samples] == [[20.0, -70], [21.0, -69], [22.0, -68]]
        assert all(sample.points == ("temperature", "rssi") for sample in samples)
        for sample, sent, known in zip(samples, times[::2], times[1::2], strict=True):
            assert sent <= sample.time <= known
        assert not (await bus.poll(job)).samples


async def test_points_with_periods_of_their_own_get_everything_too(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        jobs = [bus.prepare("tag", ["temperature"]), bus.prepare("tag", ["humidity"])]
        await bus.poll(jobs[0])
        for number in range(3):
            bluez.advertise(TAG, {0x0499: ruuvi(number)})
        await until(partial(heard, bus, 3))
        assert [len((await bus.poll(job)).samples) for job in jobs] == [3, 3]


async def test_a_long_period_gets_one_measurement_as_soon_as_there_is_one(bluez: FakeBluez) -> None:
    async with opened(tag=device(every=Duration(60))) as bus:
        job = bus.prepare("tag", ["temperature"])
        assert (await bus.poll(job)).again == 1
        for number in range(3):
            bluez.advertise(TAG, {0x0499: ruuvi(number, 20 + number)})
        await until(partial(heard, bus, 3))
        result = await bus.poll(job)
        assert [list(sample.values) for sample in result.samples] == [[22.0]]
        assert result.again is None


async def test_a_long_period_loses_no_event(bluez: FakeBluez) -> None:
    fcd2 = "0000fcd2-0000-1000-8000-00805f9b34fb"
    points = {Name("button"): BlePoint(), Name("battery"): BlePoint()}
    async with opened(tag=device(decoder="bthome", points=points, every=Duration(60))) as bus:
        job = bus.prepare("tag", ["button", "battery"])
        await bus.poll(job)
        for number in range(3):
            bluez.advertise(TAG, service={fcd2: bytes([0x40, 0x00, number, 0x01, 90 + number, 0x3A, 1 + number])})
            await until(partial(heard, bus, number + 1))
        for number in range(3, 6):
            bluez.advertise(TAG, service={fcd2: bytes([0x40, 0x00, number, 0x01, 90 + number])})
            await until(partial(heard, bus, number + 1))
        found = [dict(zip(sample.points, sample.values, strict=True)) for sample in (await bus.poll(job)).samples]
        assert [one["button"] for one in found if "button" in one] == ["press", "double_press", "triple_press"]
        assert [one["battery"] for one in found] == [90, 91, 92, 95]


async def test_an_old_value_is_never_shown_as_new(bluez: FakeBluez) -> None:
    path = bluez.path(TAG)
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        await bus.poll(job)
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        assert len(await polled(bus, job)) == 1
        # bluetoothd tells of anything that happens to the device, and bleak hands out the old data each time
        for name in ("Connected", "ServicesResolved", "Paired"):
            bluez._change(path, DEVICE, {name: Variant("b", True)})
        bluez._change(path, DEVICE, {"RSSI": Variant("n", -40)})
        await asyncio.sleep(0.1)
        samples = (await bus.poll(job)).samples
        assert [(sample.points, sample.values) for sample in samples] == [(("rssi",), [-40])]


async def test_what_bluetoothd_remembers_from_before_is_not_a_measurement(bluez: FakeBluez) -> None:
    path = bluez.path(TAG)
    bluez._meet(TAG, path, "/org/bluez/hci0", "", "public", {})
    bluez.objects[path][DEVICE] |= {
        "RSSI": Variant("n", -60), "ManufacturerData": Variant("a{qv}", {0x0499: Variant("ay", ruuvi(1))}),
    }  # fmt: skip
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        await bus.poll(job)
        bluez._change(path, DEVICE, {"RSSI": Variant("n", -50)})
        await asyncio.sleep(0.1)
        assert not (await bus.poll(job)).samples
        bluez.advertise(TAG, {0x0499: ruuvi(2)})
        assert len(await polled(bus, job)) == 1


async def test_a_steady_sensor_is_heard_again_and_again(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await bus.poll(bus.prepare("tag", BOTH))
        for _ in range(5):
            assert bluez.advertise(TAG, {0x0499: ruuvi(7)}), "bluetoothd was not asked for repetitions"
        await until(lambda: bus.radio.count == 5)
        assert heard(bus, 1)
        assert not heard(bus, 2)


async def test_a_device_that_falls_silent_is_stale_and_comes_back(bluez: FakeBluez) -> None:
    async with opened(tag=device(expect=Duration(1))) as bus:
        job = bus.prepare("tag", BOTH)
        await bus.poll(job)
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        assert len(await polled(bus, job)) == 1
        await asyncio.sleep(1.1)
        with pytest.raises(TransientError, match=r"not heard for \d s: is it in range") as failure:
            await bus.poll(job)
        assert failure.value.reason == "stale"
        bluez.advertise(TAG, {0x0499: ruuvi(2)})
        assert len(await polled(bus, job)) == 1


async def test_a_device_that_only_repeats_itself_is_stale_though_it_is_heard(bluez: FakeBluez) -> None:
    async with opened(tag=device(expect=Duration(1.5))) as bus:
        job = bus.prepare("tag", ["temperature"])
        await bus.poll(job)
        with pytest.raises(TransientError, match="only repeats its last measurement"):
            await repeated(bus, bluez, job)


async def test_a_point_that_stays_out_is_stale_alone(bluez: FakeBluez) -> None:
    fcd2 = "0000fcd2-0000-1000-8000-00805f9b34fb"
    points = {Name("temperature"): BlePoint(), Name("humidity"): BlePoint()}
    async with opened(tag=device(decoder="bthome", points=points, expect=Duration(1.5))) as bus:
        job = bus.prepare("tag", ["temperature", "humidity"])
        await bus.poll(job)
        await asyncio.sleep(1.6)
        found = []
        for number in range(2):
            bluez.advertise(TAG, service={fcd2: bytes([0x40, 0x00, number, 0x02, 0xCA, 0x09])})
            found += await polled(bus, job)
        assert [(sample.points, sample.values) for sample in found] == [
            (("temperature",), [25.06]),
            (("humidity",), (None,)),
            (("temperature",), [25.06]),
        ]
        assert str(found[1].quality[0]) == "bad(stale)"


async def test_the_wrong_decoder_is_named(bluez: FakeBluez) -> None:
    async with opened(tag=device(decoder="ibeacon", expect=Duration(1.5))) as bus:
        job = bus.prepare("tag", ["major"])
        await bus.poll(job)
        with pytest.raises(TransientError, match="its decoder 'ibeacon' is not for what it sends"):
            await repeated(bus, bluez, job)


async def test_a_missing_key_is_told_at_once(bluez: FakeBluez) -> None:
    encrypted = bytes.fromhex("41a47266c95f730011223378237214")  # the example of bthome.io/encryption
    points = {Name("temperature"): BlePoint()}
    async with opened(tag=device(address="54:48:E6:8F:80:A5", decoder="bthome", points=points)) as bus:
        job = bus.prepare("tag", ["temperature"])
        await bus.poll(job)
        bluez.advertise("54:48:E6:8F:80:A5", service={"0000fcd2-0000-1000-8000-00805f9b34fb": encrypted})
        await until(lambda: bus.radio.count)
        with pytest.raises(TransientError, match="bind_key") as failure:
            await bus.poll(job)
        assert failure.value.reason == "decode"


async def test_a_device_by_name_may_change_its_address(bluez: FakeBluez) -> None:
    points = {Name("temperature"): BlePoint()}
    async with opened(tag=device(address="", name="Ruuvi 884F", decoder="ess", points=points)) as bus:
        job = bus.prepare("tag", ["temperature"])
        await bus.poll(job)
        for number in range(3):
            data = {"00002a6e-0000-1000-8000-00805f9b34fb": bytes([number, 8])}
            bluez.advertise(f"4A:00:00:00:00:0{number}", service=data, name="Ruuvi 884F", kind="random")
        await until(partial(heard, bus, 3))


async def test_a_person_who_asks_gets_the_last_measurement_and_waits_for_the_first(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        asking = asyncio.create_task(bus.poll(job, raw=True))
        await until(bluez.scanning)
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        for result in (await asking, await bus.poll(job, raw=True)):
            assert list(result.samples[0].values) == [24.3, -60]
            assert bytes(result.raw[0].words) == ruuvi(1)
        assert len((await bus.poll(job)).samples) == 1, "asking takes nothing away"


async def test_only_characteristics_can_be_written(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        with pytest.raises(PermanentError, match="not writable"):
            await bus.write("tag", "temperature", 1)


# -- how it scans ------------------------------------------------------------------------------------------------------


async def test_it_scans_passively_where_bluetoothd_can(dbus: PrivateBus) -> None:
    bluez = await FakeBluez(passive=True).start()
    async with opened(tag=device()) as bus:
        job = bus.prepare("tag", BOTH)
        await bus.poll(job)
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        assert len(await polled(bus, job)) == 1
        assert bus.radio.passive
        members = [member for member, _ in bluez.calls]
        assert "RegisterMonitor" in members
        assert "StartDiscovery" not in members
    bluez.stop()


async def test_it_says_why_it_does_not_scan_passively(bluez: FakeBluez, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edged.ble")
    async with opened(tag=device()) as bus:
        await bus.poll(bus.prepare("tag", BOTH))
        assert not bus.radio.passive
    assert "scans actively: bluetoothd offers no advertisement monitors" in caplog.text


async def test_a_refused_passive_scan_becomes_an_active_one(dbus: PrivateBus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edged.ble")
    bluez = await FakeBluez(passive=True).start()
    bluez.fail["RegisterMonitor"] = ("Failed", "the kernel is too old")
    async with opened(tag=device()) as bus:
        await bus.poll(bus.prepare("tag", BOTH))
        assert bluez.scanning()
    assert "passive scanning was refused (bluetoothd: the kernel is too old)" in caplog.text
    bluez.stop()


async def test_a_sensor_that_a_passive_scan_loses_is_scanned_for_actively(dbus: PrivateBus) -> None:
    bluez = await FakeBluez(passive=True).start()
    async with opened(tag=device(expect=Duration(1), decoder="ess", points={Name("temperature"): BlePoint()})) as bus:
        job = bus.prepare("tag", ["temperature"])
        await bus.poll(job)
        data = {"00002a6e-0000-1000-8000-00805f9b34fb": b"\x66\x08"}
        bluez.advertise(TAG, service=data)
        assert len(await polled(bus, job)) == 1
        assert not bluez.advertise(TAG, service=data), "bluetoothd says nothing, as nothing changed"
        await asyncio.sleep(1.1)
        with pytest.raises(TransientError):
            await bus.poll(job)
        await until(lambda: not bus.radio.passive and bluez.radios["hci0"].sessions)
        bluez.advertise(TAG, service=data)
        assert [list(sample.values) for sample in await polled(bus, job)] == [[21.5]]
    bluez.stop()


async def test_each_bus_has_its_own_radio(dbus: PrivateBus) -> None:
    bluez = await FakeBluez({"hci0": "00:00:00:00:00:01", "hci1": "00:00:00:00:00:02"}).start()
    other = BleBus(adapter="ble", radio="00:00:00:00:00:02")
    async with opened(tag=device()) as bus, opened(other, tag=device()) as second:
        jobs = [one.prepare("tag", BOTH) for one in (bus, second)]
        for one, job in zip((bus, second), jobs, strict=True):
            await one.poll(job)
        bluez.advertise(TAG, {0x0499: ruuvi(1, 20)}, index="hci0")
        bluez.advertise(TAG, {0x0499: ruuvi(2, 30)}, index="hci1")
        values = [[sample.values[0] for sample in await polled(o, j)] for o, j in zip((bus, second), jobs, strict=True)]
        assert values == [[20.0], [30.0]]
        await bus.close()
        bluez.advertise(TAG, {0x0499: ruuvi(3, 31)}, index="hci1")
        assert [sample.values[0] for sample in await polled(second, jobs[1])] == [31.0]
    bluez.stop()


async def test_nothing_is_left_behind(bluez: FakeBluez) -> None:
    before = asyncio.all_tasks()
    async with opened(tag=device()) as bus:
        await bus.poll(bus.prepare("tag", BOTH))
        assert bluez.scanning()
    assert not bluez.scanning()
    await until(lambda: not {task for task in asyncio.all_tasks() - before if "radio" in task.get_name()})


async def test_strangers_are_listed_for_who_looks_for_them(bluez: FakeBluez) -> None:
    async with opened(tag=device()) as bus:
        await bus.poll(bus.prepare("tag", BOTH))
        bluez.advertise("A4:C1:38:00:00:01", {0x0499: ruuvi(1)}, rssi=-70, name="Sensor")
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        await until(partial(heard, bus, 1))
        (stranger,) = bus.radio.strangers.all()
        assert (stranger.name, stranger.rssi, stranger.private) == ("Sensor", -70, False)
