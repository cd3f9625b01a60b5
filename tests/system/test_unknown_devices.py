"""scan, probe, find and init through the command line, against simulated devices, alone and beside a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from edged.cli import main
from tests.support.gateway import Gateway, running

EDGED = [sys.executable, "-m", "edged"]
PAGE = Path(__file__).parents[2] / "docs/tutorial/unknown-devices.md"
FIVE = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
FINISHED = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[-1]
QUICK = ("--timeout", "0.1")
BLOCK = re.compile(r"```console\n\$ edged ([^\n]*)\n(.*?)```", re.DOTALL)
"""A command of the page, and what it printed."""
UPDATE = bool(os.environ.get("EDGED_UPDATE_PAGE"))
_BEGINNINGS = frozenset({"probe"})
"""Of these the page shows only the first lines, and which these are depends on the numbers."""


class Bench:
    """A folder with five simulated devices on a line, which only `five.yaml` describes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.line = folder / "edged-line"
        (folder / "five.yaml").write_text(FIVE.replace("/tmp/edged-line", str(self.line)), "utf-8")  # noqa: S108  # as the page has it
        self._environ = os.environ | {
            "STATE_DIRECTORY": str(folder / "state"), "EDGED_SOCKET": str(folder / "edged.sock"),
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*EDGED, *arguments], cwd=self.folder, env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def invoke(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr. In this process where that is possible: starting one takes half a second."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with contextlib.chdir(self.folder):
                result = CliRunner().invoke(main, arguments, env=self._environ)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            return result.exit_code, result.stdout, result.stderr
        process = self.start(*arguments)
        out, err = process.communicate(timeout=50)
        return process.returncode, out, err

    def run(self, *arguments: str, code: int = 0) -> str:
        got, out, err = self.invoke(*arguments)
        assert got == code, out + err
        return out + err

    def json(self, *arguments: str, code: int = 0) -> Any:
        got, out, err = self.invoke(*arguments, "--json")
        assert got == code, out + err
        return json.loads(out)

    def on_terminal(self, *arguments: str, answers: list[str]) -> str:
        """Run it on a terminal of its own, with these answers to its questions; returns all that was shown."""
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*EDGED, *arguments], cwd=self.folder, env=self._environ | {"TERM": "xterm", "COLUMNS": "100"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(theirs)
            os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
            shown = b""
            with contextlib.suppress(OSError):  # the end of a terminal
                while more := os.read(ours, 65536):
                    shown += more
            os.close(ours)
            assert process.wait(30) == 0, shown.decode()
        return shown.decode()

    def stored(self, devices: Collection[str]) -> dict[tuple[str, str], Any]:
        """What the gateway has stored of each point, as soon as there is something of all these devices."""
        deadline = time.monotonic() + 40
        found: dict[tuple[str, str], Any] = {}
        while not set(devices) <= {device for device, _ in found}:
            assert time.monotonic() < deadline, found
            time.sleep(0.3)
            code, out, _ = self.invoke("buffer", "export", "--json")
            for line in out.splitlines() if code == 0 else ():
                sample = json.loads(line)
                found |= {(sample["device"], point): value for point, value in sample["values"].items()}
        return found

    def display(self, device: str, point: str, digits: int) -> str:
        """What the device shows: a simulated one has no display, so we look behind the scenes."""
        (result,) = self.json("read", device, "--config", "five.yaml", "--direct")
        return f"{result['samples'][0]['values'][point]:.{digits}f}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    simulation = bench.start("simulate", "five.yaml", "--unpaced")
    with simulation:
        try:
            assert simulation.stdout
            assert "heat-meter" in simulation.stdout.readline()
            yield bench
        finally:
            simulation.terminate()


def line_config(bench: Bench, devices: Mapping[str, Any] | None = None) -> dict[str, Any]:
    line = {"adapter": "modbus-rtu", "port": str(bench.line), "baudrate": 19200}
    return {"gateway": {"id": "t"}, "buses": {"line-a": line}, "devices": devices or {}}


@pytest.fixture
def config(bench: Bench, tmp_path: Path) -> str:
    file = tmp_path / "edged.yaml"
    file.write_text(json.dumps(line_config(bench)))
    return str(file)


def as_shown(text: str) -> list[str]:
    """What a command printed, without what differs each time: numbers, widths of columns, further ways to read it."""
    number = r"(?<!\S)(?:[0-9A-F]{4}|-?[\d,]+(?:\.\d+)?%?|\d{4}-\d\d-\d\dT\S+)(?=[\s;,]|$)"
    lines = [" ".join(re.sub(number, "#", line).split()) for line in text.rstrip().splitlines()]
    ways = re.compile(r"# (ways?|less likely ones|(holding|input) # (u?int|float|bcd)\d+ )|and # less|$")
    first = next((i + 1 for i, line in enumerate(lines) if re.match(r"# ways? to read", line)), None)
    return [line for i, line in enumerate(lines) if i == first or not ways.match(line)]


def test_what_the_tutorial_shows_is_what_one_run_prints(bench: Bench) -> None:
    """With EDGED_UPDATE_PAGE=1 the page gets the output of this run."""
    page, before = PAGE.read_text("utf-8"), ""
    for command, shown in BLOCK.findall(page):
        arguments = shlex.split(command.replace("/tmp/edged-line", str(bench.line)))  # noqa: S108  # as the page has it
        arguments = [f"page-{one}" if one == "edged.yaml" else one for one in arguments]
        told = command
        for option in {"--value", "--again"} & set(arguments):
            at = arguments.index(option) + 1
            value = bench.display("heat-meter", "supply", 1)
            while UPDATE and option == "--again" and value == before:
                value = bench.display("heat-meter", "supply", 1)  # a page shall show two different ones
            before = value
            told, arguments[at] = command.replace(arguments[at], value), value
        if arguments[0] == "check":
            text = FINISHED.replace("/tmp/edged-line", str(bench.line))  # noqa: S108  # likewise
            (bench.folder / "page-edged.yaml").write_text(text)
        quicker = {"scan": QUICK, "find": ("--range", "holding 0-49")}.get(arguments[0], ())
        code, out, err = bench.invoke(*arguments, *quicker)
        assert code == 0, err
        printed = out.replace(str(bench.line), "/tmp/edged-line").replace("page-edged", "edged")  # noqa: S108  # likewise
        if arguments[0] in _BEGINNINGS:
            printed = "".join(printed.splitlines(keepends=True)[: shown.count("\n")])
            assert as_shown(printed)[:1] == as_shown(shown)[:1]
            assert re.search(r"^  float32  CDAB +\d", out, re.MULTILINE)
        else:
            assert as_shown(printed) == as_shown(shown), command
        page = page.replace(f"$ edged {command}\n{shown}", f"$ edged {told}\n{printed}", 1)
    if UPDATE:
        PAGE.write_text(page, "utf-8")


def test_the_tutorial_leads_from_five_unknown_devices_to_readings(bench: Bench) -> None:
    out = bench.run(
        "scan", "modbus", str(bench.line), "--baud", "19200", "--unit", "1-16", *QUICK, "--write", "edged.yaml"
    )
    assert [int(unit) for unit in re.findall(r"^unit (\d+) on ", out, re.MULTILINE)] == [1, 2, 3, 7, 9]
    written = (bench.folder / "edged.yaml").read_text("utf-8")
    assert "eastron-sdm120-1: {bus: line-a, unit: 1, profile: eastron-sdm120}" in written
    bench.run("check", "edged.yaml")
    found: dict[str, dict[str, Any]] = {}
    for device, unit, point, digits, where in (
        ("pump", 2, "power", 1, "holding 990-1009"), ("heat-meter", 3, "supply", 1, "holding 0-49"),
        ("tank", 7, "level", 1, "input 90-109"), ("fan", 9, "speed", 0, "holding 0-19"),
    ):  # fmt: skip
        target = ("line-a", "--unit", str(unit), "--config", "edged.yaml", "--range", where, "--name", point)
        answer = bench.json("find", *target, "--value", bench.display(device, point, digits))
        if point == "supply":
            answer = bench.json("find", *target, "--again", bench.display(device, point, digits))
            assert len(answer["looks"]) == 2
        found |= YAML(typ="safe").load(answer["yaml"])
    finished = YAML(typ="safe").load(FINISHED.replace("/tmp/edged-line", str(bench.line)))  # noqa: S108  # likewise
    pages = {name: point for device in finished["devices"].values() for name, point in device.get("points", {}).items()}
    for name, proposed in found.items():
        assert proposed.items() <= pages[name].items(), name
    (bench.folder / "finished.yaml").write_text(json.dumps(finished))
    bench.run("check", "finished.yaml")
    bench.run("check", "finished.yaml", "--online")
    with bench.start("run", "finished.yaml") as gateway:
        try:
            stored = bench.stored(finished["devices"])
        finally:
            gateway.terminate()
    assert gateway.returncode == 0
    wanted = {(device, point) for device, one in finished["devices"].items() for point in one.get("points", {})}
    assert wanted <= stored.keys()
    assert {("grid-meter", "voltage"), ("grid-meter", "frequency")} <= stored.keys()
    behind = YAML(typ="safe").load(FIVE)["devices"]
    for device, point in wanted:
        limits = behind[device]["points"][point].get("range")
        if limits is not None:
            assert limits[0] <= stored[device, point] <= limits[1], (device, point)


def test_a_scan_never_writes_over_a_file(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert "exists already" in bench.run("scan", "modbus", str(bench.line), "--write", str(file), code=2)
    assert file.read_text() == "precious"


def test_a_scan_that_is_interrupted_says_what_it_found(bench: Bench) -> None:
    # the first sixteen are tried, then named; nobody answers for the rest
    units = ",".join(map(str, [3, 1, 2, *range(101, 114)])) + ",114-240"
    process = bench.start("scan", "modbus", str(bench.line), "--baud", "19200", "--unit", units, *QUICK)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 130, err
    assert "so far" in err
    assert all("unit" in line for line in lines)
    assert "profile: eastron-sdm120" in out


def test_a_scan_of_a_line_where_nobody_answers_says_so(bench: Bench) -> None:
    out = bench.run(
        "scan", "modbus", str(bench.line), "--baud", "9600", "--parity", "even", "--unit", "20-22", *QUICK, code=1
    )
    assert "Nobody answered" in out


def test_a_host_that_refuses_is_a_note_and_others_are_still_scanned(bench: Bench) -> None:
    record = bench.json("scan", "modbus", "127.0.0.1:1", str(bench.line), "--unit", "1", "--baud", "19200")
    assert [one["profile"] for one in record["found"]] == ["eastron-sdm120"]
    assert any("127.0.0.1:1" in note for note in record["notes"])


def test_probe_shows_the_words_and_every_reading_of_them(bench: Bench, config: str) -> None:
    record = bench.json("probe", "line-a", "--unit", "7", "--input", "101", "--count", "1", "--config", config)
    assert sorted(map(int, record["words"])) == [100, 101, 102]
    readings = {(one["address"], one["type"], one["order"]): one for one in record["readings"]}
    outside = readings[102, "int16", "AB"]
    assert outside["plausible"]
    assert -6.6 <= outside["scaled"]["0.1"] <= -6.1
    text = bench.run("probe", "line-a", "--unit", "7", "--input", "101", "--count", "1", "--config", config)
    assert "as asked" in text
    assert "one lower" in text


def test_probe_names_what_the_device_refuses_and_shows_the_neighbour_it_has(bench: Bench, config: str) -> None:
    out = bench.run("probe", "line-a", "--unit", "7", "--input", "99", "--count", "1", "--config", config, code=1)
    assert "refuses input 99 (exception 2)" in out
    assert re.search(r"^ +100 ", out, re.MULTILINE)
    assert "on" in bench.run("probe", "line-a", "--unit", "9", "--coil", "0", "--count", "1", "--config", config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("probe", "line-a", "--holding", "5"), "say which unit"),
        (("probe", "line-a", "--unit", "1"), "say what to read"),
        (("probe", "line-b", "--unit", "1", "--holding", "5"), "no device and no bus 'line-b'"),
        (("probe", "line-a", "--unit", "1", "--holding", "70000"), "addresses go from 0"),
        (("find", "line-a", "--unit", "1"), "--value for a new search"),
        (("find", "line-a", "--unit", "1", "--value", "abc"), "not a number"),
        (("find", "line-a", "--unit", "1", "--value", "5", "--range", "holding x"), "not a range"),
        (("find", "line-a", "--unit", "1", "--value", "5", "--tolerance", "x"), "not a percentage"),
        (("find", "line-a", "--unit", "200", "--again", "5"), "no search"),
    ],
)
def test_mistakes_on_the_command_line_are_named(
    bench: Bench, config: str, arguments: tuple[str, ...], said: str
) -> None:
    assert said in bench.run(*arguments, "--config", config, code=2)


