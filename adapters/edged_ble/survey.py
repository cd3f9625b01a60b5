"""Who is in range, and what is in a device: for people who set up a gateway (`edged ble`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bleak import BleakClient

from edged.adapter import Name, TransientError, Value

from .bluez import bounded
from .codecs.advert import Advertisement
from .codecs.gatt import FORMATS
from .config import BleBus, Scan
from .decoders import identify, new_decoder
from .known import KNOWN
from .radio import Radio
from .recording import Line, recorded
from .remedies import FOREIGN
from .strangers import Stranger, Strangers

_START = 15.0
_FOUND = 20.0
_BASE = "-0000-1000-8000-00805f9b34fb"


@dataclass(frozen=True, slots=True)
class Sender:
    """One device in range."""

    address: str
    name: str
    rssi: int
    count: int
    age: float
    """Seconds since it was heard last."""
    private: bool
    """Whether its address will change."""
    companies: tuple[int, ...]
    services: tuple[str, ...]
    decoder: str = ""
    """The decoder that fits; empty if none does."""
    title: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    problem: str = ""
    """Why there are no values although a decoder fits."""
    yaml: str = ""
    """What to paste under `devices`."""


class _Recorder(Strangers):
    """Remembers everybody, and tells each advertisement to somebody."""

    def __init__(self, tell: Callable[[Advertisement], None] | None) -> None:
        super().__init__(None)
        self._tell = tell

    def hear(self, adv: Advertisement, wall: int, *, private: bool) -> None:
        super().hear(adv, wall, private=private)
        if self._tell is not None:
            self._tell(adv)


def replayed(lines: Iterable[str]) -> tuple[list[Sender], list[str]]:
    """(the senders of a recording, what is wrong with its lines). A line that is a test vector is checked."""
    heard, problems = Strangers(None), []
    for number, text in enumerate(lines, 1):
        if not text.strip() or text.startswith("#"):
            continue
        try:
            line = recorded(text)
        except ValueError as exc:
            problems.append(f"line {number}: {exc}")
            continue
        heard.hear(line.advertisement, 0, private=False)
        problems += [f"line {number}: {problem}" for problem in differences(line)]
    decoders: dict[str, str] = {}
    return [_sender(one, 0, decoders) for one in heard.all()], problems


def differences(line: Line) -> list[str]:
    """Where a test vector does not say what it should; nothing for a line that is none."""
    if line.values is None:
        return []
    if line.decoder not in KNOWN:
        return [f"there is no decoder {line.decoder!r}; there are {', '.join(KNOWN)}"]
    decoded = new_decoder(line.decoder).decode(line.advertisement)
    values = {} if decoded is None else decoded.values
    if not line.values and values:
        return [f"decoder {line.decoder} should refuse it, and reads {dict(values)}"]
    return [
        f"{name} is {values.get(name, 'missing')}, not {value}"
        for name, value in line.values.items()
        if name not in values or not _same(values[name], value)
    ]


def _same(value: Value, wanted: Value) -> bool:
    if isinstance(value, float) and isinstance(wanted, int | float):
        return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return type(value) is type(wanted) and value == wanted


class Survey:
    """What one radio hears while it is open."""

    def __init__(self, radio: Radio) -> None:
        self._radio = radio
        self._decoders: dict[str, str] = {}

    @property
    def passive(self) -> bool:
        """Whether senders are not asked for their names."""
        return self._radio.passive

    @property
    def count(self) -> int:
        """Advertisements so far."""
        return self._radio.count

    async def check(self) -> None:
        """Raises TransientError if the radio is gone."""
        await self._radio.wait(0.0)

    def senders(self) -> list[Sender]:
        """Those heard, the strongest first."""
        now = time.time_ns() // 1000
        return [_sender(one, now, self._decoders) for one in self._radio.strangers.all()]


def _sender(one: Stranger, now: int, decoders: dict[str, str]) -> Sender:
    adv = one.advertisement
    decoder = decoders.get(adv.address, "")
    if not decoder and (found := identify(adv, libraries=True)):
        decoder = decoders[adv.address] = found
    values: Mapping[str, Value] = {}
    problem = ""
    if decoder:
        decoded = new_decoder(decoder).decode(adv)
        if decoded is not None:
            values, problem = decoded.values, decoded.problem
    known = KNOWN.get(decoder)
    return Sender(
        adv.address,
        one.name or "",
        one.rssi,
        one.count,
        (now - one.last) / 1e6,
        one.private,
        tuple(adv.manufacturer_data),
        tuple(dict.fromkeys((*adv.service_data, *adv.service_uuids))),
        decoder,
        known.title if known else "",
        values,
        problem,
        _yaml(one, decoder, values, encrypted=bool(problem)) if decoder else "",
    )


def _yaml(one: Stranger, decoder: str, values: Mapping[str, Value], *, encrypted: bool) -> str:
    """The device as the configuration wants it, under `devices:`."""
    known, address = KNOWN[decoder], one.advertisement.address
    name = _name(one.name or decoder, address)
    identity = f"name: {json.dumps(one.name)}" if one.private and one.name else f'address: "{address}"'
    lines = [f"  {name}:", "    bus: radio", f"    {identity}", f"    decoder: {decoder}"]
    if one.private and not one.name:
        lines[2] += "  # it will change its address"
    if encrypted and known.key_lengths:
        lines.append(f"    bind_key: !secret {name}-key")
    points = ", ".join(f"{point}: {{}}" for point in (*(values or known.common or ("temperature",)), "rssi"))
    lines.append(f"    points: {{{points}}}")
    return "\n".join(lines)


def _name(text: str, address: str) -> str:
    """A name for the configuration: from the device's own, with the end of its address."""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in text.lower())
    end = address[-5:].replace(":", "").lower()
    base = "-".join(part for part in kept.split("-") if part) or "sensor"
    name = base if base.endswith(end) else f"{base}-{end}"
    try:
        return Name.parse(name)
    except ValueError:
        return f"sensor-{end}"


