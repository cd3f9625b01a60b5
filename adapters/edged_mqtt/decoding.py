"""Codecs of the devices of a bus: which script, how it did lately, and what came of a frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edged.adapter import ConfigError, PermanentError

from .codecs.runner import CodecError, Output, Runner, Script, find
from .config import MqttDevice

STRIKES = 3
"""After so many runs in a row that had to be stopped a codec is left alone for a while."""
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0


@dataclass(slots=True)
class Suspension:
    """Whether a codec may run for a device. Pure: `now` in seconds on any clock that does not go back."""

    strikes: int = 0
    pause: float = 0.0
    until: float = 0.0

    def left(self, now: float) -> float:
        """Seconds for which it may not."""
        return max(0.0, self.until - now)

    def stopped(self, now: float) -> bool:
        """A run had to be stopped; True if that suspends it from now on."""
        self.strikes += 1
        if self.strikes < STRIKES:
            return False
        self.pause = min(max(2 * self.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self.until = now + self.pause
        return True

    def ran(self) -> None:
        """A run came to its end."""
        self.strikes, self.pause, self.until = 0, 0.0, 0.0


@dataclass(slots=True)
class _Codec:
    script: Script
    suspension: Suspension = field(default_factory=Suspension)


class Codecs:
    """The codecs of a bus, and the process that runs them."""

    def __init__(self, devices: Mapping[str, MqttDevice]) -> None:
        """Raises ConfigError for one that is not there, or without the package that runs them."""
        self._scripts: dict[str, Script] = {}
        self._codecs: dict[str, _Codec] = {}
        self._variables = {name: device.variables for name, device in devices.items()}
        for name, device in devices.items():
            if device.codec.startswith("/"):  # without a folder nobody knows where it would be
                self._codecs[name] = _Codec(self._script(device.codec))
        self.runner = Runner() if self._codecs else None

    def _script(self, name: Any) -> Script:
        file = find(name)
        return self._scripts.setdefault(str(file), Script(file, len(self._scripts)))

    async def decode(self, device: str, frame: bytes, port: int | None, received: int) -> Output:
        """`decodeUplink`. `received`: microseconds since the epoch. Raises CodecError."""
        moment = datetime.fromtimestamp(received / 1e6, UTC).isoformat(timespec="milliseconds")
        given = {
            "bytes": list(frame),
            "fPort": 0 if port is None else port,
            "recvTime": moment.replace("+00:00", "Z"),
            "variables": self._variables[device],
        }
        return await self._run(device, "decodeUplink", given)

    async def encode(self, device: str, data: Any) -> Output:
        """`encodeDownlink`. Raises PermanentError."""
        given = {"data": data, "variables": self._variables[device]}
        try:
            output = await self._run(device, "encodeDownlink", given)
        except CodecError as exc:
            raise PermanentError(f"the codec of {device} cannot encode it: it {exc}", reason="range") from exc
        if output.errors:
            raise PermanentError(f"the codec of {device} refuses it: {output.errors[0]}", reason="range")
        if output.frame is None:
            raise PermanentError(f"the codec of {device} returns no bytes for it", reason="range")
        return output

    async def _run(self, device: str, function: str, given: Mapping[str, Any]) -> Output:
        codec = self._codecs[device]
        now = time.monotonic()
        left = codec.suspension.left(now)
        if self.runner is None or left:
            raise CodecError(f"is left alone for {left:.0f} s after it had to be stopped several times")
        try:
            output = await self.runner.run(codec.script, function, given)
        except ConfigError as exc:
            raise CodecError(str(exc)) from exc
        except CodecError as exc:
            if not exc.fatal:
                codec.suspension.ran()
            elif codec.suspension.stopped(time.monotonic()):
                raise CodecError(f"{exc}, several times: it is left alone for {codec.suspension.pause:.0f} s") from exc
            raise
        codec.suspension.ran()
        return output

    def name(self, device: str) -> str:
        """The file, for people."""
        return self._codecs[device].script.name

    async def close(self) -> None:
        """End the process."""
        if self.runner is not None:
            await asyncio.shield(self.runner.close())
