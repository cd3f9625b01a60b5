"""The demo does what the README says of it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.mosquitto import Mosquitto


async def demo(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edged", "demo", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_with_the_embedded_broker_an_outage_loses_nothing() -> None:
    pytest.importorskip("amqtt", reason="the demo's embedded broker: pip install 'edged[demo]'")
    code, out, err = await demo("--for", "21s", "--json")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    assert result["lost"] == 0
    assert result["outage_seconds"] >= 10
    assert result["stored"] == result["delivered"] + result["pending"]
    assert result["received"] >= result["delivered"] > 600


@pytest.mark.mosquitto
async def test_with_a_running_broker_and_a_line_a_second(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        code, out, err = await demo("--for", "5s", "--broker", f"mqtt://127.0.0.1:{broker.port}")
    assert code == 0, out + err
    assert "the outage is left out" in err
    assert "8 simulated devices:" in out
    assert "  plc (modbus-tcp, 127.0.0.1:" in out
    assert "  radio (ble, " in out
    assert "no radio is used: the advertisements come from" in out
    assert "link up" in out
    assert "cloud: connected" in out
    last = out.partition("Last received behind the broker:")[2]
    assert re.search(r"^  cold-room +temperature [456][.\d]*  humidity [67]\d[.\d]*  ", last, re.MULTILINE), out
    assert re.search(r"^  freezer +temperature -1[789][.\d]*  humidity 5\d[.\d]*  battery 83", last, re.MULTILINE), out
    assert re.search(r"^  office +", last, re.MULTILINE), out
    assert re.search(r"^  meter-1 +", last, re.MULTILINE), out
    assert out.rstrip().endswith("Nothing was lost.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--for", "20"), "write 20s or 20ms"), (("--broker", "127.0.0.1"), "is not like mqtt://127.0.0.1:1883")],
)
async def test_a_wrong_option_is_told_before_anything_starts(arguments: tuple[str, ...], words: str) -> None:
    code, _, err = await demo(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
