from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from edged.adapter import ConfigError, Duration, Name, PermanentError, Secret, TransientError
from edged_ble.bus import Bus
from edged_ble.config import BleBus, BleDevice, BlePoint
from tests.support.fakebluez import FakeBluez, Gatt
from tests.support.stalls import stalls
from tests.wire.ble.rig import QUICK, TAG, device, heard, opened, polled, ruuvi, until

BATTERY, LEVEL = "0000180f-0000-1000-8000-00805f9b34fb", "00002a19-0000-1000-8000-00805f9b34fb"
OWN = "0000aa00-0000-1000-8000-00805f9b34fb"
SETPOINT, STATE = "0000aa01-0000-1000-8000-00805f9b34fb", "0000aa02-0000-1000-8000-00805f9b34fb"
PROBE = "11:22:33:44:55:66"
POINTS = {
    Name("battery"): BlePoint(characteristic="2A19"),
    Name("setpoint"): BlePoint(characteristic="AA01", at=0, type="int16", scale=0.01, writable=True),
}


def probe(points: dict[Name, BlePoint] | None = None, **settings: Any) -> BleDevice:
    more: dict[str, Any] = {"address": PROBE, "every": Duration(60), "timeout": Duration(2), "listen": Duration(1)}
    return BleDevice(bus=Name("radio"), points=points or POINTS, **(more | settings))


def present(bluez: FakeBluez, *more: Gatt, address: str = PROBE, passkey: int | None = None) -> None:
    bluez.peripheral(
        address, Gatt(BATTERY, LEVEL, value=b"\x55"), Gatt(OWN, SETPOINT, value=b"\x34\x08"), *more, passkey=passkey
    )


async def near(bus: Bus, bluez: FakeBluez, address: str = PROBE) -> None:
    """The device advertises, so that it can be connected to."""
    bus.radio.start()
    await until(bus.radio.up.is_set)
    bluez.advertise(address, name="Probe")
    await until(lambda: address in bus.radio.devices)


async def test_it_connects_reads_and_disconnects(bluez: FakeBluez) -> None:
    present(bluez)
    async with opened(probe=probe()) as bus:
        await near(bus, bluez)
        result = await bus.poll(bus.prepare("probe", ["battery", "setpoint"]), raw=True)
        assert [(sample.points, sample.values) for sample in result.samples] == [
            (("battery",), [85]),
            (("setpoint",), [2100]),  # the pipeline scales
        ]
        assert [read.words for read in result.raw] == [(0x55,), (0x34, 0x08)]
        assert not bluez.connections()


async def test_a_value_is_written(bluez: FakeBluez) -> None:
    present(bluez)
    async with opened(probe=probe()) as bus:
        await near(bus, bluez)
        await bus.write("probe", "setpoint", 19.5)
        assert bluez.written[SETPOINT] == (1950).to_bytes(2, "little")
        with pytest.raises(PermanentError, match="probe/battery is not writable"):
            await bus.write("probe", "battery", 1)
        with pytest.raises(PermanentError, match="does not fit int16"):
            await bus.write("probe", "setpoint", 1e6)
        assert not bluez.connections()


async def test_a_refused_write_is_permanent(bluez: FakeBluez) -> None:
    present(bluez)
    bluez.fail["WriteValue"] = ("NotPermitted", "Write not permitted")
    async with opened(probe=probe()) as bus:
        await near(bus, bluez)
        with pytest.raises(PermanentError, match="probe/setpoint: it refused"):
            await bus.write("probe", "setpoint", 19.5)


async def test_notifications_of_a_lasting_connection_are_samples(bluez: FakeBluez) -> None:
    points = {Name("battery"): BlePoint(characteristic="2A19", notify=True)}
    present(bluez)
    async with opened(probe=probe(points, stay=True, every=Duration(1))) as bus:
        await near(bus, bluez)
        job = bus.prepare("probe", ["battery"])
        assert not (await bus.poll(job)).samples
        for level in (80, 79):
            assert bluez.notify(PROBE, LEVEL, bytes([level]))
        found = await polled(bus, job)
        assert [sample.values for sample in found] == [[80], [79]]
        bluez.drop(PROBE)
        await until(lambda: not bus._peripherals["probe"].connected)
        assert not (await bus.poll(job)).samples, "it connects again by itself"
        assert bluez.connections() == 1
        assert bluez.notify(PROBE, LEVEL, b"\x4e")
        assert [sample.values for sample in await polled(bus, job)] == [[78]]
    await until(lambda: not bluez.connections())


async def test_a_short_connection_waits_for_what_the_device_sends_by_itself(bluez: FakeBluez) -> None:
    points = {
        Name("battery"): BlePoint(characteristic="2A19", notify=True),
        Name("state"): BlePoint(characteristic="AA02", at=0, notify=True),
    }
    present(bluez, Gatt(OWN, STATE))
    async with opened(probe=probe(points, listen=Duration(0.5))) as bus:
        await near(bus, bluez)
        polling = asyncio.create_task(bus.poll(bus.prepare("probe", ["battery", "state"])))
        await until(partial(bluez.notify, PROBE, LEVEL, b"\x50"))
        samples = {sample.points[0]: sample for sample in (await polling).samples}
        assert samples["battery"].values == [80]
        assert str(samples["state"].quality[0]) == "bad(timeout)", "it did not send it"
        assert not bluez.connections()


