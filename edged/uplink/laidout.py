"""The layouts of a payload of readings, for every connector that leaves the choice to whoever receives them. Pure."""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from edged.buffer.batch import Batch
from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import Name
from edged.errors import ConfigError, PermanentError
from edged.uplink.api import Chunk, ConnectionContext, Envelope, Lane, Message
from edged.uplink.dialects.kinds import Kind, promised
from edged.uplink.encoders import encode_columns, encode_sample
from edged.uplink.upstream import names_of

_MAX_CHUNK = 5000
_OWN = frozenset({"columns", "samples"})
"""Edged's own layouts: the only ones that say themselves where they belong."""


@dataclass(frozen=True, kw_only=True)
class LaidOutConnection(ConnectionConfig):
    """An upstream whose receiver may choose what a message of readings looks like."""

    __pydantic_config__: ClassVar = STRICT
    LAYOUTS: ClassVar = ("columns", "samples", "senml", "senml-cbor", "influx", "template")

    layout: Literal["columns", "samples", "senml", "senml-cbor", "influx", "template"] = "columns"
    """`columns`: many samples in one message. `samples`: one message for each sample of a device. `senml` and
    `senml-cbor`: RFC 8428. `influx`: line protocol. `template`: a line of your own for each reading. All but the first
    two say `epoch`, `seq` and `prev` beside the payload: in headers, or in user properties, so with MQTT 5 only."""
    template: str = ""
    """With `layout: template`: what is written for each reading, such as `{"p": "{device}/{point}", "v": {value}}`."""
    max_readings: int = 500
    """Up to how many readings go into one message, unless it is `layout: samples`."""
    compression: Literal["none", "zlib", "gzip"] = "none"
    """Compresses the payload of readings; whatever else is sent stays as it is."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.layout != "template":
            yield "template", f"it needs `layout: template`, and this is `{self.layout}`"
        if self.layout == "samples":
            yield "max_readings", "with `layout: samples` each sample is a message"
        yield from super().idle()

    def check_layout(self) -> None:
        """Raises ValueError if the settings make no sense."""
        if not 100 <= self.max_readings <= _MAX_CHUNK:  # noqa: PLR2004  # as the message says
            raise ValueError(f"`max_readings` must lie between 100 and {_MAX_CHUNK}")
        if self.layout == "template":
            from edged.uplink.layouts.template import check  # noqa: PLC0415  # only who wants it pays for it

            check(self.template)


class Layout:
    """Cuts batches into messages, and makes the payload of each."""

    def __init__(self, config: LaidOutConnection, context: ConnectionContext) -> None:
        self.name = config.layout
        self.by_sample = config.layout == "samples"
        self._max_readings = config.max_readings
        self._gateway = str(context.gateway.id)
        self._names = names_of(context)
        self._template = config.template
        self._encode = encode_sample if self.by_sample else encode_columns
        self._devices = context.devices
        self._changed_units: Callable[[dict[str, str]], dict[str, str]] | None = context.shared.get("units")
        self._compress = _COMPRESSORS[config.compression]

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """Cut a batch into chunks of one sample, or of as many as make up to `max_readings` readings.

        With chunks of one sample, those that thinning has emptied go with the next one.
        """
        begin = count = 0
        limit = 0 if self.by_sample else self._max_readings
        for i, sample in enumerate(batch.samples):
            size = len(sample.points)
            if i > begin and count + size > limit and (count or limit):
                yield Chunk(batch.first + begin, batch.samples[begin:i], count, batch.boot, batch.replay)
                begin, count = i, 0
            count += size
        if begin < len(batch.samples):
            yield Chunk(batch.first + begin, batch.samples[begin:], count, batch.boot, batch.replay)

    def payload(self, chunk: Chunk, envelope: Envelope) -> tuple[bytes, str]:
        """The payload, and its content type; without a byte if there is nothing to say. Raises PermanentError."""
        if self.name in _OWN:
            return self._compress(self._encode(chunk, envelope, self._gateway)), "application/json"
        text, content_type = self._other(chunk)
        return self._compress(text) if text else b"", content_type

    def proof(self, chunk: Chunk, envelope: Envelope) -> dict[str, str]:
        """What is to be said beside the payload because the layout has no place for it."""
        return {} if self.name in _OWN else proof(chunk, envelope, self._gateway)

    def _other(self, chunk: Chunk) -> tuple[bytes, str]:
        """The payload in a layout that is not edged's own, empty if there is nothing to say; and its content type."""
        from edged.uplink.layouts import influx, senml, template  # noqa: PLC0415  # only who wants them pays for them

        try:
            match self.name:
                case "senml" | "senml-cbor":
                    records = list(senml.records(chunk.samples, self._gateway, self.units()))
                    if self.name == "senml":
                        return senml.encode_json(records) if records else b"", senml.JSON
                    return senml.encode_cbor(records) if records else b"", senml.CBOR
                case "influx":
                    lines = influx.lines(chunk.samples, self._gateway, self._whole)
                case _:
                    lines = template.lines(self._template, chunk.samples, self._names, self.units())
            return "\n".join(lines).encode(), influx.CONTENT
        except (TypeError, ValueError) as exc:
            raise PermanentError(f"cannot be written as {self.name}: {exc}", reason="unencodable") from exc

    def _whole(self, device: str, point: str) -> bool:
        settings = self._devices.get(device)
        return settings is not None and promised(settings.points.get(Name(point))) in {Kind.WHOLE, Kind.LARGE}

    def units(self) -> dict[tuple[str, str], str]:
        """(device, point) → the unit as configured, or as a flow has changed it."""
        units: dict[tuple[str, str], str] = {}
        for device, settings in self._devices.items():
            own = {str(point): one.unit for point, one in settings.points.items() if one.unit}
            for point, unit in (self._changed_units(own) if self._changed_units else own).items():
                units[device, point] = unit
        return units


