"""Azure IoT Hub's side, played by its published rules before and behind a real mosquitto."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edged.config.compiled import load_compiled
from edged.config.types import Duration, Secret
from edged.testing.audit import Audit
from edged.uplink.connectors.azure_iot_hub import AzureConnection
from tests.support.azure import GROUP_KEY, HOST, KEY, SCOPE, Azure, azure
from tests.support.fakeclock import LIBRARY, MISSING, FakeClock
from tests.support.forwarding import WINDOW, context_of, gateway, through_an_outage
from tests.support.frontdoor import FrontDoor
from tests.support.gateway import Gateway, running
from tests.support.plant import plant
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto


def settings_of(hub: Azure, door: FrontDoor, **more: Any) -> dict[str, Any]:
    ca = str(hub._where.pki.certificate)
    return {"connector": "azure-iot-hub", "url": f"mqtts://{HOST}:{door.port}", "ca": ca, **more}


def audited(hub: Azure) -> Audit:
    audit = Audit()
    for known, payload in hub.events("data"):
        document = json.loads(payload)
        assert {key: str(document[key]) for key in ("epoch", "lane", "first", "seq", "prev")} == {
            key: known[key] for key in ("epoch", "lane", "first", "seq", "prev")
        }
        audit.take(document)
    return audit


async def test_methods_desired_properties_and_messages_write_points(tmp_path: Path) -> None:
    with azure(tmp_path) as (_, hub):
        hub.desire({"chiller": {"setpoint": 300}}, silent=True)
        hub.throttled = 1
        async with hub.door() as door:
            settings = settings_of(hub, door, shared_access_key=KEY, twin=True, twin_every="1s")
            async with plant(tmp_path / "gateway", **settings) as one:
                await until(lambda: hub.events("data"))
                hub.invoke("1", "write", {"point": "chiller/pump", "value": True})
                hub.invoke("2", "Write", {"point": "chiller/flow", "value": 1})
                hub.invoke("3", "reboot", {})
                hub.invoke("4", "write", {"point": "chiller/setpoint", "value": 9999})
                hub.invoke("5", "write", "nonsense")
                await until(lambda: len(hub.answers) == 5)
                await until(lambda: "does not give the device twin: status 429" in one.lines())
                assert {number: status for number, (status, _) in hub.answers.items()} == {
                    "1": 200, "2": 403, "3": 404, "4": 400, "5": 400,
                }  # fmt: skip
                assert hub.answers["1"][1].items() >= {"state": "verified", "value": True}.items()

                await until(lambda: hub.reported.get("chiller") == {"setpoint": 7, "pump": True})

                def told() -> tuple[Any, ...]:
                    last = hub.reported.get("edged:gateway", {}).get("command", {})
                    return last.get("point"), last.get("state"), last.get("reason")

                await until(lambda: told() == ("chiller/setpoint", "expired", None))
                hub.desire({"chiller": {"setpoint": 42}})
                await until(lambda: hub.reported["chiller"]["setpoint"] == 42)
                await until(lambda: told() == ("chiller/setpoint", "verified", None))

                soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
                hub.tell({"point": "chiller/setpoint", "value": 43}, _mid="m-1", _exp=soon)
                hub.tell({"point": "chiller/setpoint", "value": 44}, _mid="m-2", _exp="2020-01-01T00:00:00Z")
                hub.tell({"point": "chiller/setpoint", "value": 45}, _mid="m-3")
                hub.tell({"point": "chiller/setpoint", "value": 43}, _mid="m-1", _exp=soon)  # redelivered

                def results() -> dict[str, str]:
                    return {known["$.cid"]: json.loads(payload)["state"] for known, payload in hub.events("result")}

                await until(lambda: results() == {"m-1": "verified", "m-2": "expired", "m-3": "rejected"})
                await until(lambda: hub.reported["chiller"] == {"setpoint": 43, "pump": True})
                assert one.lines().count("setpoint = 43") == 1
                assert KEY not in one.lines()
                assert "sig=" not in one.lines() + json.dumps(await one.status())
        assert (door.violations, hub.violations, door.refused) == ([], [], [])
        assert next(json.loads(payload)["status"] for _, payload in hub.events("status")) == "online"
        assert door.connects[0].keepalive == 30
        assert not door.connects[0].clean, "so that messages wait for us"


async def test_an_outage_and_renewed_tokens_lose_nothing(tmp_path: Path) -> None:
    with azure(tmp_path) as (broker, hub):
        async with hub.door() as door:
            settings = settings_of(hub, door, shared_access_key=Secret(text=KEY))
            context = context_of(secret=lambda one: one.text)
            async with gateway(tmp_path / "buffer.db", 0, context=context, **settings) as one:
                await through_an_outage(one, broker, before=3, after=3)
                assert (await one.saved()) == {"delivered": 16 * 500, "pending": 0, "dead": 0}
                epoch = one.buffer.epoch
                await until(lambda: audited(hub).readings >= 8000)
    audit = audited(hub)
    assert (audit.missing, audit.gaps("plant-7", epoch), audit.readings) == ([], [], 8000)
    assert audit.out_of_order == 0
    assert audit.duplicates <= WINDOW
    assert (door.violations, hub.violations) == ([], [])
    known = hub.events("data")[0][0]
    assert (known["$.ct"], known["$.ce"], known["$.mid"]) == ("application/json", "utf-8", f"{epoch}-{known['seq']}")


async def test_the_provisioning_service_assigns_the_hub_once(tmp_path: Path) -> None:
    with azure(tmp_path, device="device-42") as (_, hub):
        hub.retry_after = 0
        async with hub.door() as door:
            settings = settings_of(
                hub, door, id_scope=SCOPE, registration_id="plant-7", group_key=Secret(text=GROUP_KEY)
            )
            context = context_of(secret=lambda one: one.text, state=tmp_path / "state")
            for _ in range(2):
                async with gateway(tmp_path / "buffer.db", 0, context=context, **settings) as one:
                    one.poll()
                    await one.drained()
            assert hub.registrations == [{"registrationId": "plant-7"}]
            assert hub.polls == 2
            hub.open = False
            async with gateway(tmp_path / "buffer.db", 0, context=context, **settings) as one:
                await until(lambda: "asking the provisioning service" in one.forwarder.state().last_error)
                hub.open = True
                await until(lambda: one.forwarder.state().connected)
            assert len(hub.registrations) >= 2
        assert (door.violations, hub.violations) == ([], [])
        assert audited(hub).readings == 1000


async def test_a_certificate_takes_the_place_of_tokens_and_a_wrong_key_is_refused_in_words(tmp_path: Path) -> None:
    with azure(tmp_path) as (_, hub):
        async with hub.door() as door:
            context = context_of(secret=lambda one: one.text)
            wrong = settings_of(hub, door, shared_access_key=Secret(text=GROUP_KEY))
            async with gateway(tmp_path / "buffer.db", 0, context=context, **wrong) as one:
                await until(lambda: "check `device_id` and its key" in one.forwarder.state().last_error)
                assert GROUP_KEY not in one.forwarder.state().last_error
            hub.certificates = True
            certificate, key = hub._where.pki.issue("plant-7")
            right = settings_of(hub, door, certificate=str(certificate), key=str(key))
            async with gateway(tmp_path / "buffer.db", 0, context=context, **right) as one:
                one.poll()
                await one.drained()
        assert door.connects[-1].certificate == "plant-7"
        assert (door.violations, audited(hub).readings) == ([], 500)


class Hasty(AzureConnection):
    """Its tokens last for seconds."""

    MIN_LIFETIME: ClassVar = 1


async def test_a_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    with azure(tmp_path, longest=3) as (_, hub):
        async with hub.door() as door:
            context = context_of(secret=lambda one: one.text)
            settings = settings_of(hub, door, shared_access_key=Secret(text=KEY), sas_lifetime=Duration(2))
            async with gateway(tmp_path / "buffer.db", 0, dialect=Hasty, context=context, **settings) as one:
                deadline = time.monotonic() + 6
                while len(door.connects) < 2 and time.monotonic() < deadline:
                    one.poll(devices=1)
                    await asyncio.sleep(0.05)
                await one.drained()
                epoch, polls = one.buffer.epoch, one.polls
                await until(lambda: audited(hub).readings >= polls * 50)
        assert len(door.connects) >= 2
    audit = audited(hub)
    assert (audit.missing, audit.gaps("plant-7", epoch), audit.readings) == ([], [], polls * 50)
    assert (door.violations, door.refused) == ([], [])


@pytest.mark.skipif(not LIBRARY, reason=MISSING)
async def test_while_the_clock_is_not_set_no_token_is_tried(tmp_path: Path) -> None:
    with azure(tmp_path) as (_, hub):
        async with hub.door() as door:
            connection = settings_of(hub, door, shared_access_key={"name": "hub"}, retry_max="200ms")
            clock = FakeClock(tmp_path)
            clock.shift(-time.time())
            config = {"gateway": {"id": "plant-7"}, "connections": {"cloud": connection}}
            made = Gateway(tmp_path / "gateway", config, prefix=clock.prefix)
            (made.folder / "secrets.env").write_text(f"hub={KEY}\n")
            load_compiled(made.config, made.folder / "state/cache")  # libfaketime breaks what waits for that
            async with running(made) as one:

                async def state() -> tuple[bool, str]:
                    status = (await one.status())["connections"].get("cloud", {})
                    return status.get("connected", False), status.get("last_error", "")

                async with asyncio.timeout(30):
                    while "the gateway's clock is not set" not in (await state())[1]:
                        await asyncio.sleep(0.05)
                    assert (door.connects, door.refused) == ([], [])
                    clock.shift(0)
                    while not (await state())[0]:
                        await asyncio.sleep(0.05)
