"""The radio as a bus: what was heard since the last poll, and what is read through connections.

A poll of what is heard waits for nothing: the radio scans by itself and keeps what it heard. So `every: 1s` costs next
to nothing, and every measurement becomes a sample with the moment it arrived. With a longer period the first of each
period does, and `PollResult.again` sees to it that it does not wait for the period's end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from edged.adapter import (
    ConfigError,
    Job,
    Name,
    PermanentError,
    Plan,
    PlanRequest,
    PollResult,
    RawRead,
    Reason,
    Sample,
    TransientError,
    Value,
)

from . import job as jobs
from .codecs.advert import Advertisement, Decoder, uuid_of
from .config import BleBus, BleDevice
from .decoders import decoder_for
from .encode import encode
from .job import BleJob, Characteristic
from .listener import Listener

if TYPE_CHECKING:
    from .gatt import Got, Peripheral, Share
    from .radio import Pace, Radio

_STARTING = 10.0
"""Seconds that the first polls wait for the radio."""
_PATIENT = 30.0
"""Seconds after the radio's start that a person waits for a first advertisement. Later, nobody is made to wait."""
_AGAIN = 1.0
"""Seconds until it is looked again for the one measurement of a long period."""
_CONNECTION = 2.0
"""Seconds that a connection usually takes, and a characteristic: for the prediction of the load."""
_CHARACTERISTIC = 0.1


class Link(Protocol):
    """Where advertisements come from: a radio, or a recording of one."""

    passive: bool
    """Whether unchanged advertisements may be left out."""
    up_since: int
    """When listening (last) began, microseconds on the monotonic clock."""
    silence: str
    """Why a person should look at it, while nothing comes at all."""

    async def wait(self, seconds: float) -> None:
        """Wait until it listens. Raises TransientError if it does not in time, or is known not to."""
        ...

    def insist(self, why: str) -> None:
        """Let unchanged advertisements come too from now on."""
        ...

    async def close(self) -> None:
        """Stop. Idempotent."""
        ...


