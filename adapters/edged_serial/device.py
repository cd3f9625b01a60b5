"""One device, compiled from its description: what to send, which frames are its own, which values are in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edged.adapter import ConfigError, Name, Quality, Reason, Sample, Value, bad

from .codecs.checks import Check
from .codecs.decode import Decoder, Fields
from .codecs.framing import Framer, always
from .codecs.talk import Template
from .codecs.values import Conversion, Measured, Raw
from .config import SerialDevice
from .parts import Framing

_UNIT = "_unit"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of message of a device."""

    name: Name
    framing: Framing
    check: Check | None
    decoder: Decoder
    expect: Mapping[str, int | str]
    send: Template
    frames: int
    until: Template
    grouped: bool
    """Its frames are of several kinds that have different fields (NMEA sentences)."""

    def framer(self) -> Framer:
        """A new framer for its frames."""
        return self.framing.framer(always if self.check is None else self.check.valid)

    def group(self, field_name: str) -> str:
        """Which of its frames a field is in."""
        return field_name.partition(".")[0] if self.grouped else ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Some points that come in the same frames."""

    kind: Kind
    group: str
    points: tuple[str, ...]
    fields: tuple[str, ...]
    conversions: tuple[Conversion, ...]

    def sample(self, device: str, found: Fields, wall: int, mono: int) -> Sample:
        """Their values in a frame. What is missing or is no value is `bad(decode)`."""
        missing: Raw = None
        values: list[Value] = [
            convert(found.get(name, missing)) for name, convert in zip(self.fields, self.conversions, strict=True)
        ]
        quality = {i: _DECODE for i, value in enumerate(values) if value is None}
        return Sample(device, wall, mono, self.points, values, quality)

    def without(self, device: str, reason: str, wall: int, mono: int) -> Sample:
        """The same points without values, and why."""
        count = len(self.points)
        return Sample(device, wall, mono, self.points, (None,) * count, dict.fromkeys(range(count), bad(reason)))


_DECODE: Quality = bad(Reason.DECODE)


@dataclass(frozen=True, slots=True)
class Device:
    """A device with its kinds of messages."""

    name: str
    config: SerialDevice
    kinds: Mapping[Name, Kind] = field(default_factory=dict)

    @classmethod
    def compile(cls, name: str, config: SerialDevice) -> Device:
        """Prepare everything that is the same each time. Raises ConfigError for a missing package."""
        kinds: dict[Name, Kind] = {}
        for kind_name, message in config.kinds.items():
            if message.decode is None or message.framing is None:
                raise ConfigError(f"{name}: message {kind_name} has no `decode`")
            kinds[kind_name] = Kind(
                name=kind_name,
                framing=message.framing,
                check=message.check.build() if message.check else None,
                decoder=message.decode.decoder(),
                expect=message.decode.expect,
                send=Template(message.send),
                frames=message.frames,
                until=Template(message.until),
                grouped=message.decode.known == "nmea",
            )
        return cls(name, config, kinds)

    def asked(self, kind: Kind) -> bool:
        """Whether this kind has to be asked for."""
        return self.config.asks(kind.name)

    def known_by(self, kind: Kind) -> str:
        """Its name if its answers say whose they are, else ""."""
        return self.name if self.config.address is not None and _finds(kind, "address") else ""

    def numbers(self, kind: Kind) -> bool:
        """Whether its answers repeat the number of the request."""
        return "sequence" in kind.send.names and _finds(kind, "sequence")

    def columns(self, points: Sequence[str]) -> list[Columns]:
        """The points by the frames they come in."""
        found: dict[tuple[Name, str], list[str]] = {}
        for point in points:
            kind = self.kinds[self.config.message_of(point)]
            found.setdefault((kind.name, kind.group(self._field(point))), []).append(point)
        return [
            Columns(
                kind=self.kinds[name],
                group=group,
                points=tuple(members),
                fields=tuple(self._field(point) for point in members),
                conversions=tuple(self.config.points[Name(point)].conversion() for point in members),
            )
            for (name, group), members in found.items()
        ]

    def decode(self, kind: Kind, frame: bytes, sequence: int | None = None) -> tuple[Fields | None, str]:
        """The fields of a frame, or None and why it is not taken: it is of another kind or from somebody else."""
        found = kind.decoder.decode(frame)
        if found is None:
            return None, "a frame of another kind came"
        for name, wanted in kind.expect.items():
            if name not in found or not _same(found[name], wanted):
                return None, f"its {name} is {found.get(name)!r}, not {wanted!r}"
        address = self.config.address
        if (
            "address" in found
            and address is not None
            and not self._echoes(kind.send, "address", found["address"], address)
        ):
            return None, f"the answer of device {found['address']} came"
        if (
            "sequence" in found
            and sequence is not None
            and not self._echoes(kind.send, "sequence", found["sequence"], sequence)
        ):
            return None, f"the answer to request {found['sequence']} came, which is not this one"
        return _with_units(found), ""

    def _field(self, point: str) -> str:
        return self.config.points[Name(point)].field or point

    @staticmethod
    def _echoes(template: Template, name: str, found: Raw, wanted: int | str) -> bool:
        sent = template.text_of(name, wanted) if isinstance(found, str) else []
        return _same(found, wanted) or (isinstance(found, str) and found in sent)


def _finds(kind: Kind, name: str) -> bool:
    return name in (kind.decoder.fields() or ())


def _with_units(found: Fields) -> Fields:
    """A field `x_unit` is the unit of the field `x`: a scale that was switched to kilograms says so only there."""
    for name in [one for one in found if one.endswith(_UNIT) and one.removesuffix(_UNIT) in found]:
        value, unit = found[name.removesuffix(_UNIT)], found[name]
        if isinstance(value, str | int | float) and isinstance(unit, str) and unit.strip():
            found[name.removesuffix(_UNIT)] = Measured(value, unit.strip())
    return found


def _same(found: Raw, wanted: int | str) -> bool:
    """Whether a field is what it has to be; numbers in text may have leading zeros."""
    if found == wanted or str(found).strip() == str(wanted):
        return True
    texts = (str(found).strip(), str(wanted))
    return all(text.isdecimal() and text.isascii() for text in texts) and texts[0].lstrip("0") == texts[1].lstrip("0")


def raw_value(config: SerialDevice, point: str, value: Value) -> float | int | str | bool:
    """What to send for an engineering value: the way back through words, map, scale and offset. Raises ValueError."""
    spec = config.points[Name(point)]
    if spec.enum:
        backwards = {word: raw for raw, word in spec.enum.items()}
        if value not in backwards:
            raise ValueError(f"{value!r} is none of {', '.join(backwards)}")
        return backwards[str(value)]
    if value is None or isinstance(value, str | bool):
        if value is None or (isinstance(value, str) and spec.type != "text"):
            raise ValueError(f"{value!r} cannot be written here")
        return value
    if spec.range is not None and not spec.range[0] <= value <= spec.range[1]:
        raise ValueError(f"{value:g} is outside the range {spec.range[0]:g} to {spec.range[1]:g}")
    raw = spec.unscaled(value)
    if raw is value:
        return value
    return int(raw) if raw.is_integer() else float(f"{raw:.15g}")  # what is sent as text has no rounding errors
