"""For each connector that sends, a receiver to send to: real brokers, the clouds' stand-ins, servers, a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edged.config.types import FileName, Secret, Size
from tests.support.aws import Aws
from tests.support.azure import HOST, KEY, azure
from tests.support.cloud import secured
from tests.support.forwarding import Stoppable
from tests.support.httpserver import Answer, HttpServer, Taken
from tests.support.mosquitto import Mosquitto


@dataclass(frozen=True)
class Receiver:
    """Somebody who takes what a connector sends."""

    settings: dict[str, Any]
    """Those of a connection to it."""
    away: Stoppable | None = None
    """What can be stopped and started again."""
    refuse: Callable[[int], None] | None = None
    """Has it answer with this status instead (HTTP)."""


Opened = Callable[[Path], AbstractAsyncContextManager[Receiver]]


@asynccontextmanager
async def _plain(settings: dict[str, Any], folder: Path) -> AsyncIterator[Receiver]:
    with Mosquitto(folder / "broker") as broker:
        yield Receiver({"url": f"mqtt://127.0.0.1:{broker.port}", **settings}, broker)


@asynccontextmanager
async def _aws(folder: Path) -> AsyncIterator[Receiver]:
    with secured(folder) as where, Aws(where) as aws:
        yield Receiver({**where.client("plant-7"), "shadow": "points"}, where.broker)
        assert not aws.violations


@asynccontextmanager
async def _azure(folder: Path) -> AsyncIterator[Receiver]:
    with azure(folder) as (broker, hub):
        async with hub.door() as door:
            ca = FileName(hub._where.pki.certificate)
            url = f"mqtts://{HOST}:{door.port}"
            yield Receiver({"url": url, "ca": ca, "shared_access_key": Secret(text=KEY)}, broker)
        assert (door.violations, hub.violations) == ([], [])


@asynccontextmanager
async def _http(settings: dict[str, Any], _folder: Path) -> AsyncIterator[Receiver]:
    status = [204]

    def answer(one: Taken) -> Answer:
        return Answer(status[0] if one.method == "POST" else 204)

    def refuse(code: int) -> None:
        status[0] = code

    with HttpServer(answer) as server:
        yield Receiver({"url": f"{server.url}/in", **settings}, server, refuse)


@asynccontextmanager
async def _file(folder: Path) -> AsyncIterator[Receiver]:
    yield Receiver({"path": FileName(folder / "out" / "readings.jsonl"), "min_free": Size(0)})


RECEIVERS: dict[str, Opened] = {
    "mqtt": partial(_plain, {}),
    "homeassistant": partial(_plain, {}),
    "sparkplug": partial(_plain, {}),
    "thingsboard": partial(_plain, {}),
    "watson-iot": partial(_plain, {"organization": "abc123"}),
    "aws-iot": _aws,
    "azure-iot-hub": _azure,
    "http": partial(_http, {}),
    "thingworx": partial(_http, {"app_key": Secret(text="key")}),
    "file": _file,
}
"""By the connector's name."""
OFFLINE_SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"url": "mqtt://broker.example.com"} for name in ("mqtt", "homeassistant", "sparkplug", "thingsboard")},
    "watson-iot": {"url": "mqtts://abc123.messaging.internetofthings.ibmcloud.com", "organization": "abc123"},
    "aws-iot": {
        "url": "mqtts://x-ats.iot.eu-central-1.amazonaws.com", "certificate": FileName("c.pem"),
        "key": FileName("k.pem"),
    },
    "azure-iot-hub": {"url": "mqtts://hub.azure-devices.net", "shared_access_key": Secret(text=KEY)},
    "http": {"url": "https://api.example.com/in"},
    "thingworx": {"url": "https://thing.example.com", "app_key": Secret(text="key")},
    "file": {"path": FileName("/var/lib/edged/export/readings.jsonl")},
}  # fmt: skip
"""Those of a connection that is never opened."""
