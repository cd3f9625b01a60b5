"""What a device writes into its registers is shown, and does nothing else to the terminal of whoever looks."""

from __future__ import annotations

import asyncio
import re
import struct
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import Gateway, running

HOSTILE = b"\x1b[2J\x1b]0;owned\x07\r\nfake line\x9b31m"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A Modbus TCP device whose registers spell `HOSTILE`."""
    while head := await reader.read(12):
        number, unit, function, start, count = struct.unpack(">H4xBBHH", head)
        data = HOSTILE.ljust(64, b"\0")[2 * start : 2 * (start + count)]
        writer.write(struct.pack(">HHHBBB", number, 0, len(data) + 3, unit, function, len(data)) + data)
    writer.close()


def config(port: int) -> dict[str, object]:
    name = {"holding": 0, "type": "string", "length": 20, "encoding": "latin-1"}
    return {
        "gateway": {"id": "t1"},
        "buses": {"plc": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": port}},
        "devices": {"sly": {"bus": "plc", "every": "100ms", "points": {"name": name}}},
    }


async def test_no_text_of_a_device_reaches_the_terminal_raw(tmp_path: Path) -> None:
    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        running(Gateway(tmp_path, config(server.sockets[0].getsockname()[1]))) as gateway,
    ):
        await gateway.until(lambda status: status["buffer"]["read"])
        for command in (
            ["tail", "--count", "1"],
            ["read", "sly"],
            ["explain", "sly/name"],
            ["twin"],
            ["top", "--once"],
        ):
            script = f"from edged.cli import main; main({[*command, '--socket', str(gateway.socket)]!r})"
            # a terminal is what escapes are for: into a pipe, some would be left out anyway
            ran = await asyncio.to_thread(
                subprocess.run, ["script", "-qec", f"{sys.executable} -c {script!r}", "/dev/null"],
                check=False, capture_output=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            out = re.sub(r"\x1b\[[0-9;]*[mK]", "", ran.stdout.decode())  # colours of our own
            assert "fake line" in out, command
            assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", out), (command, out)
            assert not re.search(r"^fake", out, re.MULTILINE), (command, out)
