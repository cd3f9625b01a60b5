"""One radio: it scans for ever, whatever happens to D-Bus, bluetoothd or the radio, and says why when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bleak import BleakScanner
from bleak.assigned_numbers import AdvertisementDataType
from bleak.backends.device import BLEDevice
from bleak.exc import BleakDBusError

from edged.adapter import TransientError

from . import remedies
from .bluez import (
    Bluez,
    RadioInfo,
    bleak_is_alive,
    bounded,
    drop_bleak,
    leave_bleak,
    renew_bleak,
    use_bleak,
)
from .codecs.advert import Advertisement
from .config import BleBus
from .fresh import Fresh
from .remedies import explain, rfkill_block, unreachable
from .strangers import Strangers, is_private
from .watchdog import Step, Watchdog

if TYPE_CHECKING:
    from bleak.args.bluez import BlueZScannerArgs, OrPatternLike
    from bleak.backends.scanner import AdvertisementData

log = logging.getLogger("edged.ble")
# What it has to say about lost connections and failed calls, the radio says itself, once and with a remedy.
logging.getLogger("bleak").setLevel(logging.CRITICAL)

Hear = Callable[[Advertisement, int], None]
"""Called with each advertisement of a wanted sender, and its moment: microseconds on the monotonic clock."""

_FLAGS = (b"\x02", b"\x04", b"\x05", b"\x06", b"\x1a", b"\x1e")
"""What the flags of an advertisement may be (Core Specification Supplement, part A, 1.3): BlueZ needs a pattern."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a radio is, seconds."""

    start: float = 15.0
    """bluetoothd may take so long to begin a scan."""
    stop: float = 5.0
    retry: float = 1.0
    """First pause before a radio that is gone is tried again; it doubles."""
    rarest: float = 4.0
    hung: float = 30.0
    """The same while bluetoothd does not answer for it: each try keeps the machine's other radios waiting."""
    look: float = 2.0
    """How often the connection to D-Bus is looked at."""
    off: float = 1.0
    """How long a radio stays off when it is switched off and on."""


