"""The health document, described. Pure: who fills it is `edged.health.gather`.

The docstrings are the published description; `edged.health.reference` makes the page and the JSON Schema of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_DOCUMENTED: dict[str, Any] = {"use_attribute_docstrings": True}
Reason = Literal["first", "clean", "upgrade", "crash", "watchdog", "memory", "power"]
"""Why the gateway was started: see `Start`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    """What runs."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    edged: str
    """The version of edged."""
    python: str
    """That of Python."""
    sqlite: str
    """That of SQLite."""
    kernel: str
    """That of Linux."""
    formats: dict[str, int]
    """Versions of what is written: `messages`, `buffer`, `backup`."""
    extras: list[str]
    """The optional parts that are installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One start of the gateway."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    time: str
    """When, by the clock at that time: ISO 8601, UTC."""
    reason: Reason
    """Why: `first`: for the first time. `clean`: after a stop in good order. `upgrade`: likewise, in another version.
    `crash`: its process had died. `watchdog`: it had been stuck. `memory`: the kernel had ended it for want of memory.
    `power`: the machine had started anew without a stop: a power cut, or a reset."""
    version: str
    """The version of edged that was started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restarts:
    """How often the gateway was started, and why. Kept over restarts and power cuts."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    by_reason: dict[str, int]
    """Reason → how often, since the state folder was made."""
    last: list[Start]
    """The newest twenty, the newest last."""
    reloads: int
    """How often another configuration was taken over without a restart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """The process of the gateway. A value that this machine does not tell is null, here and below."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    cpu_seconds: float | None
    """CPU time since the start."""
    cpu: float | None
    """Share of one core lately, 0.02 is 2 %: of the last minute, or since the start."""
    rss: int | None
    """Memory in use, bytes."""
    rss_max: int | None
    """The most it ever was."""
    written: int | None
    """Bytes that this process has had written to the disk since its start: what wears the flash."""
    threads: int | None
    """How many threads it has."""
    files: int | None
    """How many files and sockets it has open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """The disk that the state lies on."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    free: int | None
    """Bytes left for the gateway."""
    total: int | None
    """Its size."""
    life_used: int | None
    """How much of its life an eMMC has used, per cent, at most: it tells in steps of ten. SD cards do not tell."""
    worn_out: bool | None
    """Whether the eMMC says that its spare blocks are nearly used up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The machine."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    uptime: float | None
    """Seconds since it was started."""
    load: float | None
    """Its load of the last minute."""
    memory_total: int | None
    """Bytes."""
    memory_free: int | None
    """Bytes that could be had without taking them from anybody."""
    temperature: float | None
    """The hottest sensor, °C."""
    throttled: list[str] | None
    """What a Raspberry Pi suffers now, or has suffered since its start (`…-before`): `under-voltage`, `capped`,
    `throttled`, `hot`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """How the gateway and its machine do."""

    __pydantic_config__: ClassVar = _DOCUMENTED

    v: Literal[1]
    """The version of this document. A reader ignores keys that it does not know."""
    gateway: str
    """The id of the gateway."""
    time: str
    """When it was said, by the gateway's clock: ISO 8601, UTC."""
    uptime: float
    """Seconds since the gateway was started."""
    ok: bool
    """Whether nothing is wrong: `problems` is empty."""
    problems: list[str]
    """What is wrong, a line each, for people."""
    clock: Literal["trusted", "untrusted"]
    """Whether the gateway's clock can be believed."""
    heartbeats: dict[str, float]
    """Task → seconds since it last brought a piece of work to its end, looked at every ten seconds: a poll of a bus, a
    delivery or an attempt to connect, a commit of the buffer. An idle one is not ill; what hangs is in `problems`."""
    versions: Versions
    """What runs."""
    restarts: Restarts
    """Why it was started, how often."""
    process: Process
    """The process of the gateway."""
    disk: Disk
    """The disk that its state lies on."""
    machine: Machine
    """The machine."""
    alarm: str = ""
    """What is wrong with the buffer, as in the status: empty, `full` or `failing`."""
    down: dict[str, int] = field(default_factory=dict)
    """How many `buses`, `devices` and `connections` do not work at the moment."""
