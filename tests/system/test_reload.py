"""Changing a running gateway's configuration: the real daemon, real devices, a real broker and subscriber.

The devices are `load_server.c`: each reply carries its number and time, so that a missed or doubled poll shows.
What was delivered is judged from the messages alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
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
from tests.support.subscriber import Subscriber, subscribed

pytestmark = pytest.mark.mosquitto

EVERY = 0.2


@dataclass
class Plant:
    """A gateway with two buses and one connection."""

    gateway: Gateway
    ports: list[int]
    broker: Mosquitto
    subscriber: Subscriber
    config: dict[str, Any]

    def write(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the file."""
        change(self.config)
        self.gateway.config.write_text(json.dumps(self.config))

    async def edged(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; returns exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edged", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def reload(self, *options: str, watch: str = "2s") -> tuple[int, list[dict[str, Any]]]:
        """`edged reload --json`: its exit code and events."""
        socket_option = ["--socket", str(self.gateway.socket)]
        code, out, err = await self.edged("reload", *socket_option, "--json", "--watch", watch, *options)
        assert out, err
        return code, [json.loads(line) for line in out.splitlines()]

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status, as soon as it is so."""
        async with asyncio.timeout(30):
            while not wanted(status := await self.gateway.status()):
                await asyncio.sleep(0.1)
            return status

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
            await one.until(lambda status: status["config"]["watching"] == 0 and bool(status["config"]["entry"]))
            await one.healthy()
            yield one


def device(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for bus in status["buses"] for one in bus["devices"] if one["device"] == name)
    return found


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
        assert (link["since"], link["attempts"]) == (before["connections"]["cloud"]["since"], 1)
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


SIM = """\
gateway: {id: lab}
buses: {lab: {adapter: sim}}
devices:
  oven: {bus: lab, every: 200ms, points: {temperature: {high: 180}}}
"""


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Plant]:
    """A gateway without hardware and without connections, whose configuration is good."""
    gateway = Gateway(folder / "gateway", {})
    gateway.config.write_text(SIM.replace("lab}\n", "lab}\ncontrol: {watch: 1s}\n", 1))
    async with running(gateway):
        one = Plant(gateway, [], None, None, {})  # type: ignore[arg-type]  # it has neither
        await one.until(lambda status: status["config"]["watching"] == 0 and bool(status["config"]["entry"]))
        yield one


async def test_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        before = await one.gateway.status()
        good = one.gateway.config.read_text()
        one.gateway.config.write_text(good.replace("high:", "hihg:"))
        code, out, err = await one.edged("reload", "--socket", str(one.gateway.socket))
        assert (code, out) == (2, "")
        assert "edged.yaml:5:" in err
        assert "did you mean `high`?" in err
        assert "nothing was changed" in err
        code, _, err = await one.edged("reload", "--dry-run", "--socket", str(one.gateway.socket))
        assert (code, "did you mean `high`?" in err) == (1, True)
        status = await one.gateway.status()
        assert device(status, "oven")["since"] == device(before, "oven")["since"]
        assert "the last reload failed" in status["config"]["problem"]
        one.gateway.config.write_text(good)
        assert await one.reload() == (0, [
            {"event": "diff", "changes": [], "lines": [], "restart_needed": []}, {"event": "unchanged"},
        ])  # fmt: skip
        assert (await one.gateway.status())["config"]["problem"] == ""


async def test_what_only_a_restart_applies_is_named(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        text = one.gateway.config.read_text() + "buffer: {flush: 2s, max_bytes: 4MiB}\nclock: {untrusted: hold}\n"
        one.gateway.config.write_text(text)
        named = ["buffer.flush", "buffer.max_bytes", "clock.untrusted"]
        code, out, _ = await one.edged("reload", "--socket", str(one.gateway.socket), "--dry-run")
        assert (code, out.splitlines()[0]) == (0, "  buffer: flush 1s → 2s, max_bytes 268435456 → 4194304")
        code, events = await one.reload("--no-wait")
        assert (code, events[0]["restart_needed"], events[-1]["event"]) == (0, named, "applied")
        assert (await one.gateway.status())["config"]["restart_needed"] == named
        # ... and still is after a later change was rolled back
        link = '{connector: mqtt, url: "mqtt://127.0.0.1:1", username: a, password: !secret nowhere}'
        await one.until(lambda status: status["config"]["watching"] == 0)
        one.gateway.config.write_text(text + f"connections: {{x: {link}}}\n")
        code, events = await one.reload(watch="20s")
        assert (code, events[-1]["event"]) == (1, "rolled-back")
        assert (await one.gateway.status())["config"]["restart_needed"] == named


async def test_systemd_hears_of_the_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with lab(tmp_path) as one:
            while True:  # what the start said
                try:
                    listener.recv(4096)
                except BlockingIOError:
                    break
            one.gateway.config.write_text(one.gateway.config.read_text().replace("180", "190"))
            os.kill(one.gateway.pid, signal.SIGHUP)
            loop = asyncio.get_running_loop()
            first = (await asyncio.wait_for(loop.sock_recv(listener, 4096), 20)).decode().splitlines()
            second = (await asyncio.wait_for(loop.sock_recv(listener, 4096), 20)).decode().splitlines()
            assert first[0] == "RELOADING=1"
            assert first[1].removeprefix("MONOTONIC_USEC=").isdecimal()
            assert second[0] == "READY=1"
            status = await one.until(lambda status: status["config"]["watching"] == 0)
            assert status["config"]["entry"] == 2
            assert "point oven/temperature: high 180" in one.gateway.lines()


async def test_the_last_good_configuration_starts_when_the_file_is_broken(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        good = one.gateway.config.read_text()
        assert await one.gateway.stop() == 0
        one.gateway.config.write_text(good + "nonsense: 1\n")
        code, _, err = await one.edged(
            "run", str(one.gateway.config), "--state", str(one.gateway.folder / "state"), "--strict"
        )
        assert (code, "unknown section `nonsense`" in err) == (2, True)
        await one.gateway.start()
        status = await one.gateway.status()
        assert (status["config"]["running"], status["config"]["entry"]) == ("last-good", 1)
        assert "has errors" in status["config"]["problem"]
        assert "NOT running what" in one.gateway.lines()
        await one.until(lambda status: device(status, "oven")["health"] == "ok")
        one.gateway.config.write_text(good)
        assert (await one.reload())[0] == 0
        assert (await one.gateway.status())["config"]["running"] == "file"


async def test_history_diff_and_rollback_by_commands(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        state = ["--state", str(one.gateway.folder / "state")]
        good = one.gateway.config.read_text()
        (one.gateway.folder / "conf.d").mkdir()
        extra = one.gateway.folder / "conf.d" / "kiln.yaml"
        extra.write_text("devices: {kiln: {bus: lab, points: {temperature: {}}}}\n")
        one.gateway.config.write_text(good.replace("high: 180", "high: 200, unit: °C"))
        words = ["device kiln: added", "point oven/temperature: unit unset → °C, high 180.0 → 200.0"]
        assert (await one.edged("config", "diff", *state))[:2] == (0, "\n".join([words[1], words[0], ""]))
        assert (await one.reload(watch="1s"))[0] == 0
        code, out, _ = await one.edged("config", "history", "--json", *state)
        assert code == 0
        assert [(entry["number"], entry["result"]) for entry in json.loads(out)] == [(1, "good"), (2, "good")]
        code, out, _ = await one.edged("config", "diff", "1", "2", "--text", *state)
        assert "-  oven: {bus: lab, every: 200ms, points: {temperature: {high: 180}}}" in out
        assert "+devices: {kiln:" in out
        code, _, err = await one.edged("config", "rollback", "1", *state, "--socket", str(one.gateway.socket))
        assert (code, "--yes" in err) == (2, True)
        code, out, _ = await one.edged(
            "config", "rollback", "1", "--yes", "--json", *state, "--socket", str(one.gateway.socket)
        )
        record = json.loads(out)
        assert (code, record["number"], record["reload"]["event"]) == (0, 1, "good")
        assert one.gateway.config.read_text() == good
        assert not extra.exists()
        status = await one.gateway.status()
        assert [one["device"] for bus in status["buses"] for one in bus["devices"]] == ["oven"]
        code, out, _ = await one.edged("config", "history", *state)
        assert [line.split()[2] for line in out.splitlines() if line[:4].strip()] == [
            "good", "good", "set-aside", "good",
        ]  # fmt: skip
        folder = one.gateway.folder / "state/history"
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


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
