"""Connections: characteristics are read, written and listened to, without taking the radio from the scan for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bleak import BleakClient
from bleak.exc import BleakDeviceNotFoundError, BleakGATTProtocolError, BleakGATTProtocolErrorCode

from edged.adapter import PermanentError, Reason, TransientError

from .bluez import bounded
from .config import BleDevice
from .job import Characteristic
from .pairing import Pairing, passkey_of
from .radio import Radio
from .remedies import FOREIGN

if TYPE_CHECKING:
    from bleak.backends.characteristic import BleakGATTCharacteristic

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""Seconds before a device that could not be read is connected to again; they double."""
_DISCONNECT = 12.0
_KEPT = 256
"""Most notifications kept between two polls; the oldest go first."""
_LOCKED = {
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHORIZATION,
}


class Share:
    """What the devices of one radio share: so many connections, and one attempt at a time.

    Many radios hear nothing while they try to connect. So after an attempt the scan gets at least as long for itself.
    """

    def __init__(self, connections: int, tell: Callable[[float], None]) -> None:
        self._slots = asyncio.Semaphore(connections)
        self._turn = asyncio.Lock()
        self._tell = tell
        self._free_at = 0.0
        self.busy = False
        """Whether an attempt is under way."""

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Wait for one's turn to connect; `tell` hears how long it took."""
        async with self._turn:
            await asyncio.sleep(max(self._free_at - time.monotonic(), 0))
            began, self.busy = time.monotonic(), True
            try:
                yield
            finally:
                self.busy = False
                now = time.monotonic()
                self._free_at = now + (now - began)
                self._tell(now - began)

    async def acquire(self) -> None:
        """Wait for one of the connections."""
        await self._slots.acquire()

    def release(self) -> None:
        """Give it back."""
        self._slots.release()


@dataclass(frozen=True, slots=True)
class Got:
    """The bytes of a characteristic, or why there are none."""

    characteristic: Characteristic
    data: bytes
    wall: int
    mono: int
    reason: str = ""
    """Of the quality of its points; empty if `data` is good."""
    error: str = ""


