"""The real daemon in a process of its own, with a configuration made by the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edged.cli import NoDaemonError, client


class Gateway:
    """`edged run` on a folder. JSON is YAML, so the configuration is written as JSON."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        prefix: tuple[str, ...] = (),
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.config = folder / "edged.yaml"
        self.socket = folder / "edged.sock"
        self.log = folder / "log.txt"
        self._prefix = prefix
        self._process: asyncio.subprocess.Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(json.dumps(config))
        for name, profile in (profiles or {}).items():
            (folder / "profiles").mkdir(exist_ok=True)
            (folder / "profiles" / f"{name}.yaml").write_text(json.dumps({"profile": name, **profile}))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether its process has ended by itself, or was made to."""
        return self._process is not None and self._process.returncode is not None

    async def start(self) -> None:
        """Start the daemon; returns at once."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._prefix, sys.executable, "-m", "edged", "run", str(self.config),
                "--state", str(self.folder / "state"), "--socket", str(self.socket),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONWARNINGS": "error"},
            )  # fmt: skip

    async def stop(self, number: int = signal.SIGTERM, *, timeout: float = 20) -> int:  # noqa: ASYNC109  # one wait only
        """End it with a signal; returns its exit code (0 when it already ended well)."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(timeout):
            return await self._process.wait()

    async def status(self) -> dict[str, Any]:
        """What it says of itself, waiting until it answers."""
        async with asyncio.timeout(60):
            while True:
                try:
                    record: dict[str, Any] = await asyncio.to_thread(client.call, self.socket, "/v1/status")
                except NoDaemonError:
                    assert self._process is not None
                    assert self._process.returncode is None, self.lines()
                    await asyncio.sleep(0.05)
                else:
                    return record

    async def until(self, wanted: Callable[[dict[str, Any]], object], seconds: float = 30) -> dict[str, Any]:
        """The status, as soon as it is so. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not wanted(status := await self.status()):
                await asyncio.sleep(0.05)
            return status

    def lines(self) -> str:
        """Its log so far."""
        return self.log.read_text() if self.log.exists() else ""


@asynccontextmanager
async def running(gateway: Gateway, *, patience: float = 20) -> AsyncIterator[Gateway]:
    """Start it, and end it whatever happens, within so many seconds."""
    await gateway.start()
    try:
        yield gateway
    finally:
        try:
            await gateway.stop(timeout=patience)
        except TimeoutError:
            await gateway.stop(signal.SIGKILL)
            raise
