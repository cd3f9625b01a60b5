"""What shows and what diagnoses: trace, explain, top, tail and doctor, on a real gateway with a bad line."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mosquitto import free_port
from tests.support.secrets import found, written

EDGED = [sys.executable, "-m", "edged"]
SECRETS = {
    "literal": "Liter@l/geheim+1",
    "file": "aus der Datei 22",
    "environment": "umgebung%33&x",
    "url": "url-passwort-44",
    "credential": "credential=55==",
}
CONFIG = """
gateway: {{id: plant-7}}
buses:
  line-a: {{adapter: modbus-rtu, port: {folder}/ttyA, baudrate: 19200}}
  plc: {{adapter: modbus-tcp, host: 127.0.0.1, port: {plc}}}
  demo: {{adapter: sim}}
devices:
  meter-1: {{bus: line-a, unit: 12, profile: eastron-sdm120, timeout: 150ms, labels: {{room: plant}}}}
  chiller:
    bus: plc
    unit: 1
    every: 200ms
    labels: {{room: roof}}
    points:
      supply: {{holding: 100, type: float32, order: CDAB, unit: °C, range: [-40, 120], deadband: 0.1}}
      level: {{holding: 110, type: int16, scale: 0.1, offset: 5, unit: "%"}}
connections:
  cloud: {{connector: mqtt, url: "mqtt://127.0.0.1:{broker}", username: plant-7, password: "{literal}"}}
  second: {{connector: mqtt, url: "mqtt://127.0.0.1:{broker}", username: b, password: !secret file}}
  third: {{connector: mqtt, url: "mqtt://127.0.0.1:{broker}", username: c, password: !secret environment}}
