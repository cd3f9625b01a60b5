"""What a step names and no device has is told; what is there, or an earlier step makes, is not."""

from __future__ import annotations

import pytest

from edged.config.base import DeviceConfig, PointConfig
from edged.config.flows import AggregateConfig, BindingConfig, FlowConfig, MapConfig, MatchConfig, StepConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name
from edged.flows.match import DeviceInfo
from edged.flows.reach import nowhere, overwritten

GATEWAY = GatewayConfig(id=Name("plant-7"))
DEVICES = {
    "chiller": DeviceConfig(bus=Name("b"), points={Name(one): PointConfig() for one in ("supply", "ret", "flow-1")}),
    "boiler": DeviceConfig(bus=Name("b"), points={Name("gas"): PointConfig()}),
}


def flow(*steps: StepConfig, device: str = "*") -> FlowConfig:
    match = (MatchConfig(device=device),)
    return FlowConfig(match=match, steps=steps, connections={"cloud": BindingConfig()})


def told(one: FlowConfig) -> list[tuple[int, str, str]]:
    found = nowhere(one, GATEWAY, DEVICES, lambda _: DeviceInfo())
    return [(each.step, "/".join(each.keys), each.point) for each in found]


def mapped(when: str = "", **settings: object) -> StepConfig:
    return StepConfig(map=MapConfig(**settings), when=when)  # type: ignore[arg-type]  # what a test wants


MINUTES = StepConfig(aggregate=AggregateConfig(every=Duration(60), functions=("avg",)))


@pytest.mark.parametrize(
    "steps",
    [
        [StepConfig(filter="supply > 1 and time > 0 and device == 'x' and label('room') == ''")],
        [StepConfig(filter="value > 1 and point == 'anything' and quality == 'good'")],
        [StepConfig(filter="read('flow-1') > 1 or gas > 1")],
        [mapped(add={"x": "supply", "y": "x + 1"}, rename={"y": "z"}), StepConfig(filter="z > x")],
        [mapped(rename={"supply": "ret", "ret": "supply"}), StepConfig(filter="supply > ret")],
        [mapped(drop=("ret",), when="gas > 1"), StepConfig(filter="ret > 1")],
        [mapped(drop=("SUP*",), keep=("[fg]*", "supply")), StepConfig(filter="gas > 1")],
        [MINUTES, StepConfig(filter="supply_avg > 1 and gas_count > 1"), mapped(rename={"gas_avg": "gas"})],
        [StepConfig(sample=Duration(60)), mapped(scale={"flow-1": 2.0})],
    ],
)
def test_what_is_there_is_not_told(steps: list[StepConfig]) -> None:
    assert told(flow(*steps)) == []


@pytest.mark.parametrize(
    ("steps", "device", "expected"),
    [
        ([StepConfig(filter="gas > 1", when="supply > 1")], "chiller", [(0, "filter", "gas")]),
        ([mapped(rename={"supply": "x"}), StepConfig(filter="supply > 1")], "*", [(1, "filter", "supply")]),
        ([MINUTES, mapped(scale={"supply": 2.0})], "*", [(1, "map/scale/supply", "supply")]),
        ([mapped(drop=("ret",), add={"x": "ret"})], "*", [(0, "map/add/x", "ret")]),
        ([mapped(keep=("nothing",)), StepConfig(filter="supply > 1")], "*", [(0, "map/keep", "nothing")]),
        ([StepConfig(filter="x > 1")], "no-such-device", []),
    ],
)
def test_what_is_not_there_is_told_once(
    steps: list[StepConfig], device: str, expected: list[tuple[int, str, str]]
) -> None:
    assert told(flow(*steps, device=device)) == expected


def test_a_new_name_that_another_point_has_is_told() -> None:
    one = flow(mapped(rename={"supply": "ret"}), mapped(rename={"ret": "gas"}))
    assert list(overwritten(one, GATEWAY, DEVICES, lambda _: DeviceInfo())) == [(0, "supply", "ret", "chiller")]
    swapped = flow(mapped(rename={"supply": "ret", "ret": "supply"}), mapped(drop=("ret",), rename={"supply": "ret"}))
    assert list(overwritten(swapped, GATEWAY, DEVICES, lambda _: DeviceInfo())) == []
