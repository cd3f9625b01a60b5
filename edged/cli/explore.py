"""What the commands that look at unknown devices share: the way to a bus, and reading all of a device.

The core knows no protocol; `edged.explorer` says what an adapter may know of registers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import click

from edged import paths
from edged.cli import NoDaemonError, client
from edged.errors import ConfigError, PermanentError, TransientError
from edged.explorer import Explorer, Explores, Sweep

if TYPE_CHECKING:
    from edged.adapter import RawAnswer, RawRequest
    from edged.config.model import Config

Ask = Callable[["RawRequest"], Awaitable["RawAnswer"]]
"""One transaction. Raises what `edged.adapter.Prober.read_raw` does; refusals have a `code`."""
_Command = TypeVar("_Command", bound=Callable[..., Any])
_BUSY, _NO_PATH, _NOBODY = 6, 10, 11
"""Exception codes: what may pass, and what a gateway says when the device itself kept silent."""
_ATTEMPTS = 2
_PLAIN = re.compile(r"[^\W\d][\w/.+-]*|/[\w/.+-]+|°\w")
"""Texts that need no quotes in YAML."""


_OPTIONS = (
    click.option("--unit", type=click.IntRange(0, 255), help="Unit on the bus; not needed for a device."),
    click.option("--config", metavar="FILE", help="The configuration that has it. [default: the running gateway's]"),
    click.option("--direct", is_flag=True, help="Open the bus here, even if a gateway is running."),
    click.option("--socket", metavar="PATH", help="Control socket of the gateway."),
    click.option("--state", metavar="DIR", help="Folder for caches, and for what is known of a search."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text."),
)


class Target(TypedDict):
    """What the options below say, for `place_of`."""

    unit: int | None
    config: str | None
    direct: bool
    socket: str | None
    state: str | None


def target_options(command: _Command) -> _Command:
    """DEVICE|BUS, and the options to find it and the way to it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("target", metavar="DEVICE|BUS")(command)


class _CodedError(PermanentError):
    """A refusal that the gateway told of."""

    def __init__(self, message: str, *, reason: str, code: int) -> None:
        super().__init__(message, reason=reason)
        self.code = code


