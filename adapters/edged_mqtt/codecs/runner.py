"""Runs codecs in a process of its own, which is started when it is needed and again when it had to be ended.

One process serves all codecs of a bus: an idle one costs 9 MiB, and a request takes it for a millisecond, or for a
second at most. Requests go to it one at a time, each with a number, so an answer belongs to nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from edged.adapter import ConfigError

from .script import Script, find

__all__ = ["CodecError", "Output", "Runner", "Script", "find"]

SECONDS = 0.25
"""CPU time for one run. Published codecs need some milliseconds."""
_WALL = 5.0
"""Seconds after which a process that does not answer is ended, whatever it does: a busy machine is no hostile one."""
_LARGEST = 1 << 20
"""Bytes of an answer: 64 Ki characters are at most four times as many bytes, and something is wrong beyond that."""
_FATAL = frozenset({"timeout", "memory", "size"})
_CHILD = Path(__file__).with_name("child.py")


class CodecError(Exception):
    """A run that yielded nothing. `fatal`: not because of what the device sent, but of what the script did."""

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


@dataclass(frozen=True, slots=True)
class Output:
    """What a function of a codec returned (TS013-1.0.0)."""

    data: Any = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    frame: bytes | None = None
    """Of `encodeDownlink`: the bytes to send."""
    port: int | None = None

    @classmethod
    def parse(cls, text: bytes) -> Output:
        """From its JSON. Raises CodecError if it is none of the specified form."""
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise CodecError("what it returns is no proper JSON: half a character, or nested too deeply") from exc
        if not isinstance(found, dict):
            raise CodecError("does not return an object with `data`")
        errors, warnings = _texts(found.get("errors")), _texts(found.get("warnings"))
        frame, port = found.get("bytes"), found.get("fPort")
        if frame is not None:
            try:
                frame = bytes(frame if isinstance(frame, list) else list(frame.values()))
            except (AttributeError, TypeError, ValueError) as exc:
                raise CodecError("returns `bytes` that are no numbers from 0 to 255") from exc
        if port is not None and (not isinstance(port, int) or not 0 <= port <= 255):  # noqa: PLR2004  # an FPort is one byte
            raise CodecError(f"returns the `fPort` {port!r}")
        if not errors and found.get("data") is None and frame is None:
            raise CodecError("returns neither `data` nor `errors`")
        return cls(found.get("data"), errors, warnings, frame, port)


def _texts(found: Any) -> tuple[str, ...]:
    """`errors` and `warnings` are lists of texts; a text alone is understood, too."""
    if not found:
        return ()
    return tuple(str(one)[:300] for one in (found[:10] if isinstance(found, list) else [found]))


def engine_folder() -> str:
    """Where QuickJS is installed. Raises ConfigError."""
    spec = importlib.util.find_spec("_quickjs")
    if spec is None or spec.origin is None:
        raise ConfigError("a codec needs the Python package quickjs-ng: pip install 'edged[codecs]'")
    return str(Path(spec.origin).parent)


@dataclass(slots=True)
class Runner:
    """The process, and the way to it. Closed, it can be used again."""

    folder: str = field(default_factory=engine_folder)
    seconds: float = SECONDS
    wall: float = _WALL
    program: Path = _CHILD
    starts: int = 0
    """How many processes there have been."""
    _process: asyncio.subprocess.Process | None = None
    _loaded: dict[int, int] = field(default_factory=dict)
    """Script → version, that the process has."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _number: int = 0

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    async def run(self, script: Script, function: str, argument: Any) -> Output:
        """What a function returns. Raises CodecError, ConfigError."""
        script.refresh()
        async with self._turn:
            return Output.parse(await self._run(script, function, orjson.dumps(argument)))

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._end()

    async def _run(self, script: Script, function: str, argument: bytes) -> bytes:
        healthy = False
        try:
            async with asyncio.timeout(self.wall):
                process = self._process or await self._start()
                if self._loaded.get(script.number) != script.version:
                    await self._exchange(process, f"load {script.number}", script.source.encode())
                    self._loaded[script.number] = script.version
                kind, text = await self._exchange(process, f"run {script.number} {function}", argument)
                if kind == "unknown":  # so many scripts that it forgot this one
                    self._loaded.clear()
                    await self._exchange(process, f"load {script.number}", script.source.encode())
                    kind, text = await self._exchange(process, f"run {script.number} {function}", argument)
            healthy = True
        except TimeoutError as exc:
            raise CodecError(f"did not answer within {self.wall:g} s and was ended", fatal=True) from exc
        except (OSError, EOFError, ValueError) as exc:
            raise CodecError(await self._why(), fatal=True) from exc
        finally:
            if not healthy:  # a late answer must never be taken for the next one
                await asyncio.shield(self._end())
        if kind == "ok":
            return text
        raise CodecError(text.decode("utf-8", "replace"), fatal=kind in _FATAL)

    async def _start(self) -> asyncio.subprocess.Process:
        """A new process, without our environment, in which secrets may be, and without our terminal."""
        self._loaded.clear()
        self.starts += 1
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-B", str(self.program), self.folder, str(self.seconds),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=kept, cwd="/", start_new_session=True,
        )  # fmt: skip
        return self._process

    async def _exchange(self, process: asyncio.subprocess.Process, what: str, body: bytes) -> tuple[str, bytes]:
        """One request and its answer. Raises OSError, EOFError, ValueError."""
        if process.stdin is None or process.stdout is None:
            raise EOFError
        self._number += 1
        request = f"{self._number} {what}\n".encode() + body
        process.stdin.write(struct.pack(">I", len(request)) + request)
        await process.stdin.drain()
        (length,) = struct.unpack(">I", await process.stdout.readexactly(4))
        if length > _LARGEST:
            raise ValueError("too long")
        line, _, text = (await process.stdout.readexactly(length)).partition(b"\n")
        number, _, kind = line.decode("ascii").partition(" ")
        if number != str(self._number):
            raise ValueError("the answer to something else")
        return kind, text

    async def _why(self) -> str:
        process = self._process
        if process is None:
            return "could not be started"
        try:
            async with asyncio.timeout(1):
                code = await process.wait()
        except TimeoutError:
            return "answered something that is no answer"
        if code == -signal.SIGPROF:
            return "ran too long and was stopped"
        return f"ended the process that runs it ({code})"

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._loaded.clear()
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        while process.stdout is not None and await process.stdout.read(1 << 16):
            pass  # its end is noticed only when all that it said was read
        await process.wait()
