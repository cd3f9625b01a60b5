"""`edged probe`: some raw registers of a device, and everything they could mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import click

from edged import paths
from edged.cli import EXIT_PROBLEM
from edged.cli.explore import Place, Target, place_of, target_options, try_read, way_to
from edged.errors import ConfigError
from edged.explorer import Explorer


@click.command(short_help="Show raw registers of a device, and everything they could mean.")
@click.option("--holding", type=int, metavar="ADDRESS", help="Read holding registers from here, counted from 0.")
@click.option("--input", "input_", type=int, metavar="ADDRESS", help="Read input registers.")
@click.option("--coil", type=int, metavar="ADDRESS", help="Read coils.")
@click.option("--discrete", type=int, metavar="ADDRESS", help="Read discrete inputs.")
@click.option("--count", default=2, show_default=True, help="How many.")
@click.option("--all", "everything", is_flag=True, help="Show implausible readings of every address, too.")
@target_options
def probe(  # one parameter an option
    target: str,
    holding: int | None,
    input_: int | None,
    coil: int | None,
    discrete: int | None,
    count: int,
    everything: bool,
    as_json: bool,
    **options: Unpack[Target],
) -> None:
    """Read raw registers of a DEVICE, or of a unit on a BUS, and show every plausible reading of them.

    Types, byte orders and common scales side by side, for the address itself and for its neighbours: manuals often
    count from 1. What no measuring device would have there is dimmed. Reads only, through the running gateway if it
    has the bus. Exit code 1 if the device refuses or does not answer.
    """
    given = {"holding": holding, "input": input_, "coil": coil, "discrete": discrete}
    wanted = [(table, address) for table, address in given.items() if address is not None]
    if len(wanted) != 1:
        raise click.UsageError("say what to read: one of --holding, --input, --coil and --discrete")
    ((table, address),) = wanted
    place = place_of(target, options)
    if table not in place.explorer.tables:
        raise ConfigError(f"{target} has no {table} addresses")
    try:
        pieces = place.explorer.pieces(table, address, count)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=f"--{table}, --count") from None
    result = asyncio.run(_read(place, pieces, paths.socket_path(options["socket"]), direct=options["direct"]))
    words: dict[int, int] = result["words"]
    if table in {"coil", "discrete"}:
        readings: list[dict[str, Any]] = []
    else:
        readings = [one for at in _addresses(words, address, count) for one in _readings(place.explorer, words, at)]
    record = {
        "bus": place.bus, "unit": place.unit, "table": table, "address": address, "through_gateway": result["owned"],
        "error": result["error"], "words": words, "readings": readings,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        shown = [one for one in readings if everything or one["plausible"] or one["address"] == address]
        click.echo("\n".join(_render(place.explorer, record, shown)))
    if result["error"]:
        raise SystemExit(EXIT_PROBLEM)


async def _read(place: Place, pieces: Sequence[Any], socket: Any, *, direct: bool) -> dict[str, Any]:
    """What was asked for, and the neighbours if the device has them."""
    words: dict[int, int] = {}
    error = ""
    async with way_to(place, socket, direct=direct) as (ask, through):
        for piece in pieces:
            answer = await try_read(ask, place.unit or 0, piece, place.timeout)
            if isinstance(answer, int):
                error = error or (f"the device refuses {piece} (exception {answer})" if piece is pieces[0] else "")
            elif answer is None:
                error = error or (f"no answer to {piece}" if piece is pieces[0] else "")
                break
            else:
                words.update(zip(range(piece.start, piece.end), answer, strict=True))
    return {"words": dict(sorted(words.items())), "error": error, "owned": through}


def _addresses(words: Mapping[int, int], address: int, count: int) -> list[int]:
    """Where a value may begin: as asked first, then the neighbours."""
    order = [*range(address, address + count), address - 1, address + count]
    return [at for at in order if at in words]


def _readings(explorer: Explorer, words: Mapping[int, int], at: int) -> Iterator[dict[str, Any]]:
    for one in explorer.guesses(words, at):
        scales = (1.0,) if one.kind.is_float else explorer.scales
        yield {
            "address": at, "type": one.kind.type, "order": one.kind.order, "value": one.value,
            "scaled": {f"{scale:g}": float(f"{one.value * scale:.12g}") for scale in scales[1:]},
            "plausible": one.plausible,
        }  # fmt: skip


def _render(explorer: Explorer, record: Mapping[str, Any], readings: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    words: dict[int, int] = record["words"]
    way = " through the running gateway" if record["through_gateway"] else ""
    yield f"unit {record['unit']} on {record['bus']}, {record['table']}{way}"
    if record["error"]:
        yield f"  {record['error']}"
    if record["table"] in {"coil", "discrete"}:
        yield from (f"  {at:>5}  {'on' if bit else 'off'}" for at, bit in words.items())
        return
    yield from (f"  {at:>5}  {word:04X}  {word:>5}  {explorer.text([word])}" for at, word in words.items())
    last = None
    for one in readings:
        if one["address"] != last:
            last = one["address"]
            yield ""
            yield f"{record['table']} {last}{_where(last - record['address'])}"
            yield f"  {'':14} {'':>14}" + "".join(f"  {f'x {scale:g}':>12}" for scale in explorer.scales[1:])
        yield _line(one)


def _where(offset: int) -> str:
    if offset < 0:
        return " (one lower: for a manual that counts from 1)"
    return " (as asked)" if offset == 0 else ""


def _line(one: Mapping[str, Any]) -> str:
    scaled = "".join(f"  {value:>12.9g}" for value in one["scaled"].values())
    text = f"  {one['type']:<8} {one['order']:<5} {one['value']:>14.9g}{scaled}".rstrip()
    return text if one["plausible"] else click.style(text + "  (implausible)", dim=True)
