"""Everything an adapter may import, and the registry that finds adapters by entry point.

An adapter teaches edged one protocol. It is an object with the attributes of `Adapter`, published under the
entry-point group `edged.adapters` with the name that a bus gives as its `adapter`. It has three parts: configuration
classes, a `Bus` that does the I/O, and, if it can, a simulator of its devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edged.config.base import STRICT, BusConfig, DeviceConfig, LinearMap, PointConfig
from edged.config.types import Duration, FileName, Name, Secret, Size
from edged.errors import ConfigError, EdgedError, PermanentError, TransientError
from edged.model import ALL_GOOD, GOOD, Quality, Reading, Reason, Sample, Value, bad

if TYPE_CHECKING:
    from edged.media.notes import FrameNote
    from edged.media.ring import Frame, FrameRing

__all__ = [
    "ALL_GOOD", "GOOD", "STRICT", "Adapter", "Annotates", "Bus", "BusConfig", "ConfigError", "DeviceConfig",
    "Duration", "EdgedError", "Explains", "FileName", "Job", "LinearMap", "Name", "Payloads",
    "PermanentError", "Plan", "PlanRequest", "PointConfig", "PollResult", "Prober", "Quality", "RawAnswer", "RawRead",
    "RawRequest", "Reading", "Reason", "Sample", "Secret", "Simulator", "Size", "Step", "Traced", "TransientError",
    "Value", "adapter_names", "bad", "load_adapter",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawRead:
    """One transaction as it went over the wire, for `edged read` and `edged trace`."""

    what: str
    """For people, e.g. `holding 100-149`."""
    words: tuple[int, ...] = ()
    """The raw registers, bits or bytes."""
    error: str = ""
    """Why there are none."""
    address: int = 0
    """The address of words[0], where the protocol has one."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one poll of one job yielded.

    `samples` hold every point of the job once, good or bad. Where reads of one poll lie more than 10 ms apart the
    adapter returns several samples, each with the time of its own read.
    """

    samples: Sequence[Sample]
    transactions: int = 1
    raw: Sequence[RawRead] = ()
    """Only filled when the poll was asked for it."""
    notes: Sequence[str] = ()
    """Things learnt that a person should know once, e.g. `register 412 does not exist`."""
    again: float | None = None
    """Poll the job again after so many seconds, although its period is longer: what is to come by itself in this period
    has not come yet, and shall not wait for the next one."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One transaction that a poll will make, for `edged check` and the bus budget."""

    what: str
    seconds: float
    """How long it occupies the bus when everything answers; 0 where the medium is not shared."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The transactions of one job."""

    requests: Sequence[PlanRequest] = ()


class Job(Protocol):
    """Some points of one device that are read together, prepared once and polled often."""

    @property
    def device(self) -> str:
        """The device's name."""
        ...

    @property
    def points(self) -> tuple[str, ...]:
        """The points' names."""
        ...


class Bus(Protocol):
    """One open link. The scheduler calls one `poll` or `write` at a time, except as `concurrency` allows.

    A cancelled call must leave the link such that the next one cannot receive a late reply.
    """

    concurrency: int
    """How many polls may be under way at once; 1 on a shared medium."""

    def prepare(self, device: str, points: Sequence[str]) -> Job:
        """Plan the reads for these points of a device. No I/O. Raises ConfigError."""
        ...

    def plan(self, job: Job) -> Plan:
        """What polling the job will cost."""
        ...

    async def poll(self, job: Job, *, probe: bool = False, raw: bool = False) -> PollResult:
        """Read the job's points once.

        `probe` asks for the cheapest read that shows the device is alive, without retries; its samples may be empty.
        Raises TransientError when the device, or the link, yielded nothing at all. A point that failed alone is a bad
        value in the result, not an exception.
        """
        ...

    async def write(self, device: str, point: str, value: Value) -> None:
        """Write one engineering value. Raises TransientError, PermanentError (refused, not writable, out of range)."""
        ...

    async def close(self) -> None:
        """Give the link back. Idempotent."""
        ...