class _CodedFailure(TransientError):  # noqa: N818  # it may pass, unlike the above
    """A failure that the gateway told of."""

    def __init__(self, message: str, *, reason: str, code: int) -> None:
        super().__init__(message, reason=reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Place:
    """A bus, and maybe one unit on it."""

    bus: str
    bus_config: Any
    devices: Mapping[str, Any] = field(default_factory=dict)
    """All that are configured on the bus."""
    unit: int | None = None
    device: str = ""
    """The configured device that was meant."""
    base: Path = Path()
    """Where the configuration lies."""

    @property
    def explorer(self) -> Explorer:
        """What its adapter knows. Raises ConfigError."""
        return explorer_of(self.bus_config.adapter)

    @property
    def settings(self) -> Any:
        """The configured device on the unit, if there is one."""
        named = self.devices.get(self.device)
        if named is not None:
            return named
        return next((one for one in self.devices.values() if getattr(one, "unit", None) == self.unit), None)

    @property
    def timeout(self) -> float:
        """How long to wait for an answer, seconds."""
        return float(getattr(self.settings, "timeout", 1.0))


def explorer_of(adapter: str) -> Explorer:
    """What an adapter knows of unknown devices. Raises ConfigError."""
    from edged.adapter import load_adapter  # `edged --help` must not pay for it

    loaded: object = load_adapter(adapter)
    if not isinstance(loaded, Explores):
        raise ConfigError(f"adapter {adapter} has no raw addresses to look at")
    return loaded.explorer()


def load_config(path: Path, state: str | None) -> tuple[Config, Path]:
    """The configuration, and its folder. Raises ConfigError."""
    from edged.config.compiled import load_compiled  # as above

    return load_compiled(path, paths.state_dir(state) / "cache"), path.resolve().parent


def place_of(target: str, options: Target) -> Place:
    """The unit that is meant. Raises ConfigError, UsageError."""
    path = client.config_path(options["config"], options["socket"])
    config, base = load_config(path, options["state"])
    place = _find_place(config, base, target, options["unit"])
    if place.unit is None:
        raise click.UsageError(f"{target} is a bus: say which unit on it, with --unit")
    return place


def _find_place(config: Config, base: Path, target: str, unit: int | None) -> Place:
    """The device or the bus of this name. Raises ConfigError."""
    device = config.devices.get(target)
    if device is not None:
        number = getattr(device, "unit", None) if unit is None else unit
        return Place(device.bus, config.buses[device.bus], config.devices_on(device.bus), number, target, base)
    bus = config.buses.get(target)
    if bus is None:
        names = ", ".join([*config.devices, *config.buses]) or "none"
        raise ConfigError(f"there is no device and no bus {target!r}; the configuration has: {names}")
    return Place(target, bus, config.devices_on(target), unit, "", base)


@contextlib.asynccontextmanager
async def way_to(place: Place, socket: Path, *, direct: bool) -> AsyncIterator[tuple[Ask, bool]]:
    """How to ask on this bus, and whether the running gateway does it, which owns the bus. Else it is opened here.

    Raises ConfigError.
    """
    theirs = None if direct else await asyncio.to_thread(owner, socket, place)
    if theirs is not None:
        yield _through_gateway(socket, theirs), True
        return
    from edged.adapter import Prober, load_adapter  # as above
    from edged.config.secrets import filled

    devices = {name: filled(one, base=place.base) for name, one in place.devices.items()}
    adapter = place.bus_config.adapter
    bus = load_adapter(adapter).open(place.bus, filled(place.bus_config, base=place.base), devices)
    try:
        if not isinstance(bus, Prober):
            raise ConfigError(f"adapter {adapter} has no raw addresses to look at")
        yield bus.read_raw, False
    finally:
        await bus.close()


def owner(socket: Path, place: Place) -> str | None:
    """What the running gateway calls this bus, if it has it open.

    It is told by its port or host: two configurations may well call different lines the same.
    """
    try:
        status = client.call(socket, "/v1/status", timeout=5)
    except NoDaemonError:
        return None
    where = place.bus_config.where
    same = (one["bus"] for one in status["buses"] if (one["where"] == where if where else one["bus"] == place.bus))
    return next(same, None)


def _through_gateway(socket: Path, bus: str) -> Ask:
    from edged.adapter import RawAnswer

    async def ask(request: RawRequest) -> RawAnswer:
        options = urlencode(
            {
                "unit": request.unit, "what": str(request.what), "address": request.address, "count": request.count,
                "timeout": request.timeout,
            }
        )  # fmt: skip
        target = f"/v1/probe/{quote(bus, safe='')}?{options}"
        record = await asyncio.to_thread(client.call, socket, target, method="POST")
        if "error" not in record:
            return RawAnswer(tuple(record["words"]), record["texts"])
        kind = _CodedError if record["refused"] else _CodedFailure
        raise kind(record["error"], reason=record["reason"], code=record["code"])

    return ask


async def read_all(ask: Ask, unit: int, sweep: Sweep, timeout: float, tick: Callable[[int], None]) -> None:  # noqa: ASYNC109  # of each read
    """Read what the sweep wants; `tick` is told how many addresses are left. Raises TransientError `unreachable`."""
    while (span := sweep.next()) is not None:
        answer = await try_read(ask, unit, span, timeout)
        if isinstance(answer, int):
            sweep.refused(span, answer)
        elif answer is None:
            sweep.silent(span)
        else:
            sweep.got(span, answer)
        tick(sweep.left)


async def try_read(
    ask: Ask,
    unit: int,
    span: Any,
    timeout: float,  # noqa: ASYNC109  # of one read
    *,
    attempts: int = _ATTEMPTS,
) -> Sequence[int] | int | None:
    """The words of a span, the code with which the device refused it, or None if it was not answered.

    Raises TransientError `unreachable` when there is no way to the bus at all.
    """
    from edged.adapter import RawRequest

    for left in range(attempts - 1, -1, -1):
        try:
            return (await ask(RawRequest(unit, span.table, span.start, span.count, timeout))).words
        except PermanentError as exc:
            return int(getattr(exc, "code", 0))
        except TransientError as exc:
            code = getattr(exc, "code", 0)
            if exc.reason == "unreachable" and not code:
                raise
            if code and code not in {_BUSY, _NO_PATH, _NOBODY} and not left:
                return int(code)  # a device that fails at these addresses, every time
    return None


@contextlib.contextmanager
def progress(what: str, total: float) -> Any:
    """A bar with the time left on a terminal's stderr, else nothing; yields what to call with how much is done."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console  # only a terminal pays for it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def flow(record: Mapping[str, Any]) -> str:
    """A mapping of numbers and texts as YAML on one line."""
    return "{" + ", ".join(f"{key}: {scalar(value)}" for key, value in record.items()) + "}"


def scalar(value: object) -> str:
    """A number or a text as YAML, in quotes where it could be taken for something else."""
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value)
    if isinstance(value, str) and (not _PLAIN.fullmatch(text) or text.lower() in {"true", "false", "null"}):
        return json.dumps(text, ensure_ascii=False)
    return text


def numbers(text: str, low: int, high: int, option: str, example: str) -> list[int]:
    """Whole numbers from a list of numbers and ranges, each once. Raises BadParameter."""
    found: dict[int, None] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        first, dash, last = (one.strip() for one in part.partition("-"))
        if not first.isdecimal() or bool(dash) != last.isdecimal():
            raise click.BadParameter(f"{part!r} is not a number or a range: write {example}", param_hint=option)
        start, end = int(first), int(last or first)
        if not low <= start <= end <= high:
            raise click.BadParameter(f"{part!r}: {low} to {high}, the lower one first", param_hint=option)
        found.update(dict.fromkeys(range(start, end + 1)))
    return list(found)
