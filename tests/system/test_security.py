"""What the daemon shows of itself to others: files, sockets, ports, and what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from edged.cli import client
from edged.errors import EdgedError
from tests.support.gateway import Gateway, running
from tests.support.httpserver import Answer, HttpServer, Taken
from tests.support.mosquitto import Mosquitto, password_file
from tests.support.secrets import found, written
from tests.support.subscriber import subscribed

SECRETS = {
    "literal": "in the YAML=1",
    "named": "in secrets.env/2",
    "credential": "in a cred&ntial 3",
    "long": "far too long for MQTT 4" + "!" * 70_000,
}
ROUTES = ("/v1/status", "/v1/top", "/v1/twin", "/v1/commands", "/v1/reload", "/v1/buffer/stats", "/v1/buffer/letters")


def config(port: int) -> dict[str, Any]:
    link = {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{port}"}
    return {
        "gateway": {"id": "plant-7"},
        "buses": {"demo": {"adapter": "sim"}},
        "devices": {
            "tank": {
                "bus": "demo", "every": "100ms", "points": {"level": {"waveform": "sine"}, "valve": {"writable": True}},
            }
        },
        "connections": {
            "good": {**link, "username": "plant-7", "password": SECRETS["literal"]},
            "wrong": {**link, "username": "plant-7", "password": "!secret named"},
            "absent": {**link, "username": "nobody", "password": "!secret credential"},
            "broken": {**link, "username": "plant-7", "password": "!secret long"},
        },
    }  # fmt: skip


def plant(folder: Path, port: int) -> Gateway:
    """A gateway with secrets of every kind, some of which are refused."""
    gateway = Gateway(folder, {}, prefix=("sh", "-c", 'umask 0; exec "$@"', "sh"))
    text = re.sub(r'"(!secret \w+)"', r"\1", json.dumps(config(port)))
    gateway.config.write_text(text)
    (folder / "secrets.env").write_text(f"named={SECRETS['named']}\nlong={SECRETS['long']}\n")
    (folder / "secrets.env").chmod(0o600)
    (folder / "credentials").mkdir()
    (folder / "credentials/credential").write_text(SECRETS["credential"])
    return gateway


@asynccontextmanager
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Gateway, Mosquitto]]:
    """It runs, and has been asked for everything that makes it write a file."""
    users = password_file(tmp_path / "users", **{"plant-7": SECRETS["literal"]})
    users.chmod(0o644)
    with Mosquitto(tmp_path / "broker", options=[f"password_file {users}"], anonymous=False) as broker:
        gateway = plant(tmp_path / "gateway", broker.port)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(gateway.folder / "credentials"))
        async with running(gateway):
            await gateway.until(
                lambda status: (
                    status["connections"]["good"]["connected"]
                    and all(status["connections"][name]["last_error"] for name in ("wrong", "absent", "broken"))
                ),
                40,
            )
            gateway.config.write_text(gateway.config.read_text().replace('"100ms"', '"150ms"'))
            await asyncio.to_thread(edged, gateway, "reload", "--no-wait")
            await asyncio.to_thread(edged, gateway, "write", "tank/valve", "1")
            yield gateway, broker


def edged(gateway: Gateway, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edged", *command], check=False, capture_output=True, text=True, timeout=50,
        env={**os.environ, "EDGED_SOCKET": str(gateway.socket)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout + done.stderr


# -- files -------------------------------------------------------------------------------------------------------------


def exposed(folder: Path) -> Iterator[str]:
    """Files that others than owner and group may touch, or that the group may change; sockets belong to the group."""
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        allowed = 0o660 if stat.S_ISSOCK(mode) else 0o750 if stat.S_ISDIR(mode) else 0o640
        if not stat.S_ISLNK(mode) and mode & 0o777 & ~allowed:
            yield f"{path.relative_to(folder)}: {stat.filemode(mode)}"


@pytest.mark.parametrize("umask", ["0", "0777"])
async def test_what_it_writes_is_for_its_user_and_its_group_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    gateway = Gateway(tmp_path / "gateway", {}, prefix=("sh", "-c", f'umask {umask}; exec "$@"', "sh"))
    with Mosquitto(tmp_path / "broker") as broker:
        plain = config(broker.port)
        plain["connections"] = {"good": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}"}}
        gateway.config.write_text(json.dumps(plain))
        gateway.config.chmod(0o644)
        own = set(gateway.folder.iterdir())
        async with running(gateway):
            await gateway.until(lambda status: status["buffer"]["readings"], 40)
            gateway.config.write_text(json.dumps(plain).replace('"100ms"', '"150ms"'))
            await asyncio.to_thread(edged, gateway, "reload", "--no-wait")
            await asyncio.to_thread(edged, gateway, "write", "tank/valve", "1")
            await asyncio.to_thread(edged, gateway, "buffer", "repair")
            while_it_runs = [*exposed(gateway.folder)]
            kinds = {path.name.partition("-")[0] for path in gateway.folder.rglob("*")}
    names = {path.name for path in own} | {"log.txt"}
    assert not [line for line in [*while_it_runs, *exposed(gateway.folder)] if line.partition(":")[0] not in names]
    assert {"buffer.db", "commands.db", "edged.sock", "history", "cache"} <= kinds


# -- ports -------------------------------------------------------------------------------------------------------------


def listening(pid: int) -> list[str]:
    """The sockets of a process that anyone on the network could speak to: listening TCP, bound UDP and raw ones."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        target = str(handle.readlink()) if handle.is_symlink() else ""
        if match := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(match[1])
    found_ones = []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or not table.startswith("tcp")):
                found_ones.append(f"{table} {fields[1]}")
    return found_ones


