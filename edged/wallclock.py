"""Since when the wall clock can be believed, and the right time of what was read before.

The monotonic clock counts rightly, from a moment that means nothing; the wall clock has the date, and may be wrong
until somebody sets it. How and why: docs/decisions/0009-time-that-can-be-believed.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from operator import attrgetter, sub
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from edged.clock import boot_id, boottime_us, iso, mono_us, wall_us
from edged.config.model import ClockConfig
from edged.model import Quality, Reason, Sample
from edged.timesync import SYNCHRONISED, Evidence, Source

log = logging.getLogger("edged.clock")

STEP = 10_000
"""Microseconds. Wall and monotonic clock are slewed alike, so any change between them is a step; less is jitter."""
TICK = 1.0
"""Seconds between two looks for a step, and for evidence while the clock is not trusted."""
_LOOK_AGAIN = 60_000_000
"""Microseconds after which a trusted clock's evidence is looked at again: there may be better."""
_SAVE_AFTER = 3_600_000_000
"""Microseconds after which the time reached is noted, for a clock that is set back while edged does not run."""
LONGEST_REPEAT = 86_400_000_000
"""A clock that is set back further showed nonsense before; readings are not flagged for longer than that."""
_SUSPENDED = 1_000_000
_BOOTS = 64
"""Of so many boots it is remembered when their clock was set."""
UNCERTAIN = Quality("uncertain", Reason.CLOCK.value)
_mono, _time = attrgetter("mono"), attrgetter("time")


@dataclass(frozen=True, slots=True)
class Machine:
    """The clocks of this machine; tests bring their own."""

    wall: Callable[[], int] = wall_us
    mono: Callable[[], int] = mono_us
    boottime: Callable[[], int] = boottime_us
    boot: Callable[[], str] = boot_id
    evidence: Evidence = field(default_factory=Evidence)

    def measure(self) -> tuple[int, int]:
        """(monotonic clock, wall clock minus monotonic clock), as exact as can be had."""
        rounds = [(self.mono(), self.wall(), self.mono()) for _ in range(3)]
        before, wall, after = min(rounds, key=lambda times: times[2] - times[0])
        middle = (before + after) // 2
        return middle, wall - middle


@dataclass(frozen=True, slots=True)
class Era:
    """What is known of a boot in which the wall clock came to be trusted. Microseconds of its monotonic clock.

    Samples from `since` through `until` may have been taken by a wrong wall clock: the right time is `mono + offset`.
    """

    trusted: int
    """When it was first trusted."""
    since: int
    """The end of the last suspension, in which the monotonic clock stood still; 0 if there was none."""
    until: int
    offset: int
    last: int
    """Wall clock minus monotonic clock, when this was written down."""


@dataclass(frozen=True, slots=True)
class ClockState:
    """The clock as it is now, for people and machines."""

    trusted: bool
    source: str
    """Why: kernel, timesyncd, ntp, rtc, pc, config, or `earlier` in this boot. Empty if it is not trusted."""
    steps: int
    """How often the wall clock was set since the start."""
    last_step: float
    """By how much the last time, seconds; negative: back."""
    repeats: bool
    """Whether it was set back and has not yet reached the time that it had shown before."""


def flagged(sample: Sample) -> Sample:
    """The sample, its time called uncertain in the quality of every value that is not bad anyway."""
    quality = dict.fromkeys(range(len(sample.values)), UNCERTAIN)
    quality.update((i, why) for i, why in sample.quality.items() if why.status == "bad")
    return replace(sample, quality=quality)


def corrected(sample: Sample, era: Era) -> Sample:
    """The sample with the time that a right clock would have shown, or flagged where that is not known.

    A time that was trusted when it was read may only become later: it must not fall behind those already sent.
    """
    if sample.mono > era.until:
        return sample
    time, early = sample.mono + era.offset, sample.mono <= era.trusted
    if sample.mono < era.since:
        return flagged(sample) if early else sample
    wrong = abs(time - sample.time) > STEP if early else time - sample.time > STEP
    return replace(sample, time=time) if wrong else sample


