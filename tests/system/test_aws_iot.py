"""AWS IoT Core's side, played by its published rules on a real mosquitto with TLS and client certificates."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.clock import mono_us, wall_us
from edged.config.base import DeviceConfig, PointConfig
from edged.config.types import Duration, Name
from edged.downlink.store import Store
from edged.model import Sample
from edged.testing.audit import Audit
from edged.twin import KeptTwin
from tests.support.aws import Aws
from tests.support.cloud import Secured, secured
from tests.support.forwarding import WINDOW, context_of, gateway, through_an_outage
from tests.support.plant import plant
from tests.support.waiting import until

pytestmark = pytest.mark.mosquitto
PAGE = Path(__file__).parents[2] / "docs/how-to/aws-iot.md"
SHADOW = "$aws/things/plant-7/shadow/name/points"


@contextmanager
def region(folder: Path) -> Iterator[tuple[Secured, Aws]]:
    with secured(folder) as where, Aws(where) as aws:
        yield where, aws


def settings_of(where: Secured, **more: Any) -> dict[str, Any]:
    return {"connector": "aws-iot", **where.client("plant-7"), "shadow": "points", "shadow_every": "1s", **more}


def reported(aws: Aws) -> Any:
    return aws.shadows.get(SHADOW, {"reported": {}})["reported"]


def outcome(aws: Aws) -> tuple[Any, ...]:
    told = reported(aws).get("edged:gateway", {}).get("command", {})
    return told.get("point"), told.get("state"), told.get("reason")


async def test_what_is_desired_of_a_shadow_is_written_verified_and_reported(tmp_path: Path) -> None:
    with region(tmp_path) as (where, aws):
        aws.change(SHADOW, {"desired": {"chiller": {"setpoint": 300}}}, age=86_400, silent=True)
        async with plant(tmp_path / "gateway", **settings_of(where)) as one:
            await until(lambda: outcome(aws) == ("chiller/setpoint", "expired", None))
            await until(lambda: reported(aws).get("chiller") == {"setpoint": 7, "pump": False})

            aws.change(SHADOW, {"desired": {"chiller": {"setpoint": 42, "pump": True}}})
            await until(lambda: reported(aws)["chiller"] == {"setpoint": 42, "pump": True})
            await until(lambda: outcome(aws)[1] == "verified")
            aws.change(SHADOW, {"desired": {"chiller": {"setpoint": 9999}}})
            await until(lambda: outcome(aws) == ("chiller/setpoint", "rejected", "range"))
            aws.change(SHADOW, {"desired": {"chiller": {"flow": 1}}})
            await until(lambda: outcome(aws) == ("chiller/flow", "rejected", "not-writable"))
            assert reported(aws)["chiller"] == {"setpoint": 42, "pump": True}

            with aws.lock:
                before = aws.shadows[SHADOW]["version"]
            aws.change(SHADOW, {"reported": {"chiller": {"setpoint": 1}}})  # a foreign hand
            await until(lambda: reported(aws)["chiller"]["setpoint"] == 42)
            assert aws.shadows[SHADOW]["version"] <= before + 4, "nothing is sent again and again"
        async with plant(tmp_path / "gateway", **settings_of(where)) as one:  # its device has forgotten everything
            await until(lambda: reported(aws)["chiller"] == {"setpoint": 7, "pump": False})
            await asyncio.sleep(1.2)
            assert reported(aws)["chiller"]["pump"] is False
            assert one.lines().count("pump = True") == 1, "what was carried out once is not carried out again"
        filters = set(re.findall(r"^\d+: plant-7 1 (\S+)$", where.broker.log, re.MULTILINE))
    assert not aws.violations
    topics = {one.topic for one in aws.messages}
    assert topics >= {"edged/plant-7/data", "edged/plant-7/status", f"{SHADOW}/get", f"{SHADOW}/update"}
    assert len(filters) == 6
    assert [topic for topic in topics if not permitted("iot:Publish", f"topic/{topic}")] == []
    assert [topic for topic in filters if not permitted("iot:Subscribe", f"topicfilter/{topic}")] == []
    assert permitted("iot:Connect", "client/plant-7")
    assert not permitted("iot:Publish", "topic/edged/plant-8/data")


def permitted(action: str, resource: str) -> bool:
    """Whether the policy of the how-to page allows this."""
    policy = next(block for block in blocks(PAGE.read_text("utf-8")) if "Statement" in block)
    wanted = f"arn:aws:iot:eu-central-1:123456789012:{resource}"
    for statement in policy["Statement"]:
        resources = statement["Resource"]
        allowed = [resources] if isinstance(resources, str) else resources
        if action in statement["Action"] and any(fnmatchcase(wanted, one) for one in allowed):
            return True
    return False


def blocks(page: str) -> list[dict[str, Any]]:
    return [orjson.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]


async def test_a_shadow_that_somebody_else_changes_meanwhile_is_read_again(tmp_path: Path) -> None:
    with region(tmp_path) as (where, aws):
        async with plant(tmp_path / "gateway", **settings_of(where, commands=False)) as one:
            await until(lambda: reported(aws).get("chiller", {}).get("setpoint") == 7)
            with aws.lock:
                aws.change(SHADOW, {"reported": {"chiller": {"setpoint": 8}}}, silent=True)
                aws.shadows[SHADOW]["version"] += 5
                aws.change(SHADOW, {"reported": {"chiller": {"pump": True}}})
                aws.shadows[SHADOW]["version"] += 1  # nobody is told
            await until(lambda: reported(aws)["chiller"] == {"setpoint": 7, "pump": False})
            assert [answer["code"] for answer in aws.rejected] == [404, 409]
            aws.change(SHADOW, {"desired": {"chiller": {"pump": True}}})
            await asyncio.sleep(0.5)
            assert "pump = " not in one.lines(), "commands are off"
    assert not aws.violations


async def test_changes_are_gathered_before_the_shadow_is_updated(tmp_path: Path) -> None:
    devices = {"d0": DeviceConfig(bus=Name("b"), points={Name("p0"): PointConfig(monitor=True)})}
    store = Store(tmp_path / "commands.db")
    await store.open()
    running = asyncio.create_task(store.run())
    twin = KeptTwin(devices, store)
    with region(tmp_path) as (where, aws):
        settings = settings_of(where, shadow_every=Duration(3))
        context = context_of(devices=devices, twin=twin)
        async with gateway(tmp_path / "buffer.db", 0, context=context, **settings):

            def updates() -> list[int]:
                """When what is reported was read: microseconds."""
                return [one["state"]["reported"]["d0"]["p0"] for one in aws.documents(f"{SHADOW}/update")]

            async with asyncio.timeout(30):
                while len(updates()) < 2:
                    twin.take(Sample("d0", wall_us(), mono_us(), ("p0",), [mono_us()]))
                    await asyncio.sleep(0.05)
            assert updates()[1] - updates()[0] > 1_900_000
    running.cancel()
    await asyncio.wait([running])
    await store.close()


async def test_an_outage_loses_nothing(tmp_path: Path) -> None:
    with region(tmp_path) as (where, aws):
        async with gateway(
            tmp_path / "buffer.db",
            where.broker.port,
            connector="aws-iot",
            **where.client("plant-7"),
        ) as one:
            await through_an_outage(one, where.broker, before=3, after=3)
            assert (await one.saved()) == {"delivered": 16 * 500, "pending": 0, "dead": 0}
            epoch = one.buffer.epoch
            await until(lambda: audited(aws).readings >= 16 * 500)
    audit = audited(aws)
    assert (audit.missing, audit.gaps("plant-7", epoch), audit.readings) == ([], [], 8000)
    assert audit.out_of_order == 0
    assert audit.duplicates <= WINDOW
    assert not aws.violations


def audited(aws: Aws) -> Audit:
    audit = Audit()
    for document in aws.documents("edged/plant-7/data"):
        audit.take(document)
    return audit


def claim(where: Secured, folder: Path) -> tuple[dict[str, Any], Any]:
    known = where.client("claim")
    settings = {
        "connector": "aws-iot", "url": where.url, "ca": where.ca,
        "claim_certificate": known["certificate"], "claim_key": known["key"], "provisioning_template": "fleet",
    }  # fmt: skip
    return settings, context_of(state=folder / "state/connections/cloud")


async def test_a_gateway_is_provisioned_once_and_keeps_its_key_to_itself(tmp_path: Path) -> None:
    with region(tmp_path) as (where, aws):
        settings, context = claim(where, tmp_path)
        for _ in range(2):
            async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings) as one:
                one.poll()
                await one.drained()
        assert aws.created == ["device-0"]
        assert aws.registered == [
            {"template": "fleet", "certificateOwnershipToken": "token-0", "parameters": {"SerialNumber": "plant-7"}}
        ]
        assert "New client connected from 127.0.0.1" in where.broker.log
        assert "as thing-plant-7" in where.broker.log
        assert "u'device-0'" in where.broker.log, "with its own certificate"
        folder = tmp_path / "state/connections/cloud"
        assert sorted(path.name for path in folder.iterdir()) == ["certificate.pem", "credentials.json"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert not aws.violations


async def test_provisioning_goes_on_after_a_crash_between_its_steps(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    with region(tmp_path) as (where, aws):
        settings, context = claim(where, tmp_path)
        aws.mute = "$aws/provisioning-templates/fleet/provision/json"
        async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings):
            await until(lambda: any(one.topic == aws.mute for one in aws.messages))  # and here the power fails
        aws.mute = ""
        aws.deny = {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "not in the list"}
        kept = tmp_path / "state/connections/cloud/credentials.json"
        async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings) as one:
            await until(lambda: "AccessDenied (not in the list)" in one.forwarder.state().last_error)
        assert orjson.loads(kept.read_bytes())["thingName"] == ""
        aws.deny = None
        async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings) as one:
            await until(lambda: one.forwarder.state().connected)
        assert (aws.created, len(aws.registered)) == (["device-0"], 1)

        document = orjson.loads(kept.read_bytes())
        secret = document["privateKey"]
        kept.write_bytes(orjson.dumps(document | {"thingName": "", "certificateOwnershipToken": "too old"}))
        async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings) as one:
            await until(lambda: one.forwarder.state().connected)
        assert (aws.created, len(aws.registered)) == (["device-0", "device-1"], 2)
        kept.write_bytes(b"{")
        async with gateway(tmp_path / "buffer.db", where.broker.port, context=context, **settings) as one:
            await until(lambda: "delete it" in one.forwarder.state().last_error)
        assert aws.created == ["device-0", "device-1"]
    assert secret.splitlines()[1] not in caplog.text
    assert "token-0" not in caplog.text