class Radio:
    """Scans from `start` to `close`. `up` is set while it does; `error` says why it does not."""

    def __init__(
        self,
        name: str,
        config: BleBus,
        hear: Hear,
        *,
        addresses: Collection[str] = (),
        names: Collection[str] = (),
        companies: Iterable[int] = (),
        services: Iterable[str] = (),
        pace: Pace | None = None,
        rfkill: Path = remedies.RFKILL,
    ) -> None:
        self._name = name
        self._config = config
        self._hear = hear
        self._addresses = frozenset(addresses)
        self._names = frozenset(names)
        self._patterns = patterns(companies, services)
        self._pace = pace or Pace()
        self.rfkill = rfkill
        self._task: asyncio.Task[None] | None = None
        self._fresh = Fresh()
        self._begun = ""
        """The bluetoothd that `_fresh` began with."""
        self._insisted = ""
        self._told = ""
        self.bluez = Bluez()
        self.info: RadioInfo | None = None
        self.passive = False
        self._settled = asyncio.Event()
        """Set once it is known whether it can scan."""
        self.up = asyncio.Event()
        self.up_since = 0
        """When scanning (last) began, microseconds on the monotonic clock."""
        self.error: TransientError | None = None
        self.silence = ""
        """Why a person should look at the radio, while it hears nothing at all."""
        self.dog = Watchdog(time.monotonic(), at_least=float(config.silence))
        self.strangers = Strangers(config.allow)
        self.devices: dict[str, BLEDevice] = {}
        """Of the wanted senders those that were heard, by address or by name: what bleak connects to."""
        self.count = 0
        """Advertisements heard, ever."""

    # -- what the bus calls ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to scan, unless it does. Raises what ended the scanning if a fault of ours did."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"radio {self._name}")
        elif self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Stop scanning. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self.bluez.close()

    async def wait(self, seconds: float) -> None:
        """Wait until it scans. Raises TransientError if it does not in time, or is known not to."""
        self.start()
        if not self._settled.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._settled.wait()
        if not self.up.is_set():
            raise self.error or unreachable(remedies.HUNG)

    def insist(self, why: str) -> None:
        """Scan actively from now on, although passive scanning would be possible."""
        if self.passive and not self._insisted:
            self._insisted = why
            self.bluez.trouble.set()

    def known(self, address: str, name: str) -> BLEDevice | None:
        """The wanted sender as bleak wants it; None if bluetoothd does not know it."""
        device = self.devices.get(address or name)
        if device is None and address and self.info is not None:
            path = f"{self.info.path}/dev_{address.replace(':', '_')}"
            if path in self.bluez.cached:
                return BLEDevice(address, None, {"path": path})
        return device

    # -- the scan that never ends ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = self._pace.retry
        use_bleak(self.bluez)
        try:
            while True:
                try:
                    info = await self._prepare()
                    await self._scan(info)
                    pause = self._pace.retry
                except TransientError as exc:
                    if self.up.is_set():
                        pause = self._pace.retry
                    self.up.clear()
                    self.error = exc
                    self._settled.set()
                    self.devices.clear()
                    rarest = self._pace.hung if str(exc) == remedies.HUNG else self._pace.rarest
                    pause = self._pace.retry if await self._rest(pause) else min(2 * pause, rarest)
        finally:
            self.up.clear()
            leave_bleak(self.bluez)

    async def _rest(self, seconds: float) -> bool:
        """Pause, but no longer than until something happens on D-Bus; whether it did."""
        self.bluez.trouble.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.bluez.trouble.wait()
        return self.bluez.trouble.is_set()

    async def _prepare(self) -> RadioInfo:
        """Find the radio and have it on. Raises TransientError with the remedy."""
        await self.bluez.connect()
        radios = await self.bluez.radios()
        info = _choose(radios, self._config.radio)
        await self.bluez.watch(info)
        if info.blocked or not info.powered:
            await self._switch_on(info)
        renew_bleak(self.bluez)
        if self._begun != self.bluez.owner:
            self._begun = self.bluez.owner
            self._fresh.begin(self.bluez.cached)
        self.info = info
        return info

    async def _switch_on(self, info: RadioInfo) -> None:
        if block := rfkill_block(info.index, self.rfkill) or ("soft" if info.blocked else ""):
            raise unreachable(remedies.BLOCKED[block].format(info.index))
        try:
            await self.bluez.switch(info, on=True)
        except TransientError as exc:
            if "rfkill" in str(exc):
                raise
            raise unreachable(remedies.OFF.format(info.index, exc)) from exc
        log.info("%s: %s was off and has been switched on", self._name, info.index)

    async def _scan(self, info: RadioInfo) -> None:
        """Scan until the radio is gone. Raises TransientError."""
        fresh = True
        while True:
            scanner = await self._begin(info)
            if fresh:
                self.dog.restarted(time.monotonic())
                self.up_since = time.monotonic_ns() // 1000
                self.silence, fresh = "", False
            self.error = None
            self.up.set()
            self._settled.set()
            try:
                step = await self._attend()
            finally:
                await self._stop(scanner)
            if step is Step.POWER:
                await self._power_cycle(info)

    async def _begin(self, info: RadioInfo) -> BleakScanner:
        self.passive, why = self._mode(info)
        if self.passive:
            try:
                return await self._start(info)
            except TransientError as exc:
                self.passive, why = False, f"passive scanning was refused ({exc})"
        scanner = await self._start(info)
        if why and why != self._told:
            self._told = why
            log.info("%s: %s scans actively: %s", self._name, info.index, why)
        return scanner

    def _mode(self, info: RadioInfo) -> tuple[bool, str]:
        """Whether to scan passively, and if not, why."""
        if self._config.scan == "active":
            return False, ""
        if self._insisted:
            return False, self._insisted
        if not info.passive:
            return False, (
                "bluetoothd offers no advertisement monitors, which passive scanning needs "
                "(BlueZ 5.56, started with --experimental, and Linux 5.10)"
            )
        return True, ""

    async def _start(self, info: RadioInfo, *, again: bool = True) -> BleakScanner:
        arguments: BlueZScannerArgs = {"adapter": info.index}
        if self.passive:
            arguments["or_patterns"] = self._patterns
        else:
            # Without the first, unchanged data would not be repeated; without the second, the signal's strength would
            # be told only when it changes by 8 dB (BlueZ, src/adapter.c, btd_adapter_device_found).
            arguments["filters"] = {"DuplicateData": True, "RSSI": -127}
        scanner = BleakScanner(self._detected, scanning_mode="passive" if self.passive else "active", bluez=arguments)
        try:
            await bounded(scanner.start(), self._pace.start, f"radio {self._name} start")
        except TimeoutError as exc:
            drop_bleak(self.bluez)  # or bluetoothd would answer for the scan that was given up
            raise explain(exc, info.index) from exc
        except remedies.FOREIGN as exc:
            if again and isinstance(exc, BleakDBusError) and exc.dbus_error.endswith(".InProgress"):
                drop_bleak(self.bluez)
                return await self._start(info, again=False)
            raise explain(exc, info.index) from exc
        return scanner

    async def _stop(self, scanner: BleakScanner) -> None:
        try:
            await bounded(scanner.stop(), self._pace.stop, f"radio {self._name} stop")
        except TimeoutError:
            drop_bleak(self.bluez)
        except remedies.FOREIGN as exc:
            log.debug("%s: while the scan was stopped: %s", self._name, exc)

    async def _attend(self) -> Step:
        """Wait until something has to be done about the scan. Raises TransientError when the radio is gone."""
        while True:
            now = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(self.dog.due() - now, 0.05), self._pace.look)):
                    await self.bluez.trouble.wait()
            if self.bluez.trouble.is_set():
                self.bluez.trouble.clear()
                if not self.bluez.news and self._insisted:
                    return Step.RESTART
                news, self.bluez.news = self.bluez.news, ""
                raise unreachable(f"{news}; scanning goes on as soon as it is back")
            if not bleak_is_alive():
                raise unreachable("the connection to D-Bus was lost; it is made again")
            step = self.dog.step(time.monotonic())
            if step is Step.REPORT:
                self._report()
            elif step is not None:
                return step

    def _report(self) -> None:
        seconds = time.monotonic() - self.dog.silent_since
        heard = f"has heard nothing for {seconds:.0f} s" if self.dog.ever else "has never heard anything"
        self.silence = (
            f"the radio {heard}, though the scan was restarted and the radio was switched off and on: is anything in "
            f"range? Try `sudo systemctl restart bluetooth`, or unplug the radio"
        )
        log.warning("%s: %s", self._name, self.silence)

    async def _power_cycle(self, info: RadioInfo) -> None:
        log.info("%s: nothing is heard: %s is switched off and on", self._name, info.index)
        await self.bluez.switch(info, on=False)
        await asyncio.sleep(self._pace.off)
        await self.bluez.switch(info, on=True)
        self.bluez.trouble.clear()
        self.bluez.news = ""

    # -- what is heard -----------------------------------------------------------------------------------------------

    def _detected(self, device: BLEDevice, heard: AdvertisementData) -> None:
        """Called by bleak at each change of anything about a device."""
        moment = time.monotonic_ns() // 1000
        path, properties = heard.platform_data
        address = device.address
        name = heard.local_name
        key = address if address in self._addresses else name if name in self._names else None
        manufacturer, service, news = self._fresh.parts(
            path, properties, keep=address in self._addresses, passive=self.passive
        )
        if not news:
            return
        self.count += 1
        if self.silence:
            log.info("%s: the radio hears something again", self._name)
            self.silence = ""
        self.dog.heard(moment / 1e6)
        adv = Advertisement(
            address,
            name,
            heard.rssi,
            {company: bytes(data) for company, data in manufacturer.items()},
            {uuid: bytes(data) for uuid, data in service.items()},
            tuple(heard.service_uuids),
            heard.tx_power,
        )
        if key is None:
            private = is_private(address, properties.get("AddressType", ""))
            self.strangers.hear(adv, time.time_ns() // 1000, private=private)
            return
        self.devices[key] = device
        self._hear(adv, moment)


def _choose(radios: Collection[RadioInfo], wanted: str) -> RadioInfo:
    """The radio that is called so, by index or address; the first one without a name. Raises TransientError."""
    name = wanted.upper()
    for radio in radios:
        if not wanted or name in {radio.index.upper(), radio.address}:
            return radio
    others = ", ".join(f"{radio.index} ({radio.address})" for radio in radios)
    raise unreachable(remedies.no_radio(wanted) + (f"; there is {others}" if others else ""))


def patterns(companies: Iterable[int], services: Iterable[str]) -> list[OrPatternLike]:
    """What a passive scan has to look for: the configured senders' data, and all that have flags."""
    kind = AdvertisementDataType
    found: list[OrPatternLike] = [(0, kind.FLAGS, flags) for flags in _FLAGS]
    found += [(0, kind.MANUFACTURER_SPECIFIC_DATA, number.to_bytes(2, "little")) for number in sorted(set(companies))]
    for uuid in sorted(set(services)):
        digits = bytes.fromhex(uuid.replace("-", ""))
        if uuid.endswith("-0000-1000-8000-00805f9b34fb"):
            found.append((0, kind.SERVICE_DATA_UUID16, digits[2:4][::-1]))
        else:
            found.append((0, kind.SERVICE_DATA_UUID128, digits[::-1]))
    return found