class Bus:
    """Satisfies `edged.adapter.Bus`."""

    def __init__(
        self, name: str, config: BleBus, devices: Mapping[str, BleDevice], *, pace: Pace | None = None
    ) -> None:
        check(name, config, devices)
        self._name = name
        self._devices = devices
        self._listeners: dict[str, Listener] = {}
        self._by_key: dict[str, list[Listener]] = {}
        for device, spec in devices.items():
            self._listeners[device] = listener = Listener(_decoder(device, spec), float(spec.expect))
            self._by_key.setdefault(spec.address or spec.name, []).append(listener)
        self._radio: Radio | None = None
        self._share: Share | None = None
        self._peripherals: dict[str, Peripheral] = {}
        self._link = self._open(config, pace)
        # A poll that connects takes its time; those that only look at what was heard must not wait for it.
        connecting = sum(len({s.every, *(s.points[p].every for p in s.connected)} - {None})
                         for s in devices.values() if s.connected)  # fmt: skip
        self.concurrency = 1 + connecting

    def _open(self, config: BleBus, pace: Pace | None) -> Link:
        """The recording, or the radio and the devices that are connected to. Opens nothing yet."""
        if config.replay is not None:
            from .replay import Replayer  # noqa: PLC0415  # only who replays needs it

            return Replayer(self._name, config.replay, self._hear, self._forget)
        from .radio import Radio  # noqa: PLC0415  # a recording is played where there is no bleak

        devices = self._devices
        self._radio = Radio(
            self._name,
            config,
            self._hear,
            addresses=[spec.address for spec in devices.values() if spec.address],
            names=[spec.name for spec in devices.values() if not spec.address],
            companies=[s.data.company for s in devices.values() if s.data and s.data.company is not None],
            services=[uuid_of(s.data.service) for s in devices.values() if s.data and s.data.service],
            pace=pace,
        )
        if any(spec.connected for spec in devices.values()):
            self._open_peripherals(config, self._radio)
        return self._radio

    def _open_peripherals(self, config: BleBus, radio: Radio) -> None:
        from .gatt import Peripheral, Share  # noqa: PLC0415  # most gateways only listen
        from .pairing import Pairing  # noqa: PLC0415  # likewise

        self._share, pairing = Share(config.connections, self._radio_was_busy), Pairing(radio.bluez)
        for device, spec in self._devices.items():
            if spec.connected:
                characteristics = jobs.prepare(device, spec, None, spec.connected).characteristics
                self._peripherals[device] = Peripheral(device, spec, characteristics, radio, self._share, pairing)

    @property
    def radio(self) -> Radio:
        """The radio. A bus that replays has none: RuntimeError."""
        if self._radio is None:
            raise RuntimeError(f"{self._name} has no radio")
        return self._radio

    # -- what the scheduler calls ------------------------------------------------------------------------------------

    def prepare(self, device: str, points: Sequence[str]) -> BleJob:
        """See `edged.adapter.Bus`."""
        if device not in self._devices:
            raise ConfigError(f"{self._name} has no device {device!r}")
        listener = self._listeners[device]
        job = jobs.prepare(device, self._devices[device], listener.decoder, points)
        job.delivered, job.seen = listener.count, listener.seen
        listener.readers.add(job)
        return job

    def plan(self, job: Job) -> Plan:
        """Listening costs nothing; a connection does."""
        characteristics = cast("BleJob", job).characteristics
        if not characteristics:
            return Plan([PlanRequest("advertisements", 0.0)])
        reads = [PlanRequest(f"characteristic {one.uuid[4:8]}", _CHARACTERISTIC) for one in characteristics]
        return Plan([PlanRequest("connection", 0.0 if self._devices[job.device].stay else _CONNECTION), *reads])

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:  # noqa: ARG002  # nothing is cheaper
        """See `edged.adapter.Bus`. A sender that said nothing new yields nothing, until it has been silent too long.

        `raw` waits for an advertisement, and tells of the last one even if it was delivered before.
        """
        mine = cast("BleJob", job)
        await self._link.wait(_STARTING)
        samples: list[Sample] = []
        reads: list[RawRead] = []
        notes: list[str] = []
        failure: TransientError | None = None
        if mine.fields:
            try:
                samples += await self._asked(mine, reads) if raw else self._heard(mine, notes)
            except TransientError as exc:
                failure = exc
        if mine.characteristics:
            try:
                samples += await self._connected(mine, reads, notes)
            except TransientError as exc:
                failure = failure or exc
                if mine.fields:
                    now = _now()
                    samples += [one.without(mine.device, exc.reason, *now) for one in mine.characteristics]
        if failure is not None and not any(None not in sample.values for sample in samples):
            raise failure
        again = _AGAIN if mine.thin and not samples and not mine.characteristics else None
        return PollResult(samples, max(1, len(mine.characteristics)), reads if raw else (), notes, again)

    async def write(self, device: str, point: str, value: Value) -> None:
        """See `edged.adapter.Bus`."""
        spec = self._devices[device].points.get(Name(point)) if device in self._devices else None
        if spec is None or not spec.writable or not spec.characteristic:
            raise PermanentError(f"{device}/{point} is not writable", reason="not-writable")
        try:
            data = encode(spec, value)
        except ValueError as exc:
            raise PermanentError(f"{device}/{point}: {exc}", reason="range") from None
        await self._link.wait(_STARTING)
        where = jobs.prepare(device, self._devices[device], None, [point]).characteristics[0]
        try:
            await self._peripherals[device].write(where, data)
        except PermanentError as exc:
            raise PermanentError(f"{device}/{point}: {exc}", reason=exc.reason) from exc
        except TransientError as exc:
            raise TransientError(f"{device}/{point}: {exc}", reason=exc.reason) from exc

    async def close(self) -> None:
        """See `edged.adapter.Bus`."""
        for peripheral in self._peripherals.values():
            await peripheral.close()
        await self._link.close()

    # -- what is heard -----------------------------------------------------------------------------------------------

    def _hear(self, adv: Advertisement, mono: int) -> None:
        wall = time.time_ns() // 1000
        for listener in self._by_key.get(adv.address) or self._by_key.get(adv.name or "") or ():
            listener.hear(adv, mono, wall)

    def _forget(self) -> None:
        """A recording begins anew: the senders count from its beginning again."""
        for listener in self._listeners.values():
            listener.restart()

    def _heard(self, job: BleJob, notes: list[str]) -> list[Sample]:
        """What came since the last poll. Raises TransientError when the device has been silent too long."""
        listener, spec = self._listeners[job.device], self._devices[job.device]
        packets = listener.since(job.delivered)
        if job.lost:
            notes.append(f"{job.device}: {job.lost} advertisements came faster than they were fetched, and are lost")
        job.delivered, job.lost = listener.count, 0
        listener.tidy()
        samples = [sample for packet in job.wanted(packets) if (sample := job.sample(packet))]
        if not samples and (sighting := job.sighting(listener)):
            samples.append(sighting)
        job.seen = max(job.seen, listener.seen)
        wall, mono = _now()
        patience = round(spec.expect * 1e6)
        if packets or (not job.heard and samples):
            job.silent = False
            if mono - self._link.up_since > patience and (stale := job.stale(listener, mono - patience)):
                samples.append(jobs.without(job.device, stale, Reason.STALE, wall, mono))
            return samples
        if listener.problem and (not listener.last or mono - listener.last > patience):
            raise TransientError(listener.problem, reason=Reason.DECODE)
        last = (listener.last or 0) if job.heard else listener.seen
        since = last if job.silent else max(last, self._link.up_since)
        if mono - since > patience:
            job.silent = True
            raise self._silence(listener, spec, mono)
        return samples

    def _silence(self, listener: Listener, spec: BleDevice, mono: int) -> TransientError:
        """Why there is nothing, as far as it shows."""
        if self._link.passive and listener.count:
            self._link.insist("a sensor fell silent, and a passive scan is told only what changes")
        seconds = (mono - max(listener.last, self._link.up_since)) / 1e6
        if mono - listener.seen > spec.expect * 1e6 or not listener.seen:
            text = f"not heard for {seconds:.0f} s"
            text += f"; {self._link.silence}" if self._link.silence else ": is it in range, and its battery good?"
        elif listener.foreign:
            text = f"heard ({listener.rssi} dBm), but its decoder {spec.decoder!r} is not for what it sends"
        elif listener.count:
            text = f"heard ({listener.rssi} dBm), but it only repeats its last measurement, for {seconds:.0f} s"
        else:
            text = f"heard ({listener.rssi} dBm), but without any data for {seconds:.0f} s"
        return TransientError(text, reason=Reason.STALE)

    async def _asked(self, job: BleJob, reads: list[RawRead]) -> list[Sample]:
        """The newest measurement, for a person, who waits for it. Raises TransientError."""
        listener, spec = self._listeners[job.device], self._devices[job.device]
        until = self._link.up_since / 1e6 + min(float(spec.expect), _PATIENT)
        while True:
            packet, now = listener.newest, time.monotonic()
            if packet is not None and packet.mono / 1e6 > now - spec.expect:
                break
            if not job.heard and listener.seen:
                sighting = job.sighting(listener)
                return [sighting] if sighting else []
            if listener.problem:
                raise TransientError(listener.problem, reason=Reason.DECODE)
            if now >= until:
                raise self._silence(listener, spec, round(now * 1e6))
            await listener.wait(min(until - now, 1.0))
            await self._link.wait(0.0)
        age = now - packet.mono / 1e6
        reads.append(RawRead(f"advertisement {age:.1f} s ago, {packet.rssi} dBm", tuple(listener.bytes)))
        sample = job.sample(packet)
        return [sample] if sample else []

    # -- what is read through connections ----------------------------------------------------------------------------

    async def _connected(self, job: BleJob, reads: list[RawRead], notes: list[str]) -> list[Sample]:
        peripheral, spec = self._peripherals[job.device], self._devices[job.device]
        got = await peripheral.read(job.characteristics)
        wanted = {(one.uuid, one.service): one for one in job.characteristics if one.notify}
        got += _take(peripheral, wanted)
        notes += peripheral.notes
        peripheral.notes.clear()
        samples = []
        for one in got:
            mine = wanted.get((one.characteristic.uuid, one.characteristic.service), one.characteristic)
            reads.append(RawRead(f"characteristic {mine.uuid}", tuple(one.data), one.error))
            if one.reason:
                samples.append(mine.without(job.device, one.reason, one.wall, one.mono))
            else:
                samples.append(mine.sample(job.device, one.data, one.wall, one.mono))
        samples += self._unsaid(job, got, stay=spec.stay)
        return samples

    def _unsaid(self, job: BleJob, got: Sequence[Got], *, stay: bool) -> list[Sample]:
        """Characteristics that should have come by themselves and did not."""
        wall, mono = _now()
        for one in got:
            job.said[one.characteristic.uuid] = one.mono
        samples = []
        for each in job.characteristics:
            if not each.notify:
                continue
            patience = self._devices[job.device].expect * 1e6 if stay else 0
            last = job.said.setdefault(each.uuid, mono if stay else 0)
            if mono - last > patience and not any(one.characteristic.uuid == each.uuid for one in got):
                job.said[each.uuid] = mono
                samples.append(each.without(job.device, Reason.STALE if stay else Reason.TIMEOUT, wall, mono))
        return samples

    def _radio_was_busy(self, seconds: float) -> None:
        self.radio.dog.excuse(seconds, time.monotonic())


