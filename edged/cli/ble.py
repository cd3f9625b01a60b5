"""`edged ble`: which Bluetooth sensors are in range, and what is in a device.

The core knows no protocol: the adapter that has the methods of `Surveyor` is asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, runtime_checkable

import click

from edged.cli import EXIT_PROBLEM

if TYPE_CHECKING:
    from rich.table import Table

_REFRESH = 0.5


class Sender(Protocol):
    """One device in range."""

    address: str
    name: str
    rssi: int
    count: int
    age: float
    private: bool
    companies: Sequence[int]
    services: Sequence[str]
    decoder: str
    title: str
    values: Mapping[str, Any]
    problem: str
    yaml: str


class Survey(Protocol):
    """What is heard."""

    @property
    def passive(self) -> bool:
        """Whether senders are not asked for their names."""
        ...

    @property
    def count(self) -> int:
        """Advertisements so far."""
        ...

    async def check(self) -> None:
        """Raises TransientError if the radio is gone."""
        ...

    def senders(self) -> Sequence[Sender]:
        """Those heard, the strongest first."""
        ...


@runtime_checkable
class Surveyor(Protocol):
    """An adapter that can look around. Optional."""

    def survey(
        self, radio: str, scan: str, tell: Callable[[Any], None] | None = None
    ) -> AbstractAsyncContextManager[Survey]:
        """Listen until it is left; `tell` hears each advertisement. Raises TransientError."""
        ...

    def record(self, adv: Any, seconds: float) -> str:
        """An advertisement as a line of a recording."""
        ...

    def replayed(self, lines: Iterable[str]) -> tuple[Sequence[Sender], Sequence[str]]:
        """(who was in range, what is wrong with the lines) of a recording."""
        ...

    async def tree(self, radio: str, address: str, seconds: float) -> list[str]:
        """What is in a device, as lines of text. Raises TransientError."""
        ...


_RADIO = click.option(
    "--radio", default="", metavar="NAME", help="Its name or address, such as hci0. Default: the first."
)


@click.group(short_help="Look for Bluetooth sensors, and into them.")
def ble() -> None:
    """Look for Bluetooth sensors in range, and into devices."""


@ble.command()
@_RADIO
@click.option("--seconds", default=15.0, show_default=True, type=click.FloatRange(1), help="How long to listen.")
@click.option("--passive", is_flag=True, help="Only listen; senders are not asked for their names.")
@click.option("--all", "everybody", is_flag=True, help="Also those that no decoder is for.")
@click.option(
    "--record", "path", metavar="FILE", type=click.Path(dir_okay=False), help="Write each advertisement there."
)
@click.option(
    "--replay", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Read a recording; use no radio."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def scan(  # one parameter an option
    radio: str, seconds: float, passive: bool, everybody: bool, path: str | None, replay: str | None, as_json: bool
) -> None:
    """List the Bluetooth sensors in range, with their values and the YAML for the configuration.

    The gateway need not be stopped. Exit code 1 if no sensor was found that can be read, or a line of a recording is
    wrong.
    """
    adapter = _surveyor()
    if replay is not None:
        with Path(replay).open(encoding="utf-8", errors="replace") as recording:
            senders, problems = adapter.replayed(recording)
        _tell(senders, everybody=everybody, as_json=as_json)
        for problem in problems:
            click.echo(f"{replay}, {problem}", err=True)
        raise SystemExit(EXIT_PROBLEM if problems or not any(one.decoder for one in senders) else 0)
    with ExitStack() as stack:
        file: TextIO | None = None
        if path is not None:
            try:
                file = stack.enter_context(Path(path).open("x", encoding="utf-8"))
            except FileExistsError:
                raise click.BadParameter(f"{path} exists already; give another name", param_hint="--record") from None
            except OSError as exc:
                raise click.BadParameter(f"{path} cannot be written: {exc.strerror}", param_hint="--record") from None
        look = _look(adapter, radio, "passive" if passive else "active", seconds, file, live=not as_json)
        senders = asyncio.run(look)
    _tell(senders, everybody=everybody, as_json=as_json)
    if not any(one.decoder for one in senders):
        raise SystemExit(EXIT_PROBLEM)


@ble.command()
@click.argument("address")
@_RADIO
@click.option("--timeout", default=20.0, show_default=True, type=click.FloatRange(1), help="Seconds for each step.")
def gatt(address: str, radio: str, timeout: float) -> None:
    """Connect to the device with ADDRESS, and print its services and characteristics with what they hold.

    For the `characteristic` of a point. A device has one connection: leave the gateway's to it alone meanwhile.
    """
    for line in asyncio.run(_surveyor().tree(radio, address.upper(), timeout)):
        click.echo(line)


async def _look(
    adapter: Surveyor, radio: str, scan: str, seconds: float, file: TextIO | None, *, live: bool
) -> Sequence[Sender]:
    from rich.console import Console  # `edged --help` must not pay for it
    from rich.live import Live

    began = time.monotonic()

    def tell(adv: Any) -> None:
        if file is not None:
            file.write(adapter.record(adv, time.monotonic() - began) + "\n")

    console = Console()
    async with adapter.survey(radio, scan, tell) as survey:
        with (
            Live(console=console, transient=True, auto_refresh=False)
            if live and console.is_terminal
            else ExitStack() as view
        ):
            while (left := began + seconds - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _REFRESH))
                await survey.check()
                if isinstance(view, Live):
                    view.update(_table(survey.senders(), survey.count), refresh=True)
        return survey.senders()


def _table(senders: Sequence[Sender], count: int) -> Table:
    from rich.table import Table

    table = Table(title=f"{len(senders)} senders, {count} advertisements", title_justify="left", expand=False)
    for heading in ("address", "name", "dBm", "heard", "company", "services", "decoder", "values"):
        wraps = heading in {"company", "services", "values"}
        table.add_column(heading, no_wrap=not wraps, justify="right" if heading == "dBm" else "left")
    for one in senders:
        table.add_row(
            one.address, one.name, str(one.rssi), f"{one.age:.0f} s ago", " ".join(f"{c:#06x}" for c in one.companies),
            " ".join(map(_short, one.services)), one.decoder, _values(one),
        )  # fmt: skip
    return table


def _tell(senders: Sequence[Sender], *, everybody: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_plain(one) for one in senders if one.decoder or everybody], indent=2))
    else:
        _print(senders, everybody=everybody)


def _print(senders: Sequence[Sender], *, everybody: bool) -> None:
    known = [one for one in senders if one.decoder]
    unknown = [one for one in senders if not one.decoder]
    for one in [*known, *(unknown if everybody else ())]:
        name = f"  {one.name}" if one.name else ""
        click.echo(f"{one.address}  {one.rssi:>4} dBm{name}  {one.title or _what(one)}")
        if line := _values(one):
            click.echo(f"    {line}")
    if unknown and not everybody:
        click.echo(f"{len(unknown)} more that no decoder is for (--all shows them)")
    if not senders:
        click.echo("Nothing was heard: is anything in range, and the antenna connected?", err=True)
    if known:
        click.echo("\ndevices:")
        for one in known:
            click.echo(one.yaml)


def _values(one: Sender) -> str:
    if one.problem:
        return one.problem
    return ", ".join(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in one.values.items())  # fmt: skip


def _what(one: Sender) -> str:
    """What is known of a sender that no decoder is for."""
    parts = [f"company {company:#06x}" for company in one.companies]
    parts += [f"service {_short(uuid)}" for uuid in one.services]
    return ", ".join(parts) or ("a phone or the like" if one.private else "")


def _short(uuid: str) -> str:
    return uuid[4:8] if uuid.endswith("00805f9b34fb") else uuid


def _plain(one: Sender) -> dict[str, Any]:
    fields = ("address", "name", "rssi", "count", "age", "private", "companies", "services", "decoder", "title")
    record = {field: getattr(one, field) for field in fields}
    return record | {"values": dict(one.values), "problem": one.problem, "yaml": one.yaml}


def _surveyor() -> Surveyor:
    """An installed adapter with this capability. Raises ConfigError."""
    from edged.adapter import adapter_names, load_adapter
    from edged.errors import ConfigError

    for name in adapter_names():
        try:
            adapter: Any = load_adapter(name)
        except ConfigError:  # it lacks a package; another may do
            continue
        if isinstance(adapter, Surveyor):
            return adapter
    raise ConfigError("no installed adapter can look for Bluetooth devices")