async def test_no_port_is_open_and_no_secret_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path, monkeypatch) as (gateway, broker):
        assert listening(gateway.pid) == []
        with subscribed(broker.port, "#", login=("plant-7", SECRETS["literal"])) as subscriber:
            said = {route: await asyncio.to_thread(answer, gateway, route) for route in ROUTES}
            bundle = tmp_path / "bundle.tar"
            edged_said = await asyncio.to_thread(
                edged, gateway, "doctor", str(gateway.config), "--state", str(gateway.folder / "state"), "--bundle",
                "--output", str(bundle),
            )  # fmt: skip
            process = Path(f"/proc/{gateway.pid}")
            said |= {
                "ps": (process / "cmdline").read_text(),
                "environment": (process / "environ").read_text(),
                "doctor": edged_said,
                "status": await asyncio.to_thread(edged, gateway, "status"),
                "reload": await asyncio.to_thread(edged, gateway, "reload", "--dry-run"),
                "retained messages": "".join(str(message) for message in subscriber.messages),
            }
        os.kill(gateway.pid, 6)  # the watchdog's way: every thread's stack
        assert await gateway.stop() != 0
    said["log"] = gateway.lines()
    with closing(sqlite3.connect(gateway.folder / "state/buffer.db")) as db:
        said["buffer"] = "\n".join(db.iterdump())
    for path in (gateway.folder / "state").rglob("*"):
        if path.is_file() and "history" not in path.parts:
            said[str(path)] = path.read_bytes().decode("latin-1")
    leaks = [
        (where, name, found(secret, text))
        for where, text in said.items()
        for name, secret in SECRETS.items()
        if found(secret, text)
    ]
    assert not leaks
    assert "not connected" in said["log"], "the refusals were told, without what was refused"


HTTP_SECRETS = {
    "bearer": "a bearer's 1", "basic": "of Basic/2", "hmac": "signs & signs 3", "header": "X-Api-Key 4",
    "appkey": "the app-key 5", "azure": "dGhlIHNoYXJlZCBrZXkgNg==", "lora": "of an adapter 7",
    "tag": "00112233445566778899aabbccddeeff", "query": "of a function 8", "tb": "a ThingsBoard token 9",
}  # fmt: skip


