"""Engineering values to raw ones: the inverse of what the pipeline does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.adapter import LinearMap, PermanentError
from edged_modbus.point import ModbusPoint
from edged_modbus.write import raw_value, requests_for

numbers = st.floats(-1e6, 1e6)
scales = st.one_of(st.floats(1e-3, 1e3), st.floats(-1e3, -1e-3))


@given(
    st.integers(-32_768, 32_767),
    st.sampled_from([0.001, 0.01, 0.1, 0.5, 1, 2, 10, -0.1]),
    st.sampled_from([0, -50, 3.5]),
)
def test_what_was_read_scaled_is_written_as_the_same_raw_number(raw: int, scale: float, offset: float) -> None:
    point = ModbusPoint(holding=0, type="int16", scale=scale, offset=offset, writable=True)
    assert raw_value(point, raw * scale + offset) == raw


@given(st.integers(0, 27_648))
def test_a_map_is_inverted(raw: int) -> None:
    point = ModbusPoint(holding=0, map=LinearMap(raw=(0, 27_648), to=(-10, 10)), writable=True)
    assert raw_value(point, -10 + raw * 20 / 27_648) == raw


@given(st.integers(0, 2**64 - 1))
def test_large_counters_do_not_pass_through_floats(raw: int) -> None:
    point = ModbusPoint(holding=0, type="uint64", writable=True)
    assert raw_value(point, raw) == raw


@given(numbers, scales, st.floats(-1e3, 1e3))
def test_unscaled_is_the_inverse_of_scaling(value: float, scale: float, offset: float) -> None:
    point = ModbusPoint(holding=0, type="float64", scale=scale, offset=offset)
    assert point.unscaled(value) * scale + offset == pytest.approx(value, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_finite_number_is_refused(value: float) -> None:
    with pytest.raises(PermanentError, match="not a finite number"):
        raw_value(ModbusPoint(holding=0, type="float32", writable=True), value)


def test_a_value_that_the_type_cannot_hold_is_refused_before_it_is_sent() -> None:
    point = ModbusPoint(holding=0, type="int16", writable=True)
    with pytest.raises(PermanentError, match="40000 does not lie between -32768 and 32767") as caught:
        requests_for(point, raw_value(point, 40_000))
    assert caught.value.reason == "range"
