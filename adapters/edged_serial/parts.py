"""The parts of a serial device's description: framing, checksum, decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from edged.adapter import STRICT, Duration

from .codecs import framing as frames
from .codecs.checks import CRCS, ByteOrder, Check, CheckName, Crc, Notation
from .codecs.decode import (
    ColumnsDecoder,
    CsvDecoder,
    Decoder,
    JsonDecoder,
    KeysDecoder,
    RegexDecoder,
    StructDecoder,
    check_pattern,
)
from .codecs.framing import MAX_FRAME, Framer, Valid, always

FramingType = Literal["lines", "delimiter", "fixed", "length", "markers", "gap", "slip", "hdlc", "dle", "sml", "mbus"]
Encoding = Literal["ascii", "latin-1", "utf-8", "cp437", "cp1252"]
Known = Literal["nmea", "obis", "sml", "mbus"]

_LONGEST_GAP = 60.0

_USES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # type: (needed, possible besides)
    "lines": (frozenset(), frozenset()),
    "delimiter": (frozenset({"end"}), frozenset({"keep_end"})),
    "fixed": (frozenset({"length"}), frozenset({"start", "stop"})),
    "length": (frozenset({"field"}), frozenset({"start"})),
    "markers": (frozenset({"start", "stop"}), frozenset({"trailer"})),
    "gap": (frozenset({"gap"}), frozenset()),
    "slip": (frozenset(), frozenset()),
    "hdlc": (frozenset(), frozenset()),
    "dle": (frozenset(), frozenset({"trailer"})),
    "sml": (frozenset(), frozenset()),
    "mbus": (frozenset(), frozenset()),
}


def to_bytes(text: str, key: str) -> bytes:
    """Characters as the bytes of their numbers. Raises ValueError."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(
            f"`{key}` has {text[exc.start]!r}, which is not one byte: write bytes as \\x escapes"
        ) from None