def every_kind(http: int, broker: int) -> dict[str, Any]:
    """Every other kind of secret there is, shown to servers that repeat it in what they refuse it with."""
    url = f"http://127.0.0.1:{http}"
    named = {name: f"!secret {name}" for name in HTTP_SECRETS}
    post = {"connector": "http", "retry_max": "1s"}
    return {
        "gateway": {"id": "plant-7"},
        "buses": {
            "demo": {"adapter": "sim"},
            "lora": {
                "adapter": "mqtt-in", "url": f"mqtt://127.0.0.1:{broker}", "preset": "json", "username": "plant-7",
                "password": named["lora"],
            },
            "radio": {"adapter": "ble"},
        },
        "devices": {
            "tank": {"bus": "demo", "every": "100ms", "points": {"level": {"waveform": "sine"}}},
            "oven": {"bus": "lora", "topic": "plant/oven", "points": {"t": {"field": "t"}}},
            "tag": {
                "bus": "radio", "address": "A4:C1:38:01:23:45", "decoder": "bthome", "bind_key": named["tag"],
                "points": {"temperature": {}},
            },
        },
        "connections": {
            "bearer": {
                **post, "url": f"{url}/400?site=b25", "bearer": named["bearer"],
                "secret_query": {"code": named["query"]},
            },
            "board": {"connector": "thingsboard", "url": f"mqtt://127.0.0.1:{broker}", "token": named["tb"]},
            "basic": {**post, "url": f"{url}/401", "username": "plant-7", "password": named["basic"]},
            "signed": {
                **post, "url": f"{url}/500", "hmac": {"secret": named["hmac"]},
                "secret_headers": {"X-Api-Key": named["header"]},
            },
            "things": {"connector": "thingworx", "url": f"{url}/400", "app_key": named["appkey"]},
            "azure": {
                "connector": "azure-iot-hub", "url": "mqtts://127.0.0.1:1", "shared_access_key": named["azure"],
            },
        },
    }  # fmt: skip


def echo(taken: Taken) -> Answer:
    """Refuse it, and repeat all that was shown."""
    told = "; ".join([f"{name}: {value}" for name, value in taken.headers] + [taken.target])
    status = int(taken.target.partition("?")[0].split("/")[1])
    return Answer(status, {"Content-Type": "text/plain"}, f"I do not take {told}".encode())


async def test_a_secret_that_a_server_repeats_is_written_nowhere(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users", nobody="nothing")
    users.chmod(0o644)
    with (
        HttpServer(echo) as server,
        Mosquitto(tmp_path / "broker", options=[f"password_file {users}"], anonymous=False) as broker,
    ):
        gateway = Gateway(tmp_path / "gateway", {})
        text = json.dumps(every_kind(server.port, broker.port))
        gateway.config.write_text(re.sub(r'"(!secret \w+)"', r"\1", text))
        secrets = "".join(f"{name}={text}\n" for name, text in HTTP_SECRETS.items())
        (gateway.folder / "secrets.env").write_text(secrets)
        async with running(gateway):
            async with asyncio.timeout(40):
                while len({taken.target.partition("?")[0] for taken in server.requests}) < 4:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)  # what comes of the refusals
            said = {route: await asyncio.to_thread(answer, gateway, route) for route in ROUTES}
            said["status"] = await asyncio.to_thread(edged, gateway, "status")
            said["letters"] = await asyncio.to_thread(edged, gateway, "buffer", "letters")
            os.kill(gateway.pid, 6)
            assert await gateway.stop() != 0
    said["log"] = gateway.lines()
    for path in (gateway.folder / "state").rglob("*"):
        if path.is_file():
            said[str(path)] = path.read_bytes().decode("latin-1")
    shown = "".join(f"{name}: {value}" for taken in server.requests for name, value in taken.headers)
    assert HTTP_SECRETS["bearer"] in shown, "the server has seen them"
    assert "/400?site=b25&code=of%20a%20function%208" in {taken.target for taken in server.requests}
    leaks = {
        (where.rpartition("/")[2], name)
        for where, text in said.items()
        for name, secret in HTTP_SECRETS.items()
        if found(secret, text)
    }
    assert not leaks
    assert "I do not take" in said["log"] + said["/v1/buffer/letters"], "the refusal itself is told"


