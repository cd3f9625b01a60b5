"""What a technician writes about serial lines and the devices on them that are not Modbus.

Plain frozen dataclasses that check themselves. How frames are made and read is in `parts.py`, points in `point.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from edged.adapter import STRICT, BusConfig, ConfigError, DeviceConfig, Duration, Name
from edged.media import LineSettings, Parity

from .codecs.checks import Check
from .codecs.talk import Template
from .parts import CheckConfig, Decode, Framing
from .point import SerialPoint

__all__ = ["MAIN", "Message", "SerialBus", "SerialDevice", "SerialPoint", "Wake"]

MAIN = Name("main")
"""The message of a device that has only one."""
Dialogue = Literal["mbus", "iec62056-21"]
_LINE = re.compile(r"(\d+) ?([5678])([NEOMS])(1\.5|1|2)")
_PARITIES: dict[str, Parity] = {"N": "none", "E": "even", "O": "odd", "M": "mark", "S": "space"}
_DEFAULTS = {"baudrate": 9600, "bytesize": 8, "parity": "none", "stopbits": 1}
_LISTEN_LIMIT = 5.0
_SHORTEST_TIMEOUT, _LONGEST_TIMEOUT, _LONGEST_PAUSE = 0.001, 600.0, 60.0


def parse_line(text: str) -> dict[str, object]:
    """Settings of a line written as `9600 8N1`. Raises ValueError."""
    found = _LINE.fullmatch(text)
    if not found:
        raise ValueError(f"`line: {text}`: write speed, data bits, parity and stop bits, as in 9600 8N1 or 300 7E1")
    return {
        "baudrate": int(found[1]),
        "bytesize": int(found[2]),
        "parity": _PARITIES[found[3]],
        "stopbits": float(found[4]),
    }


@dataclass(frozen=True, kw_only=True)
class SerialBus(LineSettings, BusConfig):
    """A serial line with devices that are not Modbus."""

    __pydantic_config__: ClassVar = STRICT

    baudrate: int | None = None  # type: ignore[assignment]  # None until the devices' profiles are known
    """Bits per second. Without it: what the devices' profiles say, else 9600."""
    bytesize: Literal[5, 6, 7, 8] | None = None  # type: ignore[assignment]  # the same
    """Data bits of a character. Without it: what the profiles say, else 8."""
    parity: Parity | None = None  # type: ignore[assignment]  # the same
    """The check bit of a character. Without it: what the profiles say, else none."""
    stopbits: float | None = None  # type: ignore[assignment]  # the same
    """Stop bits of a character: 1, 1.5 or 2. Without it: what the profiles say, else 1."""

    def __post_init__(self) -> None:
        open_ = [key for key in _DEFAULTS if getattr(self, key) is None]
        for key in open_:
            object.__setattr__(self, key, _DEFAULTS[key])
        try:
            super().__post_init__()
        finally:
            for key in open_:
                object.__setattr__(self, key, None)

    def settings(self, devices: Mapping[str, SerialDevice]) -> LineSettings:
        """The line as it is to be opened. Raises ConfigError where devices disagree and it does not say."""
        wishes = {name: parse_line(device.line) for name, device in devices.items() if device.line}
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(LineSettings)}
        for key, default in _DEFAULTS.items():
            if values[key] is None:
                values[key] = _agreed(key, wishes) or default
        return LineSettings(**values)


def _agreed(key: str, wishes: Mapping[str, Mapping[str, object]]) -> object:
    wanted = {name: wish[key] for name, wish in wishes.items()}
    if len(set(wanted.values())) > 1:
        listed = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise ConfigError(
            f"the devices on this line want different settings ({key}: {listed}): write `{key}` at the bus"
        )
    return next(iter(wanted.values()), None)


