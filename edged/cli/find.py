"""`edged find`: which register shows what the display of the device shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import click

from edged import paths
from edged.cli import EXIT_INTERRUPTED, EXIT_PROBLEM
from edged.cli.explore import Place, Target, flow, place_of, progress, read_all, target_options, way_to

_LISTED = 8
_LOOKS = 16
"""Most looks at the display that are remembered."""


@dataclass(slots=True)
class _Look:
    """What the display showed once, and the registers at that moment."""

    value: str
    tolerance: float
    words: dict[str, dict[int, int]]


@dataclass(slots=True)
class _Search:
    """What is known so far. It outlives the command, in the state directory."""

    file: Path
    looks: list[_Look] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path) -> _Search:
        """What earlier commands left; nothing if there is none, or if it cannot be read."""
        try:
            looks = json.loads(file.read_text("utf-8"))["looks"]
            return cls(file, [_Look(one["value"], one["tolerance"], _by_number(one["words"])) for one in looks])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return cls(file)

    def forget(self) -> None:
        """Whatever comes of the new search, nobody shall go on with the old one."""
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)

    def save(self) -> None:
        """Leave it for the next command. A disk that refuses costs only that."""
        looks = [{"value": one.value, "tolerance": one.tolerance, "words": one.words} for one in self.looks]
        text = json.dumps({"time": int(time.time()), "looks": looks})
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside = self.file.with_suffix(".new")
            beside.write_text(text, "utf-8")
            os.replace(beside, self.file)  # noqa: PTH105  # beside the other file operations it reads better
        except OSError as exc:
            click.echo(f"edged: {self.file} cannot be written ({exc.strerror}): --again will not work", err=True)


@click.command(short_help="Find the register that shows what the display of the device shows.")
@click.option("--value", metavar="NUMBER", help="What the display shows now, all digits of it, such as 230.4.")
@click.option(
    "--again", metavar="NUMBER", help="What it shows now, when it has changed since: narrows the last search."
)
@click.option("--tolerance", default="1%", show_default=True, help="How far the register may be off.")
@click.option("--range", "ranges", multiple=True, metavar="RANGE", help="Where to look, such as 'holding 0-199'.")
@click.option("--everything", is_flag=True, help="Look at all 65,536 input and holding registers.")
@click.option("--name", default="value", show_default=True, help="What to call the point in the YAML.")
@click.option("--in", "measured_in", metavar="UNIT", default="", help="The unit it is measured in, such as V.")
@target_options
def find(  # one parameter an option
    target: str,
    value: str | None,
    again: str | None,
    tolerance: str,
    ranges: tuple[str, ...],
    everything: bool,
    name: str,
    measured_in: str,
    as_json: bool,
    **options: Unpack[Target],
) -> None:
    """Find the register of a DEVICE, or of a unit on a BUS, that shows what its display shows.

    Reads whole ranges, in blocks, and lists each address, type, byte order and scale (a power of ten) that gives the
    value, the likeliest first, with the YAML of the first. When the display has changed, `--again` reads only those
    that are left and narrows them. Reads only, through the running gateway if it has the bus. Exit code 1 if nothing
    fits.
    """
    if (value is None) == (again is None):
        raise click.UsageError("say what the display shows: --value for a new search, --again to narrow the last one")
    place = place_of(target, options)
    file = paths.state_dir(options["state"]) / "find" / f"{place.bus}.{place.unit}.json"
    search = _Search.load(file) if again is not None else _Search(file)
    if again is None:
        search.forget()
    elif not search.looks:
        raise click.UsageError(f"there is no search of unit {place.unit} on {place.bus} to narrow: begin with --value")
    wanted = list(ranges) or list(place.explorer.everything if everything else place.explorer.ranges)
    finder = _Finder(place, search, paths.socket_path(options["socket"]), options["direct"], _share(tolerance))
    interrupted = finder.look(value or again or "", wanted)
    while not as_json and not interrupted and len(finder.matches) > 1 and sys.stdin.isatty() and sys.stdout.isatty():
        click.echo("\n".join(finder.listing()))
        shown = click.prompt("What does it show now? (Enter ends)", default="", show_default=False)
        if not shown:
            break
        interrupted = finder.look(shown, wanted)
    _report(finder, name, measured_in, as_json=as_json)
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
    if not finder.matches:
        raise SystemExit(EXIT_PROBLEM)


@dataclass(slots=True)
class _Finder:
    """One search."""

    place: Place
    search: _Search
    socket: Path
    direct: bool
    tolerance: float
    matches: Sequence[Any] = ()
    registers: int = 0
    """How many were read last."""
    notes: list[str] = field(default_factory=list)

    def look(self, value: str, ranges: Sequence[str]) -> bool:
        """Read the registers while the display shows `value`, and match. Returns whether it was interrupted."""
        explorer = self.place.explorer
        try:
            explorer.shown(value, self.tolerance, {})
            if self.search.looks:
                ranges = explorer.around(explorer.search(self._shown()))
            sweep = explorer.sweep(ranges, self.place.settings)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from None
        interrupted = False
        try:
            asyncio.run(self._read(sweep))
        except KeyboardInterrupt:
            interrupted = True
        words = {str(table): dict(image) for table, image in sweep.words.items()}
        self.registers = sum(map(len, words.values()))
        self.notes = [f"it does not answer for many {table} registers: not all were read" for table in sweep.gave_up]
        self.search.looks = [*self.search.looks, _Look(value, self.tolerance, words)][-_LOOKS:]
        self.matches = explorer.search(self._shown())
        if self.matches:
            self.search.save()
        return interrupted

    async def _read(self, sweep: Any) -> None:
        place = self.place
        async with way_to(place, self.socket, direct=self.direct) as (ask, through):
            if through:
                click.echo(f"{place.bus} is in use by the running gateway: reading between its polls", err=True)
            with progress(f"unit {place.unit}", sweep.total) as advance:
                await read_all(ask, place.unit or 0, sweep, place.timeout, lambda left: advance(sweep.total - left))

    def _shown(self) -> list[Any]:
        return [self.place.explorer.shown(one.value, one.tolerance, one.words) for one in self.search.looks]

    def listing(self) -> list[str]:
        """The matches, the likeliest first."""
        looks = " and ".join(one.value for one in self.search.looks)
        ways = "1 way" if len(self.matches) == 1 else f"{len(self.matches)} ways"
        lines = [f"{ways} to read {looks} in {self.registers} registers of unit {self.place.unit}:"]
        for number, one in enumerate(self.matches[:_LISTED], 1):
            kind = one.kind.type + (f" or {one.twin}" if one.twin else "")
            values = "  ".join(f"{value:.9g}" for value in one.values)
            where = f"{one.table} {one.address}"
            lines.append(f"  {number:>2}  {where:<14} {kind:<17} {one.kind.order:<5} x {one.scale:<6g} {values}")
        if len(self.matches) > _LISTED:
            lines.append(f"      and {len(self.matches) - _LISTED} less likely ones")
        return lines

    def records(self) -> list[dict[str, Any]]:
        """The same as plain data."""
        return [
            {
                "table": str(one.table), "address": one.address, "type": one.kind.type, "twin": one.twin,
                "order": one.kind.order, "scale": one.scale, "values": list(one.values), "likely": round(one.likely, 2),
                "point": self.place.explorer.point(one.table, one.address, one.kind, one.scale, self.place.settings),
            }
            for one in self.matches
        ]  # fmt: skip


def _report(finder: _Finder, name: str, measured_in: str, *, as_json: bool) -> None:
    records = finder.records()
    line = ""
    if records:
        point = records[0]["point"] | ({"unit": measured_in} if measured_in else {})
        line = f"{name}: {flow(point)}"
    if as_json:
        looks = [one.value for one in finder.search.looks]
        head = {"bus": finder.place.bus, "unit": finder.place.unit, "looks": looks, "registers": finder.registers}
        click.echo(json.dumps({**head, "notes": finder.notes, "matches": records, "yaml": line}, indent=2))
        return
    for note in finder.notes:
        click.echo(f"note: {note}", err=True)
    if not records:
        click.echo(
            f"None of {finder.registers} registers fits every time. Look elsewhere (--range, --everything), or allow "
            "more (--tolerance 5%). It may also have a scale that is no power of ten, or not be in a register at all."
        )
        return
    for text in finder.listing():
        click.echo(text)
    click.echo("")
    for text in _yaml(finder.place, line):
        click.echo(text)
    if len(records) > 1:
        click.echo("")
        click.echo("To be sure, wait until the display shows something else, and give that with --again.")


def _yaml(place: Place, line: str) -> list[str]:
    """Where the line goes."""
    if place.device:
        return [f"Under `points` of {place.device}:", "", f"      {line}"]
    return [
        "In the configuration:", "", "devices:", f"  {place.bus}-{place.unit}:", f"    bus: {place.bus}",
        f"    unit: {place.unit}", "    points:", f"      {line}",
    ]  # fmt: skip


def _share(text: str) -> float:
    """0.01 from `1%`. Raises BadParameter."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a percentage such as 1%", param_hint="--tolerance") from None


def _by_number(words: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    """Addresses are texts in JSON."""
    return {table: {int(address): int(word) for address, word in image.items()} for table, image in words.items()}
