"""What the daemon tells systemd, from its start to its end, while devices are dead and the broker cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.gateway import Gateway, running

CONFIG = {
    "gateway": {"id": "plant-7"},
    "buses": {
        "dead": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": 1},
        "line": {"adapter": "modbus-rtu", "port": "/dev/does-not-exist"},
    },
    "devices": {
        "one": {"bus": "dead", "unit": 1, "every": "100ms", "points": {"p": {"holding": 0}}},
        "two": {"bus": "line", "unit": 1, "every": "100ms", "points": {"p": {"holding": 0}}},
    },
    "connections": {"cloud": {"connector": "mqtt", "url": "mqtt://127.0.0.1:2"}},
}


class Systemd:
    """The other end of sd_notify."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.said: list[str] = []

    async def until(self, pattern: str) -> re.Match[str]:
        """Read on until a message matches."""
        async with asyncio.timeout(30):
            while True:
                self.said.append((await asyncio.get_running_loop().sock_recv(self._end, 4096)).decode())
                if match := re.search(pattern, self.said[-1], re.MULTILINE):
                    return match


@asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[tuple[Gateway, Systemd]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(folder / "notify"))
        end.setblocking(False)
        prefix = ("env", f"NOTIFY_SOCKET={folder / 'notify'}", "WATCHDOG_USEC=300000")
        async with running(Gateway(folder / "gateway", CONFIG, prefix=prefix)) as gateway:
            yield gateway, Systemd(end)


async def test_its_words_to_systemd_come_in_the_order_that_systemd_wants(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (gateway, systemd):
        await systemd.until("^EXTEND_TIMEOUT_USEC=[0-9]{7,}$")
        assert not any("READY" in word for word in systemd.said), "the buffer is not open yet"
        await systemd.until("^READY=1$")
        os.kill(gateway.pid, signal.SIGHUP)
        reloading = await systemd.until("^RELOADING=1\nMONOTONIC_USEC=([0-9]+)$")
        assert int(reloading[1]) > 0
        await systemd.until("^READY=1$")
        assert await gateway.stop() == 0
        await systemd.until("^STOPPING=1$")
        await asyncio.sleep(0)
        assert "READY" not in systemd.said[-1]


async def test_dead_devices_and_an_unreachable_broker_never_stop_the_feeding_and_a_stopped_process_does(
    tmp_path: Path,
) -> None:
    async with supervised(tmp_path) as (gateway, systemd):
        await systemd.until("^READY=1$")
        for _ in range(10):
            await systemd.until("^WATCHDOG=1$")
        status = await gateway.status()
        assert status["stalled"] == []
        assert {bus["health"] for bus in status["buses"]} == {"down"}
        os.kill(gateway.pid, signal.SIGSTOP)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await systemd.until("^never$")  # whatever was on its way
        count = len(systemd.said)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await systemd.until("^never$")
        assert len(systemd.said) == count, "a process that stands still says nothing"
        os.kill(gateway.pid, signal.SIGCONT)
        await systemd.until("^WATCHDOG=1$")