@dataclass(frozen=True, kw_only=True)
class Wake:
    """What wakes a sleeping device before a request."""

    __pydantic_config__: ClassVar = STRICT

    send: str
    """What to send, e.g. `"\\n"`."""
    answer: str = ""
    """What it answers when it is awake, e.g. `"\\n\\r"`. Without it: wait for `pause`."""
    tries: int = 3
    """How often to try."""
    pause: Duration = Duration(1)
    """How long to wait after each try."""
    lasts: Duration = Duration(0)
    """How long it stays awake after the last request; 0 wakes it before each."""

    def __post_init__(self) -> None:
        if Template(self.send).names - {"address"}:
            raise ValueError("`send` can only have {address} here")
        Template(self.answer)
        if not 1 <= self.tries <= 10:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`tries` must lie between 1 and 10")
        if not 0 < self.pause <= 10:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`pause` must lie between 1ms and 10s")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One kind of message: what to ask, and what the answer says. Without `send` it comes by itself."""

    __pydantic_config__: ClassVar = STRICT

    send: str = ""
    """What to ask. Places: {address}, {sequence}, {check}."""
    framing: Framing | None = None
    """Where its frames begin and end, if not as the device says."""
    check: CheckConfig | None = None
    """The checksum of its frames, if not as the device says."""
    decode: Decode | None = None
    """What its frames say, if not as the device says."""
    frames: int = 1
    """Of how many frames the answer consists; they are joined with line ends and decoded as one."""
    until: str = ""
    """The frame that ends an answer of several, e.g. `OK`; it is not part of it."""
    sample: str = ""
    """How a frame looks, for the simulator: fields in braces, e.g. `"S S {weight:10.2f} g"`."""

    def __post_init__(self) -> None:
        if Template(self.send).names - {"address", "sequence", "check"}:
            raise ValueError("`send` can have {address}, {sequence} and {check} here; {value} is for `write`")
        Template(self.until)
        if not 1 <= self.frames <= 64:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`frames` must lie between 1 and 64")
        if not self.send and (self.frames > 1 or self.until):
            raise ValueError("`frames` and `until` are for answers: give `send` too")


