"""Values that look like measurements: pure functions of time, the same for the same seed in every process.

Simulators use them, so that a value read can be checked against the time it was read at.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Literal

Waveform = Callable[[float], float]
"""Seconds (any epoch) → the value at that time."""
Kind = Literal["sine", "ramp", "square", "random-walk", "counter"]
KINDS: tuple[Kind, ...] = ("sine", "ramp", "square", "random-walk", "counter")


def seed_of(*parts: object) -> int:
    """A seed made of names, such as a bus, a device and a point. Unlike `hash` it is the same in every process."""
    return zlib.crc32("\x1f".join(map(str, parts)).encode())


def waveform(kind: Kind, low: float, high: float, *, period: float = 60.0, seed: int = 0) -> Waveform:
    """A waveform within [low, high] that repeats, or for a random walk varies, on the scale of `period` seconds.

    A `counter` climbs from low to high in steps of a whole unit and then starts again, as a meter's register rolls
    over; its period is the time of one step. Raises ValueError for an empty range or period.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"a waveform needs a range, the lower value first: [{low:g}, {high:g}]")
    if not (math.isfinite(period) and period > 0):
        raise ValueError("the period of a waveform must be above 0")
    return _MAKERS[kind](low, high - low, period, _mix(seed))


def _sine(low: float, span: float, period: float, phase: float) -> Waveform:
    middle, half = low + span / 2, span / 2
    turn, start = math.tau / period, math.tau * phase
    # The product may exceed the range by a rounding error of its last digit.
    return lambda t: min(max(middle + half * math.sin(turn * t + start), low), low + span)


def _ramp(low: float, span: float, period: float, phase: float) -> Waveform:
    return lambda t: low + span * ((t / period + phase) % 1.0)


def _square(low: float, span: float, period: float, phase: float) -> Waveform:
    return lambda t: low + span if (t / period + phase) % 1.0 < 0.5 else low  # noqa: PLR2004  # half of the time


def _random_walk(low: float, span: float, period: float, phase: float) -> Waveform:
    salt = int(phase * 2**32)

    def walk(t: float) -> float:
        slow, fast = t / period, t * 7 / period
        return low + span * (0.8 * _noise(slow, salt) + 0.2 * _noise(fast, salt ^ 0x5BD1E995))

    return walk


def _counter(low: float, span: float, period: float, phase: float) -> Waveform:
    steps = max(1, math.floor(span) + 1)
    start = int(phase * steps)
    return lambda t: low + (start + math.floor(t / period)) % steps


_MAKERS: dict[Kind, Callable[[float, float, float, float], Waveform]] = {
    "sine": _sine,
    "ramp": _ramp,
    "square": _square,
    "random-walk": _random_walk,
    "counter": _counter,
}


def _mix(number: int) -> float:
    """A number in [0, 1) that looks random, by the finaliser of SplitMix64."""
    number = (number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return ((number ^ (number >> 31)) >> 11) / 2.0**53


def _noise(t: float, salt: int) -> float:
    """Smooth noise in [0, 1): random values at whole numbers, and a smooth step between them."""
    whole = math.floor(t)
    part = t - whole
    left, right = _mix(whole * 0x2545F491 + salt), _mix((whole + 1) * 0x2545F491 + salt)
    return left + (right - left) * part * part * (3 - 2 * part)
