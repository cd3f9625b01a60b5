"""`edged buffer` and `edged verify` as a technician types them, with the gateway running and stopped."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, running
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.mosquitto

WIDE = 150
"""Points of a device whose samples are larger than the smallest `max_message`."""


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


class Bench:
    """A gateway with a simulated device, and its broker."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.broker = broker
        self.url = f"mqtt://127.0.0.1:{broker.port}"
        config = {
            "gateway": {"id": "t1"},
            "buffer": {"flush": "50ms", "retention": "1h"},
            "buses": {"lab": {"adapter": "sim"}},
            "devices": {"oven": {"bus": "lab", "every": "20ms", "points": {"temperature": {}, "state": {}}}},
            "connections": {"cloud": {"connector": "mqtt", "url": self.url, "keepalive": "2s"}},
        }
        self.gateway = Gateway(folder, config)

    async def edged(self, *arguments: str, socket: bool = True) -> Ran:
        """`edged ARGUMENTS`, told where the gateway is: by the environment, as a service would be."""
        return await self.ended(await self.start(*arguments, socket=socket))

    async def start(self, *arguments: str, socket: bool = True) -> Process:
        environ = {
            **os.environ,
            "PYTHONWARNINGS": "error",
            "EDGED_CONFIG": str(self.gateway.config),
            "STATE_DIRECTORY": str(self.gateway.folder / "state"),
            "EDGED_SOCKET": str(self.gateway.socket if socket else self.gateway.folder / "none.sock"),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edged", *arguments, env=environ,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def ended(self, process: Process) -> Ran:
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def delivered(self, readings: int) -> None:
        await self.gateway.until(lambda status: status["buffer"]["connections"]["cloud"]["delivered"] >= readings)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with Mosquitto(tmp_path / "broker") as broker:
        yield Bench(tmp_path / "gateway", broker)


async def test_looking_exporting_and_replaying_while_the_gateway_runs_and_after(bench: Bench) -> None:
    async with running(bench.gateway):
        await bench.delivered(60)
        watching = await bench.start("verify", "--subscribe", bench.url, "--json")
        await asyncio.sleep(1.5)

        ran = await bench.edged("verify")
        assert (ran.code, ran.err) == (0, "")
        assert "everything adds up" in ran.out
        assert (await bench.edged("buffer", "verify", "--json")).json["ok"]

        rows = list(csv.DictReader((await bench.edged("buffer", "export", "--device", "oven")).out.splitlines()))
        assert len(rows) >= 60
        assert {row["point"] for row in rows} == {"temperature", "state"}
        assert [int(row["seq"]) for row in rows] == sorted(int(row["seq"]) for row in rows)
        since = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        recent = (await bench.edged("buffer", "export", "--from", "1s", "--format", "json")).out.splitlines()
        assert since <= min(json.loads(line)["time"] for line in recent)
        assert rows[0]["time"] < since, "there is older"
        assert (await bench.edged("buffer", "export", "--device", "nobody")).out.count("\n") == 1

        before = (await bench.edged("buffer", "stats", "--json")).json["connections"]["cloud"]
        ran = await bench.edged("buffer", "replay", "--connection", "cloud", "--from", "1h", "--json")
        again = ran.json["readings"]
        assert 60 <= again <= before["delivered"] + 1000
        await bench.delivered(before["delivered"] + again)

        await asyncio.sleep(1.0)  # what the gateway knows as delivered, the broker passes on
        watching.send_signal(signal.SIGINT)
        judged = (await bench.ended(watching)).json
        assert judged["missing"] == []
        assert judged["readings"] > again  # what was replayed came too, and was no duplicate by its number
        assert judged["duplicates"] == 0

        ran = await bench.edged("buffer", "replay", "--connection", "clout", "--from", "1h")
        assert (ran.code, "no connection 'clout'" in ran.err) == (1, True)
        assert (await bench.edged("buffer", "vacuum", "--json")).json["after"] > 0
        assert (await bench.edged("buffer", "repair")).out == "the buffer is sound\n"
        ran = await bench.edged("buffer", "retry", socket=False)
        assert ran.code == 2

        in_use = await bench.edged("buffer", "vacuum", socket=False)
        assert in_use.code == 2
        assert f"in use by process {bench.gateway.pid}" in in_use.err
        live = (await bench.edged("buffer", "stats", "--json")).json

    stopped = (await bench.edged("buffer", "stats", "--json")).json
    assert stopped["epoch"] == live["epoch"]
    assert stopped["head"] >= live["head"]
    assert (await bench.edged("verify")).code == 0
    exported = (await bench.edged("buffer", "export", "--format", "json")).out.splitlines()
    assert json.loads(exported[0])["seq"] == 1
    ran = await bench.edged("buffer", "replay", "--connection", "cloud", "--from", "1h", "--json")
    assert ran.json["readings"] == 2 * len(exported)
    assert (await bench.edged("buffer", "vacuum")).code == 0
    assert (await bench.edged("verify", "--json")).json["connections"]["cloud"]["pending"] == ran.json["readings"]
    missing = await bench.edged("buffer", "--file", str(bench.gateway.folder / "nothing.db"), "stats")
    assert (missing.code, "there is no buffer" in missing.err) == (2, True)


async def test_dead_letters_are_listed_sent_again_and_deleted(bench: Bench) -> None:
    """Nothing larger than `max_message` can leave: everything is refused, until the configuration is put right."""
    config = json.loads(bench.gateway.config.read_text())
    config["devices"]["oven"]["points"] = {f"point-{n}": {} for n in range(WIDE)}
    small = {**config["connections"]["cloud"], "max_message": "1KiB"}
    bench.gateway.config.write_text(json.dumps({**config, "connections": {"cloud": small}}))
    async with running(bench.gateway):
        await bench.gateway.until(lambda status: status["buffer"]["connections"]["cloud"]["dead"] >= 5 * WIDE)
    letters = (await bench.edged("buffer", "dead", "list", "--json")).json["letters"]
    assert len(letters) >= 5
    assert {one["reason"] for one in letters} == {"too_large"}
    assert "too_large" in (await bench.edged("buffer", "dead", "list", "--connection", "cloud")).out
    assert (await bench.edged("buffer", "dead", "retry")).code == 2
    assert "1 are deleted" in (await bench.edged("buffer", "dead", "purge", str(letters[0]["id"]))).out
    bench.gateway.config.write_text(json.dumps(config))
    async with running(bench.gateway):
        await bench.delivered(WIDE)
        ran = await bench.edged("buffer", "dead", "retry", "--all", "--json")
        assert ran.json == {"letters": len(letters) - 1, "readings": WIDE * (len(letters) - 1), "skipped": {}}
        ran = await bench.edged("buffer", "dead", "list")
        assert ran.out == "there are no dead letters\n"
        while (await bench.edged("verify", "--json")).json["connections"]["cloud"]["pending"] > 10 * WIDE:
            await asyncio.sleep(0.1)
        assert (await bench.edged("verify")).code == 0


async def test_a_damaged_buffer_is_found_and_repaired_without_the_gateway(bench: Bench) -> None:
    async with running(bench.gateway):
        await bench.delivered(60)
    path = bench.gateway.folder / "state" / "buffer.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 3000)
    assert (await bench.edged("verify")).code == 1
    ran = await bench.edged("buffer", "repair")
    assert ran.code == 0
    assert "damaged" in ran.out + ran.err
    assert (await bench.edged("verify")).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("buffer", "export", "--from", "yesterday"), "not a moment"),
        (("buffer", "replay", "--connection", "x"), "--from"),
        (("verify", "--subscribe", "mqtt://x", "--for", "0s"), "in no time nothing can come"),
        (("verify", "--subscribe", "mqtt://x", "--topic", "a/#/b"), "'a/#/b' is no topic filter"),
        (("verify", "--subscribe", "mqtt://x", "--topic", ""), "'' is no topic filter"),
        (("verify", "--subscribe", "mqtt://x", "--file", "b.db"), "--file cannot go with --subscribe"),
        (("verify", "--for", "3s"), "--for needs --subscribe"),
        (("verify", "--subscribe", "http://x"), "mqtt://host"),
        (("verify", "--subscribe", "mqtt://127.0.0.1:1", "--for", "5"), "needs a unit"),
    ],
)
async def test_what_is_typed_wrongly_is_said(bench: Bench, arguments: tuple[str, ...], words: str) -> None:
    ran = await bench.edged(*arguments)
    assert ran.code == 2
    assert words in ran.err