class Peripheral:
    """One device that is connected to. Calls take their turns."""

    def __init__(
        self,
        name: str,
        config: BleDevice,
        characteristics: Sequence[Characteristic],
        radio: Radio,
        share: Share,
        pairing: Pairing,
    ) -> None:
        self._name = name
        self._config = config
        self._notifying = [one for one in characteristics if one.notify]
        self._radio = radio
        self._share = share
        self._turn = asyncio.Lock()
        self._client: BleakClient | None = None
        self._pairing = pairing
        self._passkey = passkey_of(config.passkey)
        self._pause = 0.0
        self._not_before = 0.0
        self._error = ""
        self._told = ""
        self.heard: deque[Got] = deque(maxlen=_KEPT)
        """What it sent by itself, until somebody takes it."""
        self.arrival = asyncio.Event()
        self.notes: list[str] = []

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None and self._client.is_connected

    async def read(self, characteristics: Sequence[Characteristic]) -> list[Got]:
        """Read those that do not notify; of those that do, wait for values unless the connection stays.

        What comes by notification is in `heard`. Raises TransientError when nothing could be read.
        """
        async with self._turn:
            self._check_pause()
            try:
                async with self._connection() as client:
                    got = [await self._read(client, one) for one in characteristics if not one.notify]
                    if not self._config.stay:
                        await self._listen([one for one in characteristics if one.notify])
            except TransientError as exc:
                self._failed(str(exc))
                raise
            self._pause, self._error = 0.0, ""
            return got

    async def write(self, characteristic: Characteristic, data: bytes) -> None:
        """Write, with a response where the device gives one. Raises TransientError, PermanentError."""
        async with self._turn, self._connection() as client:
            place = _find(client, characteristic)
            if place is None:
                raise PermanentError(f"it has no characteristic {characteristic.uuid}", reason="unknown")
            try:
                async with asyncio.timeout(self._config.timeout):
                    await client.write_gatt_char(place, data)
            except BleakGATTProtocolError as exc:
                raise PermanentError(f"it refused: {_refusal(exc)}", reason="exception") from exc
            except FOREIGN as exc:
                await self._drop()
                raise _failure(exc, self._config.timeout) from exc

    async def close(self) -> None:
        """Disconnect."""
        await self._drop()

    # -- connecting --------------------------------------------------------------------------------------------------

    def _check_pause(self) -> None:
        wait = self._not_before - time.monotonic()
        if wait > 0 and not self.connected:
            raise TransientError(f"{self._error}; it is tried again in {wait:.0f} s")

    def _failed(self, error: str) -> None:
        self._error = error
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[BleakClient]:
        """A connection that is kept if it may stay and nothing went wrong."""
        if not self.connected:
            await self._drop()
            await self._connect()
        client = self._client
        if client is None:
            raise TransientError("the connection was lost")
        good = False
        try:
            yield client
            good = True
        finally:
            if not (good and self._config.stay and self.connected):
                await self._drop()

    async def _connect(self) -> None:
        device = self._radio.known(self._config.address, self._config.name)
        if device is None:
            raise TransientError(
                "it has not been heard, so it cannot be connected to: is it near and awake, and not connected to "
                "something else?"
            )
        seconds = float(self._config.timeout)
        await self._share.acquire()
        try:
            index = self._radio.info.index if self._radio.info else ""
            client = BleakClient(device, timeout=seconds, bluez={"adapter": index})
            async with self._share.attempt():
                if self._config.pair:
                    await self._pairing.pair(device.details["path"], self._passkey, seconds)
                await bounded(client.connect(), seconds, f"connect {self._name}")
            self._client = client
            for one in self._notifying:
                await self._subscribe(client, one)
        except BaseException as exc:
            if self._client is None:
                self._share.release()
            await self._drop()
            if isinstance(exc, FOREIGN):
                raise _failure(exc, seconds) from exc
            raise

    async def _drop(self) -> None:
        """Disconnect, however long the device or bluetoothd takes for it."""
        client, self._client = self._client, None
        if client is None:
            return
        self._share.release()
        with contextlib.suppress(*FOREIGN):
            await bounded(client.disconnect(), _DISCONNECT, f"disconnect {self._name}")

    # -- characteristics ---------------------------------------------------------------------------------------------

    async def _read(self, client: BleakClient, wanted: Characteristic) -> Got:
        place = _find(client, wanted)
        if place is None:
            return self._none(wanted, f"it has no characteristic {_short(wanted.uuid)}")
        try:
            async with asyncio.timeout(self._config.timeout):
                data = bytes(await client.read_gatt_char(place))
        except BleakGATTProtocolError as exc:
            return self._none(wanted, f"it refused characteristic {_short(wanted.uuid)}: {_refusal(exc)}")
        except FOREIGN as exc:
            raise _failure(exc, self._config.timeout) from exc
        return Got(wanted, data, *_now())

    async def _subscribe(self, client: BleakClient, wanted: Characteristic) -> None:
        place = _find(client, wanted)
        if place is None:
            self._note(f"it has no characteristic {_short(wanted.uuid)}")
            return
        try:
            async with asyncio.timeout(self._config.timeout):
                await client.start_notify(place, partial(self._notified, wanted))
        except BleakGATTProtocolError as exc:
            self._note(f"it does not send characteristic {_short(wanted.uuid)} by itself: {_refusal(exc)}")

    def _notified(self, wanted: Characteristic, _place: BleakGATTCharacteristic, data: bytearray) -> None:
        self.heard.append(Got(wanted, bytes(data), *_now()))
        self.arrival.set()

    async def _listen(self, wanted: Sequence[Characteristic]) -> None:
        """Wait until each of these has sent something, or `listen` is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.listen):
                while missing := {one.uuid for one in wanted} - {got.characteristic.uuid for got in self.heard}:
                    if not self.connected:
                        raise TransientError(f"the connection was lost while {_short(missing.pop())} was awaited")
                    self.arrival.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            await self.arrival.wait()

    def _none(self, wanted: Characteristic, error: str) -> Got:
        self._note(error)
        return Got(wanted, b"", *_now(), Reason.EXCEPTION, error)

    def _note(self, text: str) -> None:
        """Something that a person should know once."""
        if text != self._told:
            self._told = text
            self.notes.append(f"{self._name}: {text}")


def _find(client: BleakClient, wanted: Characteristic) -> BleakGATTCharacteristic | None:
    for place in client.services.characteristics.values():
        if place.uuid == wanted.uuid and wanted.service in {"", place.service_uuid}:
            return place
    return None


def _refusal(exc: BleakGATTProtocolError) -> str:
    hint = "; it must be paired, set `pair: true`" if exc.code in _LOCKED else ""
    return f"{exc}{hint}"


def _failure(exc: BaseException, seconds: float) -> TransientError:
    """What happened to one connection. Never UNREACHABLE: that is the radio's."""
    if isinstance(exc, TimeoutError):
        return TransientError(f"it did not answer within {seconds:g} s")
    if isinstance(exc, BleakDeviceNotFoundError):
        return TransientError("bluetoothd has forgotten it, as it has not been heard lately")
    return TransientError(f"the connection failed: {str(exc) or type(exc).__name__}")


def _short(uuid: str) -> str:
    return uuid[4:8].upper() if uuid.endswith("-0000-1000-8000-00805f9b34fb") else uuid


def _now() -> tuple[int, int]:
    return time.time_ns() // 1000, time.monotonic_ns() // 1000