@contextlib.asynccontextmanager
async def survey(radio: str, scan: Scan, tell: Callable[[Advertisement], None] | None = None) -> AsyncIterator[Survey]:
    """Listen with one radio. Raises TransientError with the remedy when it cannot."""
    one = Radio("scan", BleBus(adapter="ble", radio=radio, scan=scan), lambda _adv, _moment: None)
    one.strangers = _Recorder(tell)
    try:
        await one.wait(_START)
        yield Survey(one)
    finally:
        await one.close()


# -- one device --------------------------------------------------------------------------------------------------------


async def tree(radio: str, address: str, seconds: float) -> list[str]:
    """The services and characteristics of a device, with what can be read of them. Raises TransientError."""
    config = BleBus(adapter="ble", radio=radio, scan="active")
    one = Radio("gatt", config, lambda _adv, _moment: None, addresses=[address])
    try:
        await one.wait(_START)
        end = time.monotonic() + _FOUND
        while (device := one.known(address, "")) is None:
            if time.monotonic() > end:
                raise TransientError(f"{address} was not heard in {_FOUND:.0f} s: is it on, near, and not connected?")
            await asyncio.sleep(0.1)
        client = BleakClient(device, timeout=seconds)
        try:
            await bounded(client.connect(), seconds, "connect")
            return [line async for line in _lines(client, seconds)]
        except FOREIGN as exc:
            raise TransientError(f"{address}: the connection failed: {str(exc) or type(exc).__name__}") from exc
        finally:
            await _disconnect(client)
    finally:
        await one.close()


async def _disconnect(client: BleakClient) -> None:
    with contextlib.suppress(*FOREIGN):  # the device or bluetoothd ended it already
        await bounded(client.disconnect(), _START, "disconnect")


async def _lines(client: BleakClient, seconds: float) -> AsyncIterator[str]:
    for service in client.services:
        yield f"service {_short(service.uuid)}  {service.description}"
        for place in service.characteristics:
            form = FORMATS.get(place.uuid)
            title = form.name if form else place.description
            yield f"  characteristic {_short(place.uuid)}  {title}  ({', '.join(sorted(place.properties))})"
            if "read" not in place.properties:
                continue
            try:
                async with asyncio.timeout(seconds):
                    data = bytes(await client.read_gatt_char(place))
            except FOREIGN as exc:
                if not client.is_connected:
                    raise
                yield f"    cannot be read: {str(exc) or 'no answer'}"
                continue
            yield f"    {data.hex(' ') or 'empty'}{_meaning(place.uuid, data)}"


def _meaning(uuid: str, data: bytes) -> str:
    form = FORMATS.get(uuid)
    if form is not None:
        try:
            values = form.parse(data)
        except ValueError as exc:
            return f"  = not readable as {form.name}: {exc}"
        return "  = " + ", ".join(f"{name} {value} {form.points[name].unit}".rstrip() for name, value in values.items())
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return f"  = {text!r}" if text and text.isprintable() and "\ufffd" not in text else ""


def _short(uuid: str) -> str:
    return uuid[4:8].upper() if uuid.endswith(_BASE) and uuid.startswith("0000") else uuid
