"""Commands while the clock is set wrong, and while the disk is full: never late, never kept by nobody."""

from __future__ import annotations

import asyncio
import errno
import signal
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from edged.config.compiled import load_compiled
from tests.support.cc import compiled
from tests.support.commanding import RESULTS, config, ending, healthy, now, results, sending
from tests.support.fakeclock import LIBRARY, MISSING, FakeClock
from tests.support.gateway import Gateway, running
from tests.support.modbus import pymodbus_server
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.subscriber import subscribed

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
            async with asyncio.timeout(10):
                while len(results(heard)) < 3:
                    await asyncio.sleep(0.02)
            clock.shift(-3600)  # by the wall clock all have an hour more
            assert (await ending(heard, "short"))["state"] == "expired"
            await gateway.stop(signal.SIGKILL)
            await asyncio.sleep(1.5)
            await gateway.start()
            assert (await ending(heard, "restarted"))["state"] == "expired"
            with pymodbus_server("tcp", 1, port=port):
                assert (await ending(heard, "kept"))["state"] == "verified"
                assert registers(port) == (10, 11)  # as the server has them at first


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