@dataclass(frozen=True, kw_only=True)
class LengthField:
    """Where a frame says how long it is."""

    __pydantic_config__: ClassVar = STRICT

    at: int
    """Its place in the frame, counted from 0."""
    size: Literal[1, 2, 3, 4] = 1
    """How many bytes it has."""
    order: ByteOrder = "big"
    """Which of its bytes comes first."""
    adds: int = 0
    """How many bytes the whole frame has beyond the number in the field."""

    def __post_init__(self) -> None:
        if not 0 <= self.at < 256:  # noqa: PLR2004  # more than any header
            raise ValueError("`at` counts from 0, the first byte of the frame")


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where a frame begins and ends. Bytes are written as text, in double quotes with escapes (a backslash, x, 02)."""

    __pydantic_config__: ClassVar = STRICT

    type: FramingType = "lines"
    """`lines` of text; `delimiter` (ends with `end`); `fixed` (`length` bytes); `length` (said in `field`);
    `markers` (from `start` to `stop`, both part of the frame, and `trailer` bytes); `gap` (a silence); `slip`, `hdlc`,
    `dle` (markers with escaping, which are taken out); `sml`; `mbus`."""
    end: str = ""
    """The delimiter; not part of the frame."""
    keep_end: bool = False
    """The delimiter is part of the frame after all, because the checksum covers it."""
    start: str = ""
    """What a frame begins with."""
    stop: str = ""
    """What a frame ends with."""
    trailer: int = 0
    """How many bytes belong to the frame after `stop`: its checksum."""
    length: int | None = None
    """How many bytes a frame has."""
    field: LengthField | None = None
    """Where the frame says its length."""
    gap: Duration = Duration(0)
    """The silence that ends a frame."""
    max: int = 1024
    """The longest frame there can be, bytes; anything longer is noise."""

    def __post_init__(self) -> None:
        for key in ("end", "start", "stop"):
            to_bytes(getattr(self, key), key)
        needed, possible = _USES[self.type]
        given = {
            key
            for key in ("end", "start", "stop", "length", "field", "gap", "trailer", "keep_end")
            if getattr(self, key)
        }
        if missing := sorted(needed - given):
            raise ValueError(f"`type: {self.type}` needs `{missing[0]}`")
        if useless := sorted(given - needed - possible):
            raise ValueError(f"`{useless[0]}` has no meaning with `type: {self.type}`")
        if self.gap > _LONGEST_GAP:
            raise ValueError(f"`gap` is the silence that ends a frame: at most {Duration(_LONGEST_GAP)}")
        if not 1 <= self.max <= MAX_FRAME:
            raise ValueError(f"`max` must lie between 1 and {MAX_FRAME}")
        if self.length is not None and not 1 <= self.length <= MAX_FRAME:
            raise ValueError(f"`length` must lie between 1 and {MAX_FRAME}")
        if self.length is not None and len(self.start) + len(self.stop) > self.length:
            raise ValueError("`length`: `start` and `stop` are part of the frame, and together they are longer than it")
        if not 0 <= self.trailer <= 16:  # noqa: PLR2004  # longer than any checksum
            raise ValueError("`trailer` is the number of bytes after `stop`, at most 16")

    def framer(self, valid: Valid = always) -> Framer:
        """A new framer."""
        end, start, stop = (to_bytes(text, "") for text in (self.end, self.start, self.stop))
        match self.type:
            case "lines":
                return frames.LineFramer(self.max, valid)
            case "delimiter":
                return frames.DelimiterFramer(end, self.max, valid, keep=self.keep_end)
            case "fixed":
                return frames.FixedFramer(self.length or 1, valid, start=start, stop=stop)
            case "markers":
                return frames.MarkerFramer(start, stop, self.max, valid, trailer=self.trailer)
            case "gap":
                return frames.GapFramer(self.max, valid)
            case "slip" | "hdlc":
                escaping = frames.SLIP if self.type == "slip" else frames.HDLC
                return frames.StuffedFramer(escaping, self.max, valid)
            case "dle":
                return frames.DleFramer(self.max, valid, trailer=self.trailer)
            case "sml":
                from .codecs.sml import SmlFramer  # noqa: PLC0415  # only who has such a meter pays for it

                return SmlFramer(self.max)
            case "mbus":
                from .codecs.mbus import MbusFramer  # noqa: PLC0415  # the same

                return MbusFramer()
        field = self.field or LengthField(at=0)
        spec = frames.LengthField(field.at, field.size, field.order == "little", field.adds)
        return frames.LengthFramer(spec, self.max, valid, start=start)

    def wrap(self, content: bytes) -> bytes:
        """A frame on the wire, for simulators. Markers that are part of frames are already there."""
        match self.type:
            case "lines":
                return content + b"\r\n"
            case "delimiter":
                return content if self.keep_end else content + to_bytes(self.end, "end")
            case "slip":
                return frames.stuff(content, frames.SLIP)
            case "hdlc":
                return frames.stuff(content, frames.HDLC)
            case "dle":
                at = len(content) - self.trailer
                return frames.stuff_dle(content[:at], content[at:])
        return content


@dataclass(frozen=True, kw_only=True)
class CrcParameters:
    """A CRC that has no name here, by the five parameters of its description."""

    __pydantic_config__: ClassVar = STRICT

    width: Literal[8, 16, 24, 32] = 16
    """Its bits."""
    poly: int
    """The polynomial, highest bit left out, e.g. 0x1021."""
    init: int = 0
    """The register at the beginning."""
    reflect: bool = False
    """Bytes and result are taken least significant bit first."""
    xorout: int = 0
    """What the result is combined with."""

    def __post_init__(self) -> None:
        for key in ("poly", "init", "xorout"):
            if not 0 <= getattr(self, key) < 1 << self.width:
                raise ValueError(f"`{key}` does not fit {self.width} bits")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """The checksum of a frame. A frame whose checksum is wrong is never used."""

    __pydantic_config__: ClassVar = STRICT

    type: CheckName
    """How it is computed. `lrc` is the negative sum, `sum8-negated` the inverted one, `crc` one by its parameters."""
    crc: CrcParameters | None = None
    """The parameters of `type: crc`."""
    first: int = 0
    """The first byte of the frame that it covers, counted from 0."""
    last: int | None = None
    """Where the covered bytes end, negative from the end of the frame. Without it: where the checksum begins."""
    at: int | None = None
    """Where the checksum lies in the frame, negative from the end. Without it: at the very end."""
    notation: Notation = "binary"
    """How it is written: as bytes, hexadecimal digits, or decimal digits."""
    order: ByteOrder = "big"
    """Which of its bytes comes first."""

    def __post_init__(self) -> None:
        if (self.type == "crc") != (self.crc is not None):
            raise ValueError("`crc` has the parameters of `type: crc`: give both or none")
        if self.first < 0:
            raise ValueError("`first` counts from 0, the first byte of the frame")
        if self.last is not None and 0 <= self.last <= self.first:
            raise ValueError("`last` is where the covered bytes end: beyond `first`, or nothing is checked")

    def build(self) -> Check | None:
        """The check; None for `none`."""
        if self.type == "none":
            return None
        given = self.crc
        own = Crc(given.width, given.poly, given.init, given.reflect, given.xorout) if given else CRCS.get(self.type)
        return Check(self.type, own, self.first, self.last, self.at, self.notation, self.order)


@dataclass(frozen=True, kw_only=True)
class Struct:
    """A binary layout."""

    __pydantic_config__: ClassVar = STRICT

    layout: str
    """The layout in the notation of Python's `struct`, e.g. `">BBHHx"`; big endian unless it begins with `<`."""
    fields: tuple[str, ...]
    """A name for each value; `_` for one that nobody needs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        StructDecoder(self.layout, self.fields)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Pairs such as `T=21.5,H=40`."""

    __pydantic_config__: ClassVar = STRICT

    separator: str = ","
    """What stands between two pairs."""
    assign: str = "="
    """What stands between key and value."""
    prefix: str = ""
    """What a frame begins with."""

    def __post_init__(self) -> None:
        if not self.separator or not self.assign:
            raise ValueError("`separator` and `assign` cannot be empty")