async def test_a_characteristic_that_is_refused_or_missing_is_bad_alone(bluez: FakeBluez) -> None:
    points = POINTS | {Name("state"): BlePoint(characteristic="AA02", at=0)}
    present(bluez)
    bluez.fail["ReadValue"] = [("NotPermitted", "Read not permitted")]
    async with opened(probe=probe(points)) as bus:
        await near(bus, bluez)
        result = await bus.poll(bus.prepare("probe", ["battery", "setpoint", "state"]))
        quality = [str(sample.quality.get(0, "good")) for sample in result.samples]
        assert quality == ["bad(exception)", "good", "bad(exception)"]
        assert "probe: it has no characteristic AA02" in result.notes


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_device_that_was_never_heard_is_not_tried(bluez: FakeBluez) -> None:
    async with opened(probe=probe()) as bus:
        with pytest.raises(TransientError, match="it has not been heard, so it cannot be connected to") as failure:
            await bus.poll(bus.prepare("probe", ["battery"]))
        assert failure.value.reason == "timeout", "the radio is fine"
        assert ("Connect", bluez.path(PROBE)) not in bluez.calls


@pytest.mark.parametrize("member", ["Connect", "ReadValue"])
async def test_a_device_that_hangs_costs_its_time_and_no_more(bluez: FakeBluez, member: str) -> None:
    present(bluez)
    bluez.hang.add(member)
    async with opened(probe=probe(timeout=Duration(0.5))) as bus:
        await near(bus, bluez)
        job = bus.prepare("probe", ["battery"])
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"it did not answer within 0\.5 s"):
            await bus.poll(job)
        assert time.monotonic() - began < 10
        bluez.hang.clear()
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"it did not answer within 0\.5 s; it is tried again in [45] s"):
            await bus.poll(job)
        assert time.monotonic() - began < 1, "the pause costs the radio nothing"
        bus._peripherals["probe"]._not_before = 0.0
        assert (await bus.poll(job)).samples
        await until(lambda: not bluez.connections())


async def test_everything_may_hang_even_the_disconnection(bluez: FakeBluez) -> None:
    present(bluez)
    async with opened(probe=probe(timeout=Duration(0.5))) as bus:
        await near(bus, bluez)
        bluez.hang |= {"Connect", "Disconnect"}
        began = time.monotonic()
        with pytest.raises(TransientError, match="did not answer"):
            await bus.poll(bus.prepare("probe", ["battery"]))
        assert time.monotonic() - began < 20
        bluez.hang.clear()


async def test_pauses_grow_and_a_success_ends_them(bluez: FakeBluez) -> None:
    async with opened(probe=probe()) as bus:
        await near(bus, bluez)
        peripheral = bus._peripherals["probe"]
        job = bus.prepare("probe", ["battery"])
        pauses = []
        for _ in range(8):
            peripheral._not_before = 0.0
            with pytest.raises(TransientError, match="the connection failed"):
                await bus.poll(job)
            pauses.append(peripheral._pause)
        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
        present(bluez)
        peripheral._not_before = 0.0
        assert (await bus.poll(job)).samples
        assert peripheral._pause == 0


async def test_a_connection_lost_while_reading_is_a_failure_and_leaves_nothing(bluez: FakeBluez) -> None:
    present(bluez)
    bluez.delay["ReadValue"] = 0.2
    async with opened(probe=probe()) as bus:
        await near(bus, bluez)
        polling = asyncio.create_task(bus.poll(bus.prepare("probe", ["battery", "setpoint"])))
        await until(bluez.connections)
        await asyncio.sleep(0.05)
        bluez.unplug("hci0")
        with pytest.raises(TransientError):
            await polling


async def test_a_cancelled_poll_disconnects(bluez: FakeBluez) -> None:
    present(bluez)
    bluez.hang.add("ReadValue")
    async with opened(probe=probe(timeout=Duration(30))) as bus:
        await near(bus, bluez)
        polling = asyncio.create_task(bus.poll(bus.prepare("probe", ["battery"])))
        await until(bluez.connections)
        await asyncio.sleep(0.05)
        polling.cancel()
        await asyncio.wait({polling})
        assert polling.cancelled()
        await until(lambda: not bluez.connections())


# -- sharing the radio -------------------------------------------------------------------------------------------------


