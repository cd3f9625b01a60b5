"""`edged selftest --outage` tells the truth, with a broker, with a configuration, and with nothing at all."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client
import paho.mqtt.subscribe
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.mosquitto import Mosquitto, free_port, password_file

CASES = 4


async def selftest(*arguments: str, folder: Path | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", "selftest", *arguments, cwd=folder,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def write_config(folder: Path, port: int) -> Path:
    path = folder / "edged.yaml"
    path.write_text(
        "gateway: {id: plant-7}\n"
        "buses: {plc: {adapter: modbus-tcp, host: 192.0.2.1}}\n"
        "devices: {m: {bus: plc, unit: 1, points: {a: {holding: 1}}}}\n"
        "connections:\n"
        f"  cloud: {{connector: mqtt, url: 'mqtt://localhost:{port}', username: plant-7, password: !secret mqtt,"
        " commands: true}\n"
        "flows: {none: {steps: [{filter: a > 70000}], connections: {cloud: {topic: edged/none}}}}\n"
    )
    secrets = folder / "secrets.env"
    secrets.write_text("mqtt=tin-roof\n")
    secrets.chmod(0o600)
    return path


@contextmanager
def everything(port: int) -> Iterator[set[str]]:
    """The topics of all that is published, while somebody asks the real gateway for something."""
    topics: set[str] = set()
    client = paho.mqtt.client.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("plant-7", "tin-roof")
    client.on_message = lambda _client, _data, message: topics.add(message.topic)
    client.connect("127.0.0.1", port)
    client.subscribe([("edged-selftest/#", 1), ("edged/plant-7/command/result", 1), ("edged/plant-7/health", 1)])
    client.loop_start()
    over = threading.Event()

    def ask() -> None:
        number = 0
        while not over.wait(0.3):
            number += 1
            command = {"id": f"c{number}", "device": "m", "point": "a", "value": 1}
            client.publish("edged/plant-7/command", json.dumps(command))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield topics
    finally:
        over.set()
        asking.join()
        client.disconnect()
        client.loop_stop()


@pytest.mark.slow
@pytest.mark.mosquitto
@pytest.mark.timeout(120)
async def test_the_connection_of_a_configuration_survives_every_outage_and_nothing_is_left_behind(
    tmp_path: Path,
) -> None:
    users = password_file(tmp_path / "users", **{"plant-7": "tin-roof"})
    with Mosquitto(tmp_path / "broker", options=[f"password_file {users}"], anonymous=False) as broker:
        path = write_config(tmp_path, broker.port)
        with everything(broker.port) as topics:
            code, out, err = await selftest("--outage", str(path), "--for", "2s", "--json")
        assert code == 0, out + err
        assert {topic.split("/")[0] for topic in topics} == {"edged-selftest"}, "the real gateway's topics are not its"
        retained = await asyncio.to_thread(
            lambda: paho.mqtt.subscribe.simple(  # type: ignore[no-untyped-call]  # paho's
                ["edged/#", "edged-selftest/#", "$SYS/broker/version"], port=broker.port, msg_count=1,
                auth={"username": "plant-7", "password": "tin-roof"},
            )
        )  # fmt: skip
    result = json.loads(out)
    assert [case["lost"] for case in result["cases"]] == [0] * CASES
    assert all(case["recovered"] and case["received"] > 0 for case in result["cases"])
    assert result["lost"] == 0
    assert result["stored"] == result["received"] + result["pending"] > 5_000
    assert retained.topic.startswith("$SYS")
    assert not list(tmp_path.glob("**/buffer.db")), "the real buffer was not to be touched"


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_without_a_broker_there_is_an_embedded_one_and_a_table() -> None:
    pytest.importorskip("amqtt", reason="the embedded broker: pip install 'edged[demo]'")
    code, out, err = await selftest("--outage", "--for", "1s")
    assert code == 0, out + err
    lines = out.splitlines()
    assert len(lines) == CASES + 3
    assert all(word in lines[1] for word in ("outage", "lost", "duplicates", "recovery"))
    assert lines[-1].endswith("Nothing was lost.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to test: --outage"),
        (("--outage", "--for", "20"), "write 20s or 20ms"),
        (("--outage", "--topic", "a/#"), "is not like edged-selftest"),
        (("--outage", "--for", "999d"), "at most 1h"),
        (("--outage", "--broker", "foo"), "write mqtt://foo"),
        (("--outage", "--broker", "mqtt://127.0.0.1:{port}"), "the receiver's own connection"),
    ],
)
async def test_what_is_wrong_is_said_in_a_line(arguments: tuple[str, ...], words: str) -> None:
    code, _, err = await selftest(*(argument.format(port=free_port()) for argument in arguments))
    assert code != 0
    assert words in err
    assert "Traceback" not in err