@dataclass(frozen=True, kw_only=True)
class SerialDevice(DeviceConfig):
    """One device on a serial line: how it frames, checks and writes what it says, and what to ask it."""

    __pydantic_config__: ClassVar = STRICT

    address: int | str | None = None
    """Its address on the line: what {address} stands for. An answer with another one is never taken."""
    line: str = ""
    """The usual settings of its line, as in `9600 8N1`; used where the bus does not say."""
    framing: Framing = field(default_factory=Framing)
    """Where a frame begins and ends; lines of text unless given."""
    check: CheckConfig | None = None
    """The checksum of its frames."""
    decode: Decode | None = None
    """What a frame says."""
    send: str = ""
    """What to ask. Without it the device is only listened to. Places: {address}, {sequence}, {check}."""
    messages: dict[Name, Message] = field(default_factory=dict)
    """Its messages by name, where there are several kinds."""
    dialogue: Dialogue | None = None
    """A protocol that needs more than request and answer: `mbus` (wired M-Bus) or `iec62056-21` (readout, mode C)."""
    wake: Wake | None = None
    """What wakes it before a request."""
    sample: str = ""
    """How a frame looks, for the simulator."""
    timeout: Duration = Duration(1)
    """How long to wait for an answer."""
    retries: int = 1
    """How often to repeat a request without a good answer before the reading counts as failed."""
    pause: Duration = Duration(0)
    """How long to leave the line alone before a request; some devices need it."""
    silence: Duration = Duration(0)
    """How long a device that sends by itself may be silent before its values are bad; without it three times `every`,
    and at least 5s."""
    keep: Literal["newest", "all"] = "newest"
    """Of several frames that came by themselves between two polls: keep the newest, or all of them (a scanner's)."""
    points: dict[Name, SerialPoint] = field(default_factory=dict)  # type: ignore[assignment]  # narrower than the base
    """Its values by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.line:
            parse_line(self.line)
        if not _SHORTEST_TIMEOUT <= self.timeout <= _LONGEST_TIMEOUT:
            raise ValueError(
                f"`timeout` must lie between {Duration(_SHORTEST_TIMEOUT)} and {Duration(_LONGEST_TIMEOUT)}"
            )
        if self.pause > _LONGEST_PAUSE:
            raise ValueError(f"`pause` is the rest before a request: at most {Duration(_LONGEST_PAUSE)}")
        if not 0 <= self.retries <= 10:  # noqa: PLR2004  # the range stated in the message
            raise ValueError("`retries` must lie between 0 and 10")
        if self.messages and (self.send or self.sample):
            raise ValueError("`send` and `sample` are for a device with one kind of message: move them into `messages`")
        Message(send=self.send)
        for name, message in self.kinds.items():
            self._check_message(name, message)
        if self.wake is not None:
            self._check_request("wake", self.wake.send)
            self._check_request("wake", self.wake.answer)
        for name, point in self.points.items():
            self._check_point(name, point)

    @property
    def kinds(self) -> Mapping[Name, Message]:
        """Its messages, each complete."""
        single = {MAIN: Message(send=self.send, sample=self.sample)}
        return {
            name: dataclasses.replace(
                one,
                framing=one.framing or self.framing,
                check=one.check or self.check,
                decode=one.decode or self.decode,
            )
            for name, one in (self.messages or single).items()
        }

    def asks(self, message: Name) -> bool:
        """Whether this message has to be asked for."""
        return self.dialogue is not None or bool(self.kinds[message].send)

    def message_of(self, point: str) -> Name:
        """The message that a point is in."""
        return self.points[Name(point)].message or next(iter(self.kinds))

    @property
    def patience(self) -> float:
        """How long it may be silent, seconds."""
        return float(self.silence) or max(3 * float(self.every), _LISTEN_LIMIT)

    def _check_message(self, name: Name, message: Message) -> None:
        where = f"message {name!r}: " if self.messages else ""
        if message.decode is None:
            raise ValueError(f"{where}`decode` is missing: it says how to find the values in a frame")
        framing = message.framing or self.framing
        if framing.type in {"fixed", "length"} and not (framing.start or framing.stop or message.check):
            raise ValueError(
                f"{where}`framing`: with `type: {framing.type}` give `start`, `stop` or a `check`, or nobody can "
                f"tell noise from a frame; a short answer without any of them is best told by `type: gap`"
            )
        if "address" in Template(message.send).names and self.address is None:
            raise ValueError(f"{where}`send` has {{address}}, and the device has no `address`")
        if "check" in Template(message.send).names and message.check is None:
            raise ValueError(f"{where}`send` has {{check}}, and there is no `check`")
        if self.dialogue is not None and (message.send or self.wake):
            raise ValueError(f"{where}`dialogue: {self.dialogue}` does the asking: remove `send` and `wake`")
        if self.dialogue is not None and message.decode.known != _DIALOGUES[self.dialogue]:
            raise ValueError(f"{where}`decode` must be {{known: {_DIALOGUES[self.dialogue]}}} with this `dialogue`")
        self._check_request("send", message.send, message.check.build() if message.check else None)
        self._check_request("until", message.until)
        try:
            names = message.decode.decoder().fields()
        except ConfigError as exc:  # a package is missing; told with its place, as a mistake in the configuration
            raise ValueError(f"{where}`decode`: {exc}") from exc
        if names is not None and (missing := message.decode.expect.keys() - names):
            raise ValueError(f"{where}`decode`: `expect` has {min(missing)}, and there is no such field")

    def _check_request(self, where: str, text: str, check: Check | None = None) -> None:
        """Whether it can be sent with this address and any number. Raises ValueError."""
        for sequence in (0, 255):
            try:
                Template(text).render(self.places(sequence), check)
            except ValueError as exc:
                raise ValueError(f"`{where}`: {exc}") from None

    def places(self, sequence: int = 0) -> dict[str, float | str | bool]:
        """What the places of a request stand for."""
        return {"address": "" if self.address is None else self.address, "sequence": sequence}

    def _check_point(self, name: Name, point: SerialPoint) -> None:
        kinds = self.kinds
        if point.message is not None and point.message not in kinds:
            raise ValueError(f"`points`: {name} is in message {point.message!r}; there are {_listed(kinds)}")
        if point.message is None and len(kinds) > 1:
            raise ValueError(f"`points`: {name} must say in which `message` it is: {_listed(kinds)}")
        decode = kinds[self.message_of(name)].decode
        names = None if decode is None else decode.decoder().fields()
        if names is not None and (point.field or name) not in names:
            raise ValueError(
                f"`points`: {name} needs the field {point.field or name!r}, and `decode` finds only {_listed(names)}"
            )
        if point.write is not None and self.address is None and "address" in Template(point.write.send).names:
            raise ValueError(f"`points`: {name} writes with {{address}}, and the device has no `address`")


_DIALOGUES = {"mbus": "mbus", "iec62056-21": "obis"}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