def test_a_value_that_is_nowhere_says_what_to_try(bench: Bench, config: str) -> None:
    out = bench.run(
        "find", "line-a", "--unit", "9", "--value", "987654", "--range", "holding 0-9", "--config", config, code=1
    )
    assert "--tolerance" in out


async def test_beside_a_running_gateway_all_go_through_it_and_the_polls_go_on(bench: Bench, tmp_path: Path) -> None:
    points = {"level": {"input": 100, "scale": 0.1}}
    devices = {"tank": {"bus": "line-a", "unit": 7, "every": "200ms", "points": points}}
    async with running(Gateway(tmp_path, line_config(bench, devices))) as gateway:
        before = (await gateway.status())["buses"][0]
        # no --config: what the gateway calls a device and a bus is in its own file
        own = ("--socket", str(gateway.socket), "--state", str(tmp_path / "cli"))
        record = bench.json("probe", "tank", "--input", "102", "--count", "1", *own)
        assert record["through_gateway"]
        assert "102" in record["words"]
        found = bench.json("find", "tank", "--value", "-6.3", "--tolerance", "5%", "--range", "input 95-105", *own)
        assert found["matches"][0]["point"] == {"input": 102, "type": "int16", "scale": 0.1}
        scanned = bench.json("scan", "modbus", str(bench.line), "--unit", "1-3", *QUICK, *own)
        assert [one["unit"] for one in scanned["found"]] == [1, 2, 3]
        assert any("in use by the running gateway" in note for note in scanned["notes"])
        # a port of its own that nobody has configured is not the gateway's line, whatever both are called
        other = bench.json("scan", "modbus", "/dev/no-such-port", "--unit", "1", "--baud", "19200", *own, code=1)
        assert other["found"] == []
        assert "no-such-port" in other["notes"][0]
        # and without a configuration the gateway's line is known by its port
        alone = bench.json("scan", "modbus", str(bench.line), "--unit", "3", *QUICK, "--socket", str(gateway.socket))
        assert [one["unit"] for one in alone["found"]] == [3]
        explained = bench.json("explain", "tank/level", *own)
        assert [step["name"] for step in explained["steps"]] == ["registers", "type", "order", "decoded", "scale"]
        assert explained["connections"] == {}
        after = (await gateway.status())["buses"][0]
        assert after["polls"] > before["polls"]
        assert after["devices"][0]["health"] == "ok"
        assert after["devices"][0]["failures"] == 0


