"""Commands while the clock is set wrong, and while the disk is full: never late, never kept by nobody."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from edged.config.compiled import load_compiled
from edged.testing.proxy import FaultProxy
from tests.support.cc import compiled
from tests.support.commanding import RESULTS, config, ending, healthy, now, results, sending
from tests.support.fakeclock import LIBRARY, MISSING, FakeClock
from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto
FAULTY = Path(__file__).parents[1] / "support" / "faultydisk.c"


def registers(port: int) -> tuple[int, int]:
    with ModbusTcpClient("127.0.0.1", port=port) as modbus:
        found = modbus.read_holding_registers(10, count=2, device_id=1).registers
        return int(found[0]), int(found[1])


async def connected(gateway: Gateway) -> None:
    await gateway.until(lambda status: status["connections"].get("cloud", {}).get("connected"))


@pytest.mark.skipif(not LIBRARY, reason=MISSING)
async def test_a_step_of_the_clock_makes_no_command_late(tmp_path: Path) -> None:
    clock, port = FakeClock(tmp_path), free_port()
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, RESULTS) as heard:
        document: dict[str, Any] = {**config(port, broker.port), "clock": {"trust": "always"}}
        gateway = Gateway(tmp_path / "gateway", document, prefix=clock.prefix)
        load_compiled(gateway.config, gateway.folder / "state" / "cache")  # libfaketime breaks time.sleep
        async with running(gateway), sending(broker.port) as sender:
            await connected(gateway)
            sender.send(id="short", point="plc/setpoint", value=11, ttl=1, time=now())
            sender.send(id="restarted", point="plc/mode", value="heat", ttl=3, time=now())
            sender.send(id="kept", point="plc/relay", value=False, ttl="1m", time=now())
            await known(heard, 3)
            clock.shift(-3600)  # by the wall clock all have an hour more
            assert (await ending(heard, "short"))["state"] == "expired"
            await gateway.stop(signal.SIGKILL)
            await asyncio.sleep(1.5)
            await gateway.start()
            assert (await ending(heard, "restarted"))["state"] == "expired"
            with pymodbus_server("tcp", 1, port=port):
                assert (await ending(heard, "kept"))["state"] == "verified"
                assert registers(port) == (10, 11)  # as the server has them at first


@pytest.mark.skipif(not LIBRARY, reason=MISSING)
async def test_a_clock_that_jumps_ahead_ends_what_its_sender_dated_and_nothing_else(tmp_path: Path) -> None:
    clock, port = FakeClock(tmp_path), free_port()
    with Mosquitto(tmp_path / "broker") as broker, subscribed(broker.port, RESULTS) as heard:
        document: dict[str, Any] = {**config(port, broker.port), "clock": {"trust": "always"}}
        gateway = Gateway(tmp_path / "gateway", document, prefix=clock.prefix)
        load_compiled(gateway.config, gateway.folder / "state" / "cache")  # libfaketime breaks time.sleep
        async with running(gateway), sending(broker.port) as sender:
            await connected(gateway)
            sender.send(id="dated", point="plc/setpoint", value=11, ttl="1m", time=now())
            sender.send(id="counted", point="plc/mode", value="heat", message_expiry=60)
            await known(heard, 2)
            clock.shift(3600)
            assert (await ending(heard, "dated"))["state"] == "expired"
            with pymodbus_server("tcp", 1, port=port):
                assert (await ending(heard, "counted"))["state"] == "verified"
                assert registers(port) == (10, 1)


async def test_a_broker_that_is_restarted_in_the_middle_of_a_command_hears_its_end(tmp_path: Path) -> None:
    port = free_port()
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, subscribed(broker.port, RESULTS) as heard:
        async with running(Gateway(tmp_path / "gateway", config(port, broker.port))) as gateway:
            async with sending(broker.port) as sender:
                await connected(gateway)
                order: dict[str, Any] = {
                    "id": "across",
                    "point": "plc/setpoint",
                    "value": 11,
                    "time": now(),
                    "ttl": "1m",
                }
                sender.send(**order)
                await known(heard, 1)
            await asyncio.to_thread(broker.stop)
            with pymodbus_server("tcp", 1, port=port):
                async with asyncio.timeout(20):
                    while registers(port)[0] != 110:
                        await asyncio.sleep(0.05)
                write_register(port, 220)  # somebody at the device itself has changed it since
                await asyncio.to_thread(broker.start)
                assert (await ending(heard, "across"))["state"] == "verified"
                heard.messages.clear()
                async with sending(broker.port) as sender:
                    sender.send(**order)  # a sender that has heard nothing asks again
                    assert (await ending(heard, "across"))["state"] == "verified"
                assert registers(port)[0] == 220


async def test_a_gateway_that_is_killed_in_the_middle_of_a_write_does_not_write_again(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker", persistence=True) as broker,
        pymodbus_server("tcp", 1) as device,
        subscribed(broker.port, RESULTS) as heard,
    ):
        async with FaultProxy("127.0.0.1", device) as way:
            way.delay = 0.12
            document = config(way.port, broker.port)
            document["devices"]["plc"] |= {"timeout": "5s", "every": "500ms"}
            gateway = Gateway(tmp_path / "gateway", document)
            async with running(gateway), sending(broker.port) as sender:
                await healthy(gateway)
                sender.send(id="cut", point="plc/setpoint", value=11, time=now(), ttl="1m")
                async with asyncio.timeout(20):
                    while registers(device)[0] != 110:
                        await asyncio.sleep(0.01)
                await gateway.stop(signal.SIGKILL)  # the device's answer is still on its way
                assert not [one for one in results(heard, "cut") if one["state"] != "accepted"]
                write_register(device, 220)
                await gateway.start()
                cut = await ending(heard, "cut")
                assert (cut["state"], cut["reason"], cut["value"]) == ("failed", "interrupted", 22.0)
                await healthy(gateway)
                assert registers(device)[0] == 220


async def test_two_connections_have_ids_of_their_own(tmp_path: Path) -> None:
    first, second = ("edged/g/command", RESULTS), ("second/command", "second/result")
    with Mosquitto(tmp_path / "broker") as broker, pymodbus_server("tcp", 1) as device:
        document = config(device, broker.port)
        document["connections"]["second"] = {
            **document["connections"]["cloud"], "client_id": "second", "command_topic": second[0],
            "result_topic": second[1], "topic": "second/data",
        }  # fmt: skip
        gateway = Gateway(tmp_path / "gateway", document)
        with subscribed(broker.port, first[1], second[1]) as heard:
            async with running(gateway), sending(broker.port) as sender:
                await healthy(gateway)
                await gateway.until(lambda status: status["connections"]["second"].get("connected"))
                for (topic, _), value in ((first, 11), (second, 12)):
                    sender.send(id="1", point="plc/setpoint", value=value, topic=topic)
                async with asyncio.timeout(20):
                    while len(told := [json.loads(one.payload) for one in heard.messages]) < 4:
                        await asyncio.sleep(0.02)
                assert {(one["connection"], one.get("value")) for one in told if one["state"] == "verified"} == {
                    ("cloud", 11.0), ("second", 12.0),
                }  # fmt: skip


async def known(heard: Subscriber, count: int) -> None:
    """Until so much has been told."""
    async with asyncio.timeout(30):
        while len(results(heard)) < count:
            await asyncio.sleep(0.02)


def write_register(port: int, value: int) -> None:
    with ModbusTcpClient("127.0.0.1", port=port) as modbus:
        assert not modbus.write_register(10, value, device_id=1).isError()


async def test_on_a_full_disk_commands_are_refused_and_the_old_ones_known(tmp_path: Path) -> None:
    library = compiled(FAULTY, "-shared", "-fPIC", "-ldl")
    folder, control = tmp_path / "gateway", tmp_path / "refuse"
    prefix = (
        "env", f"LD_PRELOAD={library}", f"FAULTYDISK={control}", f"FAULTYDISK_UNDER={folder}/state/commands.db",
    )  # fmt: skip
    with (
        Mosquitto(tmp_path / "broker") as broker,
        pymodbus_server("tcp", 1) as device,
        subscribed(broker.port, RESULTS) as heard,
    ):
        gateway = Gateway(folder, config(device, broker.port), prefix=prefix)
        async with running(gateway), sending(broker.port) as sender:
            await healthy(gateway)
            sender.send(id="before", point="plc/setpoint", value=11)
            assert (await ending(heard, "before"))["state"] == "verified"
            control.write_text(str(errno.ENOSPC))
            sender.send(id="full", point="plc/setpoint", value=12)
            refused = await ending(heard, "full")
            assert (refused["state"], refused["reason"]) == ("rejected", "storage")
            assert not [one for one in results(heard, "full") if one["state"] == "accepted"]
            assert registers(device)[0] == 110
            control.unlink()
            sender.send(id="after", point="plc/setpoint", value=13)
            assert (await ending(heard, "after"))["state"] == "verified"
            sender.send(id="before", point="plc/setpoint", value=11)  # once more: known, and not carried out
            async with asyncio.timeout(10):
                while len([one for one in results(heard, "before") if one["state"] == "verified"]) < 2:
                    await asyncio.sleep(0.02)
            assert registers(device)[0] == 130
    assert "disk" in refused["detail"] or "commands.db" in refused["detail"]
