"""What the file of a running gateway says, and what runs: broken, rolled back, remembered."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.gateway import Gateway, running
from tests.support.reloading import Reloading, device

if TYPE_CHECKING:
    import pytest

SIM = """\
gateway: {id: lab}
buses: {lab: {adapter: sim}}
control: {watch: 1s}
devices:
  oven: {bus: lab, every: 200ms, points: {temperature: {high: 180}}}
"""


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Reloading]:
    """A gateway without hardware and without connections, whose configuration is good."""
    gateway = Gateway(folder / "gateway", {})
    gateway.config.write_text(SIM)
    async with running(gateway):
        one = Reloading(gateway)
        await one.settled()
        yield one


async def test_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        before = await one.gateway.status()
        good = one.gateway.config.read_text()
        one.gateway.config.write_text(good.replace("high:", "hihg:"))
        code, out, err = await one.edged("reload", "--socket", str(one.gateway.socket))
        assert (code, out) == (2, "")
        assert "edged.yaml:5:" in err
        assert "did you mean `high`?" in err
        assert "nothing was changed" in err
        code, _, err = await one.edged("reload", "--dry-run", "--socket", str(one.gateway.socket))
        assert (code, "did you mean `high`?" in err) == (1, True)
        status = await one.gateway.status()
        assert device(status, "oven")["since"] == device(before, "oven")["since"]
        assert "the last reload failed" in status["config"]["problem"]
        one.gateway.config.write_text(good)
        assert await one.reload() == (0, [
            {"event": "diff", "changes": [], "lines": [], "restart_needed": []}, {"event": "unchanged"},
        ])  # fmt: skip
        assert (await one.gateway.status())["config"]["problem"] == ""


async def test_what_only_a_restart_applies_is_named(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        text = one.gateway.config.read_text() + "buffer: {flush: 2s, max_bytes: 4MiB}\nclock: {untrusted: hold}\n"
        one.gateway.config.write_text(text)
        named = ["buffer.flush", "buffer.max_bytes", "clock.untrusted"]
        code, out, _ = await one.edged("reload", "--socket", str(one.gateway.socket), "--dry-run")
        assert (code, out.splitlines()[0]) == (0, "  buffer: flush 1s → 2s, max_bytes 268435456 → 4194304")
        code, events = await one.reload("--no-wait")
        assert (code, events[0]["restart_needed"], events[-1]["event"]) == (0, named, "applied")
        assert (await one.gateway.status())["config"]["restart_needed"] == named
        # ... and still is after a later change was rolled back
        link = '{connector: mqtt, url: "mqtt://127.0.0.1:1", username: a, password: !secret nowhere}'
        await one.until(lambda status: status["config"]["watching"] == 0)
        one.gateway.config.write_text(text + f"connections: {{x: {link}}}\n")
        code, events = await one.reload(watch="20s")
        assert (code, events[-1]["event"]) == (1, "rolled-back")
        assert (await one.gateway.status())["config"]["restart_needed"] == named


async def test_systemd_hears_of_the_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with lab(tmp_path) as one:
            while True:  # what the start said
                try:
                    listener.recv(4096)
                except BlockingIOError:
                    break
            one.gateway.config.write_text(one.gateway.config.read_text().replace("180", "190"))
            os.kill(one.gateway.pid, signal.SIGHUP)
            loop = asyncio.get_running_loop()
            first = (await asyncio.wait_for(loop.sock_recv(listener, 4096), 20)).decode().splitlines()
            second = (await asyncio.wait_for(loop.sock_recv(listener, 4096), 20)).decode().splitlines()
            assert first[0] == "RELOADING=1"
            assert first[1].removeprefix("MONOTONIC_USEC=").isdecimal()
            assert second[0] == "READY=1"
            status = await one.until(lambda status: status["config"]["watching"] == 0)
            assert status["config"]["entry"] == 2
            assert "point oven/temperature: high 180" in one.gateway.lines()


async def test_the_last_good_configuration_starts_when_the_file_is_broken(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        good = one.gateway.config.read_text()
        assert await one.gateway.stop() == 0
        one.gateway.config.write_text(good + "nonsense: 1\n")
        code, _, err = await one.edged(
            "run", str(one.gateway.config), "--state", str(one.gateway.folder / "state"), "--strict"
        )
        assert (code, "unknown section `nonsense`" in err) == (2, True)
        await one.gateway.start()
        status = await one.gateway.status()
        assert (status["config"]["running"], status["config"]["entry"]) == ("last-good", 1)
        assert "has errors" in status["config"]["problem"]
        assert "NOT running what" in one.gateway.lines()
        await one.until(lambda status: device(status, "oven")["health"] == "ok")
        one.gateway.config.write_text(good)
        assert (await one.reload())[0] == 0
        assert (await one.gateway.status())["config"]["running"] == "file"


async def test_starts_that_cut_the_trial_short_do_not_fill_the_history(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", {})
    gateway.config.write_text(SIM.replace("watch: 1s", "watch: 1h"))
    for _ in range(3):
        async with running(gateway):
            status = await gateway.until(lambda status: status["config"]["entry"] is not None)
            assert status["config"]["entry"] == 1
            assert status["config"]["watching"] > 0
        assert [path.name for path in (gateway.folder / "state/history").iterdir()] == ["000001.json"]


async def test_history_diff_and_rollback_by_commands(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        state = ["--state", str(one.gateway.folder / "state")]
        good = one.gateway.config.read_text()
        (one.gateway.folder / "conf.d").mkdir()
        extra = one.gateway.folder / "conf.d" / "kiln.yaml"
        extra.write_text("devices: {kiln: {bus: lab, points: {temperature: {}}}}\n")
        one.gateway.config.write_text(good.replace("high: 180", "high: 200, unit: °C"))
        words = ["device kiln: added", "point oven/temperature: unit unset → °C, high 180.0 → 200.0"]
        assert (await one.edged("config", "diff", *state))[:2] == (0, "\n".join([words[1], words[0], ""]))
        assert (await one.reload(watch="1s"))[0] == 0
        code, out, _ = await one.edged("config", "history", "--json", *state)
        assert code == 0
        assert [(entry["number"], entry["result"]) for entry in json.loads(out)] == [(1, "good"), (2, "good")]
        code, out, _ = await one.edged("config", "diff", "1", "2", "--text", *state)
        assert "-  oven: {bus: lab, every: 200ms, points: {temperature: {high: 180}}}" in out
        assert "+devices: {kiln:" in out
        code, _, err = await one.edged("config", "rollback", "1", *state, "--socket", str(one.gateway.socket))
        assert (code, "--yes" in err) == (2, True)
        code, out, _ = await one.edged(
            "config", "rollback", "1", "--yes", "--json", *state, "--socket", str(one.gateway.socket)
        )
        record = json.loads(out)
        assert (code, record["number"], record["reload"]["event"]) == (0, 1, "good")
        assert one.gateway.config.read_text() == good
        assert not extra.exists()
        status = await one.gateway.status()
        assert [one["device"] for bus in status["buses"] for one in bus["devices"]] == ["oven"]
        code, out, _ = await one.edged("config", "history", *state)
        assert [line.split()[2] for line in out.splitlines() if line[:4].strip()] == [
            "good", "good", "set-aside", "good",
        ]  # fmt: skip
        folder = one.gateway.folder / "state/history"
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
