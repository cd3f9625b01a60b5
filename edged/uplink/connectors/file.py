"""The connector `file`: readings as lines of JSON or CSV, in files that are exchanged by size and by day.

The files are described in docs/how-to/file.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from edged.buffer.batch import Batch
from edged.config.base import STRICT, ConnectionConfig
from edged.config.types import FileName, Size
from edged.uplink.api import Chunk, ConnectionContext, Encoder, Envelope, Link, Message, Pacing
from edged.uplink.dialects import csv
from edged.uplink.laidout import LaidOutConnection, Layout, proof

_MAX_READINGS = 5000
_WINDOW = 20
_RETRY = 10.0
_LARGEST = 2**30


@dataclass(frozen=True, kw_only=True)
class FileConnection(ConnectionConfig):
    """A file on this machine, for whoever fetches it: a script, a share, a data logger's owner."""

    __pydantic_config__: ClassVar = STRICT
    follows_devices: ClassVar[bool] = True
    LAYOUTS: ClassVar = ()
    """A file has one layout, whatever flows go into it."""

    path: FileName
    """The file that is written, such as `/var/lib/edged/export/readings.jsonl`. Finished ones are put beside it:
    `readings-000001-2026-11-21.jsonl.gz`."""
    layout: Literal["samples", "columns", "csv"] = "samples"
    """`samples`: a line of JSON for each sample of a device. `columns`: a line of JSON for many samples. `csv`: a line
    for each reading."""
    max_readings: int = 500
    """Up to how many readings go into one message, unless it is `layout: samples`."""
    max_size: Size = Size(16 * 1024 * 1024)
    """A file that would become larger is finished, and the next one begun."""
    daily: bool = True
    """At midnight, too, in the time zone of the site."""
    keep: int = 30
    """How many finished files are kept; the oldest are removed. 0 keeps all."""
    compress: bool = True
    """Compresses finished files (gzip)."""
    min_free: Size = Size(100 * 1000 * 1000)
    """Nothing is written while the disk has less room than this; the readings wait in the buffer. 0: until it is full.
    """

    def idle(self) -> Iterator[tuple[str, str]]:
        """See the base class."""
        if self.layout == "samples":
            yield "max_readings", "with `layout: samples` each sample is a message"
        yield from super().idle()

    def __post_init__(self) -> None:
        path = Path(self.path)
        if not path.suffix or path.suffix == ".gz" or self.path.endswith("/"):
            raise ValueError("`path` is a file with an ending, such as readings.jsonl or readings.csv")
        if not 1 <= self.max_readings <= _MAX_READINGS:
            raise ValueError(f"`max_readings` must lie between 1 and {_MAX_READINGS}")
        if not 64 * 1024 <= self.max_size <= _LARGEST:
            raise ValueError("`max_size` must lie between 64KiB and 1GiB: at a start the file is read once")
        if self.keep < 0:
            raise ValueError("`keep` cannot be negative; 0 keeps all files")


class FileEncoder:
    """Cuts batches into messages of whole lines."""

    def __init__(self, config: FileConnection, context: ConnectionContext) -> None:
        self._path = str(config.path)
        self._csv = config.layout == "csv"
        self._gateway = str(context.gateway.id)
        own: Literal["samples", "columns"] = "samples" if config.layout == "samples" else "columns"
        laid_out = LaidOutConnection(connector=config.connector, layout=own, max_readings=config.max_readings)
        self._layout = Layout(laid_out, context)

    def split(self, batch: Batch) -> Iterator[Chunk]:
        """See `Layout.split`."""
        return self._layout.split(batch)

    def encode(self, chunk: Chunk, envelope: Envelope) -> Message:
        """One message. Raises PermanentError if the chunk can never be encoded."""
        properties = proof(chunk, envelope, self._gateway)
        if not self._csv:
            payload, kind = self._layout.payload(chunk, envelope)
            return Message(self._path, payload + b"\n", kind, properties=properties)
        payload = csv.encode(chunk, envelope, self._gateway, self._layout.units())
        if not payload:
            return Message("", b"", skip=True, left_out=chunk.readings)
        return Message(self._path, payload, "text/csv", properties=properties)


class FileConnector:
    """Builds the parts of a `file` connection."""

    connection_config: type[ConnectionConfig] = FileConnection

    def encoder(self, config: FileConnection, context: ConnectionContext) -> Encoder:
        """The encoder of this connection."""
        return FileEncoder(config, context)

    def link(self, config: FileConnection, context: ConnectionContext) -> Link:
        """The link of this connection."""
        from edged.uplink.links.file import FileLink  # noqa: PLC0415  # only a forwarding daemon pays for it
        from edged.uplink.links.file_store import Target, read_csv, read_json  # noqa: PLC0415  # likewise

        in_csv, zone = config.layout == "csv", ZoneInfo(context.gateway.site.timezone)
        target = Target(
            path=Path(config.path), head=csv.HEAD if in_csv else b"", read=read_csv if in_csv else read_json,
            max_size=config.max_size, daily=config.daily, keep=config.keep, compress=config.compress,
            min_free=config.min_free, zone=zone, window=_WINDOW,
        )  # fmt: skip
        return FileLink(context.name, target, Pacing(strict=True, retry_max=_RETRY))


CONNECTOR = FileConnector()