async def test_a_key_in_the_clear_that_a_server_repeats_is_not_told(tmp_path: Path) -> None:
    """In the URL, in a header, as a user name: no good places, and `edged check` says so."""
    keys = {"code": "in the query 1", "header": "in-a-header-2", "token": "as-the-user-name-3"}
    with HttpServer(echo) as server, Mosquitto(tmp_path / "broker", anonymous=False) as broker:
        gateway = Gateway(tmp_path / "gateway", config(broker.port) | {"connections": {
            "api": {
                "connector": "http", "url": f"http://127.0.0.1:{server.port}/400?code={quote(keys['code'])}",
                "headers": {"X-Api-Key": keys["header"]},
            },
            "board": {
                "connector": "thingsboard", "url": f"mqtt://127.0.0.1:{broker.port}", "username": keys["token"],
            },
        }})  # fmt: skip
        async with running(gateway):
            async with asyncio.timeout(40):
                while not (letters := await asyncio.to_thread(answer, gateway, "/v1/buffer/letters")).count("I do not"):
                    await asyncio.sleep(0.1)
            said = {route: await asyncio.to_thread(answer, gateway, route) for route in ROUTES} | {"letters": letters}
            for command in (["status"], ["buffer", "dead", "list"], ["check", str(gateway.config)], ["doctor"]):
                said[" ".join(command)] = await asyncio.to_thread(edged, gateway, *command)
            bundle = tmp_path / "bundle.tar.gz"
            options = ["--state", str(gateway.folder / "state"), "--bundle", "--output", str(bundle)]
            await asyncio.to_thread(edged, gateway, "doctor", str(gateway.config), *options)
            with tarfile.open(bundle) as archive:
                files = [archive.extractfile(member) for member in archive]
                said["bundle"] = "".join(file.read().decode() for file in files if file)
    said["log"] = gateway.lines()
    assert not {(where, name) for where, text in said.items() for name, key in keys.items() if found(key, text)}
    told = next(text for command, text in said.items() if command.startswith("check"))
    for advice in ("secret_query: {code: !secret NAME}", "secret_headers: {X-Api-Key: !secret NAME}", "token: !secret"):
        assert advice in told


async def test_the_history_keeps_passwords_that_stand_in_the_file_for_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path, monkeypatch) as (gateway, _broker):
        texts = [path for path in (gateway.folder / "state/history").rglob("*") if path.is_file()]
    kept = "".join(path.read_text("latin-1") for path in texts)
    assert found(SECRETS["literal"], kept), "a file that is gone back to must be whole"
    assert not [name for name in ("named", "credential", "long") if found(SECRETS[name], kept)]
    assert not list(exposed(gateway.folder / "state"))


def test_a_traceback_that_repeats_a_secret_is_written_without_it() -> None:
    program = (
        "import logging; from edged import discretion, logs; logs.set_up('debug'); discretion.hide('s3cret \\u00e9'); "
        "log = logging.getLogger('edged')\n"
        "try:\n    raise ValueError('the broker said: s3cret \\u00e9')\nexcept ValueError:\n    log.exception('failed')"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=50)
    assert "ValueError: the broker said: ***" in done.stderr
    assert "s3cret" not in done.stderr.split("ValueError: ")[-1]


def answer(gateway: Gateway, route: str) -> str:
    try:
        return json.dumps(client.call(gateway.socket, route))
    except EdgedError as exc:
        return str(exc)


def test_the_forms_of_a_secret_are_recognised() -> None:
    assert all(found("a b/c", f"x{form}y") for form in written("a b/c"))