@dataclass(frozen=True, kw_only=True)
class Csv:
    """Values in a fixed order."""

    __pydantic_config__: ClassVar = STRICT

    fields: tuple[str, ...]
    """A name for each value; `_` for one that nobody needs."""
    separator: str = ","
    """What stands between two values; a space stands for any number of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        if not self.separator or not self.fields:
            raise ValueError("`separator` and `fields` cannot be empty")
        named = [name for name in self.fields if name != "_"]
        if len(set(named)) != len(named):
            raise ValueError("`fields` has a name twice")


@dataclass(frozen=True, kw_only=True)
class Decode:
    """How to find the values in a frame: one of `regex`, `struct`, `keys`, `csv`, `json`, `columns` and `known`."""

    __pydantic_config__: ClassVar = STRICT

    regex: str | None = None
    """A regular expression for the whole frame; its named groups are the fields."""
    struct: Struct | None = None
    """A binary layout."""
    keys: Keys | None = None
    """Pairs of key and value."""
    csv: Csv | None = None
    """Values in a fixed order."""
    json: bool = False
    """A JSON object; fields inside others are named with dots."""
    columns: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Fixed columns: first column, counted from 0, and the one after the last."""
    length: int | None = None
    """How long a frame with `columns` is exactly."""
    known: Known | None = None
    """A known format: `nmea` (NMEA 0183), `obis` (DSMR P1, IEC 62056-21), `sml` or `mbus`."""
    encoding: Encoding = "latin-1"
    """How text is encoded."""
    expect: dict[str, int | str] = field(default_factory=dict)
    """Fields that must have a certain value, or the frame is another one, e.g. `{command: 0x86}`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", {name: (int(a), int(b)) for name, (a, b) in self.columns.items()})
        kinds = [key for key in ("regex", "struct", "keys", "csv", "json", "columns", "known") if getattr(self, key)]
        if len(kinds) != 1:
            found = f", not {' and '.join(kinds)}" if kinds else ""
            raise ValueError(f"give one of `regex`, `struct`, `keys`, `csv`, `json`, `columns`, `known`{found}")
        if self.regex is not None:
            check_pattern(self.regex)
        for name, (start, end) in self.columns.items():
            if not 0 <= start < end:
                raise ValueError(f"`columns`: {name} needs the first column and the one after the last")
        if self.length is not None and not self.columns:
            raise ValueError("`length` is for `columns`")

    def decoder(self) -> Decoder:
        """A new decoder. Raises ConfigError when it needs a package that is not installed."""
        if self.regex is not None:
            return RegexDecoder(self.regex, self.encoding)
        if self.struct is not None:
            return StructDecoder(self.struct.layout, self.struct.fields)
        if self.keys is not None:
            return KeysDecoder(self.keys.separator, self.keys.assign, self.keys.prefix, self.encoding)
        if self.csv is not None:
            return CsvDecoder(self.csv.fields, self.csv.separator, self.encoding)
        if self.json:
            return JsonDecoder()
        if self.columns:
            return ColumnsDecoder(self.columns, self.length, self.encoding)
        return _known(self.known or "obis")


def _known(name: Known) -> Decoder:
    match name:
        case "nmea":
            from .codecs.nmea import NmeaDecoder  # noqa: PLC0415  # few gateways need it

            return NmeaDecoder()
        case "sml":
            from .codecs.sml import SmlDecoder  # noqa: PLC0415  # few gateways need it

            return SmlDecoder()
        case "mbus":
            from .codecs.mbus import MbusDecoder  # noqa: PLC0415  # few gateways need it

            return MbusDecoder()
    from .codecs.obis import ObisDecoder  # noqa: PLC0415  # few gateways need it

    return ObisDecoder()