def test_init_writes_a_file_that_passes_the_check_and_never_writes_over_one(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    options = ("--id", "plant-7", "--timezone", "Europe/Berlin", "--broker", "mqtts://broker.example.com")
    lines = ("--line", str(bench.line), "--baud", "19200", "--host", "192.0.2.10", "--no-ble")
    record = bench.json("init", str(file), *options, *lines)
    assert record["id"] == "plant-7"
    checked = bench.json("check", str(file))
    assert not [one for one in checked["problems"] if one["severity"] == "error"]
    written = YAML(typ="safe").load(file)
    assert written["gateway"] == {"id": "plant-7", "site": {"timezone": "Europe/Berlin"}}
    assert {bus["adapter"] for bus in written["buses"].values()} == {"modbus-rtu", "modbus-tcp"}
    assert written["connections"]["cloud"]["url"] == "mqtts://broker.example.com"
    before = file.read_bytes()
    assert "exists already" in bench.run("init", str(file), code=2)
    assert file.read_bytes() == before


def test_init_names_what_its_notes_are_about(bench: Bench, tmp_path: Path) -> None:
    code, _, said = bench.invoke("init", str(tmp_path / "new.yaml"), "--yes", "--host", "192.0.2.10", "--no-ble")
    assert code == 0
    assert "note: buses.tcp-192.0.2.10: no device uses this bus" in said


def test_nothing_to_simulate_is_said_at_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("gateway: {id: g}\n", "utf-8")
    assert "there is nothing to simulate" in bench.run("simulate", str(tmp_path / "empty.yaml"), code=2)


def test_init_says_what_is_wrong_with_an_answer_and_leaves_no_file(bench: Bench, tmp_path: Path) -> None:
    assert "is not a time zone" in bench.run("init", str(tmp_path / "a.yaml"), "--timezone", "Europe/Berln", code=1)
    assert not list(tmp_path.iterdir())


def test_a_device_with_an_order_of_its_own_gets_the_order_of_the_point_written(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "edged.yaml"
    points = {"hours": {"holding": 6}}
    file.write_text(
        json.dumps(line_config(bench, {"fan": {"bus": "line-a", "unit": 9, "order": "CDAB", "points": points}}))
    )
    shown = bench.display("fan", "speed", 0)
    found = bench.json("find", "fan", "--value", shown, "--range", "holding 0-9", "--config", str(file))
    assert found["matches"][0]["point"] == {"holding": 4, "type": "uint32", "order": "ABCD"}


def test_on_a_terminal_init_asks_and_find_shows_how_long_it_takes(bench: Bench, tmp_path: Path, config: str) -> None:
    # a port is named, so that it does not ask for those of this machine
    asked = bench.on_terminal(
        "init", str(tmp_path / "asked.yaml"), "--line", str(bench.line), "--no-ble",
        answers=["attic", "Europe/Rome", "192.0.2.7", "n", ""],
    )  # fmt: skip
    assert "Name of this gateway" in asked
    written = YAML(typ="safe").load(tmp_path / "asked.yaml")
    assert written["gateway"] == {"id": "attic", "site": {"timezone": "Europe/Rome"}}
    assert written["buses"]["tcp-192.0.2.7"] == {"adapter": "modbus-tcp", "host": "192.0.2.7"}
    shown = bench.display("fan", "speed", 0)
    found = bench.on_terminal(
        "find", "line-a", "--unit", "9", "--value", shown, "--range", "holding 0-99", "--config", config, answers=[""]
    )
    assert "What does it show now?" in found
    assert "%" in found


def test_explain_works_without_a_gateway(bench: Bench) -> None:
    record = bench.json("explain", "tank/outside", "--config", "five.yaml")
    assert record["steps"][-1]["name"] == "range"
    assert -6.6 <= record["value"] <= -6.1
    assert record["stored"] is None
    out = bench.run("explain", "tank/outside", "--config", "five.yaml", "--direct")
    assert "no: read without the gateway" in out
    assert "has no point 'levle'; it has: level" in bench.run("explain", "tank/levle", "--config", "five.yaml", code=2)
    assert "no device 'tanc'" in bench.run("explain", "tanc/level", "--config", "five.yaml", code=2)


def test_read_shows_one_point_of_a_device_and_names_those_it_has(bench: Bench) -> None:
    own = ("--config", "five.yaml", "--direct")
    (result,) = bench.json("read", "tank/level", *own)
    assert list(result["samples"][0]["values"]) == ["level"]
    assert result["raw"][0]["words"]
    assert "has no point 'levle'; it has: level, pressure, outside" in bench.run("read", "tank/levle", *own, code=2)
