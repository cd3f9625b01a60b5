"""The simulated adapter keeps to what every adapter promises: it is the template for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import LinearMap, Name, PermanentError, Value
from edged.pipeline import DevicePipeline
from edged_sim import SIM, SimBus, SimDevice, SimPoint


def device(**settings: object) -> SimDevice:
    point = SimPoint(waveform="sine", writable=True, **settings)  # type: ignore[arg-type]  # a test's settings
    return SimDevice(bus=Name("b"), points={Name("p"): point})


@given(
    st.floats(-1e6, 1e6),
    st.sampled_from([{}, {"scale": 0.1, "offset": -40.0}, {"map": LinearMap(raw=(4, 20), to=(0, 10))}]),
)
async def test_what_was_written_is_what_is_read(value: float, settings: dict[str, object]) -> None:
    known = device(**settings)
    bus = SIM.open("b", SimBus(adapter="sim"), {"d": known})
    await bus.write("d", "p", value)
    (sample,) = (await bus.poll(bus.prepare("d", ["p"]))).samples
    assert DevicePipeline(known.points).compute(sample).values[0] == pytest.approx(value, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("value", [11, "ten", True, None])
async def test_what_the_point_cannot_be_is_refused(value: Value) -> None:
    bus = SIM.open("b", SimBus(adapter="sim"), {"d": device(range=(0, 10))})
    with pytest.raises(PermanentError, match="d/p"):
        await bus.write("d", "p", value)