async def test_no_more_connections_at_once_than_allowed(bluez: FakeBluez) -> None:
    addresses = [f"11:22:33:44:55:0{number}" for number in range(6)]
    for address in addresses:
        present(bluez, address=address)
    bluez.delay["ReadValue"] = 0.1
    devices = {f"d{number}": probe(address=address) for number, address in enumerate(addresses)}
    async with opened(BleBus(adapter="ble", connections=2), QUICK, **devices) as bus:
        assert bus.concurrency == 7
        for address in addresses:
            await near(bus, bluez, address)
        results = await asyncio.gather(*(bus.poll(bus.prepare(name, ["battery"])) for name in devices))
        assert all(result.samples for result in results)
    assert bluez.connected_at_most == 2


def test_devices_that_stay_need_a_connection_each() -> None:
    with pytest.raises(ConfigError, match="a, b stay connected, so `connections` must be 3 or more, not 2"):
        Bus(
            "radio",
            BleBus(adapter="ble", connections=2),
            {"a": probe(stay=True), "b": probe(stay=True, address=TAG), "c": probe(address="11:22:33:44:55:00")},
        )


async def test_a_device_that_cannot_be_reached_leaves_the_scan_half_of_the_time(bluez: FakeBluez) -> None:
    """The worst radio: it hears nothing at all while it tries to connect."""
    bluez.radios["hci0"].deaf_when_busy = True
    bluez.hang.add("Connect")
    async with opened(tag=device(), probe=probe(timeout=Duration(0.4))) as bus, stalls() as held_up:
        await near(bus, bluez)
        job, gatt = bus.prepare("tag", ["temperature"]), bus.prepare("probe", ["battery"])
        peripheral = bus._peripherals["probe"]
        arrivals: list[float] = []

        async def insist() -> None:
            while True:
                peripheral._not_before = 0.0
                with pytest.raises(TransientError):
                    await bus.poll(gatt)

        insisting = asyncio.create_task(insist())
        assert bus._share
        end = time.monotonic() + 5
        number = 0
        while time.monotonic() < end:
            number += 1
            bluez.radios["hci0"].busy = int(bus._share.busy)
            bluez.advertise(TAG, {0x0499: ruuvi(number)})
            await asyncio.sleep(0.02)
            arrivals += [sample.mono / 1e6 for sample in (await bus.poll(job)).samples]
        insisting.cancel()
        await asyncio.wait({insisting})
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    longest = [gap for gap in gaps if gap > 0.2]
    assert len(longest) >= 3, "it did try to connect"
    assert sum(longest) < 0.7 * (arrivals[-1] - arrivals[0]) + held_up.seconds
    assert max(longest) < 2 + held_up.seconds


async def test_adverts_of_a_connected_device_and_its_characteristics_go_together(bluez: FakeBluez) -> None:
    present(bluez, address=TAG)
    points = {Name("temperature"): BlePoint(), Name("battery"): BlePoint(characteristic="2A19")}
    async with opened(tag=device(points=points, every=Duration(60))) as bus:
        await near(bus, bluez, TAG)
        job = bus.prepare("tag", ["temperature", "battery"])
        bluez.advertise(TAG, {0x0499: ruuvi(1)})
        await until(partial(heard, bus, 1))
        samples = (await bus.poll(job)).samples
        assert [(sample.points, sample.values) for sample in samples] == [
            (("temperature",), [24.3]),
            (("battery",), [85]),
        ]
        bluez.fail["Connect"] = ("Failed", "no")
        bluez.advertise(TAG, {0x0499: ruuvi(2)})
        await until(partial(heard, bus, 2))
        samples = (await bus.poll(job)).samples
        assert [str(sample.quality.get(0, "good")) for sample in samples] == ["good", "bad(timeout)"]


# -- pairing -----------------------------------------------------------------------------------------------------------


async def test_it_pairs_with_the_passkey_once(bluez: FakeBluez) -> None:
    present(bluez, passkey=123456)
    async with opened(probe=probe(pair=True, passkey=Secret(text="123456"))) as bus:
        await near(bus, bluez)
        job = bus.prepare("probe", ["battery"])
        for _ in range(2):
            assert (await bus.poll(job)).samples
        assert [member for member, _ in bluez.calls].count("Pair") == 1


@pytest.mark.parametrize("settings", [{}, {"passkey": Secret(text="000001")}])
async def test_a_wrong_passkey_is_told(bluez: FakeBluez, settings: dict[str, Any]) -> None:
    present(bluez, passkey=123456)
    async with opened(probe=probe(pair=True, **settings)) as bus:
        await near(bus, bluez)
        with pytest.raises(TransientError, match=r"it could not be paired \(bluetoothd: Authentication Failed\)"):
            await bus.poll(bus.prepare("probe", ["battery"]))


async def test_a_device_without_keys_is_paired_too(bluez: FakeBluez) -> None:
    present(bluez)
    async with opened(probe=probe(pair=True)) as bus:
        await near(bus, bluez)
        assert (await bus.poll(bus.prepare("probe", ["battery"]))).samples


def test_a_passkey_has_six_digits() -> None:
    with pytest.raises(ConfigError, match="`passkey` must be six digits"):
        Bus("radio", BleBus(adapter="ble"), {"probe": probe(pair=True, passkey=Secret(text="12345x"))})
