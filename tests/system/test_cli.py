"""The commands as a technician types them, in a shell, against a gateway that runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from edged.cli import COMMANDS
from tests.support.gateway import Gateway, running
from tests.support.mosquitto import free_port

SIM: dict[str, Any] = {
    "gateway": {"id": "t1"},
    "buffer": {"flush": "100ms"},
    "buses": {"lab": {"adapter": "sim"}},
    "devices": {
        "oven": {
            "bus": "lab",
            "every": "100ms",
            "points": {"temperature": {"low": 20, "high": 180, "unit": "°C"}, "steady": {"range": [200, 300]}},
        },
        "other": {"bus": "lab", "points": {"x": {}}},
    },
}


@dataclass
class Ran:
    code: int
    out: str
    err: str


async def edged(*arguments: str | Path, interrupt_after: float | None = None, **environ: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "error", "EDGED_CONFIG": "/nonexistent/edged.yaml", **environ},
        # A shell that runs the tests in the background makes them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    if interrupt_after is not None:
        await asyncio.sleep(interrupt_after)
        process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def ran_well(*command: str | Path) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(Gateway(tmp_path / "gateway", SIM)) as one:
        await one.status()
        yield one


async def test_help_names_every_command_in_its_own_words() -> None:
    ran = await edged("--help")
    assert ran.code == 0
    for name, (place, text) in COMMANDS.items():
        assert f"{name}  " in ran.out
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute or name)
        assert command.get_short_help_str(limit=200).rstrip(".") == text.rstrip(".")
        assert (await edged(name, "--help")).code == 0


async def test_a_typo_in_a_command_is_answered_with_the_right_one() -> None:
    ran = await edged("statsu")
    assert ran.code == 2
    assert "Did you mean 'status'?" in ran.err


async def test_the_log_counts_what_is_polled(gateway: Gateway) -> None:
    await gateway.status()
    assert re.search(r"polls \d+ points of 2 devices on 1 bus and forwards to nobody", gateway.lines())


async def test_status_for_people_and_for_machines(gateway: Gateway) -> None:
    ran = await edged("status", "--socket", gateway.socket)
    assert ran.code == 0
    assert "gateway t1" in ran.out
    assert re.search(r"bus lab \(sim\): ok, .* transactions", ran.out)
    assert re.search(r"  oven: ok, \d+ polls, 0 failures", ran.out)
    ran = await edged("status", "--socket", gateway.socket, "--json")
    assert json.loads(ran.out)["buses"][0]["devices"][0]["device"] == "oven"


async def test_status_without_a_gateway_says_what_to_do(tmp_path: Path) -> None:
    ran = await edged("status", "--socket", tmp_path / "none")
    assert ran.code == 3
    assert "is the service running? (systemctl status edged)" in ran.err
    assert "Traceback" not in ran.err


async def test_tail_shows_readings_as_they_come(gateway: Gateway) -> None:
    ran = await edged("tail", "--socket", gateway.socket, "-n", "3", "oven/temperature")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  oven  temperature=[\d.]+", line) for line in lines)
    ran = await edged("tail", "--socket", gateway.socket, "-n", "1", "--json", "oven")
    assert set(json.loads(ran.out)["values"]) <= {"temperature", "steady"}


async def test_tail_says_from_which_devices_nothing_will_come(tmp_path: Path) -> None:
    silent = {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": free_port()}
    devices = {**SIM["devices"], "pump": {"bus": "far", "points": {"x": {"holding": 1}}}}
    config = {**SIM, "buses": {**SIM["buses"], "far": silent}, "devices": devices}
    async with running(Gateway(tmp_path, config)) as gateway:
        await gateway.until(lambda status: status["buses"][1]["devices"][0]["health"] == "down")
        ran = await edged("tail", "--count", "1", "--socket", gateway.socket)
        assert f"edged: pump is down: 127.0.0.1:{silent['port']} refuses the connection" in ran.err
        assert "oven" not in ran.err
        ran = await edged("tail", "oven", "--count", "1", "--socket", gateway.socket)
        assert (ran.code, ran.err) == (0, "")


async def test_tail_ends_with_ctrl_c(gateway: Gateway) -> None:
    ran = await edged("tail", "--socket", gateway.socket, interrupt_after=1.5)
    assert "Traceback" not in ran.err
    assert ran.code == 130


async def test_read_asks_the_gateway_and_tells_what_is_bad(gateway: Gateway) -> None:
    ran = await edged("read", "oven", "--socket", gateway.socket)
    assert ran.code == 1, "a value is out of its range"
    assert re.search(r"  temperature  [\d.]+ °C", ran.out)
    assert re.search(r"  steady +- +bad\(range\)", ran.out)
    ran = await edged("read", "other", "--socket", gateway.socket)
    assert ran.code == 0
    ran = await edged("read", "nobody", "--socket", gateway.socket)
    assert ran.code == 2
    assert "there is no device 'nobody'" in ran.err


async def test_read_opens_the_bus_itself_without_a_gateway(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, SIM)
    arguments: list[str | Path] = ["--socket", gateway.socket, "--config", gateway.config]
    arguments += ["--state", tmp_path / "state"]
    ran = await edged("read", "other", *arguments, "--json")
    assert ran.code == 0, ran.err
    assert "x" in json.loads(ran.out)[0]["samples"][0]["values"]
    ran = await edged("read", "othr", *arguments)
    assert ran.code == 2
    assert "the configuration has: other, oven" in ran.err


async def test_run_refuses_a_broken_configuration_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "edged.yaml"
    file.write_text("gateway: {id: x}\nbuses:\n  lab: {adaptor: sim}\n")
    ran = await edged("run", file, "--state", tmp_path / "state", "--socket", tmp_path / "s")
    assert ran.code == 2
    assert f"{file}:3:" in ran.err
    assert "adapter" in ran.err
    assert "Traceback" not in ran.err


async def test_run_says_when_there_is_no_configuration(tmp_path: Path) -> None:
    ran = await edged("run", "--state", tmp_path / "state")
    assert ran.code == 2
    assert "/nonexistent/edged.yaml" in ran.err


async def test_a_second_gateway_on_the_same_state_is_refused(gateway: Gateway) -> None:
    state = gateway.folder / "state"
    ran = await edged("run", gateway.config, "--state", state, "--socket", gateway.folder / "other")
    assert ran.code == 2
    assert str(gateway.pid) in ran.err


async def test_a_start_that_was_refused_is_not_taken_for_a_crash(gateway: Gateway, tmp_path: Path) -> None:
    """Here it is refused at its last step: the socket belongs to a gateway that runs."""
    state: list[str | Path] = ["--state", tmp_path / "second"]
    for _ in range(2):
        ran = await edged("run", gateway.config, *state, "--socket", gateway.socket)
        assert ran.code == 2
        assert "another edged already answers" in ran.err
        assert "ended badly" not in ran.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_makes_what_was_read_durable(tmp_path: Path, number: signal.Signals) -> None:
    config = {**SIM, "buffer": {"flush": "60s"}}
    gateway = Gateway(tmp_path, config)
    async with running(gateway):
        await gateway.until(lambda status: status["buffer"]["waiting"] >= 5)
        assert await gateway.stop(number) == 0
        await gateway.start()
        assert (await gateway.status())["buffer"]["readings"] >= 5


async def test_sighup_reloads_and_does_not_end_it(gateway: Gateway) -> None:
    os.kill(gateway.pid, signal.SIGHUP)
    while "reload: nothing to change" not in gateway.lines() and "has been watched" not in gateway.lines():
        await asyncio.sleep(0.05)
    assert (await gateway.status())["gateway"] == "t1"


async def test_simulated_devices_answer_a_gateway_with_the_same_file(tmp_path: Path) -> None:
    from edged.cli.demo import free_port  # noqa: PLC0415  # only this test needs a port before anybody listens

    points = {"level": {"holding": 3, "type": "float32", "range": [0, 10]}, "pump": {"coil": 0}}
    config = {
        "gateway": {"id": "t2"},
        "buses": {"plc": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": free_port()}},
        "devices": {"tank": {"bus": "plc", "points": points}},
    }
    gateway = Gateway(tmp_path, config)
    state: list[str | Path] = ["--state", tmp_path / "state"]
    simulating = asyncio.create_task(edged("simulate", gateway.config, *state, "--for", "6s"))
    async with asyncio.timeout(20):
        while True:
            ran = await edged("read", "tank", "--direct", "--config", gateway.config, *state)
            if ran.code == 0:
                break
            assert "refuses the connection" in ran.err
    assert re.search(r"holding 3-4\n +3  [0-9A-F]{4}  [0-9A-F]{4}", ran.out)
    assert re.search(r"  level +[\d.]+\n", ran.out)
    assert re.search(r"  pump +(True|False)\n", ran.out)
    ended = await simulating
    assert ended.code == 0
    assert "plc: 127.0.0.1:" in ended.out
    ran = await edged("read", "tank", "--direct", "--config", gateway.config, *state)
    assert ran.code == 1
    assert "refuses the connection" in ran.err


async def test_a_full_disk_at_the_start_is_waited_for(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not ran_well("mount", "-t", "tmpfs", "-o", "size=64k", "none", disk):
        pytest.skip("only root may mount a small disk to fill")
    filler = disk / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        gateway = Gateway(tmp_path / "gateway", {**SIM, "buffer": {"path": str(disk / "buffer.db")}})
        async with running(gateway):
            while "trying again every 5 s" not in gateway.lines():
                await asyncio.sleep(0.05)
            assert ran_well("mount", "-o", "remount,size=32m", disk)
            assert (await gateway.status())["gateway"] == "t1"
    finally:
        assert ran_well("umount", "-l", disk)


@pytest.mark.timeout(240)
async def test_a_simulated_serial_line_goes_wrong_as_told(tmp_path: Path) -> None:
    port = tmp_path / "line"
    config = {
        "gateway": {"id": "t3"},
        "buses": {"line-a": {"adapter": "modbus-rtu", "port": str(port), "baudrate": 19200}, "lab": {"adapter": "sim"}},
        "devices": {
            "meter": {"bus": "line-a", "timeout": "1s", "retries": 0, "points": {"a": {"holding": 0}}},
        },
    }
    gateway = Gateway(tmp_path / "gateway", config)
    state: list[str | Path] = ["--state", tmp_path / "state"]
    serve = ["simulate", gateway.config, *state, "--unpaced"]

    async def read(fault: str, seconds: int = 4) -> Ran:
        serving = asyncio.create_task(edged(*serve, "--for", f"{seconds}s", "--fault", f"line-a={fault}"))
        while not port.exists() and not serving.done():
            await asyncio.sleep(0.02)
        ran = await edged("read", "meter", "--direct", "--config", gateway.config, *state)
        in_time = not serving.done()
        assert (served := await serving).code == 0, served.err
        return ran if in_time else await read(fault, 3 * seconds)

    for fault, code, words in (("echo", 0, "  a  "), ("dead", 1, "no answer"), ("corrupted", 1, "")):
        ran = await read(fault)
        assert (fault, ran.code) == (fault, code), ran.out + ran.err
        assert words in ran.out + ran.err
    for wrong, words in (
        ("line=echo", "there is no bus 'line'"),
        ("line-a=bogus", "the faults are noise-before"),
        ("line-a=dead:200%", "a share is written 5%"),
    ):
        ran = await edged("simulate", gateway.config, *state, "--fault", wrong)
        assert ran.code == 2
        assert words in ran.err