def _take(peripheral: Peripheral, wanted: Mapping[tuple[str, str], Characteristic]) -> list[Got]:
    """What came by itself of these; the rest is another job's."""
    mine: list[Got] = []
    others: list[Got] = []
    while peripheral.heard:
        one = peripheral.heard.popleft()
        (mine if (one.characteristic.uuid, one.characteristic.service) in wanted else others).append(one)
    peripheral.heard.extend(others)
    return mine


def check(name: str, config: BleBus, devices: Mapping[str, BleDevice]) -> None:
    """Whether the radio can serve the devices. Raises ConfigError."""
    if config.replay is not None and (connected := [device for device, spec in devices.items() if spec.connected]):
        raise ConfigError(
            f"{name}: {connected[0]} is connected to for a `characteristic`, and `replay` has advertisements only: "
            f"leave the device out, with `enabled: false`, or the `replay`"
        )
    stay = [device for device, spec in devices.items() if spec.connected and spec.stay]
    passing = [device for device, spec in devices.items() if spec.connected and not spec.stay]
    needed = len(stay) + bool(passing)
    if needed > config.connections:
        raise ConfigError(
            f"{name}: {', '.join(stay)} stay connected, so `connections` must be {needed} or more, not "
            f"{config.connections}"
        )


def _decoder(device: str, spec: BleDevice) -> Decoder | None:
    try:
        return decoder_for(spec)
    except ConfigError as exc:
        raise ConfigError(f"{device}: {exc}") from exc


def _now() -> tuple[int, int]:
    return time.time_ns() // 1000, time.monotonic_ns() // 1000
