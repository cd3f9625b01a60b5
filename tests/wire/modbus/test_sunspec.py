"""SunSpec devices over the wire: what is found, what changes meanwhile, and what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("sunspec2")

from edged.adapter import Name, PollResult, TransientError
from edged.model import Sample
from edged.pipeline import Pipeline
from edged.polling import Assignment, BusPoller
from edged_modbus import TCP
from edged_modbus.bus import ModbusBus
from edged_modbus.config import ModbusDevice, ModbusTcpBus, SunSpec
from tests.support.modbus import HOST, device, faults, names, opened, values
from tests.support.mosquitto import free_port
from tests.support.rogue import Request, Rogue
from tests.support.sunspec import COMMON, INPUTS, INVERTER, Map


@contextlib.asynccontextmanager
async def served(image: Map, wanted: SunSpec | None = None, **settings: Any) -> AsyncIterator[tuple[Rogue, ModbusBus]]:
    async with Rogue([image]) as server:
        unit = device({}, sunspec=wanted or SunSpec(), **settings)
        async with opened("tcp", server.port, unit) as bus:
            yield server, bus


async def read(image: Map, wanted: SunSpec | None = None, **settings: Any) -> PollResult:
    async with served(image, wanted, **settings) as (_, bus):
        return await bus.poll(bus.prepare("m", []))


@pytest.mark.parametrize("base", [40000, 50000, 0])
async def test_what_a_device_measures_is_found_wherever_its_map_begins(base: int) -> None:
    result = await read(Map(base=base))
    assert values(result) == {
        "inverter.A": 34.2, "inverter.AphA": 11.4, "inverter.PhVphA": 230.1, "inverter.W": 7890, "inverter.Hz": 50.01,
        "inverter.WH": 4_321_000, "inverter.TmpCab": 41.5, "inverter.St": "MPPT", "inverter.Evt1": "",
        "mppt.N": 2, "mppt.module_1.IDStr": "String 1", "mppt.module_1.DCA": 6.57, "mppt.module_1.DCV": 600.0,
        "mppt.module_1.DCW": 3942, "mppt.module_2.DCW": 1, "status.StSetLimMsk": "",
        "nameplate.DERTyp": "PV", "nameplate.WRtg": 10000,
    }  # fmt: skip
    assert not faults(result)
    (note,) = result.notes
    assert note == (
        "m: Fabrikam, Sun 10.0, version 1.2, serial number 4711; models 1, 103, 120, 160, 122; "
        "not known to SunSpec: 65000"
    )


async def test_how_a_point_came_about_is_told_from_the_registers() -> None:
    async with served(Map()) as (_, bus):
        job = bus.prepare("m", [])
        for _ in range(2):  # with what was asked to find out, and without
            raw = (await bus.poll(job, raw=True)).raw
            steps = {step.name: step for step in TCP.explain(device({}, sunspec=SunSpec()), "inverter.PhVphA", raw)}
            assert list(steps) == ["model", "registers", "type", "scale", "decoded"]
            assert steps["model"].text.startswith("103, at holding 4")
            assert steps["registers"].result == f"{2301:04X}"
            assert steps["scale"].result == "× 10^-1"
            assert (steps["decoded"].text, steps["decoded"].result) == ("in V", "230.1")
            (other,) = TCP.explain(device({}, sunspec=SunSpec()), "meter.W", raw)
            assert "no model meter" in other.text


async def test_a_serial_line_carries_it_too_in_short_requests() -> None:
    image = Map()
    async with Rogue([image], framing="rtu") as server:
        unit = device({}, sunspec=SunSpec(), max_registers=20)
        async with opened("rtu-over-tcp", server.port, unit) as bus:
            result = await bus.poll(bus.prepare("m", []))
    assert values(result) == values(await read(image))
    assert max(request.count for request in server.requests) == 20


async def test_models_and_points_can_be_chosen() -> None:
    assert set(values(await read(Map(), SunSpec(models=(160,))))) == {
        "mppt.N", "mppt.module_1.IDStr", "mppt.module_1.DCA", "mppt.module_1.DCV", "mppt.module_1.DCW",
        "mppt.module_2.DCW",
    }  # fmt: skip
    chosen = await read(Map(), SunSpec(points=("W", "1.SN", "mppt.module_*.DCW")))
    assert values(chosen) == {
        "common.SN": "4711", "inverter.W": 7890, "mppt.module_1.DCW": 3942, "mppt.module_2.DCW": 1
    }  # fmt: skip


async def test_a_point_that_was_asked_for_by_name_is_told_even_if_the_device_lacks_it() -> None:
    assert faults(await read(Map(), SunSpec(points=("inverter.DCW", "W")))) == {"inverter.DCW": "bad(not_implemented)"}


async def test_nothing_that_fits_is_said_with_what_there_is() -> None:
    with pytest.raises(TransientError, match="its models: 1, 103, 120, 160, 122: check `models` and `points`"):
        await read(Map(), SunSpec(models=(203,)))


async def test_a_device_without_a_map_is_told_what_to_try() -> None:
    with pytest.raises(TransientError, match="no SunSpec map at 40000 or 50000 or 0: switch SunSpec Modbus on"):
        await read(Map(base=30000))
    assert values(await read(Map(base=30000), SunSpec(address=30000)))


async def test_a_map_without_an_end_is_read_as_far_as_it_goes() -> None:
    assert values(await read(Map(end=b"")))["inverter.W"] == 7890


async def test_two_devices_of_a_kind_have_names_of_their_own() -> None:
    image = Map([(1, COMMON), (203, {"W": 5, "W_SF": 0}), (203, {"W": 6, "W_SF": 0})])
    assert values(await read(image)) == {"meter.W": 5, "meter_2.W": 6}


async def test_integer_and_float_models_call_their_points_the_same() -> None:
    assert values(await read(Map([(113, {"W": 7890.0, "Hz": 50.0})]))) == {"inverter.W": 7890.0, "inverter.Hz": 50.0}


async def test_a_scale_factor_may_change_with_every_poll() -> None:
    image = Map([(103, {"W": 789, "W_SF": 1})])
    async with served(image) as (_, bus):
        job = bus.prepare("m", [])
        assert values(await bus.poll(job)) == {"inverter.W": 7890}
        image.models = [(103, {"W": 7890, "W_SF": -1})]
        assert values(await bus.poll(job)) == {"inverter.W": 789.0}


@pytest.mark.parametrize("when", [0, 15, 30], ids="at the read of {}".format)
async def test_a_scale_factor_that_changes_between_two_requests_makes_no_wrong_value(when: int) -> None:
    """W lies at 14, its factor at 15 in the next request. Both change together, while the model is being read."""
    image = Map([(103, {"A": 5, "A_SF": 0, "W": 789, "W_SF": 1, "DCW": 3, "DCW_SF": 0})])

    def edit(request: Request) -> None:
        if request.start - 40002 == when and request.count > 1:
            image.models = [(103, {"A": 5, "A_SF": 0, "W": 78, "W_SF": 2, "DCW": 3, "DCW_SF": 0})]

    async with served(image, max_registers=15) as (_, bus):
        job = bus.prepare("m", [])
        assert values(await bus.poll(job)) == {"inverter.A": 5, "inverter.W": 7890, "inverter.DCW": 3}
        image.edit = edit
        result = await bus.poll(job)
        assert values(result) == {"inverter.A": 5, "inverter.DCW": 3}
        assert faults(result) == {"inverter.W": "bad(decode)"}
        image.edit = None
        assert values(await bus.poll(job))["inverter.W"] == 7800


async def test_a_point_comes_and_goes() -> None:
    image = Map([(103, {"W": 5, "W_SF": 0})])
    async with served(image) as (_, bus):
        job = bus.prepare("m", [])
        assert values(await bus.poll(job)) == {"inverter.W": 5}
        image.models = [(103, {"W_SF": 0, "Hz": 50, "Hz_SF": 0})]
        result = await bus.poll(job)
        assert (values(result), faults(result)) == ({"inverter.Hz": 50}, {"inverter.W": "bad(not_implemented)"})
        assert set(job.points) == {"inverter.W", "inverter.Hz"}
        image.models = [(103, {"W": 6, "W_SF": 0, "Hz": 50, "Hz_SF": 0})]
        assert values(await bus.poll(job)) == {"inverter.W": 6, "inverter.Hz": 50}


async def test_another_map_is_noticed_and_found_out_anew() -> None:
    image = Map()
    async with served(image) as (_, bus):
        job = bus.prepare("m", [])
        await bus.poll(job)
        image.models = [(1, {**COMMON, "Vr": "2.0"}), (160, INPUTS), (103, {**INVERTER, "W": 1})]
        with pytest.raises(TransientError, match="at 40070 lay model 103 and lies 160 now: the device has another map"):
            await bus.poll(job)
        result = await bus.poll(job)
        assert values(result)["inverter.W"] == 10
        assert result.notes == ["m: Fabrikam, Sun 10.0, version 2.0, serial number 4711; models 1, 160, 103"]


async def test_a_device_that_comes_back_is_asked_again_what_it_has() -> None:
    image = Map([(103, {"W": 5, "W_SF": 0})])
    async with served(image) as (_, bus):
        job = bus.prepare("m", [])
        await bus.poll(job)
        image.models.append((122, {"StSetLimMsk": 0}))
        assert "status.StSetLimMsk" not in names(await bus.poll(job))
        await bus.poll(job, probe=True)
        assert "status.StSetLimMsk" in names(await bus.poll(job))


async def test_a_silent_device_has_bad_points_and_comes_back() -> None:
    image = Map()
    async with served(image, timeout=0.05) as (server, bus):
        job = bus.prepare("m", [])
        before = names(await bus.poll(job))
        server.script[:] = [lambda _: []]
        with pytest.raises(TransientError) as silent:
            await bus.poll(job)
        assert silent.value.reason == "timeout"
        assert sorted(job.points) == before
        server.script[:] = [image]
        await bus.poll(job, probe=True)
        assert names(await bus.poll(job)) == before


async def test_a_refused_model_does_not_stop_the_others() -> None:
    image = Map()
    async with served(image) as (server, bus):
        job = bus.prepare("m", [])
        await bus.poll(job)

        def without_inputs(request: Request) -> Any:
            if request.count == 50 and request.start > 40140:
                return [request.frame(b"\x83\x02")]
            return image(request)

        server.script[:] = [without_inputs]
        result = await bus.poll(job)
        assert values(result)["inverter.W"] == 7890
        assert faults(result)["mppt.module_1.DCW"] == "bad(exception)"


async def test_the_scheduler_polls_a_device_whose_points_are_known_only_later() -> None:
    unit = device({}, sunspec=SunSpec(), timeout=2)
    config = ModbusTcpBus(adapter="modbus-tcp", host=HOST, port=free_port())
    async with TCP.simulate({"b": (config, {"inv": unit})}) as simulator:
        port = int(simulator.endpoints["b"].rpartition(":")[2])
        config = ModbusTcpBus(adapter="modbus-tcp", host=HOST, port=port)
        pipeline = Pipeline({"inv": ModbusDevice(bus=Name("b"), sunspec=SunSpec())})
        samples: asyncio.Queue[Sample] = asyncio.Queue()
        poller = BusPoller(
            "b", lambda: TCP.open("b", config, {"inv": unit}), config, [Assignment("inv", [], 0.05)], samples.put_nowait
        )
        task = asyncio.create_task(poller.run(), name="poller")
        try:
            found = [await asyncio.wait_for(samples.get(), 20) for _ in range(6)]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    stored = [pipeline.process(sample) for sample in found]
    told = {reading.point: reading.value for sample in stored if sample for reading in sample.readings()}
    assert told["inverter.St"] == "MPPT"
    assert told["mppt.module_2.IDStr"] == "String 2"
    assert 200 <= float(told["inverter.W"] or 0) <= 8000
