"""What advertisements cost: each decoder alone, and the whole daemon with a radio.

    python -m tests.bench.ble [SECONDS] [DEVICES] [ADVERTISEMENTS_PER_SECOND]

The daemon runs as in the field, with bleak, on a private D-Bus. Our own bluetoothd (tests/support/fakebluez.py) runs in
a process of its own on another core and sends advertisements of RuuviTags, each with a new measurement. How many there
were is what the daemon counted; what it cost is what Linux says of its process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from edged_ble.codecs import made
from edged_ble.codecs.advert import Advertisement, uuid_of
from edged_ble.known import new_decoder
from tests.bench.measure import THE_REST, UNDER_TEST, cost, memory, pinned
from tests.support.fakebluez import FakeBluez
from tests.support.gateway import Gateway, running
from tests.support.privatebus import private_bus

_TAG = "CB:B8:33:4C:88:4F"
_CALLS, _ROUNDS = 2000, 15
_STARTING = 60.0
_KEY = bytes.fromhex("231d39c1d7cc1ab1aee224cd096db932")


def decoders() -> dict[str, float]:
    """Decoder → µs for one advertisement, the median of some rounds."""
    climate = {"temperature": 21.5, "humidity": 44.25, "battery": 97, "battery_voltage": 2.9, "pressure": 1000.1}
    home = {name: climate[name] for name in ("battery", "temperature", "humidity")}
    plain = made.bthome_plain("54:48:E6:8F:80:A5", home, 1)
    encrypted = bytes.fromhex("41a47266c95f730011223378237214")  # bthome.io/encryption, the example
    beacon = bytes.fromhex("0215" + "fda50693a4e24fb1afcfc6eb07647825" + "27111963c5")
    tlm = bytes.fromhex("20000bb815800000007500000b2c")
    samples: dict[str, tuple[Any, Advertisement]] = {
        "ruuvi": (new_decoder("ruuvi"), made.ruuvi_tag(_TAG, climate, 1)),
        "bthome": (new_decoder("bthome"), plain),
        "bthome, encrypted": (new_decoder("bthome", _KEY), replace(plain, service_data={uuid_of("FCD2"): encrypted})),
        "atc": (new_decoder("atc"), made.atc_custom("A4:C1:38:02:83:F4", climate, 1)),
        "ibeacon": (new_decoder("ibeacon"), Advertisement(_TAG, manufacturer_data={0x004C: beacon})),
        "eddystone": (new_decoder("eddystone"), Advertisement(_TAG, service_data={uuid_of("FEAA"): tlm})),
    }
    return {name: _timed(decoder, adv) for name, (decoder, adv) in samples.items()}


def _timed(decoder: Any, adv: Advertisement) -> float:
    found = decoder.decode(adv)
    assert found is not None
    assert found.values, found.problem
    call: Callable[[Advertisement], object] = decoder.decode
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_CALLS):
            decoder.reset()  # an encrypted one would refuse to hear the same again
            call(adv)
        rounds.append((time.process_time() - began) / _CALLS * 1e6)
    return median(rounds)


def _addresses(devices: int) -> list[str]:
    return [f"C0:00:00:00:{number >> 8:02X}:{number & 255:02X}" for number in range(devices)]


async def send(devices: int, rate: float) -> None:
    """Be bluetoothd, and let the sensors advertise until killed."""
    os.sched_setaffinity(0, {THE_REST})
    bluez = await FakeBluez().start()
    print("ready", flush=True)
    addresses = _addresses(devices)
    packet, due = 0, time.monotonic()
    values = {"humidity": 44.25, "pressure": 1000.1, "battery_voltage": 2.9}
    while True:
        for address in addresses:
            celsius = 20 + packet % 100 / 100
            adv = made.ruuvi_tag(address, {**values, "temperature": celsius}, packet)
            bluez.advertise(address, dict(adv.manufacturer_data), rssi=-60 - packet % 7)
            due += 1 / rate
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
        await asyncio.sleep(0)
        packet += 1


async def daemon(seconds: float, devices: int, rate: float, folder: Path) -> dict[str, float]:
    """The whole daemon with one radio and these sensors, each polled every second."""
    config = {
        "gateway": {"id": "bench"},
        "buses": {"radio": {"adapter": "ble", "scan": "active"}},
        "devices": {
            f"tag-{number}": {
                "bus": "radio", "address": address, "decoder": "ruuvi", "every": "1s",
                "points": {name: {} for name in ("temperature", "humidity", "pressure", "rssi")},
            }
            for number, address in enumerate(_addresses(devices))
        },
    }  # fmt: skip
    with private_bus(folder), _sending(devices, rate):
        as_service = ("env", "MALLOC_ARENA_MAX=1", *pinned(UNDER_TEST))  # as in systemd/edged.service
        async with running(Gateway(folder / "gateway", config, prefix=as_service)) as gateway:
            return await _observed(gateway, seconds, devices)


@contextmanager
def _sending(devices: int, rate: float) -> Iterator[None]:
    """`send` in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.ble", "--send", str(devices), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        try:
            assert sender.stdout is not None
            sender.stdout.readline()
            yield
        finally:
            sender.kill()


async def _observed(gateway: Gateway, seconds: float, devices: int) -> dict[str, float]:
    async def read() -> int:
        return int((await gateway.status())["buffer"]["read"])

    end = time.monotonic() + _STARTING
    while await read() < 4 * devices:
        assert time.monotonic() < end, gateway.lines()
        await asyncio.sleep(0.2)
    await asyncio.sleep(2)
    began, before, first = time.monotonic(), cost(gateway.pid), await read()
    await asyncio.sleep(seconds)
    spent, last, took = cost(gateway.pid) - before, await read(), time.monotonic() - began
    rss, pss = memory(gateway.pid)
    heard = (last - first) / 4 / took
    return {
        "advertisements heard/s": heard,
        "% of one core": 100 * spent.cpu / took,
        "µs for each, all in": 1e6 * spent.cpu / took / heard,
        "RSS, MiB": rss,
        "PSS, MiB": pss,
    }


def main() -> None:
    """Print the figures."""
    if len(sys.argv) > 3 and sys.argv[1] == "--send":
        asyncio.run(send(int(sys.argv[2]), float(sys.argv[3])))
        return
    given = sys.argv[1:]
    seconds, devices, rate = (float(given[i]) if len(given) > i else one for i, one in enumerate((20, 200, 2000)))
    print("µs for one advertisement, decoder alone (to be at most 40)")
    for name, micros in decoders().items():
        print(f"  {name:<26}{micros:8.1f}")
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(daemon(seconds, int(devices), rate, Path(folder)))
    print(f"the daemon with {devices:.0f} sensors, {rate:,.0f} advertisements/s (to be at most 25 % and 45 MiB)")
    for name, value in result.items():
        print(f"  {name:<26}{value:8.1f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