@dataclass(frozen=True, slots=True)
class KnownTimes:
    """What is known of the boots that samples were taken in."""

    eras: Mapping[str, Era]

    def settled(self, samples: Sequence[Sample], boot: str) -> Sequence[Sample]:
        """The samples with their times corrected, and flagged where nobody knows the right ones.

        The same object where there is nothing to do. It depends on nothing but the samples and what is known of their
        boot, of which there is only ever more.
        """
        era = self.eras.get(boot)
        if era is None:
            return [flagged(sample) for sample in samples]
        first = min(map(_mono, samples), default=era.until + 1)
        if first > era.until:
            return samples
        offsets = list(map(sub, map(_time, samples), map(_mono, samples)))
        if first >= era.since and max(offsets) - STEP <= era.offset <= min(offsets) + STEP:
            return samples  # none is wrong by more than jitter: nothing is to be done for each of them
        return [corrected(sample, era) for sample in samples]

    @property
    def doubtful(self) -> Mapping[str, int]:
        """By boot, until when its times may have been stored wrongly: microseconds of its monotonic clock."""
        return {boot: era.until for boot, era in self.eras.items()}


def remembered(file: Path) -> KnownTimes | None:
    """What a gateway has written down that does not run; None where it has not."""
    eras = _Memory(file).load()
    return KnownTimes(eras) if eras else None


class Clock:
    """The wall clock of this boot, watched. Belongs to one event loop."""

    def __init__(self, config: ClockConfig, file: Path | None = None, machine: Machine | None = None) -> None:
        """`file` keeps what must be known after a restart."""
        self._config = config
        self._memory = _Memory(file)
        self._machine = machine or Machine()
        self._boot = self._machine.boot()
        self._eras: dict[str, Era] = {}
        self._source: Source = ""
        mono, self._offset = self._machine.measure()
        self._slept = self._machine.boottime() - mono
        self._since = mono if self._slept > _SUSPENDED else 0
        self._repeats_until = 0
        """On the monotonic clock: until then the wall clock shows what it has shown before."""
        self._jumped = 0
        """On the monotonic clock: when a trusted wall clock was set forward, until somebody confirms it."""
        self._steps = self._last_step = 0
        self._looked = self._saved = mono
        self._gained = asyncio.Event()

    # what people see

    @property
    def trusted(self) -> bool:
        """Whether the wall clock can be believed."""
        return self._boot in self._eras

    async def gained(self) -> None:
        """Wait until the wall clock can be believed."""
        await self._gained.wait()

    def state(self) -> ClockState:
        """A snapshot."""
        repeats = self._machine.mono() < self._repeats_until
        return ClockState(self.trusted, self._source, self._steps, self._last_step / 1e6, repeats)

    # the way of a sample

    def stamp(self, sample: Sample) -> Sample:
        """The sample as it is to be stored: flagged where the clock was set back and shows times a second time."""
        if not -STEP <= sample.time - sample.mono - self._offset <= STEP:
            self._look()
        return flagged(sample) if sample.mono < self._repeats_until else sample

    def shown(self, sample: Sample) -> Sample:
        """The sample as it is to be shown now: flagged while the clock is not trusted."""
        return sample if self._source else flagged(sample)

    async def ready(self, boot: str) -> None:
        """Wait until samples of this boot may be sent: with `hold`, until its clock is trusted."""
        if self._config.untrusted == "hold" and boot == self._boot:
            await self._gained.wait()

    def settled(self, samples: Sequence[Sample], boot: str) -> Sequence[Sample]:
        """The samples as they are to be sent: see `KnownTimes.settled`."""
        return self.known().settled(samples, boot)

    def known(self) -> KnownTimes:
        """What is known now of all boots."""
        return KnownTimes(self._eras)

    # life

    async def start(self) -> None:
        """Take up what is known from earlier runs, and look for the first time."""
        self._eras = self._memory.load()
        era = self._eras.get(self._boot)
        if era is not None:
            self._offset, self._since = era.last, max(era.since, self._since)
            self._source = "earlier"
            self._gained.set()
            self._catch_up()
        await self.check(thoroughly=True)
        if not self.trusted:
            held = "held back" if self._config.untrusted == "hold" else "sent as uncertain(clock)"
            log.warning("the clock is not set, it shows %s: readings are %s until it is", iso(self._now()), held)

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            await self.check()

    async def stop(self) -> None:
        """Note the time reached."""
        await self._keep(self._eras.get(self._boot))

    async def check(self, *, thoroughly: bool = False) -> None:
        """Notice a step, and evidence that the clock is set."""
        self._look()
        mono = self._machine.mono()
        if thoroughly or self._jumped or not self.trusted or mono - self._looked >= _LOOK_AGAIN:
            self._looked = mono
            await self._judge(mono)
        elif mono - self._saved >= _SAVE_AFTER:
            await self._keep(self._eras.get(self._boot))

    async def _judge(self, mono: int) -> None:
        found = self._machine.evidence.source(self._offset + mono, mono)
        if not found and self._config.trust == "always":
            found = "config"
        era = self._eras.get(self._boot)
        if era is None and found:
            log.info("the clock is set: it is %s (%s)", iso(self._offset + mono), found)
            self._catch_up()
            await self._keep(Era(mono, self._since, mono, self._offset, self._offset))
            self._gained.set()
        elif era is not None and self._jumped and found in SYNCHRONISED:
            era = replace(era, since=self._since, until=self._jumped, offset=self._offset)
            self._jumped = 0
            await self._keep(era)
        if found:
            self._source = found

    async def _keep(self, era: Era | None) -> None:
        """Adopt what is known of this boot: durable first, so that what was sent as good is never flagged later."""
        if era is None:
            return
        mono = self._saved = self._machine.mono()
        era = replace(era, last=self._offset)
        eras = {boot: one for boot, one in self._eras.items() if boot != self._boot} | {self._boot: era}
        eras = dict(list(eras.items())[-_BOOTS:])
        latest = self._offset + max(mono, self._repeats_until)
        await asyncio.to_thread(self._memory.save, eras, latest)
        self._eras = eras

    def _catch_up(self) -> None:
        """Whether the clock shows less than it did when an earlier run noted it."""
        behind = self._memory.latest - self._now()
        if behind > STEP:
            log.warning("the clock shows %s, but has shown later times already: %s", iso(self._now()), _REPEATS)
            self._repeats_until = self._machine.mono() + min(behind, LONGEST_REPEAT)

    def _now(self) -> int:
        return self._offset + self._machine.mono()

    def _look(self) -> None:
        """Notice that the wall clock was set."""
        mono, offset = self._machine.measure()
        if abs(offset - self._offset) <= STEP:
            return
        step = offset - self._offset
        slept = self._machine.boottime() - mono - self._slept
        if slept > STEP:
            self._slept += slept
            self._since = mono
            step -= slept
        self._offset = offset
        if abs(step) <= STEP:
            return
        self._steps, self._last_step = self._steps + 1, step
        if not self.trusted:
            log.info("the clock was set by %+.3f s", step / 1e6)
            return
        if step > 0:
            self._jumped = mono
            self._repeats_until = max(0, self._repeats_until - step)
        else:
            self._repeats_until = max(self._repeats_until, mono) + min(-step, LONGEST_REPEAT)
        log.warning("the clock was set by %+.3f s%s", step / 1e6, f": {_REPEATS}" if step < 0 else "")


