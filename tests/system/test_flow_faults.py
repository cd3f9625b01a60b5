"""The guarantees of flows, over kill -9 and an outage: judged from the messages alone, one flow against the other.

The devices are `load_server.c`. The flow `all` leaves nothing out, so what it brings is the log; what the others bring
is worked out of that once more.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from edged.testing.audit import REPLAY, Audit
from tests.support.checker import rows
from tests.support.gateway import Gateway, running
from tests.support.load_server import load_server, points_yaml
from tests.support.mosquitto import Mosquitto
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto

WINDOW = 20
SECOND = 1_000_000
FLOWS: dict[str, dict[str, Any]] = {
    "all": {"connections": {"cloud": {"topic": "f/all"}}},
    "seconds": {
        "match": [{"point": "r[67]"}],
        "steps": [{"aggregate": {"every": "1s", "functions": ["avg", "min", "max"]}}],
        "connections": {"cloud": {"topic": "f/seconds"}},
    },
    "few": {"match": [{"point": "r6"}], "steps": [{"sample": "1s"}], "connections": {"cloud": {"topic": "f/few"}}},
    "none": {"steps": [{"filter": "r6 < 0"}], "connections": {"cloud": {"topic": "f/none"}}},
    "urgent": {"match": [{"point": "r7"}], "priority": "high", "connections": {"cloud": {"topic": "f/urgent"}}},
}


def config_of(ports: list[int], broker: int) -> dict[str, Any]:
    names = [f"b{port}" for port in ports]
    return {
        "gateway": {"id": "plant-7"},
        "buffer": {"flush": "200ms", "retention": "1h"},
        "buses": {
            port: {"adapter": "modbus-tcp", "host": "127.0.0.1", "port": int(port[1:])} for port in names
        },
        "devices": {f"d{port}": {"bus": port, "unit": 1, "every": "100ms", "points": points_yaml(8)} for port in names},
        "connections": {
            "cloud": {
                "connector": "mqtt", "url": f"mqtt://127.0.0.1:{broker}", "retry_max": "500ms", "window": WINDOW,
            }
        },
        "flows": FLOWS,
    }  # fmt: skip


class Received:
    """What arrived of each flow, duplicates dropped, and the proof that it is all."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.audit = Audit()
        self.replayed = 0
        self.messages: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in subscriber.messages:
            payload = orjson.loads(one.payload)
            if self.audit.take(payload):
                if payload.get("replay"):
                    self.replayed += payload["readings"]
                else:
                    self.messages[payload["flow"]].append(payload)

    def samples(self, flow: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
        for payload in self.messages[flow]:
            yield from rows(payload)

    def by_second(self, point: str) -> dict[tuple[str, int], list[int]]:
        """The values of a point in each device and second, by the flow that leaves nothing out."""
        found = defaultdict(list)
        for device, time, values in self.samples("all"):
            if values.get(point) is not None:
                found[device, time // SECOND].append(values[point])
        return found


def check_seconds(received: Received) -> int:
    """Each second is the sum of its rows, and a row that says nothing else is the only one, or the first."""
    marked: dict[tuple[str, int], list[bool]] = defaultdict(list)
    parts: dict[str, dict[tuple[str, int], list[dict[str, Any]]]] = {"r6": defaultdict(list), "r7": defaultdict(list)}
    for payload in received.messages["seconds"]:
        for table in payload["tables"]:
            doubtful = {row for row, _, quality in table.get("quality", []) if quality.startswith("uncertain")}
            for i, (device, time, values) in enumerate(
                zip(table["devices"], table["times"], table["values"], strict=True)
            ):
                known = dict(zip(table["points"], values, strict=True))
                marked[device, time // SECOND].append(i in doubtful)
                for point, found in parts.items():
                    if known.get(f"{point}_count"):
                        found[device, time // SECOND].append({name[3:]: value for name, value in known.items()
                                                              if name.startswith(point)})  # fmt: skip
    for point, found in parts.items():
        expected, last = received.by_second(point), max(second for _, second in found)
        for key, some in found.items():
            if key[1] == last:
                continue  # what was sent once more has cut it, perhaps, and the rest is still to come
            values = expected[key]
            assert sum(one["count"] for one in some) == len(values), (point, key)
            assert sum(one["avg"] * one["count"] for one in some) == pytest.approx(sum(values))
            assert (min(one["min"] for one in some), max(one["max"] for one in some)) == (min(values), max(values))
        assert {key for key in expected if key[1] < last} <= set(found), "a second that nobody worked out"
    for key, doubts in marked.items():
        assert len(doubts) - sum(doubts) <= 1, f"two rows of {key} say that they are whole"
    return sum(map(sum, marked.values()))


def check_few(received: Received) -> None:
    firsts: dict[tuple[str, int], int] = {}
    for device, time, values in received.samples("all"):
        if "r6" in values:
            firsts.setdefault((device, time // SECOND), time)
            firsts[device, time // SECOND] = min(time, firsts[device, time // SECOND])
    few = [(device, time) for device, time, _ in received.samples("few")]
    of_second = defaultdict(list)
    for device, time in few:
        of_second[device, time // SECOND].append(time)
    assert {(device, time // SECOND) for device, time in few} >= {
        key for key in firsts if key[1] < few[-1][1] // SECOND
    }
    assert set(firsts.values()) >= {time for device, time in few if len(of_second[device, time // SECOND]) == 1}


def check_counters(status: dict[str, Any]) -> None:
    for name, flow in status["flows"].items():
        count = flow["connections"]["cloud"]
        assert count["in"] == sum(number for key, number in count.items() if key != "in"), name
        assert flow["errors"] == 0
    none, everything = (status["flows"][name]["connections"]["cloud"] for name in ("none", "all"))
    assert (none["sent"], everything["filtered"]) == (0, 0)
    assert none["filtered"] > 0
    assert status["connections"]["cloud"]["connected"]
    assert set(status["connections"]["cloud"]["flows"]) == set(FLOWS)
    buffer = status["buffer"]
    assert buffer["read"] == buffer["stored"] + buffer["suppressed"] + buffer["rejected"] + buffer["waiting"]


async def settled(gateway: Gateway) -> dict[str, Any]:
    """Its status, when hardly anything waits but the interval that is not over yet."""
    return await gateway.until(
        lambda status: (
            status["connections"].get("cloud", {}).get("connected")
            and all(one["connections"]["cloud"]["queued"] < 400 for one in status["flows"].values())
        )
    )


async def test_flows_keep_their_promises_over_kill_9_and_an_outage(tmp_path: Path) -> None:
    with (
        load_server(2) as ports,
        Mosquitto(tmp_path / "broker", persistence=True) as broker,
        subscribed(broker.port, "f/#") as subscriber,
    ):
        gateway = Gateway(tmp_path / "gateway", config_of(ports, broker.port))
        async with running(gateway):
            for pause in (1.7, 0.8):
                await settled(gateway)
                await asyncio.sleep(pause)
                await gateway.stop(signal.SIGKILL)
                await gateway.start()
            await settled(gateway)
            await asyncio.to_thread(broker.stop)
            await asyncio.sleep(1.5)
            await asyncio.to_thread(broker.start)
            await settled(gateway)
            await asyncio.sleep(1.5)
            status = await settled(gateway)
            check_counters(status)
            assert gateway.lines().count("WARNING edged.uplink: cloud: not connected") <= 3
            verified = await said("verify", "--socket", str(gateway.socket))
            assert "flow none to cloud: stored" in verified
            assert "everything adds up" in verified
            assert "once more" in (
                await said(
                    "buffer", "--socket", str(gateway.socket), "replay", "--connection", "cloud/all", "--from", "5s"
                )
            )
            async with asyncio.timeout(20):
                while not Received(subscriber).replayed:
                    await asyncio.sleep(0.1)
        received = Received(subscriber)
    judge(received)


def judge(received: Received) -> None:
    """From the messages alone."""
    audit = received.audit
    assert audit.missing == []
    assert audit.duplicates <= 4 * WINDOW
    assert audit.out_of_order == 0
    (gateway_id, epoch) = {(lane.gateway, lane.epoch) for lane in audit.lanes}.pop()
    assert audit.gaps(gateway_id, epoch, "all") == []
    lanes = {flow: {lane.lane for lane in audit.lanes if lane.flow == flow} for flow in FLOWS}
    assert lanes["none"] == set()
    assert lanes["all"] == {"live", "priority", REPLAY}
    assert lanes["seconds"] == lanes["few"] == {"live"}
    assert "priority" in lanes["urgent"]
    assert {tuple(values) for _, _, values in received.samples("urgent")} == {("r7",)}
    check_seconds(received)
    check_few(received)


async def said(*arguments: str) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()
