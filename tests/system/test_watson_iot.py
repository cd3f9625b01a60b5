"""A broker with the topic scheme of the Watson IoT Platform, played on a real mosquitto."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.config.types import Secret
from edged.testing.audit import Audit
from tests.support.cloud import Cloud, Secured
from tests.support.forwarding import WINDOW, context_of, gateway, through_an_outage
from tests.support.mosquitto import Mosquitto, password_file
from tests.support.pki import Pki
from tests.support.plant import plant
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto
_EVENT = re.compile(r"iot-2/type/[\w.-]{1,36}/id/[\w.%-]{1,36}/evt/[\w.-]{1,36}/fmt/json")
SETTINGS: dict[str, Any] = {"connector": "watson-iot", "organization": "abc123"}


class Platform(Cloud):
    """Takes events of a gateway and its devices."""

    topics = ("iot-2/#",)

    def rule(self, topic: str, payload: bytes, *, retained: bool) -> str:
        if not _EVENT.fullmatch(topic):
            return "no topic of a gateway"
        if retained:
            return "retained"
        return "" if len(payload) <= 131_072 and isinstance(orjson.loads(payload), dict) else "no payload of an event"


async def test_a_command_is_written_and_its_result_is_an_event(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, Platform(Secured(broker, Pki(tmp_path / "pki"), tls=False)) as cloud:
        async with plant(tmp_path / "gateway", **SETTINGS, url=f"mqtt://127.0.0.1:{broker.port}"):
            data = "iot-2/type/edged-device/id/chiller/evt/data/fmt/json"
            await until(lambda: any(one["d"].get("setpoint") == 7 for one in cloud.documents(data)))
            base = "iot-2/type/edged-device/id/chiller/cmd"
            cloud.say(f"{base}/write/fmt/json", {"d": {"point": "setpoint", "value": 42, "id": "a"}})
            cloud.say(f"{base}/pump/fmt/json", {"value": True, "id": "b"})
            cloud.say(f"{base}/setpoint/fmt/json", {"value": 9999, "id": "c"})
            cloud.say(f"{base}/setpoint/fmt/json", b"{")
            cloud.say(
                "iot-2/type/edged/id/plant-7/cmd/write/fmt/json", {"point": "chiller/flow", "value": 1, "id": "d"}
            )

            def results() -> set[tuple[str, str]]:
                found = cloud.documents("iot-2/type/edged-device/id/chiller/evt/result")
                found += cloud.documents("iot-2/type/edged/id/plant-7/evt/result")
                return {(one["id"], one["state"]) for one in found if one["state"] != "accepted"}

            await until(lambda: len(results()) == 5)
            assert results() == {
                ("a", "verified"), ("b", "verified"), ("c", "rejected"), ("d", "rejected"), ("", "rejected"),
            }  # fmt: skip
            await until(lambda: any(one["d"].get("setpoint") == 42 for one in cloud.documents(data)))
            assert "as g:abc123:edged:plant-7 " in broker.log
            assert "u'use-token-auth'" in broker.log
    assert not cloud.violations


async def test_an_outage_loses_nothing(tmp_path: Path) -> None:
    users = password_file(tmp_path / "users", **{"use-token-auth": "token", "cloud": "x"})
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.issue("server", "IP:127.0.0.1")
    listener = [f"cafile {pki.certificate}", f"certfile {certificate}", f"keyfile {key}"]
    with Mosquitto(
        tmp_path / "broker", listener=listener, persistence=True, options=[f"password_file {users}"]
    ) as broker:
        where = Secured(broker, pki)
        with Platform(where) as cloud:
            context = context_of(secret=lambda one: one.text)
            settings = {**SETTINGS, "url": where.url, "ca": where.ca, "password": Secret(text="token")}
            async with gateway(tmp_path / "buffer.db", 0, context=context, **settings) as one:
                await through_an_outage(one, broker, before=3, after=3)
                assert (await one.saved()) == {"delivered": 16 * 500, "pending": 0, "dead": 0}
                epoch = one.buffer.epoch
                await until(lambda: audited(cloud).readings >= 8000)
    audit = audited(cloud)
    assert (audit.missing, audit.gaps("plant-7", epoch), audit.readings) == ([], [], 8000)
    assert audit.out_of_order == 0
    assert audit.duplicates <= WINDOW
    assert not cloud.violations


def audited(cloud: Platform) -> Audit:
    audit = Audit()
    for document in cloud.documents("iot-2/type/edged-device/"):
        if "d" in document:
            audit.take({**document["edged"], "values": document["d"]})
    return audit
