"""A gateway's folders with something in everything, made by the rooms themselves; and what is in them, to compare."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.backup.create import Made, create
from edged.buffer.log import Buffer
from edged.buffer.table import COLUMNS
from edged.clock import boot_id, boottime_us, wall_us
from edged.config.history import History, read_source
from edged.config.load import load
from edged.config.model import BufferConfig
from edged.config.types import Duration
from edged.downlink.api import Command
from edged.downlink.expiry import Deadline
from edged.downlink.store import Desired, Row, Store
from edged.model import Sample
from edged.twin import KeptTwin

SAMPLES = 300
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIC\n-----END PRIVATE KEY-----\n"
FILES = {
    "edged.yaml": """\
gateway: {id: plant-7}
include: more/*.yaml
connections:
  cloud:
    connector: mqtt
    url: mqtts://broker.example.com
    username: plant-7
    password: !secret mqtt
    ca: certs/ca.pem
    certificate: certs/own.pem
    key: certs/own.key
""",
    "conf.d/lab.yaml": "buses: {lab: {adapter: sim}, plc: {adapter: modbus-tcp, host: 192.0.2.10}}\n",
    "more/devices.yaml": "devices:\n  oven: {bus: lab, points: {t: {}}}\n  meter: {bus: plc, profile: mine}\n",
    "profiles/mine.yaml": "profile: mine\npoints: {x: {holding: 1}}\n",
    "certs/ca.pem": CERTIFICATE,
    "certs/own.pem": CERTIFICATE,
}
SECRETS = {"certs/own.key": KEY, "secrets.env": "mqtt=planted-password\n"}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a gateway has its things."""

    folder: Path

    @property
    def main(self) -> Path:
        return self.folder / "etc/edged.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def backup(self, target: Path, *, secrets: bool = False) -> Made:
        """Make one."""
        target.mkdir(exist_ok=True)
        return create(self.main, self.state, target, secrets=secrets)


def site(folder: Path, *, samples: int = SAMPLES) -> Site:
    """A gateway that has worked: some of its readings are delivered, and commands have come."""
    made = Site(folder)
    for name, text in {**FILES, **SECRETS}.items():
        path = made.main.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made.main.chmod(0o640)
    made.state.mkdir()
    asyncio.run(_work(made, samples))
    (made.state / "clock.json").write_text(json.dumps({"latest": 5, "boots": {boot_id(): [1, 2, 3, 4, 5]}}))
    connection = made.state / "connections/cloud/device.json"
    connection.parent.mkdir(parents=True)
    connection.write_text("{}")
    files = load(made.main).inputs.files
    History(made.state / "history").add(
        made.main, {path: read_source(Path(path)) for path in files}, time="2026-11-21T12:00:00Z", result="good"
    )
    return made


async def _work(site: Site, samples: int) -> None:
    buffer = Buffer(site.state / "buffer.db", BufferConfig(flush=Duration(60)), ["cloud"], boot=boot_id())
    await buffer.start()
    for begin in range(0, samples, 50):
        for number in range(begin, begin + 50):
            buffer.count(read=2)
            buffer.put(Sample(f"oven-{number % 3}", wall_us(), number, ("t", "text"), [number, f"reading {number}"]))
        await buffer.flush()
    if samples:
        buffer.settle("cloud", 1, 120, 240, lane="live", outcome="delivered")
        buffer.settle("cloud", 121, 130, 20, lane="live", outcome="dead", reason="refused", detail="no")
        await buffer.flush()
    await buffer.stop()
    store = Store(site.state / "commands.db")
    await store.open()
    writing = asyncio.create_task(store.run())
    for number, state in enumerate(("accepted", "executing", "verified")):
        await store.add(command(f"c{number}", state), wall_us(), boottime_us(), trusted=True)
    config = load(site.main).config
    assert config is not None
    twin = KeptTwin(config.devices, store)
    twin.take(Sample("oven", wall_us(), 1, ("t",), [21.5]))
    await twin.save()
    row = command("c3", "verified")
    await store.update(row, Desired("oven", "t", 22, wall_us()))
    writing.cancel()
    await store.close()


def command(ident: str, state: str, *, seconds: int = 3600) -> Row:
    """A command that may be carried out for so long."""
    now, boot = wall_us(), boottime_us()
    deadline = Deadline(boot + seconds * 1_000_000, boot_id(), now + seconds * 1_000_000, absolute=False)
    return Row(0, "cloud", Command(id=ident, device="oven", point="t", value=22), deadline, now, state, changed=now)


def rows(path: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """What a table of a database has in it, in order."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608  # the test's own words


def ledger(path: Path) -> tuple[Any, ...]:
    """The counters and cursors of a buffer, and how far it had come."""
    return rows(path, "state", "head, ledger")[0]


def content(site: Site) -> dict[str, Any]:
    """All that a restore must bring back to the last byte. Databases by what is in them."""
    found: dict[str, Any] = {
        str(path.relative_to(site.folder)): path.read_bytes()
        for folder in ("etc", "state/history", "state/connections")
        for path in sorted((site.folder / folder).rglob("*"))
        if path.is_file() and "before-restore-" not in str(path) and ".restore-" not in str(path)
    }
    if (site.state / "buffer.db").exists():
        found["log"] = rows(site.state / "buffer.db", "log", COLUMNS)
        found["letters"] = rows(site.state / "buffer.db", "dead_letters")
        found["ledger"] = ledger(site.state / "buffer.db")
    if (site.state / "commands.db").exists():
        found["twin"] = rows(site.state / "commands.db", "twin")
        found["desired"] = rows(site.state / "commands.db", "desired")
        found["ids"] = rows(site.state / "commands.db", "command", "entrance, id, device, point, value")
    if (site.state / "clock.json").exists():
        found["clock"] = (site.state / "clock.json").read_bytes()
    return found