class LaidOutEncoder(ABC):
    """Cuts batches into messages, and gives each the address that its lane and device have."""

    def __init__(
        self, config: LaidOutConnection, context: ConnectionContext, setting: str, fill: Callable[[dict[str, str]], str]
    ) -> None:
        """`fill` makes an address of the template in `setting`. Raises ConfigError if it cannot."""
        self._layout = Layout(config, context)
        self._setting = setting
        self._fill = fill
        self._names = names_of(context)
        self._addresses: dict[tuple[Lane, str], str] = {}
        try:
            self._address(Lane.LIVE, "device")
        except ValueError as exc:
            raise ConfigError(f"connection {context.name}: {exc}") from exc

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """See `Layout.split`."""
        return self._layout.split(batch)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the chunk can never be encoded."""
        try:
            address = self._address(Lane.HISTORICAL if chunk.replay else envelope.lane, chunk.samples[-1].device)
        except ValueError as exc:
            raise PermanentError(str(exc), reason=self._setting) from exc
        payload, content_type = self._layout.payload(chunk, envelope)
        if not payload:
            return Message("", b"", skip=True, left_out=chunk.readings)
        return Message(address, payload, content_type, properties=self.properties(chunk, envelope))

    @abstractmethod
    def properties(self, chunk: Chunk, envelope: Envelope) -> dict[str, str]:
        """What is said beside the payload."""

    def _address(self, lane: Lane, device: str) -> str:
        key = lane, device if self._layout.by_sample else ""
        address = self._addresses.get(key)
        if address is None:
            address = self._fill({**self._names, "lane": lane.value, "device": device})
            self._addresses[key] = address
        return address


def proof(chunk: Chunk, envelope: Envelope, gateway: str) -> dict[str, str]:
    """What edged's own layouts say in the payload."""
    known = {
        "gateway": gateway, "readings": str(chunk.readings),
        "epoch": envelope.epoch, "lane": str(Lane.HISTORICAL if chunk.replay else envelope.lane),
        "first": str(chunk.first), "seq": str(envelope.seq), "prev": str(envelope.prev), "flow": envelope.flow,
        "replay": "true" if chunk.replay else "",
    }  # fmt: skip
    return {name: text for name, text in known.items() if text}


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "zlib": zlib.compress, "gzip": _gzip}
