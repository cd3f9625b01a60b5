"""Commands from end to end: a real mosquitto, the daemon in its own process, pymodbus' server as the device."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from edged.cli import client
from tests.support.commanding import COMMANDS, RESULTS, config, ending, gateway_in, healthy, now, results, sending
from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.pki import Pki
from tests.support.subscriber import Got, subscribed

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker:
        yield broker


@pytest.fixture
def device() -> Iterator[int]:
    with pymodbus_server("tcp", 1) as port:
        yield port


def register(port: int, address: int) -> int:
    with ModbusTcpClient("127.0.0.1", port=port) as modbus:
        return int(modbus.read_holding_registers(address, count=1, device_id=1).registers[0])


async def cli(gateway: Gateway, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", *words, "--socket", str(gateway.socket),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def audit(gateway: Gateway) -> dict[str, tuple[str, str]]:
    with sqlite3.connect(gateway.folder / "state" / "commands.db") as db:
        return {ident: (state, reason) for ident, state, reason in db.execute("SELECT id, state, reason FROM command")}


async def test_a_command_is_written_read_back_and_told(tmp_path: Path, broker: Mosquitto, device: int) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS, "answers/#", "edged/g/monitor/#") as heard:
        async with running(gateway), sending(broker.port) as sender:
            await healthy(gateway)
            sender.send(id="one", point="plc/setpoint", value=21.5, requester="mara")
            done = await ending(heard, "one")
            assert (done["state"], done["value"]) == ("verified", 21.5)
            assert [one["state"] for one in results(heard, "one")][-1] == "verified"
            assert register(device, 10) == 215

            sender.send(id="word", point="plc/mode", value="heat")
            assert (await ending(heard, "word"))["state"] == "verified"
            assert register(device, 11) == 1

            sender.send(id="bytes", point="plc/setpoint", raw="00C8")
            assert (await ending(heard, "bytes"))["value"] == 20.0
            sender.send(id="relay", point="plc/relay", value=False)
            assert (await ending(heard, "relay"))["state"] == "verified"

            # MQTT 5's response topic and correlation data; message expiry instead of one in the payload
            sender.send(point="plc/setpoint", value=22, reply=("answers/7", b"\x07\x08"), message_expiry=20)
            async with asyncio.timeout(10):
                while not (told := [one for one in heard.messages if b"verified" in one.payload and _answers(one)]):
                    await asyncio.sleep(0.01)
            assert json.loads(told[0].payload)["id"] == "0708"
            assert any(one.topic == "edged/g/monitor/plc/relay" for one in heard.messages)

            listed = await asyncio.to_thread(client.call, gateway.socket, "/v1/commands?limit=50")
            first = next(one for one in listed if one["id"] == "one")
            assert (first["requester"], first["entrance"], first["value"]) == ("mara", "cloud", 21.5)
            twin = await asyncio.to_thread(client.call, gateway.socket, "/v1/twin/plc")
            assert twin["plc"]["setpoint"]["desired"]["value"] == 22
            assert twin["plc"]["setpoint"]["reported"]["value"] == 22


def _answers(message: Got) -> bool:
    return message.topic == "answers/7"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not-writable": ({"point": "plc/fixed", "value": 1}, "not-writable"),
    "no-device": ({"point": "nobody/x", "value": 1}, "unknown"),
    "no-point": ({"point": "plc/x", "value": 1}, "unknown"),
    "high": ({"point": "plc/setpoint", "value": 31}, "range"),
    "fine": ({"point": "plc/setpoint", "value": 21.55}, "decimals"),
    "word": ({"point": "plc/mode", "value": "warm"}, "range"),
    "type": ({"point": "plc/setpoint", "value": "21"}, "range"),
    "nothing": ({"point": "plc/setpoint"}, "value"),
    "both": ({"point": "plc/setpoint", "value": 21, "raw": "00C8"}, "value"),
    "raw-size": ({"point": "plc/setpoint", "raw": "C8"}, "raw"),
    "raw-range": ({"point": "plc/setpoint", "raw": "7FFF"}, "range"),
    "hex": ({"point": "plc/setpoint", "raw": "xy"}, "malformed"),
    "typo": ({"point": "plc/setpoint", "valeu": 21}, "malformed"),
    "bare": ({"point": "setpoint", "value": 21}, "malformed"),
    "ttl": ({"point": "plc/setpoint", "value": 21, "expires": "soon"}, "malformed"),
    "seconds": ({"point": "plc/setpoint", "value": 21, "expires": 1_795_000_000}, "malformed"),
    "no-zone": ({"point": "plc/setpoint", "value": 21, "expires": "2030-01-01T00:00:00"}, "malformed"),
    "far": ({"point": "plc/setpoint", "value": 21, "expires": now() + 10**14}, "expiry"),
}


async def test_what_is_not_allowed_is_rejected_with_its_reason_and_not_written(
    tmp_path: Path, broker: Mosquitto, device: int
) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with running(gateway), sending(broker.port) as sender:
            await healthy(gateway)
            for ident, (document, _) in REFUSED.items():
                sender.send(id=ident, **document)
            sender.send(id="no-expiry", point="plc/setpoint", value=21, time=now())
            sender.send(id="old", point="plc/setpoint", value=21, expires=now() - 1)
            sender.send(id="kept", retain=True, point="plc/setpoint", value=21)
            for junk in (b"", b"{", b"[]", b"\xff\xfe", b"7", b'{"id":7}', b'{"id":"' + b"x" * 70_000 + b'"}'):
                sender.send(junk)
            found = {ident: await ending(heard, ident) for ident in REFUSED}
            assert {ident: (one["state"], one["reason"]) for ident, one in found.items()} == {
                ident: ("rejected", reason) for ident, (_, reason) in REFUSED.items()
            }
            assert (await ending(heard, "no-expiry"))["reason"] == "expiry"
            assert (await ending(heard, "old"))["state"] == "expired"
            assert (await ending(heard, "kept"))["reason"] == "retained"
            # the device itself refuses: the Modbus exception is named
            sender.send(id="refused", point="plc/missing", value=1)
            refused = await ending(heard, "refused")
            assert (refused["state"], refused["reason"]) == ("failed", "exception")
            assert "exception 2" in refused["detail"]
            assert register(device, 10) == 10
        assert "Traceback" not in gateway.lines()


async def test_an_id_counts_once_also_after_a_kill(tmp_path: Path, broker: Mosquitto, device: int) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with sending(broker.port) as sender:
            async with running(gateway):
                await healthy(gateway)
                expires = now() + 60_000_000
                sender.send(id="once", point="plc/setpoint", value=21, expires=expires)
                await ending(heard, "once")
                sender.send(id="next", point="plc/setpoint", value=22, expires=expires)
                await ending(heard, "next")
                await gateway.stop(signal.SIGKILL)
            before = len(results(heard, "once"))
            async with running(gateway):
                await healthy(gateway)
                sender.send(id="once", point="plc/setpoint", value=21, expires=expires)
                async with asyncio.timeout(10):
                    while len(results(heard, "once")) == before:
                        await asyncio.sleep(0.01)
                assert results(heard, "once")[-1]["state"] == "verified"  # what became of it then
                assert register(device, 10) == 220
                sender.send(id="once", point="plc/setpoint", value=25, expires=expires)
                async with asyncio.timeout(10):
                    while results(heard, "once")[-1].get("reason") != "id":
                        await asyncio.sleep(0.01)
                assert register(device, 10) == 220
                twin = await asyncio.to_thread(client.call, gateway.socket, "/v1/twin/plc")
                assert twin["plc"]["setpoint"]["desired"]["value"] == 22


async def test_commands_sent_while_away_come_later_or_expire(tmp_path: Path, broker: Mosquitto, device: int) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with sending(broker.port) as sender:
            async with running(gateway):
                await healthy(gateway)
            sender.send(id="too-old", point="plc/setpoint", value=11, time=now(), ttl=0.5)
            sender.send(id="broker-expired", point="plc/setpoint", value=12, message_expiry=1)
            sender.send(id="in-time", point="plc/setpoint", value=13, time=now(), ttl="1m")
            await asyncio.sleep(1.5)
            async with running(gateway):
                ended = await ending(heard, "in-time")
                assert ended["state"] == "verified", str(ended)
                assert (await ending(heard, "too-old"))["state"] == "expired"
                assert register(device, 10) == 130
                # A broker that hands it out in its last moment does not say any more until when it may be carried out.
                assert audit(gateway).get("broker-expired", ("rejected", "expiry")) == ("rejected", "expiry")


async def test_a_device_that_is_away_gets_the_newest_value_when_it_is_back(tmp_path: Path, broker: Mosquitto) -> None:
    port = free_port()
    gateway = gateway_in(tmp_path / "gateway", port, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with running(gateway), sending(broker.port) as sender:
            await _connected(gateway)
            sender.send(id="older", point="plc/setpoint", value=11, ttl="1m", time=now())
            sender.send(id="newer", point="plc/setpoint", value=12, ttl="1m", time=now())
            sender.send(id="short", point="plc/mode", value="heat", ttl=1, time=now())
            sender.send(id="other", point="plc/relay", value=False, ttl="1m", time=now())
            assert (await ending(heard, "older"))["reason"] == "superseded"
            assert (await ending(heard, "short"))["state"] == "expired"
            await gateway.stop(signal.SIGKILL)  # what waits is on the disk
            await gateway.start()
            await _connected(gateway)
            with pymodbus_server("tcp", 1, port=port):
                assert (await ending(heard, "newer"))["state"] == "verified"
                assert (await ending(heard, "other"))["state"] == "verified"
                assert (register(port, 10), register(port, 11)) == (120, 11)


async def _connected(gateway: Gateway) -> None:
    await gateway.until(lambda status: status["connections"].get("cloud", {}).get("connected"))


async def test_a_write_that_was_cut_off_is_judged_by_reading_and_never_repeated(
    tmp_path: Path, broker: Mosquitto, device: int
) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with sending(broker.port) as sender:
            async with running(gateway):
                await healthy(gateway)
                for ident, value in (("followed", 21), ("lost", 22)):
                    sender.send(id=ident, point="plc/setpoint", value=value, ttl="1m", time=now())
                    await ending(heard, ident)
            heard.messages.clear()
            # as a kill between the write and its record leaves them: both were under way, the point has 22
            with sqlite3.connect(gateway.folder / "state" / "commands.db") as db:
                db.execute("UPDATE command SET state = 'executing', told = 'accepted'")
            async with running(gateway):
                lost = await ending(heard, "followed")
                assert (lost["state"], lost["reason"], lost["value"]) == ("failed", "interrupted", 22.0)
                assert (await ending(heard, "lost"))["state"] == "verified"
                assert register(device, 10) == 220


async def test_commands_go_on_over_a_reload_and_follow_what_is_allowed(
    tmp_path: Path, broker: Mosquitto, device: int
) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    with subscribed(broker.port, RESULTS) as heard:
        async with running(gateway), sending(broker.port) as sender:
            await healthy(gateway)
            config = json.loads(gateway.config.read_text())
            config["devices"]["plc"]["points"]["setpoint"]["writable"] = False
            gateway.config.write_text(json.dumps(config))
            code, said = await cli(gateway, "reload", "--watch", "1s")
            assert code == 0, said
            await healthy(gateway)
            sender.send(id="now-forbidden", point="plc/setpoint", value=21)
            assert (await ending(heard, "now-forbidden"))["reason"] == "not-writable"
            sender.send(id="still-allowed", point="plc/mode", value="off")
            assert (await ending(heard, "still-allowed"))["state"] == "verified"


async def test_without_leave_nothing_is_even_subscribed_to(tmp_path: Path, broker: Mosquitto, device: int) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port, commands=False)
    async with running(gateway), sending(broker.port) as sender:
        await healthy(gateway)
        sender.send(id="no", point="plc/setpoint", value=21)
        code, said = await cli(gateway, "commands", "list")
        assert (code, said.strip()) == (0, "no command has come yet")
        assert register(device, 10) == 10
    assert f"{COMMANDS} (QoS" not in broker.log


async def test_the_command_line_writes_lists_and_takes_back(tmp_path: Path, broker: Mosquitto, device: int) -> None:
    gateway = gateway_in(tmp_path / "gateway", device, broker.port)
    async with running(gateway):
        await healthy(gateway)
        assert await cli(gateway, "write", "plc/setpoint", "21.5") == (0, "plc/setpoint: verified, reads 21.5\n")
        assert (await cli(gateway, "write", "plc/mode", "heat"))[0] == 0
        code, said = await cli(gateway, "write", "plc/missing", "1")
        assert code == 1
        assert "exception 2 (illegal data address)" in said
        code, said = await cli(gateway, "write", "plc/setpoint", "--raw", "00C8", "--json", "--id", "mine")
        record = json.loads(said)
        assert (code, record["state"], record["value"], record["id"]) == (0, "verified", 20.0, "mine")
        code, said = await cli(gateway, "write", "plc/setpoint", "99")
        assert (code, "range" in said) == (1, True)
        code, said = await cli(gateway, "commands", "list", "plc")
        assert code == 0
        assert "root by local  verified, reads 21.5" in said or "by local  verified, reads 21.5" in said
        assert (await cli(gateway, "commands", "cancel", "mine"))[0] == 1
        code, said = await cli(gateway, "twin", "plc")
        assert "desired 20.0" in said
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", "write", "plc/setpoint", "19", "--direct", "--config", str(gateway.config),
        "--state", str(gateway.folder / "state"), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert out.decode() == "plc/setpoint: verified, reads 19.0\n"
    code, said = await cli(gateway, "commands", "list", "--state", str(gateway.folder / "state"))
    assert "plc/setpoint = 21.5" in said  # without a gateway


async def test_commands_come_over_tls_and_beside_flows_that_come_and_go(tmp_path: Path, device: int) -> None:
    authority = Pki(tmp_path / "pki")
    certificate, key = authority.issue("broker", "DNS:localhost", "IP:127.0.0.1")
    secure = free_port()
    listener = [f"listener {secure} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}"]
    document = config(device, secure, url=f"mqtts://localhost:{secure}", ca=str(authority.certificate))
    document["flows"] = {
        "first": {"match": [{"point": "mode"}], "connections": {"cloud": {"topic": "edged/g/first"}}},
        "second": {"connections": {"cloud": {}}},
    }
    gateway = Gateway(tmp_path / "gateway", document)
    topics = (RESULTS, "edged/g/monitor/#", "edged/g/metadata")
    with Mosquitto(tmp_path / "broker", listener=listener) as broker, subscribed(broker.port, *topics) as heard:
        async with running(gateway), sending(broker.port) as sender:
            await healthy(gateway)
            sender.send(id="1", point="plc/setpoint", value=21.5)
            assert (await ending(heard, "1"))["state"] == "verified"
            began = (await gateway.status())["connections"]["cloud"]

            del document["flows"]["first"]
            gateway.config.write_text(json.dumps(document))
            assert (await cli(gateway, "reload", "--watch", "1s"))[0] == 0
            sender.send(id="2", point="plc/relay", value=False)
            assert (await ending(heard, "2"))["state"] == "verified"
            after = (await gateway.status())["connections"]["cloud"]
            async with asyncio.timeout(10):
                while not any(one.topic == "edged/g/monitor/plc/relay" for one in heard.messages):
                    await asyncio.sleep(0.05)
    assert set(began["flows"]) == {"first", "second"}
    assert set(after["flows"]) == {"second"}
    assert after["since"] == began["since"]
    assert register(device, 10) == 215
    assert any(one.topic == "edged/g/metadata" for one in heard.messages)
