"""A gateway whose configuration is changed while it runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.gateway import Gateway


@dataclass
class Reloading:
    """It, and what a technician says to it."""

    gateway: Gateway

    async def edged(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; returns exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edged", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def reload(self, *options: str, watch: str = "2s") -> tuple[int, list[dict[str, Any]]]:
        """`edged reload --json`: its exit code and events."""
        socket_option = ["--socket", str(self.gateway.socket)]
        code, out, err = await self.edged("reload", *socket_option, "--json", "--watch", watch, *options)
        assert out, err
        return code, [json.loads(line) for line in out.splitlines()]

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status, as soon as it is so."""
        return await self.gateway.until(wanted)

    async def settled(self) -> dict[str, Any]:
        """The status, as soon as the configuration of the start is known to be good."""
        return await self.until(lambda status: status["config"]["watching"] == 0 and bool(status["config"]["entry"]))


def device(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for bus in status["buses"] for one in bus["devices"] if one["device"] == name)
    return found
