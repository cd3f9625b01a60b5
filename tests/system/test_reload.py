"""Changing a running gateway's configuration: the real daemon, real devices, a real broker and subscriber.

The devices are `load_server.c`: each reply carries its number and time, so that a missed or doubled poll shows.
What was delivered is judged from the messages alone.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.testing.audit import Audit
from tests.support.checker import check, rows
from tests.support.gateway import Gateway, running
from tests.support.load_server import load_server, points_yaml, stamp
from tests.support.mosquitto import Mosquitto
from tests.support.reloading import Reloading, device
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto

EVERY = 0.2


@dataclass
class Plant(Reloading):
    """A gateway with two buses and one connection."""

    ports: list[int]
    broker: Mosquitto
    subscriber: Subscriber
    config: dict[str, Any]

    def write(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the file."""
        change(self.config)
        self.gateway.config.write_text(json.dumps(self.config))

    async def healthy(self) -> dict[str, Any]:
        """Everything works."""
        return await self.until(
            lambda status: (
                all(device["health"] == "ok" for bus in status["buses"] for device in bus["devices"])
                and len(status["connections"]) == len(self.config["connections"])
                and all(one["connected"] for one in status["connections"].values())
            )
        )

    def payloads(self, topic: str = "") -> list[dict[str, Any]]:
        """The messages of readings so far."""
        return [orjson.loads(one.payload) for one in self.subscriber.messages if not topic or one.topic == topic]

    def stamps(self, device: str) -> list[int]:
        """When the device made the replies that arrived, µs."""
        return sorted(
            stamp(values)
            for payload in self.payloads("edged/plant-7/data")
            for one, _, values in rows(payload)
            if one == device and "r3" in values
        )

    def assert_nothing_lost(self, topic: str = "edged/plant-7/data", *, good: bool = True) -> None:
        """Complete, once, in order, right: from the messages alone."""
        payloads = self.payloads(topic)
        audit = Audit()
        for payload in payloads:
            audit.take(payload)
        assert (audit.missing, audit.duplicates, audit.out_of_order) == ([], 0, 0)
        report = check(payloads)
        assert (report.wrong, report.repeated, report.disordered) == (0, 0, 0)
        assert not (good and report.bad_readings)