async def test_where_nothing_comes_nothing_is_proven(bench: Bench) -> None:
    ran = await bench.edged("verify", "--subscribe", bench.url, "--for", "1ms", "--topic", "nobody/+/data")
    assert (ran.code, "so nothing is proven" in ran.out, ran.err) == (1, True, "")


async def test_a_broker_that_is_not_there_is_said(bench: Bench) -> None:
    ran = await bench.edged("verify", "--subscribe", "mqtt://127.0.0.1:1", "--for", "5s")
    assert (ran.code, "mqtt://127.0.0.1:1" in ran.err) == (1, True)
    assert "Traceback" not in ran.err


async def test_what_a_repair_did_by_opening_the_file_is_told(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "found.db"
    file.write_bytes(b"no database" * 100)
    ran = await bench.edged("buffer", "--file", str(file), "repair")
    assert ran.code == 0
    assert "file is not a database" in ran.out
    assert "0 readings in 0 rows were saved" in ran.out
    assert (await bench.edged("buffer", "--file", str(file), "repair")).out == "the buffer is sound\n"


async def test_what_is_not_there_is_told(bench: Bench) -> None:
    async with running(bench.gateway):
        await bench.delivered(10)
        for arguments, code, words in (
            (("dead", "retry", "77"), 1, "1 are left: `edged buffer dead list` shows no such number"),
            (("dead", "purge", "77"), 1, "1 are left: `edged buffer dead list` shows no such number"),
            (("dead", "list", "--connection", "clod"), 1, "the buffer knows no connection 'clod'; it has cloud"),
            (("export", "--from", "1h", "--to", "2h"), 2, "--to 2h is not later than --from 1h"),
            (("export", "--device", "kiln"), 0, "nothing of that is in the buffer; `buffer: retention`"),
            (("replay", "--connection", "cloud", "--from", "1h", "--device", "kiln"), 0, "Nothing of that is in the"),
        ):
            ran = await bench.edged("buffer", *arguments)
            assert (ran.code, words in ran.out + ran.err) == (code, True), ran
