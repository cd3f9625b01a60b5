"""`edged trace`: what went over a bus, annotated field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from edged.cli import EXIT_PROBLEM, client
from edged.errors import ConfigError, EdgedError
from edged.paths import socket_path

if TYPE_CHECKING:
    from rich.text import Text

    from edged.media import Frame, FrameNote

_QUIET = 0.15
"""So long nothing more came: what came is complete. Seconds."""
_CONTEXT = 40
"""So many pieces are kept in follow mode, to know what an answer belongs to."""
_WRONG = frozenset({"damaged", "noise", "silence", "foreign", "again", "late", "refusal"})
_MARKS = {"request": "→", "answer": "←", "echo": "↺"}


@click.command(short_help="Show the raw frames of a bus, explained field by field.")
@click.argument("bus", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--last", "-n", type=click.IntRange(1), help="Only so many of the newest frames.")
@click.option("--errors", is_flag=True, help="Only what is wrong.")
@click.option("--fields", is_flag=True, help="Each field of a frame on a line of its own.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep the raw frames in a file.")
@click.option(
    "--replay",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Show a saved file, without a gateway.",
)
@click.option("--socket", metavar="PATH", help="Control socket of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, one frame a line.")
def trace(
    bus: str | None,
    follow: bool,
    last: int | None,
    errors: bool,
    fields: bool,
    save: Path | None,
    replay: Path | None,
    socket: str | None,
    as_json: bool,
) -> None:
    """Show the raw frames of a bus, explained field by field: requests, answers, exceptions by name, what is wrong.

    The gateway always keeps the last frames of each bus, so what went wrong a moment ago can still be seen. A saved
    file can be shown anywhere with --replay, and be sent to somebody.
    """
    if (bus is None) == (replay is None):
        raise click.UsageError("name a bus, or a saved file with --replay")
    show = _Printer(errors=errors, fields=fields, as_json=as_json)
    if replay is not None:
        lines = _read(replay)
    else:
        target = f"/v1/trace/{quote(bus or '', safe='')}{'?follow=1' if follow else ''}"
        lines = (line.decode() for line in client.lines(socket_path(socket), target))
    if save is not None:
        lines = _saved(lines, save)
    head, pieces = _opened(lines, replay)
    if follow and replay is None:
        _follow(head, pieces, show)
        return
    notes = explained(head, list(pieces))
    for note in notes[-last:] if last else notes:
        show(note)
    if not notes:
        click.echo("nothing has gone over this bus yet", err=True)
    if any(note.kind in _WRONG for note in notes):
        raise SystemExit(EXIT_PROBLEM)


_YEAR_10000 = 253_402_300_800_000_000
"""Microseconds since 1970: what comes from there on cannot be written as a date."""


def _read(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc


Piece = tuple[int, "Frame"]


def _opened(lines: Iterator[str], replay: Path | None) -> tuple[dict[str, Any], Iterator[Piece]]:
    """The description of the bus, and the pieces that follow. Raises ConfigError for what is no saved trace."""
    first = next(lines, "")
    try:
        head = json.loads(first)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or "adapter" not in head:
        raise ConfigError(f"{replay or 'the answer'} is not a trace: its first line does not describe a bus")
    return head, _pieces(lines, head, replay)


def _pieces(lines: Iterator[str], head: dict[str, Any], replay: Path | None) -> Iterator[Piece]:
    from edged.media import Frame  # `edged --help` must not pay for it

    for number, line in enumerate(lines, 2):
        try:
            record = json.loads(line)
            if "missed" in record:
                click.echo(f"({record['missed']} pieces not shown: this terminal is too slow)", err=True)
                continue
            if "ended" in record:
                click.echo(f"({record['ended']}: start again to go on)", err=True)
                return
            moment = int(record["time"]) + int(head["offset"])
            if not 0 <= moment < _YEAR_10000:
                raise ValueError("a time that no clock shows")  # told as what is no frame
            yield int(record["link"]), Frame(moment, record["direction"], bytes.fromhex(record["data"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as exc:
            raise ConfigError(f"{replay or 'the answer'}:{number}: this line is no frame: {line[:60]!r}") from exc


def _saved(lines: Iterator[str], path: Path) -> Iterator[str]:
    """The same lines, each of which goes to the file too."""
    try:
        with path.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line.rstrip("\n") + "\n")
                file.flush()
                yield line
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def notes_of(lines: Sequence[str]) -> list[FrameNote]:
    """What a saved trace says; `.ci/screens` draws it. Raises ConfigError."""
    head, pieces = _opened(iter(lines), None)
    return explained(head, list(pieces))


def explained(head: dict[str, Any], pieces: Sequence[Piece]) -> list[FrameNote]:
    """What the pieces say, by time. Without an adapter that can tell, just the bytes."""
    notes = [
        note
        for link in sorted({link for link, _ in pieces})
        for note in _notes(head, [piece for of, piece in pieces if of == link])
    ]
    return sorted(notes, key=lambda note: note.frame.time)


def _notes(head: dict[str, Any], pieces: Sequence[Frame]) -> Sequence[FrameNote]:
    from edged.adapter import Annotates, load_adapter
    from edged.media import FrameNote

    adapter = load_adapter(head["adapter"])
    if isinstance(adapter, Annotates):
        return adapter.annotate(pieces, float(head.get("character", 0.0)))
    return [FrameNote(piece, "request" if piece.direction == "tx" else "data", _plain(piece.data)) for piece in pieces]


def _plain(data: bytes) -> str:
    text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in data[:48])  # noqa: PLR2004  # printable ASCII
    return f"{data[:24].hex(' ').upper()}{' …' if len(data) > 24 else ''}  {text}"  # noqa: PLR2004  # as much as fits


def _follow(head: dict[str, Any], pieces: Iterator[Piece], show: _Printer) -> None:
    """Show each frame as soon as it is complete: when the other side begins, or when nothing more came for a while."""
    context: dict[int, list[Frame]] = {}
    shown: dict[int, int] = {}
    for link, piece in _with_pauses(pieces):
        links = [link] if piece is not None else list(context)
        for one in links:
            kept = context.setdefault(one, [])
            ended = piece is None or (piece.direction == "tx" and kept)
            if ended and kept:
                notes = _notes(head, kept)
                for note in notes[shown.get(one, 0) :]:
                    show(note)
                shown[one] = len(notes)
            if piece is not None:
                kept.append(piece)
                if piece.direction == "tx" and len(kept) > _CONTEXT:
                    del kept[:-1]
                    shown[one] = 0


def _with_pauses(pieces: Iterator[Piece]) -> Iterator[tuple[int, Frame | None]]:
    """The pieces, and (0, None) whenever none came for a while."""
    import queue
    import threading

    waiting: queue.Queue[Piece | BaseException | None] = queue.Queue(10_000)

    def feed() -> None:
        try:
            for piece in pieces:
                waiting.put(piece)
        except (OSError, EdgedError) as exc:
            waiting.put(exc)
        else:
            waiting.put(None)

    threading.Thread(target=feed, name="frames", daemon=True).start()
    quiet = True
    while True:
        try:
            got = waiting.get(timeout=3600 if quiet else _QUIET)
        except queue.Empty:
            quiet = True
            yield 0, None
            continue
        if got is None:
            yield 0, None
            return
        if isinstance(got, BaseException):
            raise got
        quiet = False
        yield got


class _Printer:
    """Prints notes as they come."""

    def __init__(self, *, errors: bool, fields: bool, as_json: bool) -> None:
        self._errors, self._fields, self._as_json = errors, fields, as_json
        self._console: Any = None
        if not as_json:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)

    def __call__(self, note: FrameNote) -> None:
        if self._errors and note.kind not in _WRONG:
            return
        if self._as_json:
            click.echo(json.dumps(note_record(note)))
        else:
            for line in render(note, fields=self._fields):
                self._console.print(line)


def note_record(note: FrameNote) -> dict[str, Any]:
    """A note as one JSON object."""
    return {
        "time": note.frame.time,
        "direction": note.frame.direction,
        "data": "" if note.kind == "silence" else note.frame.data.hex(),
        "kind": note.kind,
        "device": note.device,
        "text": note.text,
        "error": note.error,
        "after": round(note.after, 6),
        "fields": [
            {"name": part.name, "data": part.data.hex(), "text": part.text, "wrong": part.wrong} for part in note.parts
        ],
    }


def render(note: FrameNote, *, fields: bool = False) -> Iterable[Text]:
    """A note as lines: when, which way, who, what; then its fields. What is wrong is red."""
    from rich.text import Text

    wrong = note.kind in _WRONG
    moment = datetime.fromtimestamp(note.frame.time / 1e6).astimezone()
    mark = _MARKS.get(note.kind, "✗" if wrong else "·")
    line = Text(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d} ", style="dim")
    line.append(f"{mark} ", style="bold red" if wrong else "bold cyan" if note.kind == "request" else "bold green")
    line.append(f"{note.device:<9} " if note.device else "", style="" if not wrong else "red")
    line.append(note.text, style="red" if wrong else "")
    if note.after and note.kind != "request":
        line.append(f"  {1000 * note.after:.1f} ms", style="dim")
    if note.error and note.error not in note.text:
        line.append(f"  {note.error}", style="red")
    yield line
    if note.kind == "silence" or not note.parts:
        return
    if fields:
        for part in note.parts:
            raw = part.data[:12].hex(" ").upper() + (" …" if len(part.data) > 12 else "")  # noqa: PLR2004  # as fits
            yield Text(f"    {part.name:<12} {raw:<38} {part.text}", style="red" if part.wrong else "dim")
        return
    row = Text("               ")
    for i, part in enumerate(note.parts):
        known = part.name != "data"
        label = f"{part.name} {part.text}" if known else ""
        row.append(part.data.hex(" ").upper(), style="bold red" if part.wrong else ("", "cyan")[i % 2])
        row.append(f" ({label})  " if label else "  ", style="red" if part.wrong else "dim")
    yield row
