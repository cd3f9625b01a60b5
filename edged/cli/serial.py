"""`edged serial`: what is plugged in, and what an unknown device sends.

The core knows no protocol. An adapter may have the methods of `Learner` and `Scanner`; whichever has them is asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import click

from edged.cli import EXIT_PROBLEM

if TYPE_CHECKING:
    from edged.media import Chunk, LineErrors, LineSettings

T = TypeVar("T")
_BAUDRATES = (9600, 115200, 19200, 4800, 2400, 38400, 57600, 1200, 300)
_PARITIES = ("none", "even")


class Learned(Protocol):
    """What an adapter made of what was heard."""

    @property
    def report(self) -> Sequence[str]:
        """Lines for a person, the likeliest setting first."""
        ...

    def profile(self, name: str) -> str:
        """A profile to begin with; empty if there is nothing to begin with."""
        ...


@runtime_checkable
class Learner(Protocol):
    """An adapter that can guess what an unknown device says. Optional."""

    def learn(self, captures: Sequence[tuple[LineSettings, Sequence[Chunk], LineErrors | None]]) -> Learned:
        """Look at what was heard with each setting of the line. Pure."""
        ...


@runtime_checkable
class Scanner(Protocol):
    """An adapter that can find devices on a line which have addresses of their own. Optional."""

    async def scan(self, settings: LineSettings, found: Callable[[str], None], *, every: bool) -> None:
        """Tell `found` each device as it is found; with `every`, ask every address. Raises TransientError."""
        ...


@click.group(short_help="Look at serial ports and unknown devices.")
def serial() -> None:
    """Look at serial ports and at unknown devices on them."""


@serial.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def ports(as_json: bool) -> None:
    """List the serial ports of this machine, as `port` in the configuration names them."""
    from edged.media import list_ports

    found = list_ports()
    if as_json:
        click.echo(json.dumps([{"port": port.name, **dataclasses.asdict(port)} for port in found], indent=2))
    else:
        for port in found:
            click.echo(str(port))
    if not found:
        click.echo("This machine has no serial port at all.", err=True)
        raise SystemExit(EXIT_PROBLEM)


@serial.command()
@click.argument("port")
@click.option(
    "--baud", "baudrates", multiple=True, type=int, help="Speed to try; may be repeated. Default: the usual ones."
)
@click.option(
    "--parity", "parities", multiple=True, type=click.Choice(["none", "even", "odd"]), help="May be repeated."
)
@click.option("--seconds", default=3.0, show_default=True, help="How long to listen with each setting.")
@click.option("--send", metavar="TEXT", default="", help=r"Something to send first, such as 'SI\r\n'.")
@click.option("--name", default="my-device", show_default=True, help="Name of the profile.")
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write the profile to this file.")
def learn(  # one parameter an option
    port: str,
    baudrates: tuple[int, ...],
    parities: tuple[str, ...],
    seconds: float,
    send: str,
    name: str,
    output: str | None,
) -> None:
    """Listen on PORT at each speed and parity, show what arrives, and write a profile to begin with.

    Stop the gateway first: a port has one user. Exit code 1 if nothing usable came.
    """
    from edged.config.types import Name
    from edged.media import LineSettings

    try:
        Name.parse(name)
        wanted = [
            LineSettings(port=port, baudrate=speed, parity=parity)  # type: ignore[arg-type]  # click has checked it
            for speed in baudrates or _BAUDRATES
            for parity in parities or _PARITIES
        ]
        data = send.encode("latin-1").decode("unicode_escape").encode("latin-1")
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    learner = _adapter_that(Learner, "look at unknown serial devices")  # type: ignore[type-abstract]  # a protocol
    captures = asyncio.run(_capture(wanted, seconds, data))
    learned = learner.learn(captures)
    for line in learned.report:
        click.echo(line)
    text = learned.profile(name)
    if not text:
        click.echo(
            "\nNothing usable came: is the device on, does it need a request (--send), are the wires right?", err=True
        )
        raise SystemExit(EXIT_PROBLEM)
    if output is None:
        click.echo(f"\n{text}", nl=False)
    else:
        _write(Path(output), text)
        click.echo(f"\nThe profile is in {output}.")


@serial.command()
@click.argument("port")
@click.option("--baud", "baudrate", default=2400, show_default=True, help="Speed of the line.")
@click.option("--parity", default="even", show_default=True, type=click.Choice(["none", "even", "odd"]))
@click.option("--every", is_flag=True, help="Ask each of the 251 primary addresses; takes minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line instead of text.")
def scan(port: str, baudrate: int, parity: str, every: bool, as_json: bool) -> None:
    """Find M-Bus devices on PORT and print the `address` of each.

    By their secondary addresses, unless --every is given. Stop the gateway first. Exit code 1 if there is none.
    """
    from edged.media import LineSettings

    try:
        settings = LineSettings(port=port, baudrate=baudrate, parity=parity)  # type: ignore[arg-type]  # click has checked
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
    found: list[str] = []

    def tell(device: str) -> None:
        found.append(device)
        address, _, note = device.removeprefix("address: ").partition("  ")
        click.echo(json.dumps({"address": address.strip('"'), "note": note}) if as_json else device)

    scanner = _adapter_that(Scanner, "scan a serial line")  # type: ignore[type-abstract]  # a protocol
    asyncio.run(scanner.scan(settings, tell, every=every))
    if not found:
        click.echo("Nobody answered: is the level converter powered, are speed and parity right?", err=True)
        raise SystemExit(EXIT_PROBLEM)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.BadParameter(f"{path} exists already; give another name", param_hint="--output") from None
    except OSError as exc:
        raise click.BadParameter(f"{path} cannot be written: {exc.strerror}", param_hint="--output") from None


def _adapter_that(can: type[T], what: str) -> T:
    """An installed adapter with this capability. Raises ConfigError."""
    from edged.adapter import adapter_names, load_adapter
    from edged.errors import ConfigError

    for name in adapter_names():
        try:
            adapter: Any = load_adapter(name)
        except ConfigError:  # it lacks a package; another may do
            continue
        if isinstance(adapter, can):
            return adapter
    raise ConfigError(f"no installed adapter can {what}")


async def _capture(
    settings: Sequence[LineSettings], seconds: float, data: bytes
) -> list[tuple[LineSettings, list[Chunk], LineErrors | None]]:
    """What is heard with each of the settings. Raises TransientError when the port cannot be opened."""
    return [await _listen(one, seconds, data) for one in settings]


async def _listen(
    settings: LineSettings, seconds: float, data: bytes
) -> tuple[LineSettings, list[Chunk], LineErrors | None]:
    from edged.media import LineErrors, Medium

    medium = Medium(settings)
    chunks: list[Chunk] = []
    await medium.open()
    try:
        before = medium.errors()
        if data:
            await medium.send(data)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    chunks.append(await medium.read())
        except TimeoutError:
            pass
        after = medium.errors()
    finally:
        medium.close()
    if before is None or after is None:
        return settings, chunks, None
    counts = (getattr(after, one.name) - getattr(before, one.name) for one in dataclasses.fields(LineErrors))
    return settings, chunks, LineErrors(*counts)