"""


@contextmanager
def process(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([*EDGED, *command], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def telltale_broker() -> Iterator[int]:
    """A broker that refuses everybody, and says in its answer what it was sent."""
    words = " ".join(SECRETS.values()) + " " + base64.b64encode(b"u:" + SECRETS["literal"].encode()).decode()
    text = struct.pack(">BH", 0x1F, len(words.encode())) + words.encode()
    size = 2 + _digits(len(text)).__len__() + len(text)
    answer = b"\x20" + _digits(size) + b"\x00\x86" + _digits(len(text)) + text
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(4096)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _digits(number: int) -> bytes:
    return bytes((number & 0x7F | 0x80, number >> 7)) if number > 127 else bytes((number,))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A gateway that polls a noisy serial line and a good network, and cannot log in anywhere."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        broker = stack.enter_context(telltale_broker())
        text = CONFIG.format(folder=folder, plc=free_port(), broker=broker, literal=SECRETS["literal"])
        config = folder / "edged.yaml"
        config.write_text(text)
        (folder / "secrets.env").write_text(f"file={SECRETS['file']}\n")
        (folder / "secrets.env").chmod(0o600)
        credentials, tools = folder / "credentials", folder / "bin"
        credentials.mkdir()
        (credentials / "other").write_text(SECRETS["credential"])
        tools.mkdir()
        (tools / "journalctl").write_text(f"#!/bin/sh\ncat {folder}/journal\n")
        (tools / "journalctl").chmod(0o755)
        forms = [form for secret in SECRETS.values() for form in written(secret)]
        (folder / "journal").write_text("\n".join(forms) + f"\nmqtt://u:{SECRETS['url']}@host\n")
        env = {
            **os.environ,
            "EDGED_SOCKET": str(folder / "sock"),
            "EDGED_SECRET_ENVIRONMENT": SECRETS["environment"],
            "UPSTREAM": f"mqtt://u:{SECRETS['url']}@host",
            "CREDENTIALS_DIRECTORY": str(credentials),
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TZ": "UTC",
        }
        state = ["--state", str(folder / "state")]
        stack.enter_context(process("simulate", str(config), "--fault", "line-a=corrupted:40%", *state, env=env))
        while not (folder / "ttyA").exists():
            time.sleep(0.05)
        stack.enter_context(process("run", str(config), *state, env=env))
        found = {"folder": folder, "config": str(config), "env": env, "state": state}
        until(found, lambda record: record["buses"][0]["transactions"] > 20)  # enough to judge the line by
        yield found


def until(site: dict[str, Any], enough: Any) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        done = run(site, "top", "--once", "--json", ok=(0, 3))
        if done.returncode == 0 and enough(json.loads(done.stdout)):
            return
        time.sleep(0.2)
    raise AssertionError("the gateway does not come up")


def run(site: dict[str, Any], *command: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*EDGED, *command], env=site["env"], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode in ok, done.stderr
    return done


def test_trace_explains_serial_frames_and_names_what_is_wrong(site: dict[str, Any]) -> None:
    text = run(site, "trace", "line-a", ok=(1,)).stdout
    assert "unit 12   read input" in text
    assert "(CRC ok)" in text
    assert "as long as it should be, checksum wrong" in text
    fields = run(site, "trace", "line-a", "--fields", "-n", "4", ok=(0, 1)).stdout
    assert "function     04" in fields
    assert "→" not in run(site, "trace", "line-a", "--errors", ok=(1,)).stdout


def test_trace_explains_a_network_bus_too(site: dict[str, Any]) -> None:
    records = [json.loads(line) for line in run(site, "trace", "plc", "--json", ok=(0, 1)).stdout.splitlines()]
    assert {record["kind"] for record in records} <= {"request", "answer", "refusal"}  # a gap between the two points
    assert [field["name"] for field in records[0]["fields"]][:4] == ["transaction", "protocol", "length", "unit"]


def test_a_saved_trace_shows_the_same_without_a_gateway(site: dict[str, Any]) -> None:
    file = site["folder"] / "bad.jsonl"
    live = run(site, "trace", "line-a", "--save", str(file), "--json", ok=(1,)).stdout
    again = run({"env": {**site["env"], "EDGED_SOCKET": "/nowhere"}}, "trace", "--replay", str(file), "--json", ok=(1,))
    shown = [(one["kind"], one["data"], one["time"]) for one in map(json.loads, again.stdout.splitlines())]
    assert shown == [(one["kind"], one["data"], one["time"]) for one in map(json.loads, live.splitlines())]
    judged = run(site, "doctor", site["config"], "--offline", "--trace", str(file), "--json", ok=(0, 1))
    lines = [one for one in json.loads(judged.stdout)["checks"] if one["name"] == "line line-a"]
    assert [one["state"] for one in lines] == ["problem"]
    assert "noise" in lines[0]["evidence"]


def test_trace_follows(site: dict[str, Any]) -> None:
    began = time.time() + 2
    command = [*EDGED, "trace", "plc", "--follow", "--json"]
    with subprocess.Popen(command, env=site["env"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        times: list[int] = []
        while not times or times[-1] < began * 1e6:
            times.append(json.loads(child.stdout.readline())["time"])
        child.terminate()
    assert times == sorted(times)


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["trace"], 2, "name a bus"),
    (["trace", "nobody"], 2, "there is no bus 'nobody'; there are: line-a, plc, demo"),
    (["explain", "chiller"], 2, "write DEVICE/POINT"),
    (["explain", "chiller/nothing"], 2, "chiller has no point 'nothing'; there are: level, supply"),
    (["read", "chilller"], 2, "there is no device 'chilller'; did you mean 'chiller'?"),
    (["twin", "chilller"], 2, "there is no device 'chilller'; did you mean 'chiller'?"),
    (["tail", "--label", "room"], 2, "write KEY=VALUE"),
    (["tail", "chilller"], 2, "the gateway polls no device 'chilller'; did you mean 'chiller'?"),
])  # fmt: skip
def test_mistakes_are_told_in_a_line(site: dict[str, Any], arguments: list[str], code: int, words: str) -> None:
    done = run(site, *arguments, ok=(code,))
    assert words in done.stdout + done.stderr


def test_explain_tells_each_step(site: dict[str, Any]) -> None:
    record = json.loads(run(site, "explain", "chiller/supply", "--json", ok=(0, 1)).stdout)
    steps = {step["name"]: step["result"] for step in record["steps"]}
    first, second = steps["registers"].split()
    assert steps["order"].replace(" ", "") == second + first
    (decoded,) = struct.unpack(">f", bytes.fromhex(second + first))
    assert float(steps["decoded"]) == decoded
    assert record["stored"]["seq"] > 0
    assert record["connections"]["cloud"] == "waiting"
    record = json.loads(run(site, "explain", "chiller/level", "--json").stdout)
    steps = {step["name"]: step["result"] for step in record["steps"]}
    assert float(steps["scale"]) == int(steps["decoded"]) / 10
    assert record["value"] == pytest.approx(float(steps["scale"]) + 5)
    assert "level" in run(site, "explain", "chiller/level").stdout


def test_tail_by_label_and_point_with_curves(site: dict[str, Any]) -> None:
    lines = run(site, "tail", "*/supply", "--label", "room=roof", "--spark", "-n", "3").stdout.splitlines()
    assert len(lines) == 3
    assert all(" chiller " in line and "level" not in line for line in lines)
    assert lines[-1][-1] in "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize(
    ("columns", "words"),
    [(80, ("supply=", "NOT connected", "oldest", "MiB")), (44, ("NOT connected", "supply", "MiB"))],
)
def test_top_fits_the_terminal(site: dict[str, Any], columns: int, words: Sequence[str]) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**site["env"], "TERM": "xterm", "COLUMNS": "", "LINES": ""}
    env.pop("COLUMNS"), env.pop("LINES")
    child = subprocess.Popen([*EDGED, "top", "--once"], env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:
            break
    assert child.wait(20) == 0
    os.close(master)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).splitlines()
    assert max(map(len, plain)) <= columns
    assert len(plain) <= 24
    text = "\n".join(plain)
    assert all(word in text for word in ("line-a", "plc", "meter-1", "chiller", *words)), text


def test_doctor_finds_the_noise_and_the_refused_login(site: dict[str, Any]) -> None:
    record = json.loads(run(site, "doctor", site["config"], *site["state"], "--json", ok=(1,)).stdout)
    checks = {check["name"]: check for check in record["checks"]}
    assert checks["line line-a"]["state"] == "problem"
    assert "noise" in checks["line line-a"]["evidence"]
    assert checks["line plc"]["state"] == "ok"
    assert checks["login cloud"]["state"] == "problem"
    assert "refused user name or password" in checks["login cloud"]["evidence"]
    assert "0x86" in checks["login cloud"]["evidence"]
    assert all(check["remedy"] for check in record["checks"] if check["state"] in {"problem", "warning"})


def test_the_archive_holds_no_secret(site: dict[str, Any]) -> None:
    target = site["folder"] / "support.tar.gz"
    run(site, "doctor", site["config"], *site["state"], "--bundle", "--output", str(target), ok=(1,))
    assert target.stat().st_mode & 0o077 == 0
    with tarfile.open(target) as archive:
        files = {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]  # files
            for member in archive.getmembers()
        }
    assert {
        "version.txt",
        "checks.json",
        "status.json",
        "journal.txt",
        "config/edged.yaml",
        "trace/line-a.jsonl",
    } <= set(files)
    kept = list((Path(site["state"][1]) / "history").iterdir())
    assert kept  # each with the files as they were written, passwords included: not one of them goes along
    assert not [name for name in files if "history" in name or name.endswith(kept[0].name)]
    assert "eastron-sdm120" in files["config/edged.yaml"]
    assert "the broker" not in files["version.txt"]
    everything = "\n".join(files.values())
    for name, secret in SECRETS.items():
        assert not found(secret, everything), name


def test_doctor_works_without_a_gateway_and_with_a_broken_configuration(tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text(
        "gateway: {id: g}\nbuses: {b: {adapter: modbus-rtu, prot: x, password: hunter22}}\nconnections: [\n"
    )
    site = {"env": {**os.environ, "EDGED_SOCKET": str(tmp_path / "none")}}
    target = tmp_path / "b.tar.gz"
    done = run(
        site, "doctor", str(config), "--json", "--bundle", "--output", str(target), "--root", str(tmp_path), ok=(1,)
    )
    checks = {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert (checks["configuration"], checks["gateway"], checks["disk"]) == ("problem", "n/a", "ok")
    with tarfile.open(target) as archive:
        names = [member.name for member in archive.getmembers()]
        assert all(b"hunter22" not in archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]  # files


def test_doctor_judges_the_configuration_that_the_gateway_runs(site: dict[str, Any]) -> None:
    done = run(site, "doctor", "--offline", *site["state"], ok=(0, 1))
    assert f"{site['config']}:" in done.stdout.splitlines()[0]
    assert re.search(r"\d+ ok, .*\d+ warnings", done.stdout.splitlines()[-1])


def test_doctor_listens_itself_where_no_gateway_runs(tmp_path: Path) -> None:
    config = tmp_path / "edged.yaml"
    config.write_text(json.dumps({
        "gateway": {"id": "g"},
        "buses": {"line-a": {"adapter": "modbus-rtu", "port": str(tmp_path / "tty"), "baudrate": 19200}},
        "devices": {"m": {"bus": "line-a", "unit": 3, "timeout": "100ms", "points": {"a": {"holding": 0}}}},
    }))  # fmt: skip
    env = {**os.environ, "EDGED_SOCKET": str(tmp_path / "none")}
    with process("simulate", str(config), "--fault", "line-a=dead", "--state", str(tmp_path), env=env):
        while not (tmp_path / "tty").exists():
            time.sleep(0.05)
        done = run({"env": env}, "doctor", str(config), "--json", "--listen", "2", ok=(1,))
    lines = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "line line-a"]
    assert "nobody answers at all" in lines[0]["evidence"]