_REPEATS = "until it has passed those, readings are uncertain(clock)"


class _Memory:
    """The file beside the buffer."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._complained = False
        self._one = Lock()
        """A save that was cancelled goes on in its thread while the last one begins."""
        self.latest = 0
        """The latest time that a trusted clock is known to have shown."""

    def load(self) -> dict[str, Era]:
        """What is known of earlier boots. Where the file is missing or damaged, uncertain times stay uncertain."""
        try:
            document = orjson.loads(self._file.read_bytes()) if self._file else {}
            eras = {str(boot): Era(*map(int, numbers)) for boot, numbers in document.get("boots", {}).items()}
            self.latest = int(document.get("latest", 0))
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return eras

    def save(self, eras: Mapping[str, Era], latest: int) -> None:
        """Replace the file; says once if that is not possible."""
        self.latest = latest
        if self._file is None:
            return
        document: dict[str, Any] = {"latest": latest, "boots": {boot: astuple(era) for boot, era in eras.items()}}
        try:
            with self._one:
                _replace(self._file, orjson.dumps(document))
        except OSError as exc:
            if not self._complained:
                log.warning("%s cannot be written (%s): after a restart some times may be uncertain", self._file, exc)
            self._complained = True
        else:
            self._complained = False


def _replace(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.new")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