class Simulator(Protocol):
    """Simulated devices that are being served."""

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Bus name → where it is served, e.g. `127.0.0.1:5020`."""
        ...

    def state(self) -> Mapping[str, int]:
        """Counters for people: requests served, connections and so on."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """One protocol, as the core sees it."""

    bus_config: type[BusConfig]
    device_config: type[DeviceConfig]
    """Its field `points` is a dict from Name to the adapter's own point class."""

    def profiles(self) -> Path | None:
        """The folder of the profiles (YAML) it ships."""
        ...

    def open(self, name: str, config: Any, devices: Mapping[str, Any]) -> Bus:
        """A bus object for this link. Opens nothing yet: it connects on the first poll and reconnects by itself.

        `config` and `devices` are instances of `bus_config` and `device_config`. Raises ConfigError for what only the
        machine can tell (no such certificate file).
        """
        ...

    def simulate(
        self, buses: Mapping[str, tuple[Any, Mapping[str, Any]]], *, host: str = "127.0.0.1", seed: int = 0
    ) -> AbstractAsyncContextManager[Simulator]:
        """Serve the devices of these buses (name → config, devices) on real sockets. Raises ConfigError."""
        ...


@runtime_checkable
class Traced(Protocol):
    """What a bus may have besides: rings with the frames that went over it lately, one for each connection."""

    @property
    def rings(self) -> Sequence[FrameRing]:
        """They are filled all the time; whoever looks changes nothing."""
        ...


@runtime_checkable
class Annotates(Protocol):
    """What an adapter may have besides: it can tell what the frames of its protocol say."""

    def annotate(self, pieces: Sequence[Frame], character: float = 0.0) -> Sequence[FrameNote]:
        """Explain what one ring holds, oldest first. Pure; never raises, whatever the bytes are.

        `character`: how long one takes on the line, seconds; 0 where it is no serial line.
        """
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way from what was read to a value, for `edged explain`."""

    name: str
    """In one word, such as `order`."""
    text: str
    """What it does, and to what."""
    result: str = ""


@runtime_checkable
class Explains(Protocol):
    """What an adapter may have besides: it can tell how it makes a value of what it read."""

    def explain(self, device: Any, point: str, raw: Sequence[RawRead]) -> Sequence[Step]:
        """The steps up to the value before scaling. `device` is an instance of `device_config`. Pure."""
        ...


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One transaction that reads what no point of the configuration need name, for `edged probe`, `find` and `scan`."""

    unit: int
    """Which device on the bus."""
    what: str
    """The kind of data in the protocol's words, such as `holding`; or `identification`, what it says about itself."""
    address: int = 0
    count: int = 1
    timeout: float = 1.0
    """Seconds to wait for the answer."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """The answer to a `RawRequest`."""

    words: tuple[int, ...] = ()
    """The raw registers or bits."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """What it says about itself, by what it is."""


@runtime_checkable
class Prober(Protocol):
    """What a bus may have besides: it can read what no point names."""

    async def read_raw(self, request: RawRequest) -> RawAnswer:
        """Read, and never anything but read, in one attempt.

        Raises ConfigError (no such kind or address), PermanentError (the device refuses; `code` is the protocol's, if
        it has one), TransientError (no answer, no connection, an answer that is none).
        """
        ...


@runtime_checkable
class Payloads(Protocol):
    """What a bus may have besides: it knows what a value is on the wire, and can write just that.

    `encode` and `decode` do no I/O. All raise PermanentError: `range` and the like, `raw` for bytes that are no payload
    of the point.
    """

    def encode(self, device: str, point: str, value: Value) -> bytes:
        """The bytes that `write` would send for an engineering value."""
        ...

    def decode(self, device: str, point: str, data: bytes) -> Value:
        """What the point would read as, before scaling; None if the bytes mean no value."""
        ...

    async def write_raw(self, device: str, point: str, data: bytes) -> None:
        """Write these bytes. Raises what `Bus.write` does."""
        ...


GROUP = "edged.adapters"


@cache
def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def adapter_names() -> list[str]:
    """The names of all installed adapters, sorted."""
    return sorted(_registered())


def load_adapter(name: str) -> Adapter:
    """The adapter of this name. Raises ConfigError if it is not installed, or lacks the extra that it needs."""
    entry = _registered().get(name)
    if entry is None:
        raise ConfigError(f"there is no adapter {name!r}; installed are: {', '.join(adapter_names()) or 'none'}")
    try:
        adapter = entry.load()
    except ModuleNotFoundError as exc:
        extra = f" (pip install 'edged[{entry.extras[0]}]')" if entry.extras else ""
        raise ConfigError(f"adapter {name!r} needs the Python package {exc.name!r}{extra}") from exc
    if not isinstance(adapter, Adapter):
        raise ConfigError(f"adapter {name!r} ({entry.value}) does not implement edged.adapter.Adapter")
    return adapter
