"""The serial medium on pseudo terminals and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.adapter import TransientError
from edged.media import LineSettings, Medium, PreciseTimer
from edged.testing.line import Burst, Line
from tests.wire.serial.rfc2217 import rfc2217_server


@asynccontextmanager
async def opened(port: str, **settings: Any) -> AsyncIterator[Medium]:
    medium = Medium(LineSettings(port=port, **settings), "line")
    try:
        await medium.open()
        yield medium
    finally:
        medium.close()


def shout(heard: bytes) -> list[Burst]:
    return [Burst(heard.upper(), 0.0)]


async def read(medium: Medium, count: int) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while len(data) < count:
            data += (await medium.read()).data
    return data


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"parity": "even"},
        {"bytesize": 7, "parity": "odd", "stopbits": 2},
        {"parity": "mark", "rts": True, "dtr": False},
        {"rs485": "rts", "rs485_before": 0.001, "rs485_after": 0.001},
        {"xonxoff": True},
    ],
)
async def test_bytes_go_and_come_whatever_the_framing(settings: dict[str, Any]) -> None:
    async with Line(shout, baudrate=19_200) as line:
        for _ in range(2):  # a pseudo terminal refuses a parity from the second time on
            async with opened(line.port, baudrate=19_200, **settings) as medium:
                await medium.send(b"hello")
                assert await read(medium, 5) == b"HELLO"


async def test_send_ends_when_the_last_bit_has_left() -> None:
    async with Line(shout) as line, opened(line.port, baudrate=1_200) as medium:
        began = time.monotonic()
        end = await medium.send(b"0123456789")
        assert time.monotonic() - began >= 10 * 10 / 1_200
        assert end - began == pytest.approx(10 * 10 / 1_200, abs=0.05)


async def test_frames_are_kept_with_direction_and_rising_times() -> None:
    async with Line(shout) as line, opened(line.port) as medium:
        for text in (b"one", b"two"):
            await medium.send(text)
            await read(medium, 3)
        frames = medium.ring.frames(gap_us=0)
        assert [(frame.direction, frame.data) for frame in frames] == [
            ("tx", b"one"),
            ("rx", b"ONE"),
            ("tx", b"two"),
            ("rx", b"TWO"),
        ]
        assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


_HOLD = "import serial, sys; port = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True); sys.stdin.read()"


async def test_port_in_use_says_by_whom() -> None:
    async with Line(shout) as line:
        pipe = asyncio.subprocess.PIPE
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _HOLD, line.port, stdin=pipe, stdout=pipe
        )  # fmt: skip
        try:
            assert other.stdout is not None
            await other.stdout.readline()
            with pytest.raises(TransientError, match=rf"in use by \S+ \(pid {other.pid}\)") as error:
                await Medium(LineSettings(port=line.port)).open()
            assert error.value.reason == "unreachable"
        finally:
            await other.communicate(b"")


async def test_no_permission_says_which_group() -> None:
    async with Line(shout) as line:
        Path(line.port).chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65_534)
        try:
            with pytest.raises(TransientError, match=r"no permission.*sudo usermod -aG \w+ \w+"):
                await Medium(LineSettings(port=line.port)).open()
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("path", ["/dev/null", "/etc/passwd"])
async def test_what_is_no_port_is_named(path: str) -> None:
    with pytest.raises(TransientError, match=f"{path} is not a serial port"):
        await Medium(LineSettings(port=path)).open()


async def test_kernel_rs485_that_the_driver_lacks_is_named() -> None:
    async with Line(shout) as line:
        with pytest.raises(TransientError, match="no RS-485 mode"):
            await Medium(LineSettings(port=line.port, rs485="kernel")).open()


async def test_unplugging_wakes_readers_and_the_same_medium_opens_again(tmp_path: Path) -> None:
    async with Line(shout, link=tmp_path / "port") as line, opened(line.port) as medium:
        for _ in range(3):
            reading = asyncio.create_task(medium.read())
            await asyncio.sleep(0.01)
            line.unplug()
            async with asyncio.timeout(5):
                assert "unplugged" in await medium.closed()
                with pytest.raises(TransientError, match="unplugged"):
                    await reading
            assert not medium.is_open
            with pytest.raises(TransientError):
                await medium.send(b"x")
            with pytest.raises(TransientError, match="there is no port"):
                await medium.open()
            line.plug()
            await medium.open()
            await medium.send(b"back")
            assert await read(medium, 4) == b"BACK"


async def test_echo_is_taken_out_and_what_only_looks_like_one_is_not() -> None:
    async with Line(lambda _: [Burst(b"answer", 0.0)]) as line, opened(line.port, echo=True) as medium:
        line.echo = True
        await medium.send(b"ask")
        assert await read(medium, 6) == b"answer"
        line.echo = False
        await medium.send(b"ant")
        assert await read(medium, 6) == b"answer"
        assert medium.echo_errors == 1


async def test_what_nobody_reads_is_bounded_and_counted() -> None:
    async with Line(lambda _: [Burst(bytes(3000), 0.0)]) as line, opened(line.port) as medium:
        for _ in range(30):
            await medium.send(b"x", wait=False)
            await asyncio.sleep(0.005)
        assert medium.dropped > 0
        assert len(medium.pending()) <= 65_536


async def test_serial_server_by_plain_tcp() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        number = server.sockets[0].getsockname()[1]
        async with opened(f"socket://127.0.0.1:{number}") as medium:
            await medium.send(b"hello")
            assert await read(medium, 5) == b"HELLO"
            await medium.send(b"bye", wait=False)
            async with asyncio.timeout(5):
                assert "closed the connection" in await medium.closed()


async def test_kernel_is_asked_to_give_up_a_serial_server_that_vanishes_without_a_word() -> None:
    """Within half a minute, with a request under way or without one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        async with opened(f"socket://127.0.0.1:{number}"):
            ours = _connection_to(number)
            options = {"TCP_USER_TIMEOUT": 25_000, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
            assert {name: ours.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options} == options
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            ours.close()


def _connection_to(port: int) -> socket.socket:
    """Ours to a port of this machine, as another descriptor."""
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if link.readlink().name.startswith("socket:"):
                one = socket.socket(fileno=os.dup(int(link.name)))
                if _peer(one) == port:
                    return one
                one.close()
    raise AssertionError(f"no connection to {port}")


def _peer(one: socket.socket) -> int:
    try:
        return int(one.getpeername()[1]) if one.family == socket.AF_INET else 0
    except OSError:
        return 0


async def test_serial_server_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for kind in ("socket", "rfc2217"):
            port = f"{kind}://127.0.0.1:{unused.getsockname()[1]}"
            with pytest.raises(TransientError, match=f"no connection to {port}.*is the serial server on"):
                await Medium(LineSettings(port=port)).open()


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial's
async def test_serial_server_by_rfc2217_gets_the_lines_settings() -> None:
    async with Line(shout) as line:
        with rfc2217_server(line.port) as (number, device):
            async with opened(f"rfc2217://127.0.0.1:{number}", baudrate=2_400) as medium:
                await medium.send(b"hello")
                assert await read(medium, 5) == b"HELLO"
                assert device.baudrate == 2_400
                medium.reconfigure(dataclasses.replace(medium.settings, baudrate=4_800))
                await medium.send(b"again")
                assert await read(medium, 5) == b"AGAIN"
                assert device.baudrate == 4_800
                assert medium.character == pytest.approx(10 / 4_800)


async def test_timer_is_never_early() -> None:
    timer = PreciseTimer()
    try:
        for i in range(200):
            when = time.monotonic() + i * 1e-5
            await timer.until(when)
            assert time.monotonic() >= when
    finally:
        timer.close()
