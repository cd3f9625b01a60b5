"""What an unknown device sends: readable or not, where its frames begin and end, which checksum they have. Pure.

It is a guess, and says how sure it is. The profile it writes is a beginning for a person to go on with.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

from edged.media import Chunk, LineErrors, LineSettings

from .codecs.checks import CRCS, Check, Notation
from .codecs.framing import FixedFramer, LineFramer, MarkerFramer
from .codecs.nmea import NmeaDecoder
from .codecs.sml import BEGIN
from .codecs.values import number

Capture = tuple[LineSettings, Sequence[Chunk], LineErrors | None]
"""With which settings one listened, what came, and what the UART complained about."""

_ENOUGH = 8
"""Bytes below which nothing can be said."""
_READABLE = 0.9
_SAMPLE = 16_384
_MOST_FRAMES = 40
_LONGEST = 256
_AS_GOOD = 0.01
"""Shares of the bytes that differ by less are as good."""
_NUMBER = re.compile(r"[+-]? ?\d+(?:\.\d+)?")
_PAIR = re.compile(r"\s*[A-Za-z][\w ]*[=:][^=:]*")


@dataclass(frozen=True, slots=True)
class Guess:
    """What the bytes of one capture look like."""

    settings: LineSettings
    size: int
    printable: float
    """The share of characters that are text."""
    seven_bits: str = ""
    """`even` or `odd` where all bytes have that parity in their highest bit: seven data bits read as eight."""
    errors: LineErrors | None = None
    repetition: float = 0.0
    """The share of the bytes that lie in frames which follow one pattern."""
    framing: dict[str, object] = field(default_factory=dict)
    check: dict[str, object] = field(default_factory=dict)
    decode: dict[str, object] = field(default_factory=dict)
    points: dict[str, dict[str, object]] = field(default_factory=dict)
    frames: tuple[bytes, ...] = ()

    @property
    def score(self) -> float:
        """How likely it is that the settings are right: above 1 it is all but certain."""
        if self.size < _ENOUGH:
            return 0.0
        broken = 0 if self.errors is None else self.errors.framing + self.errors.parity
        penalty = min(broken / self.size, 1.0) * 2
        return self.printable / 2 + self.repetition + (1.0 if self.check else 0.0) - penalty

    @property
    def line(self) -> str:
        """The settings as a profile states them."""
        bits, parity = (7, self.seven_bits) if self.seven_bits else (self.settings.bytesize, self.settings.parity)
        return f"{self.settings.baudrate} {bits}{parity[0].upper()}{self.settings.stopbits:g}"


@dataclass(frozen=True, slots=True)
class Learned:
    """What was found out, the likeliest first."""

    guesses: Sequence[Guess]

    @property
    def report(self) -> list[str]:
        """Lines for a person."""
        lines = [f"{'line':<12} {'bytes':>6} {'text':>5} {'frames':>7} {'errors':>7}  looks like"]
        for one in self.guesses:
            errors = "?" if one.errors is None else str(one.errors.framing + one.errors.parity)
            lines.append(
                f"{one.line:<12} {one.size:>6} {one.printable:>5.0%} {one.repetition:>7.0%} {errors:>7}  {_looks(one)}"
            )
        return lines

    def profile(self, name: str) -> str:
        """A profile to begin with, from the likeliest guess; empty if nothing usable came."""
        best = self.guesses[0] if self.guesses else None
        return "" if best is None or not best.points else _profile(name, best)


def learn(captures: Sequence[Capture]) -> Learned:
    """Look at what came at each setting."""
    return Learned(sorted((analyse(*one) for one in captures), key=lambda guess: -guess.score))


def analyse(settings: LineSettings, chunks: Sequence[Chunk], errors: LineErrors | None) -> Guess:
    """Look at what came at one setting."""
    data = b"".join(chunk.data for chunk in chunks)[:_SAMPLE]
    seven = _parity(data) if settings.bytesize == 8 and settings.parity == "none" else ""  # noqa: PLR2004  # data bits
    if seven:
        data = bytes(byte & 0x7F for byte in data)
    guess = Guess(settings, len(data), _printable(data), seven, errors)
    if len(data) < _ENOUGH:
        return guess
    if BEGIN in data:
        return _known(guess, {"type": "sml", "max": 4096}, "sml", {"energy": {"field": "1-0:1.8.0", "unit": "kWh"}})
    return _text(guess, data) if guess.printable >= _READABLE else _binary(guess, data, chunks)


def _known(guess: Guess, framing: dict[str, object], kind: str, points: dict[str, dict[str, object]]) -> Guess:
    return replace(guess, framing=framing, decode={"known": kind}, points=points, repetition=1.0)


def _parity(data: bytes) -> str:
    """Whether the highest bit of every byte completes the same parity."""
    ones = {byte.bit_count() & 1 for byte in data}
    high = any(byte & 0x80 for byte in data)
    if len(data) < 2 * _ENOUGH or len(ones) != 1 or not high or _printable(bytes(b & 0x7F for b in data)) < _READABLE:
        return ""
    return "odd" if ones == {1} else "even"


def _printable(data: bytes) -> float:
    return sum(32 <= byte < 127 or byte in b"\r\n\t\x02\x03\x06" for byte in data) / max(len(data), 1)  # noqa: PLR2004  # ASCII


# -- text --------------------------------------------------------------------------------------------------------------


def _text(guess: Guess, data: bytes) -> Guess:
    meter = MarkerFramer(b"/", b"!", 4096).feed(data)
    if any(b"(" in one and b")" in one for one in meter):
        codes: list[tuple[bytes, bytes, bytes]] = re.findall(rb"\n([\d\-:.*]+)\(([\d.]+)\*([A-Za-z0-9]+)\)", meter[0])
        points: dict[str, dict[str, object]] = {}
        for i, (code, _, unit) in enumerate(codes[:8]):
            points[f"value_{i}"] = {"field": code.decode(), "unit": unit.decode()}
        return _known(guess, {"type": "markers", "start": "/", "stop": "!", "max": 4096}, "obis", points)
    if data.count(b"$") and re.search(rb"\$[A-Z]{5},[^*]*\*[0-9A-F]{2}", data):
        return _nmea(guess, data)
    marked = MarkerFramer(b"\x02", b"\x03", _LONGEST).feed(data)
    if len(marked) > 1:
        return _marked(guess, data)
    return _lines(guess, data)


def _nmea(guess: Guess, data: bytes) -> Guess:
    framing: dict[str, object] = {"type": "markers", "start": "$", "stop": "*", "trailer": 2, "max": 120}
    points: dict[str, dict[str, object]] = {}
    for frame in _distinct(MarkerFramer(b"$", b"*", 120, trailer=2).feed(data)):
        for name, value in (NmeaDecoder().decode(frame) or {}).items():
            if isinstance(value, str) and number(value) is not None:
                points[_name(name)] = {"field": name}
    check = {"type": "xor", "first": 1, "last": -3, "notation": "hex"}
    return replace(_known(guess, framing, "nmea", points), check=check)


def _marked(guess: Guess, data: bytes) -> Guess:
    for trailer in (2, 1, 0):
        frames = _distinct(MarkerFramer(b"\x02", b"\x03", _LONGEST, trailer=trailer).feed(data))
        check = _find_check(frames) if trailer else None
        if check is not None or not trailer:
            framing = {"type": "markers", "start": "\x02", "stop": "\x03", "max": _LONGEST} | (
                {"trailer": trailer} if trailer else {}
            )
            return _with_pattern(guess, framing, check, frames, data)
    raise AssertionError("the last trailer always fits")


def _lines(guess: Guess, data: bytes) -> Guess:
    whole = data[: max(data.rfind(b"\r"), data.rfind(b"\n")) + 1]
    frames = LineFramer(1024).feed(whole)[1:]  # the first may have lost its beginning
    if not frames:
        return guess
    check = _find_check(_distinct(frames))
    return _with_pattern(guess, {"type": "lines"}, check, _distinct(frames), data)


def _with_pattern(
    guess: Guess, framing: dict[str, object], check: Check | None, frames: Sequence[bytes], data: bytes
) -> Guess:
    texts = [frame.decode("latin-1") for frame in frames]
    decode, points = _describe(texts)
    total = sum(data.count(frame) * len(frame) for frame in frames)
    return replace(
        guess, framing=framing, check=_check_settings(check), decode=decode, points=points, frames=tuple(frames),
        repetition=min(total / len(data), 1.0),
    )  # fmt: skip


def _describe(texts: Sequence[str]) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    """How to decode these lines, and which points there are."""
    example = texts[-1]
    if all(text.startswith("{") and text.endswith("}") for text in texts):
        try:
            fields = json.loads(example)
        except ValueError:
            fields = {}
        names = [key for key, value in fields.items() if isinstance(value, int | float)]
        return {"json": True}, {_name(key): {"field": key} for key in names}
    for separator in (",", ";", " "):
        parts = example.split(separator)
        if len(parts) > 1 and all(_PAIR.fullmatch(part) for part in parts):
            assign = "=" if "=" in example else ":"
            return {"keys": {"separator": separator, "assign": assign}}, {
                _name(key): {"field": key.strip()} for part in parts for key in [part.partition(assign)[0]]
            }
    for separator in (",", ";", "\t"):
        columns = [text.split(separator) for text in texts]
        if len(columns[-1]) > 1 and len({len(one) for one in columns}) == 1:
            numeric = [i for i in range(len(columns[-1])) if all(number(one[i]) is not None for one in columns)]
            if numeric:
                fields_ = [f"value_{i}" if i in numeric else "_" for i in range(len(columns[-1]))]
                return {"csv": {"fields": fields_, "separator": separator}}, {f"value_{i}": {} for i in numeric}
    return _pattern(example)


def _pattern(example: str) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    """The example with a group in place of each number, and any number of spaces where there were some."""
    pattern, at, count = "", 0, 0
    for found in _NUMBER.finditer(example):
        pattern += _literal(example[at : found.start()]) + rf"(?P<value_{count}>[+-]? *[\d.]+)"
        at, count = found.end(), count + 1
    pattern += _literal(example[at:])
    return {"regex": pattern}, {f"value_{i}": {} for i in range(count)} if count else {}


def _literal(text: str) -> str:
    return re.sub(r"(?:\\ )+", " +", re.escape(text)) if text.strip() else (" *" if text else "")


# -- binary ------------------------------------------------------------------------------------------------------------


def _binary(guess: Guess, data: bytes, chunks: Sequence[Chunk]) -> Guess:
    found = _periodic(data)
    if found is None:
        return guess
    start, length = found
    frames = _distinct(FixedFramer(length, start=start).feed(data))
    check = _find_check(frames)
    framing: dict[str, object] = {"type": "fixed", "start": start.decode("latin-1"), "length": length}
    if check is None and not _gaps(chunks):
        framing["length"] = length
    moving = [i for i in range(length) if len({frame[i] for frame in frames}) > 1]
    covered = range(length - check.size, length) if check is not None else range(0)
    names = [f"byte_{i}" if i in moving and i not in covered else "_" for i in range(length)]
    return replace(
        guess,
        framing=framing,
        check=_check_settings(check),
        decode={"struct": {"layout": ">" + "B" * length, "fields": names}},
        points={name: {"type": "integer"} for name in names if name != "_"} or {},
        frames=tuple(frames),
        repetition=min(len(frames) * length / len(data), 1.0),
    )


def _periodic(data: bytes) -> tuple[bytes, int] | None:
    """(first bytes, length) of frames that follow each other without anything in between."""
    best: tuple[float, bytes, int] = (0.0, b"", 0)
    for start, count in Counter(data[i : i + 2] for i in range(len(data) - 1)).most_common(24):
        places = [i for i in range(len(data) - 1) if data[i : i + 2] == start]
        distances = Counter(b - a for a, b in pairwise(places))
        if not distances or count < 3:  # noqa: PLR2004  # twice may be chance
            continue
        length, times = distances.most_common(1)[0]
        share = times * length / len(data)
        if 4 <= length <= _LONGEST and share > best[0] + _AS_GOOD:  # noqa: PLR2004  # the shortest frame worth a name
            best = (share, start, length)
        elif best[2] == length and abs(share - best[0]) <= _AS_GOOD and places[0] < length:
            best = min(best, (share, start, length), key=lambda one: data.find(one[1]))
    return (best[1], best[2]) if best[0] >= 0.5 else None  # noqa: PLR2004  # half of what came


def _gaps(chunks: Sequence[Chunk]) -> bool:
    return any(b.time - a.time > 20_000 for a, b in pairwise(chunks))  # noqa: PLR2004  # longer than USB's own


# -- checksums ---------------------------------------------------------------------------------------------------------


def _find_check(frames: Sequence[bytes]) -> Check | None:
    """A checksum that all frames carry at their end; None unless there are enough different ones to be sure."""
    if len(frames) < 3:  # noqa: PLR2004  # fewer prove nothing
        return None
    names = [*CRCS, "lrc", "xor", "sum16", "sum8", "sum8-negated"]
    notations: tuple[Notation, ...] = ("binary", "hex", "hex-lower")
    for name, notation, first, tail in product(names, notations, range(4), range(3)):
        orders = ("big", "little") if "16" in name or "32" in name else ("big",)
        for order in orders:
            check = Check(name, CRCS.get(name), first, None, None, notation, "little" if order == "little" else "big")
            at = -check.size - tail
            for last in (None, at - 1):
                one = replace(check, at=at if tail else None, last=last)
                if _carries(one, frames):
                    return one
    return None


def _carries(check: Check, frames: Sequence[bytes]) -> bool:
    """Whether all frames have it, and it is more than a constant or a single byte that happens to fit."""
    if not all(len(frame) > check.size + check.first + 1 and check.valid(frame) for frame in frames):
        return False
    if len({check.encode(check.covered(frame)) for frame in frames}) < min(3, len(frames)):  # as above
        return False
    if check.notation != "binary" and not any(re.search(rb"[A-Fa-f]", check.encode(check.covered(f))) for f in frames):
        return False  # digits that depend on each other in some other way
    return check.size > 1 or len(frames) >= 4  # noqa: PLR2004  # a byte fits by chance once in 256


def _check_settings(check: Check | None) -> dict[str, object]:
    if check is None:
        return {}
    settings: dict[str, object] = {"type": check.name}
    defaults = {"first": 0, "last": None, "at": None, "notation": "binary", "order": "big"}
    return settings | {key: getattr(check, key) for key, usual in defaults.items() if getattr(check, key) != usual}


# -- what a person gets ------------------------------------------------------------------------------------------------


def _distinct(frames: Sequence[bytes]) -> list[bytes]:
    return list(dict.fromkeys(frames))[:_MOST_FRAMES]


def _name(text: str) -> str:
    return re.sub(r"\W+", "_", text.strip(), flags=re.ASCII).strip("_").lower() or "value"


def _looks(guess: Guess) -> str:
    if guess.size < _ENOUGH:
        return "nothing came" if not guess.size else "too little came"
    if not guess.framing:
        return (
            "text without a pattern" if guess.printable >= _READABLE else "noise: the speed is wrong, or it is binary"
        )
    kind = next(iter(guess.decode), "")
    if kind == "known":
        kind = str(guess.decode["known"])
    checked = f", check {guess.check['type']}" if guess.check else ""
    return f"{guess.framing['type']}, {kind}{checked}"


def _profile(name: str, guess: Guess) -> str:
    settings: dict[str, object] = {"line": guess.line, "framing": guess.framing}
    if guess.check:
        settings["check"] = guess.check
    settings["decode"] = guess.decode
    lines = [
        "# A beginning, guessed from what the device sent. Give the points their names, units and ranges, leave away",
        "# what nobody needs, and check each value against the device's own display.",
        f"profile: {name}",
        "device:",
        *(f"  {key}: {_yaml(value)}" for key, value in settings.items()),
        "points:",
        *(f"  {point}: {_yaml(value)}" for point, value in guess.points.items()),
    ]
    if guess.frames:
        example = guess.frames[-1]
        lines += ["tests:", f"  - {{name: recorded, hex: {example.hex(' ')!r}, values: {{}}}}".replace("'", '"')]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """A value on one line: JSON is YAML."""
    return json.dumps(value)
