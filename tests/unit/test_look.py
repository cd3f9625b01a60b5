"""A closer look at a running gateway: following the frames of a bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edged.adapter import PollResult, RawRead, load_adapter
from edged.config.base import DeviceConfig, LinearMap, PointConfig
from edged.config.load import load
from edged.config.types import Name
from edged.control.explaining import explanation, pipeline_steps
from edged.control.look import Look, _last_values
from edged.errors import ConfigError, TransientError
from edged.hub import Hub
from edged.media import FrameRing
from edged.model import Sample
from edged.testing.bus import FakeBus


class TracedBus(FakeBus):
    """A bus with a ring."""

    def __init__(self) -> None:
        super().__init__({})
        self.rings = [FrameRing()]


def look(tmp_path: Path, buses: dict[str, Any]) -> Look:
    file = tmp_path / "edged.yaml"
    file.write_text("gateway: {id: g}\nbuses: {b: {adapter: modbus-tcp, host: h}, s: {adapter: sim}}\n")
    config = load(file).config
    assert config is not None
    nothing: Callable[..., Awaitable[Any]] = asyncio.sleep
    return Look(lambda: config, buses.get, nothing, lambda: None, dict, Hub())  # type: ignore[arg-type, return-value]  # not used


async def test_what_is_kept_and_what_comes_until_the_bus_is_another(tmp_path: Path) -> None:
    buses: dict[str, Any] = {"b": TracedBus()}
    ring = buses["b"].rings[0]
    ring.add(1, "tx", b"\x01")
    stream = look(tmp_path, buses).trace("b", follow=True)
    assert json.loads(await anext(stream))["adapter"] == "modbus-tcp"
    assert json.loads(await anext(stream)) == {"time": 1, "link": 0, "direction": "tx", "data": "01"}
    ring.add(2, "rx", b"\x02")
    assert json.loads(await anext(stream))["data"] == "02"
    buses["b"] = TracedBus()
    async with asyncio.timeout(30):
        assert "anew" in json.loads(await anext(stream))["ended"]
        assert [line async for line in stream] == []


async def test_a_bus_without_frames_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keeps no frames"):
        look(tmp_path, {"s": FakeBus({})}).trace("s", follow=False)
    with pytest.raises(ConfigError, match="is not open"):
        look(tmp_path, {}).trace("b", follow=False)
    with pytest.raises(KeyError):
        look(tmp_path, {}).trace("x", follow=False)


def test_the_steps_of_the_pipeline_are_those_it_takes() -> None:
    sample = Sample("d", 1, 1, ("p",), (2345,))
    config = PointConfig(scale=0.1, offset=-10, decimals=0, range=(0, 100), deadband=0.5)
    steps = {step.name: step.result for step in pipeline_steps(config, sample)}
    assert steps == {
        "scale": "234.5",
        "offset": "224.5",
        "decimals": "224.0",
        "range": "None, bad(range)",
        "deadband": "",
    }
    mapped = pipeline_steps(PointConfig(map=LinearMap(raw=(0, 4690), to=(4, 20))), sample)
    assert [(step.name, step.result) for step in mapped] == [("map", "12.0")]


def test_what_an_adapter_without_steps_of_its_own_got_is_shown_as_it_came() -> None:
    device = DeviceConfig(bus=Name("b"), points={Name("weight"): PointConfig(scale=2, unit="g")})
    text = RawRead("message main", tuple(b"S S 12.5 g\r\n"))
    result = PollResult([Sample("scale", 1, 1, ("weight",), (12.5,))], raw=[text, RawRead("message other", (0, 255))])
    adapter = load_adapter("serial")
    record = explanation(adapter, device, "scale", "weight", [result])
    assert [(one["name"], one["result"]) for one in record["steps"]] == [
        ("raw", "53 20 53 20 31 32 2E 35 20 67 0D 0A"), ("text", "'S S 12.5 g\\r\\n'"), ("raw", "00 FF"),
        ("decoded", "12.5"), ("scale", "25.0"),
    ]  # fmt: skip
    assert (record["value"], record["unit"], record["quality"]) == (25.0, "g", "good")
    with pytest.raises(KeyError):
        explanation(adapter, device, "scale", "colour", [result])
    with pytest.raises(TransientError, match="it brought nothing"):
        explanation(adapter, device, "scale", "weight", [PollResult([])])


def test_the_newest_values_of_a_device_are_put_together_from_several_samples() -> None:
    hub = Hub()
    for time, points, values in ((1, ("c", "b"), (1, 2)), (2, ("a",), (3.25,)), (3, ("c",), (4,))):
        hub.publish(Sample("d", time, time, points, values))
    assert _last_values(hub.recent("d"), ["a", "b", "c", "d"]) == "a=3.25 b=2 c=4"
    assert _last_values(hub.recent("nobody"), ["a"]) == ""


def test_what_is_no_longer_configured_is_no_longer_known() -> None:
    hub = Hub()
    for time, points in enumerate((("a",), ("b",), ("a",))):
        for device in ("d", "gone"):
            hub.publish(Sample(device, time, time, points, [time]))
    hub.renew({"d", "new"})
    assert [sample.points for sample in hub.recent("d")] == [("b",), ("a",)]
    assert [hub.recent(device) for device in ("gone", "new")] == [[], []]
