"""SunSpec devices: what they have is found out from the device itself, and read in whole models.

`SunSpecJob` knows what was found; `SunSpecPoll` does the I/O of one poll. Each model is read with its number and length
in front, so that a poll notices when the map of the device has changed, and finds out anew.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edged.adapter import ConfigError, PollResult, Quality, RawRead, Reason, TransientError, Value, bad

from . import pdu
from .config import ModbusDevice, SunSpec
from .gather import Gathering
from .link import Link, now
from .pdu import RefusedError, Request
from .planner import ADDRESSES, Span, Table
from .sunspec_model import HEADER, NOT_IMPLEMENTED, Field, chunks, decode, family, fields

T = TypeVar("T")

BASES = (40000, 50000, 0)
"""Where a map may begin (SunSpec Device Information Model Specification)."""
MARK = (0x5375, 0x6E53)
"""`SunS`, which a map begins with."""
COMMON, END = 1, 0xFFFF
"""The model that says who made the device, and the number after the last model."""
_MOST_MODELS = 128
_STATED = {"Mn": "", "Md": "", "Vr": "version ", "SN": "serial number "}


@functools.cache
def folder() -> Path:
    """Where the definitions of the models are. Raises ConfigError if they are not installed."""
    package = find_spec("sunspec2")
    for place in package.submodule_search_locations or () if package is not None else ():
        models = Path(place) / "models" / "json"
        if models.is_dir():
            return models
    raise ConfigError("SunSpec devices need the definitions of the models: pip install 'edged[sunspec]'")


@functools.cache
def definition(model: int) -> dict[str, Any] | None:
    """The definition of a model; None for one that SunSpec does not define."""
    file = folder() / f"model_{model}.json"
    if not file.exists():
        return None
    try:
        loaded = json.loads(file.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
    return loaded if isinstance(loaded, dict) and "group" in loaded else None


def _defined(model: int) -> dict[str, Any] | None:
    """The same, where a definition that cannot be had is only this device's failure."""
    try:
        return definition(model)
    except ConfigError as exc:
        raise TransientError(str(exc), reason=Reason.PROTOCOL) from exc


@dataclass(frozen=True, slots=True)
class Model:
    """One model on a device, and what is read of it."""

    number: int
    start: int
    """The address of its number."""
    length: int
    """As the device states it: without the header."""
    called: str
    fields: tuple[Field, ...]
    """The chosen ones."""
    always: frozenset[str] = frozenset()
    """The fields that were asked for by name: they are told even when the device does not have them."""
    reads: tuple[tuple[int, int], ...] = ()
    """(offset, count) of each request."""

    @property
    def apart(self) -> tuple[int, ...]:
        """The scale factors that are read by another request than one of the points they belong to."""
        if len(self.reads) == 1:
            return ()
        return tuple(
            sorted(
                {
                    one.scale_at
                    for one in self.fields
                    if one.scale_at is not None
                    and any(
                        (at <= one.offset < at + count) != (at <= one.scale_at < at + count) for at, count in self.reads
                    )
                }
            )
        )


def chosen(number: int, called: str, found: Sequence[Field], wanted: SunSpec) -> tuple[list[Field], set[str]]:
    """The fields of a model to read, and the names of those that were asked for by name.

    Without `points`: what the device measures, which is neither set nor static.
    """
    if wanted.models and number not in wanted.models:
        return [], set()
    if not wanted.points:
        return [one for one in found if not one.settable and not one.static and number != COMMON], set()
    fitting: list[Field] = []
    named: set[str] = set()
    for one in found:
        forms = (one.name, f"{called}.{one.name}", f"{number}.{one.name}", one.name.rpartition(".")[2])
        patterns = [pattern for pattern in wanted.points if any(fnmatchcase(form, pattern) for form in forms)]
        if patterns:
            fitting.append(one)
        if set(patterns) & set(forms):
            named.add(one.name)
    return fitting, named


