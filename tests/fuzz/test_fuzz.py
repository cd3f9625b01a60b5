"""Hostile input in short: `make soak` has more of it, and new one each time. What was found once stays found."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz import Finding, attempt, fuzz
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target, targets

ALL = {target.name: target for target in targets()}
FEW, MANY = 15, 150
FOUND = [
    ("m-bus", bytes.fromhex("6815166808017245230109")),
    ("history", b"NaN"),
    ("expressions", b"1or 2"),
    ("traces", b'{"bus": ' + b"[" * 5000),
    ("traces", b'{"adapter": "modbus-rtu", "offset": 1e18}\n{"time": 1, "link": 0, "direction": "sent", "data": ""}\n'),
    ("traces", b'{"bus": "a", "adapter": "modbus-rtu", "offset": 1}\n{"time": 1e999, "link": 0, "data": ""}\n'),
    (
        "batches of the buffer",
        b'{"shapes":["a\\u001f"],"devices":["m"],"shape":[0],"device":[0],"time":[1],"offset":[1],"values":[[0,1.5]]}',
    ),
]  # fmt: skip
"""What did more than it may."""


@pytest.mark.parametrize("name", ALL)
def test_hostile_input_yields_a_result_or_an_error_of_ours(name: str) -> None:
    done, found = fuzz(ALL[name], 20261121, count=FEW if ALL[name].slow else MANY)
    assert not found, "\n".join(map(str, found.values()))
    assert done >= FEW


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_once_is_mended(name: str, data: bytes) -> None:
    assert attempt(ALL[name], data) is None


def _forever(_data: bytes) -> None:
    while True:
        pass


def test_a_finding_is_one() -> None:
    assert isinstance(attempt(Target("wrong", [], lambda data: 1 // len(data)), b""), Finding)
    assert attempt(Target("allowed", [], lambda data: 1 // len(data), (ZeroDivisionError,)), b"") is None
    slow = attempt(Target("slow", [], _forever, seconds=0.01), b"")
    assert slow is not None
    assert "longer than" in slow.what


def test_the_same_number_makes_the_same_input() -> None:
    made = [[mutated(random.Random(n), b"seed: 1\n", [b"x"]) for n in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 30