@asynccontextmanager
async def plant(folder: Path) -> AsyncIterator[Plant]:
    with load_server(3) as ports, Mosquitto(folder) as broker, subscribed(broker.port, "edged/+/#") as subscriber:
        config = {
            "gateway": {"id": "plant-7"},
            "buffer": {"flush": "200ms"},
            "control": {"watch": "1s"},
            "buses": {f"b{i}": {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": ports[i]} for i in range(2)},
            "devices": {
                f"d{i}": {"bus": f"b{i}", "unit": 1, "every": f"{EVERY * 1000:.0f}ms", "points": points_yaml(8)}
                for i in range(2)
            },
            "connections": {
                "cloud": {"connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker.port}", "retry_max": "1s"}
            },
        }
        gateway = Gateway(folder / "gateway", config)
        async with running(gateway):
            one = Plant(gateway, ports, broker, subscriber, config)
            await one.settled()
            await one.healthy()
            yield one


def assert_counters_add_up(status: dict[str, Any]) -> None:
    buffer = status["buffer"]
    assert buffer["read"] == buffer["stored"] + buffer["suppressed"] + buffer["rejected"] + buffer["waiting"]
    for one in buffer["connections"].values():
        assert one["stored_for"] == one["delivered"] + one["expired"] + one["evicted"] + one["dead"] + one["pending"]


def phase(stamps: list[int]) -> int:
    """Where on the grid the polls stand, µs: the median, which a stall of the machine does not move."""
    period = round(EVERY * 1e6)
    turned = sorted((one - stamps[0] + period // 2) % period for one in stamps)
    return turned[len(turned) // 2] + stamps[0] - period // 2


def add_d2(config: dict[str, Any]) -> None:
    config["devices"]["d2"] = {"bus": "b1", "unit": 2, "every": "200ms", "points": points_yaml(8)}


async def test_a_bus_that_is_not_touched_does_not_miss_a_poll(tmp_path: Path) -> None:
    async with plant(tmp_path) as one:
        before = await one.gateway.status()
        early = one.stamps("d0")
        one.write(add_d2)
        code, events = await one.reload()
        assert [event["event"] for event in events] == ["diff", "applied", "good"]
        assert events[0]["lines"] == ["device d2: added"]
        assert code == 0
        after = await one.healthy()
        old, new = device(before, "d0"), device(after, "d0")
        assert (new["since"], new["failures"]) == (old["since"], 0)
        assert new["polls"] > old["polls"]
        assert device(after, "d2")["polls"] > 0
        link = after["connections"]["cloud"]
        assert link["since"] == before["connections"]["cloud"]["since"]
        assert link["attempts"] <= 1  # none once the session has lasted
        assert_counters_add_up(after)
        metadata = [orjson.loads(m.payload) for m in one.subscriber.messages if m.topic == "edged/plant-7/metadata"]
        assert ("d2" in metadata[0]["devices"], "d2" in metadata[-1]["devices"]) == (False, True)
        late = one.stamps("d0")[len(early) :]
    one.assert_nothing_lost()
    report = check(one.payloads("edged/plant-7/data"))
    assert report.missing <= 2  # on the bus that was opened anew, or cut off by the stop: a reply without a taker
    period = round(EVERY * 1e6)
    shift = (phase(late) - phase(early) + period // 2) % period - period // 2
    assert abs(shift) < period // 4  # its grid goes on
    stamps = one.stamps("d0")
    slots = round((stamps[-1] - stamps[0]) / period)
    assert len(stamps) - 1 >= slots - new["overruns"] - 1


async def test_connections_come_change_and_go_one_by_one(tmp_path: Path) -> None:
    async with plant(tmp_path) as one:
        began = await one.gateway.status()

        def more(config: dict[str, Any]) -> None:
            config["connections"]["second"] = {**config["connections"]["cloud"], "topic": "edged/{gateway}/second"}

        one.write(more)
        assert (await one.reload(watch="1s"))[0] == 0
        added = await one.healthy()
        assert added["connections"]["cloud"]["since"] == began["connections"]["cloud"]["since"]
        assert added["buffer"]["connections"]["second"]["delivered"] > 0
        one.write(lambda config: config["connections"]["second"].update(max_readings=100))
        code, events = await one.reload(watch="1s")
        assert (code, events[0]["lines"]) == (0, ["connection second: max_readings 500 → 100"])
        changed = await one.healthy()
        assert changed["connections"]["cloud"]["since"] == began["connections"]["cloud"]["since"]
        assert changed["connections"]["second"]["since"] != added["connections"]["second"]["since"]
        both = changed["buffer"]["connections"]
        assert both["second"]["stored_for"] >= added["buffer"]["connections"]["second"]["stored_for"]
        assert_counters_add_up(changed)
        one.write(lambda config: config["connections"].pop("second"))
        assert (await one.reload(watch="1s"))[0] == 0
        gone = await one.gateway.status()
        assert (list(gone["connections"]), list(gone["buffer"]["connections"])) == (["cloud"], ["cloud"])
        assert gone["connections"]["cloud"]["since"] == began["connections"]["cloud"]["since"]
        assert all(device(gone, name)["since"] == device(began, name)["since"] for name in ("d0", "d1"))
        assert_counters_add_up(gone)
    one.assert_nothing_lost()
    one.assert_nothing_lost("edged/plant-7/second")


async def test_what_does_not_come_up_is_rolled_back(tmp_path: Path) -> None:
    async with plant(tmp_path) as one:
        before = await one.gateway.status()

        def wrong(config: dict[str, Any]) -> None:
            config["buses"]["b1"]["port"] = one.broker.port  # something listens there, but no device
            config["connections"]["second"] = {"connector": "mqtt", "url": "mqtt://127.0.0.1:1"}

        one.write(wrong)
        code, events = await one.reload(watch="3s")
        assert (code, [event["event"] for event in events]) == (1, ["diff", "applied", "rolled-back"])
        assert "bus b1" in events[-1]["why"] or "device d1 worked before" in events[-1]["why"]
        assert "second" not in events[-1]["why"]  # it never worked, so it is no reason
        after = await one.until(lambda status: device(status, "d1")["health"] == "ok")
        assert after["config"]["running"] == "last-good"
        assert "rolled back: " in after["config"]["problem"]
        assert device(after, "d0")["since"] == device(before, "d0")["since"]
        assert list(after["buffer"]["connections"]) == ["cloud"]
        assert_counters_add_up(after)
        assert json.loads(one.gateway.config.read_text())["buses"]["b1"]["port"] == one.broker.port
        _, text, _ = await one.edged("status", "--socket", str(one.gateway.socket))
        assert "NOT running what" in text
        one.assert_nothing_lost(good=False)  # a device that was not there says so
        # After a power cut the gateway comes back as it worked, not as the file says.
        await one.gateway.stop(signal.SIGKILL)
        await one.gateway.start()
        again = await one.until(lambda status: device(status, "d1")["health"] == "ok")
        assert again["config"]["running"] == "last-good"
        assert "was rolled back on" in again["config"]["problem"]


async def test_a_part_that_fails_is_rolled_back_at_once(tmp_path: Path) -> None:
    async with plant(tmp_path) as one:
        link = {"username": "me", "password": {"name": "nowhere"}}
        one.write(lambda config: config["connections"]["cloud"].update(link))
        text = one.gateway.config.read_text().replace('{"name": "nowhere"}', "!secret nowhere")
        one.gateway.config.write_text(text)
        code, events = await one.reload(watch="4s")
        assert code == 1
        assert events[0]["lines"] == ["connection cloud: username unset → me, password unset → !secret nowhere"]
        assert "connection cloud" in events[-1]["why"]
        await one.until(lambda status: status["connections"]["cloud"]["connected"])
    one.assert_nothing_lost()


async def test_a_second_reload_is_judged_together_with_the_first(tmp_path: Path) -> None:
    async with plant(tmp_path) as one:
        one.write(lambda config: config["buses"]["b1"].update(port=one.broker.port))
        first = asyncio.create_task(one.reload(watch="20s"))
        await one.until(lambda status: status["config"]["watching"] > 0)
        one.gateway.config.write_text("gateway: [")
        code, events = await one.reload()
        assert (code, [event["event"] for event in events]) == (2, ["failed"])
        assert (await one.gateway.status())["config"]["watching"] > 0
        one.write(add_d2)
        code, events = await one.reload(watch="3s")
        assert (code, events[-1]["event"]) == (1, "rolled-back")
        assert (await first)[1][-1]["event"] == "superseded"
        status = await one.until(lambda status: device(status, "d1")["health"] == "ok")
        assert [one["device"] for bus in status["buses"] for one in bus["devices"]] == ["d0", "d1"]


async def test_flows_come_change_and_go_while_the_session_and_the_other_flows_go_on(tmp_path: Path) -> None:
    def flow(topic: str, **more: Any) -> dict[str, Any]:
        return {"connections": {"cloud": {"topic": f"edged/plant-7/{topic}"}}, **more}

    async with plant(tmp_path) as one:
        one.write(lambda config: config.update(flows={"all": flow("all"), "some": flow("some")}))
        _, events = await one.reload(watch="1s")
        assert {"flow all: added", "flow some: added"} <= set(events[0]["lines"])
        assert events[-1]["event"] == "good"
        began = (await one.healthy())["connections"]["cloud"]
        assert set(began["flows"]) == {"all", "some"}

        one.write(lambda config: config["flows"]["some"].update(match=[{"point": "r6"}], description="changed"))
        one.write(lambda config: config["flows"].update(new=flow("new", match=[{"labels": {"room": "hall"}}])))
        assert (await one.reload(watch="1s"))[1][-1]["event"] == "good"
        one.write(lambda config: config["devices"]["d0"].update(labels={"room": "hall"}))
        assert (await one.reload(watch="1s"))[1][-1]["event"] == "good"
        async with asyncio.timeout(20):
            while not one.payloads("edged/plant-7/new"):
                await asyncio.sleep(0.1)
        after = await one.healthy()
        assert set(after["connections"]["cloud"]["flows"]) == {"all", "some", "new"}
        assert after["connections"]["cloud"]["since"] == began["since"]
        assert after["connections"]["cloud"]["flows"]["all"]["since"] == began["flows"]["all"]["since"]

        one.write(lambda config: config["flows"]["new"]["connections"]["cloud"].update(topic="edged/{tenant}/x"))
        code, events = await one.reload(watch="1s")
        assert (code, events[-1]["event"]) == (1, "rolled-back")
        assert "flow new to cloud" in events[-1]["why"]
        await one.until(lambda status: status["connections"]["cloud"]["flows"]["new"]["connected"])

        del one.config["flows"]["new"]["connections"]["cloud"]["topic"]
        one.write(lambda config: config["flows"]["new"].update(flow("new", match=[{"labels": {"room": "hall"}}])))
        one.write(lambda config: config["flows"].pop("some"))
        assert (await one.reload(watch="1s"))[1][-1]["event"] == "good"
        gone = await one.healthy()
        assert set(gone["buffer"]["connections"]) == {"cloud/all", "cloud/new"}
        assert gone["connections"]["cloud"]["since"] == began["since"]
        assert "flow some to cloud is gone for good" in one.gateway.lines()
        assert_counters_add_up(gone)
        await asyncio.sleep(0.5)
        audit = Audit()
        for payload in one.payloads():
            if "flow" in payload:
                audit.take(payload)
        assert (audit.missing, audit.duplicates, audit.out_of_order) == ([], 0, 0)
        epoch = gone["buffer"]["epoch"]
        assert audit.gaps("plant-7", epoch, "all") == []
        assert check(one.payloads("edged/plant-7/all")).missing == 0
        assert {row[0] for payload in one.payloads("edged/plant-7/new") for row in rows(payload)} == {"d0"}