class SunSpecJob:
    """The points of one SunSpec device (see `edged.adapter.Job`): none until the device was asked."""

    def __init__(self, name: str, config: ModbusDevice, intern: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        assert config.sunspec is not None  # noqa: S101  # whoever calls has looked
        self.device = name
        self.config = config
        self.wanted = config.sunspec
        self.base: int | None = None
        self.models: tuple[Model, ...] | None = None
        self._intern = intern
        self._had: dict[str, set[str]] = {}
        """Model → its fields that had a value once. A point that the device never had is not told."""
        self._shapes: dict[str, tuple[tuple[Field, ...], tuple[str, ...]]] = {}
        self._told = ""
        self._notes: list[str] = []

    @property
    def points(self) -> tuple[str, ...]:
        """See `edged.adapter.Job`."""
        return tuple(name for _, names in self._shapes.values() for name in names)

    def found(self, models: Sequence[Model], stated: str, unknown: Sequence[int]) -> None:
        """The device told what it has."""
        self.models = tuple(models)
        self._shapes = {}
        for model in models:
            self._had.setdefault(model.called, set()).update(model.always)
            self._reshape(model)
        text = f"{self.device}: {stated or 'a SunSpec device'}; models {', '.join(str(one.number) for one in models)}"
        if unknown:
            text += f"; not known to SunSpec: {', '.join(map(str, unknown))}"
        if text != self._told:
            self._told = text
            self._notes.append(text)

    def forget(self) -> None:
        """Find out anew with the next poll."""
        self.models = None

    def news(self) -> list[str]:
        """What to tell a person, each thing once."""
        notes, self._notes = self._notes, []
        return notes

    def names(self, model: Model) -> tuple[str, ...]:
        """The points of a model, as they are told."""
        return self._shapes[model.called][1]

    def values(
        self, model: Model, words: Sequence[int], torn: frozenset[int]
    ) -> tuple[tuple[str, ...], list[Value], dict[int, Quality]]:
        """The points of a model, their values, and the quality of those that are not good.

        `torn`: scale factors that changed while the model was read.
        """
        had = self._had[model.called]
        new = [one.name for one in model.fields if one.name not in had and decode(one, words)[1] != NOT_IMPLEMENTED]
        if new:
            had.update(new)
            self._reshape(model)
        shown, names = self._shapes[model.called]
        values: list[Value] = []
        quality: dict[int, Quality] = {}
        for i, one in enumerate(shown):
            value, reason = decode(one, words)
            if one.scale_at in torn:
                value, reason = None, str(Reason.DECODE)
            values.append(value)
            if reason:
                quality[i] = bad(reason)
        return names, values, quality

    def _reshape(self, model: Model) -> None:
        had = self._had[model.called]
        shown = tuple(one for one in model.fields if one.name in had)
        self._shapes[model.called] = (
            shown,
            self._intern(tuple(f"{model.called}.{one.name}" for one in shown)),
        )


class Asker(Protocol):
    """What a poll needs of its bus."""

    def intern(self, points: tuple[str, ...]) -> tuple[str, ...]:
        """The one tuple for samples of this shape."""
        ...

    async def ask(self, link: Link, config: ModbusDevice, request: Request[T]) -> T:
        """One exchange, when the unit may be asked again. Raises what `Link.exchange` does."""
        ...


class SunSpecPoll:
    """One poll. Used once."""

    def __init__(self, bus: Asker, link: Link, job: SunSpecJob, *, raw: bool) -> None:
        self._bus, self._link, self._job = bus, link, job
        self._raw: list[RawRead] | None = [] if raw else None
        self._transactions = 0
        self._gathering = Gathering(job.device, bus.intern)

    async def run(self) -> PollResult:
        """See `edged.adapter.Bus.poll`."""
        job = self._job
        if job.models is None:
            await self._discover()
        failure: TransientError | None = None
        for model in job.models or ():
            if not model.reads:
                continue
            if failure is not None and failure.reason in {Reason.TIMEOUT, Reason.UNREACHABLE}:
                self._gathering.missing(job.names(model), bad(failure.reason))
                continue
            try:
                words, torn = await self._model(model)
            except RefusedError:
                self._gathering.missing(job.names(model), bad(Reason.EXCEPTION))
            except TransientError as exc:
                failure = exc
                self._gathering.missing(job.names(model), bad(exc.reason))
            else:
                self._check_header(model, words)
                self._gathering.add(self._link.arrived, *job.values(model, words, torn))
        if failure is not None and not self._gathering.read:
            raise failure
        return PollResult(self._gathering.samples(now()), self._transactions, self._raw or (), job.news())

    async def probe(self) -> PollResult:
        """See whether it is there. What it has is found out anew: it may have another firmware now."""
        self._job.base = await self._find()
        self._job.forget()
        return PollResult((), transactions=self._transactions)

    # -- finding out --------------------------------------------------------------------------------------------------

    async def _discover(self) -> None:
        job = self._job
        job.base = at = await self._find()
        at += len(MARK)
        found: list[Model] = []
        unknown: list[int] = []
        stated, called = "", dict[str, int]()
        while len(found) + len(unknown) < _MOST_MODELS and at + HEADER <= ADDRESSES:
            try:
                number, length = await self._registers(at, HEADER)
                if number == END or at + HEADER + length > ADDRESSES:
                    break
                known = await asyncio.to_thread(_defined, number)
                if known is None:
                    unknown.append(number)
                else:
                    words = await self._span(at, HEADER + length)
                    name = family(number, known)
                    called[name] = called.get(name, 0) + 1
                    found.append(self._modelled(number, at, name, called[name], known, words))
                    stated = stated or (_stated(known, words) if number == COMMON else "")
            except RefusedError:
                break  # a map without an end, or a part that cannot be read
            at += HEADER + length
        if not any(model.fields for model in found):
            has = ", ".join(str(model.number) for model in found) or "none that is known"
            raise TransientError(
                f"nothing to read in the SunSpec map at {job.base}; its models: {has}: check `models` and `points`",
                reason=Reason.PROTOCOL,
            )
        job.found(found, stated, unknown)

    def _modelled(
        self, number: int, at: int, name: str, nth: int, known: dict[str, Any], words: Sequence[int]
    ) -> Model:
        called = name if nth == 1 else f"{name}_{nth}"
        try:
            every = fields(known, words)
        except ValueError as exc:
            raise TransientError(str(exc), reason=Reason.PROTOCOL) from exc
        picked, named = chosen(number, called, every, self._job.wanted)
        needed = [one.end for one in picked] + [one.scale_at + 1 for one in picked if one.scale_at is not None]
        ends = sorted({HEADER, *(one.end for one in every), *(one.offset for one in every)})
        last = min(max(needed, default=0), len(words))
        reads = tuple(chunks(ends, last, self._job.config.max_registers))
        return Model(number, at, len(words) - HEADER, called, tuple(picked), frozenset(named), reads)

    async def _find(self) -> int:
        """Where the map begins."""
        wanted, known = self._job.wanted, self._job.base
        bases = (wanted.address,) if wanted.address is not None else BASES
        for base in sorted(bases, key=lambda one: one != known):
            try:
                if await self._registers(base, len(MARK)) == MARK:
                    return base
            except RefusedError:
                continue
        raise TransientError(
            f"unit {self._job.config.unit} has no SunSpec map at {' or '.join(map(str, bases))}: switch SunSpec Modbus "
            f"on in the device, or check `unit`",
            reason=Reason.PROTOCOL,
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _model(self, model: Model) -> tuple[Sequence[int], frozenset[int]]:
        """The registers of a model, and its scale factors that changed meanwhile."""
        before = await self._factors(model)
        words: list[int] = []
        for offset, count in model.reads:
            words += await self._registers(model.start + offset, count)
        after = await self._factors(model)
        return words, frozenset(at for at in before if not before[at] == words[at] == after[at])

    async def _factors(self, model: Model) -> dict[int, int]:
        """The scale factors that are read apart from their points."""
        return {at: (await self._registers(model.start + at, 1))[0] for at in model.apart}

    def _check_header(self, model: Model, words: Sequence[int]) -> None:
        if (words[0], words[1]) != (model.number, model.length):
            self._job.forget()
            raise TransientError(
                f"at {model.start} lay model {model.number} and lies {words[0]} now: the device has another map",
                reason=Reason.PROTOCOL,
            )

    async def _span(self, start: int, count: int) -> list[int]:
        words: list[int] = []
        most = self._job.config.max_registers
        for at in range(0, count, most):
            words += await self._registers(start + at, min(most, count - at))
        return words

    async def _registers(self, start: int, count: int) -> tuple[int, ...]:
        job, attempt = self._job, 0
        request = pdu.read_registers(Table.HOLDING, start, count)
        span = Span(Table.HOLDING, start, count)
        while True:
            self._transactions += 1
            try:
                words = await self._bus.ask(self._link, job.config, request)
            except RefusedError as exc:
                self._note(span, (), str(exc))
                raise
            except TransientError as exc:
                attempt += 1
                if attempt > job.config.retries or exc.reason == Reason.UNREACHABLE:
                    self._note(span, (), str(exc))
                    raise TransientError(f"unit {job.config.unit}, {span}: {exc}", reason=exc.reason) from exc
            else:
                self._note(span, words, "")
                return words

    def _note(self, span: Span, words: tuple[int, ...], error: str) -> None:
        if self._raw is not None:
            self._raw.append(RawRead(str(span), words, error, span.start))


def _stated(known: dict[str, Any], words: Sequence[int]) -> str:
    """Who made the device, of which type and version: the common model in a few words."""
    texts = {one.name: decode(one, words)[0] for one in fields(known, words)}
    said = [f"{word}{texts[name]}" for name, word in _STATED.items() if texts.get(name)]
    return ", ".join(said)
