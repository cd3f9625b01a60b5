"""The lines: the frames of the running gateway, or, where none runs, of a few reads of our own; and what they show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edged.adapter import Annotates, Traced, load_adapter
from edged.config.model import Config
from edged.config.secrets import filled
from edged.control.look import line_record, piece_record
from edged.errors import EdgedError
from edged.media import Frame

from .check import Check, ok, problem, skipped, warning
from .listen import listen, pieces_of
from .wiring import LineFacts, classify

_MILD = frozenset({"pauses", "latency-timer", "not-sure", "too-little", "stray-before", "stray-after", "late"})
"""What does not keep the line from working."""
LISTEN = 10.0
"""Seconds that a line is listened to, at most."""


def judge(lines: Iterable[str], latency_ms: int | None = None) -> Iterator[Check]:
    """What the frames of a trace say about its line. The first line describes it."""
    found = iter(lines)
    head: dict[str, Any] = json.loads(next(found))
    name = f"line {head['bus']}"
    adapter = load_adapter(head["adapter"])
    if not isinstance(adapter, Annotates):
        yield skipped(name, f"frames of {head['adapter']} cannot be judged")
        return
    links: dict[int, list[Frame]] = {}
    for line in found:
        record = json.loads(line)
        links.setdefault(record["link"], []).append(
            Frame(record["time"], record["direction"], bytes.fromhex(record["data"]))
        )
    notes = [note for pieces in links.values() for note in adapter.annotate(pieces, head["character"])]
    uart: dict[str, int] = head.get("uart", {})
    facts = LineFacts(
        head["baudrate"], head["parity"], head["echo"], head["timeout"], latency_ms,
        uart.get("framing", 0), uart.get("parity", 0), uart.get("overrun", 0),
    )  # fmt: skip
    findings = classify(notes, facts)
    if not findings:
        yield ok(name, f"{sum(note.kind == 'request' for note in notes)} requests, and nothing wrong with the answers")
    for one in findings:
        evidence = f"{one.title}: {one.evidence}" if one.sure else f"{one.title} (not certain): {one.evidence}"
        if one.code == "too-little":
            yield skipped(name, evidence)
        else:
            yield (warning if one.code in _MILD else problem)(name, evidence, one.remedy)


def record_lines(
    config: Config, names: Iterable[str], base: Path, seconds: float = LISTEN
) -> dict[str, list[str] | EdgedError]:
    """Traces of buses that nobody else uses: their devices are read a few times, on all buses at the same time."""

    async def run() -> dict[str, list[str] | EdgedError]:
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(_recorded(config, name, base, seconds), name=f"line {name}") for name in names
            }
        return {name: task.result() for name, task in tasks.items()}

    return asyncio.run(run())


async def _recorded(config: Config, name: str, base: Path, seconds: float) -> list[str] | EdgedError:
    """One of them, or why there is none."""
    try:
        settings = filled(config.buses[name], base=base)
        devices = {device: filled(one, base=base) for device, one in config.devices_on(name).items()}
        bus = load_adapter(settings.adapter).open(name, settings, devices)
        try:
            await listen(bus, devices, seconds=seconds)
            rings = pieces_of(bus)
            head = line_record(config, name, bus.rings if isinstance(bus, Traced) else ())
        finally:
            await bus.close()
    except EdgedError as exc:
        return exc
    pieces = [piece_record(link, piece) for link, ring in enumerate(rings) for piece in ring]
    return [json.dumps(record) for record in (head, *pieces)]


def judged_buses(config: Config) -> list[str]:
    """The enabled buses with devices whose frames can be judged."""
    return [
        str(name)
        for name, bus in config.buses.items()
        if bus.enabled and config.devices_on(name) and isinstance(load_adapter(bus.adapter), Annotates)
    ]


def check_lines(
    config: Config | None, trace: Callable[[str], list[str]], latencies: Mapping[str, int | None]
) -> Iterator[Check]:
    """Each enabled bus that keeps frames; `trace` brings them. Raises nothing for what a bus does."""
    for name, bus in config.buses.items() if config else ():
        if not bus.enabled or not config or not config.devices_on(name):
            yield skipped(f"line {name}", "switched off, or without devices")
            continue
        if not isinstance(load_adapter(bus.adapter), Annotates):
            yield skipped(f"line {name}", f"frames of {bus.adapter} cannot be judged")
            continue
        try:
            yield from judge(trace(name), latencies.get(name))
        except EdgedError as exc:
            yield problem(f"line {name}", str(exc), "see the check of its port")
