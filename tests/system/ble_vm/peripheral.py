"""Runs in the virtual machine: a Bluetooth controller for the kernel, and a sensor within its range, both in software.

The kernel gets its radio through /dev/vhci; the sensor advertises like a RuuviTag and serves GATT. Both are bumble's
(github.com/google/bumble), whose controller needs the two corrections below to please a real Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import Any

from bumble.controller import Controller  # type: ignore[import-not-found]  # installed in the virtual machine only
from bumble.core import UUID, AdvertisingData  # type: ignore[import-not-found]  # the same
from bumble.device import Device, DeviceConfiguration  # type: ignore[import-not-found]  # the same
from bumble.gatt import Characteristic, CharacteristicValue, Service  # type: ignore[import-not-found]  # the same
from bumble.hci import Address  # type: ignore[import-not-found]  # the same
from bumble.host import Host  # type: ignore[import-not-found]  # the same
from bumble.link import LocalLink  # type: ignore[import-not-found]  # the same
from bumble.transport import open_transport  # type: ignore[import-not-found]  # the same

ADDRESS = "F0:F1:F2:F3:F4:F5"
_FEATURES = 0x1F
_FLAGS, _COMPANY = b"\x06", 0x0499
_DF5 = struct.Struct(">BhHHhhhHBH6s")


class _Link(LocalLink):  # type: ignore[misc]  # mypy cannot see it here
    """Names the sender of data by the connection's address: Linux scans with a random one, connects with its own."""

    def send_acl_data(self, sender: Any, dest: Any, transport: Any, data: bytes) -> None:
        peer = self.find_le_controller(dest)
        source = next(
            (one.self_address for one in sender.le_connections.values() if one.peer_address == dest),
            sender.random_address,
        )
        if peer is not None:
            asyncio.get_running_loop().call_soon(lambda: peer.on_link_acl_data(source, transport, data))


class _Sink:
    """Drops what the kernel does not take while the radio is off; asyncio would close the device, and so unplug it."""

    def __init__(self, sink: Any) -> None:
        self._file = sink.transport.get_extra_info("pipe")

    def on_packet(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._file.fileno(), packet)


def _advertisement(number: int) -> bytes:
    """Data format 5 of docs.ruuvi.com: 20.00 °C and a hundredth more with each."""
    celsius = 20 + number % 1000 / 100
    body = _DF5.pack(
        5, round(celsius * 200), 53 * 400, 50_044, 4, -4, 1036, (2977 - 1600) << 5 | 22, 66, number % 0xFFFF,
        bytes.fromhex(ADDRESS.replace(":", "")),
    )  # fmt: skip
    return bytes(
        AdvertisingData([
            (AdvertisingData.FLAGS, _FLAGS),
            (AdvertisingData.MANUFACTURER_SPECIFIC_DATA, struct.pack("<H", _COMPANY) + body),
        ])
    )  # fmt: skip


def _characteristic(uuid: str, value: dict[str, bytes]) -> Any:
    return Characteristic(
        UUID(uuid),
        Characteristic.Properties.READ | Characteristic.Properties.NOTIFY,
        Characteristic.READABLE,
        CharacteristicValue(read=lambda _connection: value["now"]),
    )


async def main() -> None:
    """Advertise and serve until killed."""
    link = _Link()
    vhci = await open_transport("vhci")
    radio = Controller(
        "kernel", host_source=vhci.source, host_sink=_Sink(vhci.sink), link=link, public_address="AA:BB:CC:00:00:01"
    )
    # With the bits of private addresses or extended advertising Linux waits for events that never come from this one.
    radio.le_features = type(radio.le_features)(_FEATURES)
    sensor = Device(config=DeviceConfiguration(name="Sensor", address=Address(ADDRESS)))
    sensor.host = Host()
    sensor.host.controller = Controller("sensor", link=link, public_address="F0:F1:F2:00:00:02")
    battery, celsius = {"now": b"\x55"}, {"now": struct.pack("<h", 2150)}
    level = _characteristic("00002a19-0000-1000-8000-00805f9b34fb", battery)
    temperature = _characteristic("00002a6e-0000-1000-8000-00805f9b34fb", celsius)
    sensor.add_service(Service(UUID("0000180f-0000-1000-8000-00805f9b34fb"), [level]))
    sensor.add_service(Service(UUID("0000181a-0000-1000-8000-00805f9b34fb"), [temperature]))
    await sensor.power_on()
    name = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"Sensor")]))
    await sensor.start_advertising(advertising_data=_advertisement(0), scan_response_data=name, auto_restart=True)
    print("advertising", flush=True)
    number = 0
    while True:
        await asyncio.sleep(1)
        number += 1
        celsius["now"] = struct.pack("<h", 2150 + number % 100)
        if sensor.connections:
            await sensor.notify_subscribers(temperature, celsius["now"])
        else:
            await sensor.start_advertising(
                advertising_data=_advertisement(number), scan_response_data=name, auto_restart=True
            )


asyncio.run(main())
