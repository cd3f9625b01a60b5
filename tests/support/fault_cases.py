"""What can happen to a gateway: each case puts its fault in and says when it was over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from io import FileIO
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edged.cli import client
from edged.uplink.api import Verdict
from edged.uplink.links.reasons import PUBACK
from tests.support.fakeclock import LIBRARY, MISSING
from tests.support.fault_damages import DAMAGES
from tests.support.faultbench import SOAK, Bench, Case, mount_ext4, seconds, unmount

_CUT_PATIENCE = 20.0
_ENDS = ("dport", "sport")
NFT = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
_UP = 0.9
"""How often a kill waits until the gateway answers, which takes seconds where many start at a time."""
_FULL = 0.5
"""Seconds after which another write onto a full disk is tried."""


async def _broker_stopped(bench: Bench) -> None:
    bench.broker.stop()
    await asyncio.sleep(seconds(60, 4))
    bench.broker.start()
    bench.over()


async def _link_refused(bench: Bench) -> None:
    await bench.proxy.refuse()
    await asyncio.sleep(seconds(60, 4))
    await bench.proxy.restore()
    bench.over()


async def _silent(how_long: float, bench: Bench) -> None:
    bench.proxy.blackhole()
    await asyncio.sleep(how_long)
    await bench.proxy.restore()
    bench.over()


async def _held(bench: Bench) -> None:
    before = bench.proxy.accepted
    bench.proxy.hold()
    await asyncio.sleep(seconds(8, 3))
    await bench.proxy.restore()
    bench.over()
    await bench.arrives()
    assert bench.proxy.accepted == before, "the session should have survived"


async def _resets(limits: list[dict[str, int]], bench: Bench) -> None:
    """Cut each session after so many bytes, whatever packet that is in."""
    for limit in limits:
        bench.proxy.reset()  # so that the count begins with CONNECT
        bench.proxy.reset_after(**limit)
        before = bench.proxy.resets
        async with asyncio.timeout(_CUT_PATIENCE):
            while bench.proxy.resets == before:
                await asyncio.sleep(0.02)
        bench.over()


async def _session_dropped(bench: Bench) -> None:
    """Another client takes the client id, with a clean start: the broker forgets the session and ends it."""
    for _ in range(int(seconds(10, 2))):
        thief = paho.Client(CallbackAPIVersion.VERSION2, client_id="edged-plant-7-cloud", clean_session=True)
        thief.connect("127.0.0.1", bench.broker.port)
        thief.loop_start()
        await asyncio.sleep(0.05)
        thief.disconnect()
        thief.loop_stop()
        bench.over()
        await bench.arrives()


async def _slow(delay: float, bench: Bench) -> None:
    bench.proxy.delay = delay
    await asyncio.sleep(seconds(60, 8))
    bench.over()


async def _lossy(bench: Bench) -> None:
    """One packet in a hundred is dropped, each way, also while a backlog drains."""
    port = bench.proxy.port
    rules = "".join(f"add rule inet f i tcp {end} {port} numgen random mod 100 < 1 counter drop\n" for end in _ENDS)
    chain = "add table inet f\nadd chain inet f i { type filter hook input priority 0 ; }\n"
    await asyncio.to_thread(_nft, "-f", "-", text=chain + rules)
    for _ in range(int(seconds(5, 1))):
        bench.broker.stop()
        await asyncio.sleep(seconds(10, 2))
        bench.broker.start()
        bench.over()
        await bench.arrives()
        await bench.delivered()
        await asyncio.sleep(seconds(10, 2))
    listing = await asyncio.to_thread(_nft, "list", "chain", "inet", "f", "i")
    dropped = [int(words.split()[0]) for words in listing.split("counter packets ")[1:]]
    await asyncio.to_thread(_nft, "flush", "ruleset")
    assert min(dropped) > 0, "no packet was lost"


def _nft(*arguments: str, text: str = "") -> str:
    done = subprocess.run([NFT, *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout


async def _refused(codes: list[int], bench: Bench) -> None:
    """The broker refuses a few messages with each code. Dead letters are sent again afterwards, as a person would."""
    for code in codes:
        bench.refuser.codes = [code] * int(seconds(5, 1))
        async with asyncio.timeout(_CUT_PATIENCE * seconds(5, 1)):
            while bench.refuser.codes:
                await asyncio.sleep(0.02)
        bench.over()
    await bench.arrives()
    await asyncio.sleep(2)  # until the last dead letter is booked
    retry = "/v1/buffer/retry?connection=cloud"
    await asyncio.to_thread(client.call, bench.gateway.socket, retry, method="POST")
    await bench.delivered()


async def _limits(bench: Bench) -> None:
    """What the broker allows is little; there is a backlog, too."""
    bench.broker.stop()
    await asyncio.sleep(seconds(20, 3))
    bench.broker.start()
    bench.over()
    await bench.arrives()
    await bench.delivered()
    state = (await bench.gateway.status())["connections"]["cloud"]
    assert state["window"] == 2, state  # as the case tells the broker


async def _clock_steps(steps: tuple[float, ...], bench: Bench) -> None:
    """The wall clock is set, by so many seconds off the real time each; the broker is away when it is."""
    for seconds_off in steps:
        await asyncio.sleep(seconds(10, 2))
        await bench.proxy.refuse()
        await asyncio.sleep(seconds(5, 1))
        bench.clock.shift(seconds_off)
        await asyncio.sleep(seconds(5, 1))
        await bench.proxy.restore()
        bench.over()
        await bench.arrives()
        await bench.delivered()


async def _stopped_process(bench: Bench) -> None:
    os.kill(bench.gateway.pid, signal.SIGSTOP)
    await asyncio.sleep(seconds(30, 5))
    os.kill(bench.gateway.pid, signal.SIGCONT)
    bench.over()


async def _restarted(bench: Bench) -> None:
    moments = random.Random(1)
    for _ in range(int(seconds(10, 2))):
        await bench.kill(signal.SIGTERM)
        await bench.gateway.status()
        await asyncio.sleep(moments.uniform(0.5, 1.5))


async def _killed(times: int, seed: int, bench: Bench) -> None:
    """Mostly while it runs, sometimes while it starts."""
    moments = random.Random(seed)
    for _ in range(times):
        if moments.random() < _UP:
            await bench.gateway.status()
        await asyncio.sleep(moments.uniform(0, 3))
        await bench.kill(signal.SIGKILL)


_ROWS = 8
"""One a second: so many seconds may the receiver be behind on a busy machine."""


async def _disk_full(cut_off: bool, bench: Bench) -> None:
    """Something else fills the disk to the last byte, and keeps it full.

    The buffer's file then stays as large as it is: what it has room for is what a slow receiver may be behind.
    """
    await bench.gateway.until(lambda status: status["buffer"]["rows"] >= _ROWS)
    if cut_off:
        await bench.proxy.refuse()
    filler = bench.folder / "disk" / "filler"
    for _ in range(int(seconds(3, 1))):
        with filler.open("ab", buffering=0) as file:
            for _ in range(int(seconds(20, 5) / _FULL)):
                _fill(file)
                assert os.statvfs(filler).f_bavail == 0
                await asyncio.sleep(_FULL)
        if cut_off:
            assert (await bench.gateway.status())["buffer"]["alarm"] == "failing"
            await bench.proxy.restore()
        filler.unlink()
        bench.over()
        await bench.delivered()


def _fill(file: FileIO) -> None:
    """Up to the last byte that the disk takes."""
    for size in (65_536, 512):
        with contextlib.suppress(OSError):
            while file.write(bytes(size)):
                pass


async def _read_only(error: str, bench: Bench) -> None:
    """Every write of the daemon fails, as on a disk that the kernel has remounted read-only."""
    calls = "pwrite64,ftruncate,fdatasync,fsync"
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-p", str(bench.gateway.pid), "-e", f"trace={calls}", "-e",
        f"inject={calls}:error={error}", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_CUT_PATIENCE):
            while (await bench.gateway.status())["buffer"]["alarm"] != "failing":
                assert tracer.returncode is None, "strace cannot attach"
                await asyncio.sleep(0.2)
        await asyncio.sleep(seconds(30, 4))
    finally:
        tracer.terminate()
        await tracer.wait()
    bench.over()


async def _error_on_disk(bench: Bench) -> None:
    """The kernel finds an error in the file system and makes it read-only; a person has it checked and mounted again.

    Real, as far as that goes: `mount -o remount,ro` refuses while a file is open for writing.
    """
    disk = bench.folder / "disk"
    await asyncio.to_thread(_make_read_only, disk)
    await bench.gateway.until(lambda status: status["buffer"]["alarm"] == "failing", _CUT_PATIENCE)
    await asyncio.sleep(seconds(30, 4))
    await asyncio.to_thread(_checked_and_mounted, disk)
    bench.over()
    await bench.delivered()
    assert not (await bench.gateway.status())["buffer"]["alarm"]


def _make_read_only(disk: Path) -> None:
    found = subprocess.run(["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True, check=True)
    Path(f"/sys/fs/ext4/{Path(found.stdout.strip()).name}/trigger_fs_error").write_text("a test")
    with pytest.raises(OSError, match="Read-only"):
        (disk / "probe").touch()


def _checked_and_mounted(disk: Path) -> None:
    unmount(disk)
    image = disk.with_suffix(".img")
    # Another file: the kernel gives the same one back as it is, as long as the daemon has it open.
    shutil.copy(image, image.with_suffix(".copy"))
    image.with_suffix(".copy").replace(image)
    check = subprocess.run(["e2fsck", "-fy", image], capture_output=True, text=True, check=False)
    assert check.returncode in (0, 1), check.stdout
    mount_ext4(disk)


async def _read_only_at_start(bench: Bench) -> None:
    """The machine comes up again with its disk mounted read-only."""
    await bench.gateway.stop(signal.SIGKILL)
    bench.kills += 1
    await asyncio.to_thread(_remount, bench.folder / "disk", "ro")
    await bench.gateway.start()
    async with asyncio.timeout(_CUT_PATIENCE):
        while "Read-only file system; trying again" not in bench.gateway.lines():
            assert not bench.gateway.ended, bench.gateway.lines()
            await asyncio.sleep(0.1)
    await asyncio.sleep(seconds(30, 2))
    await asyncio.to_thread(_remount, bench.folder / "disk", "rw")
    bench.over()
    await bench.delivered()


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


async def _damaged(names: list[str], bench: Bench) -> None:
    path = bench.folder / "disk" / "buffer.db"
    for name in names:
        await bench.proxy.refuse()
        await asyncio.sleep(seconds(30, 2.5))
        await bench.gateway.stop(signal.SIGKILL)
        bench.kills += 1
        DAMAGES[name](path)
        await bench.gateway.start()
        await bench.gateway.status()
        await bench.proxy.restore()
        bench.over()
        await bench.arrives()
        await bench.delivered()


def _up(*sizes: int) -> list[dict[str, int]]:
    return [{"up": size} for size in sizes]


def _down(*sizes: int) -> list[dict[str, int]]:
    return [{"down": size} for size in sizes]


_QUICK = {"retry_max": "200ms"}
_IMPATIENT = {"keepalive": "2s", "ack_timeout": "3s"}
_CONNECT = _up(1, 2, 20, 100, 200, 250, 300) + _down(1, 2, 4, 8)
_PUBLISH = _up(400, 500, 1_000, 3_000, 6_000, 10_000, 20_000, 33_333, 50_000)
_ACK = _down(12, 13, 14, 16, 17, 19, 22, 25, 30)
_MORE = random.Random(7)
_FAILING = [code for code, (verdict, *_) in PUBACK.items() if verdict is not Verdict.DELIVERED]
_LITTLE = ("max_inflight_messages 2", "max_packet_size 4000")

CASES = [
    Case(f"broker stopped for {seconds(60, 4):.0f} s", _broker_stopped, persistent=True),
    Case(f"link refused for {seconds(60, 4):.0f} s", _link_refused),
    Case(
        f"link silent for {seconds(60, 8):.0f} s, longer than keepalive", partial(_silent, seconds(60, 8)), _IMPATIENT
    ),
    Case(f"link silent for {seconds(8, 3):.0f} s, shorter than keepalive: bytes lost", partial(_silent, seconds(8, 3))),
    Case(f"link silent for {seconds(8, 3):.0f} s, shorter than keepalive: bytes late", _held),
    Case("reset in CONNECT or CONNACK", partial(_resets, _CONNECT), _QUICK),
    Case(
        "reset in PUBLISH",
        partial(_resets, _PUBLISH + _up(*(_MORE.randrange(300, 60_000) for _ in range(60 * SOAK)))),
        _QUICK,
    ),
    Case(
        "reset in PUBACK", partial(_resets, _ACK + _down(*(_MORE.randrange(12, 80) for _ in range(30 * SOAK)))), _QUICK
    ),
    Case("broker drops the session", _session_dropped),
    Case("50 ms each way", partial(_slow, 0.05)),
    Case("800 ms each way", partial(_slow, 0.8)),
    *([Case("1 % of the packets lost", _lossy, alone=True, persistent=True)] if SOAK else []),
    Case("refused with each code of a PUBACK, sent again", partial(_refused, _FAILING), _QUICK, refuses=True),
    Case("broker takes two messages at a time, of 4 kB", _limits, broker=_LITTLE, persistent=True),
    Case("clock set forward by an hour, and back", partial(_clock_steps, (3600, 0)), shift=0),
    Case("clock set back by an hour, and forward", partial(_clock_steps, (-3600, 0)), shift=0),
    Case("clock begins in 1970, and is set", partial(_clock_steps, (0,)), shift=60 - time.time()),
    Case(f"process stopped (SIGSTOP) for {seconds(30, 5):.0f} s", _stopped_process, _IMPATIENT),
    Case("stop and start (SIGTERM)", _restarted),
    *(
        Case(
            f"kill -9 at {seconds(50, 3):.0f} random moments, {i + 1}",
            partial(_killed, int(seconds(50, 3)), i),
        )
        for i in range(4 if SOAK else 1)
    ),
    *(
        Case(
            f"buffer damaged after a kill -9: {', '.join(names)}",
            partial(_damaged, names),
            damage=True,
            traceless="deleted with all beside it" in names,
        )
        for names in ([[name] for name in DAMAGES] if SOAK else [list(DAMAGES)[:3]])
    ),
    Case("disk full, and free again", partial(_disk_full, False), buffer={"max_bytes": "8MiB"}, disk="24m"),
    Case(
        "disk full and broker away", partial(_disk_full, True), buffer={"max_bytes": "8MiB", "min_free": 0}, disk="24m"
    ),
    *(Case(f"every write fails ({error}), and works again", partial(_read_only, error)) for error in ("EROFS", "EIO")),
    Case("disk read-only at the start (mount -o remount,ro), and writable again", _read_only_at_start, disk="24m"),
    Case("disk made read-only by its kernel, checked, mounted again", _error_on_disk, disk="32m", ext4=True),
]
"""All of them."""


def impossible(case: Case) -> str:
    """Why the case cannot be run here; empty if it can."""
    if case.shift is not None and not LIBRARY:
        return MISSING
    if case.alone and (os.geteuid() != 0 or not NFT):
        return "needs root, and nft: sudo apt install nftables"
    if case.disk and os.geteuid() != 0:
        return "needs root to mount a small disk"
    if case.ext4 and not (shutil.which("mkfs.ext4") and Path("/dev/loop-control").exists()):
        return "needs loop devices, and mkfs.ext4: sudo apt install e2fsprogs"
    if isinstance(case.act, partial) and case.act.func is _read_only and not shutil.which("strace"):
        return "needs strace"
    return ""
