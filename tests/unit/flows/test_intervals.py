"""What is worked out of an interval: of all its readings, or it says so; whatever is cut, late, divided or repeated."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import PRIORITY, Batch
from edged.config.flows import AggregateConfig, BindingConfig, FlowConfig, StepConfig
from edged.config.model import GatewayConfig
from edged.config.types import Duration, Name
from edged.flows.encoder import FlowEncoder
from edged.flows.flow import Flow
from edged.flows.match import DeviceInfo
from edged.flows.pieces import Piece, Window, beyond
from edged.model import Sample
from edged.uplink.api import Chunk, Envelope, Lane
from edged.uplink.connectors.mqtt import JsonEncoder, MqttConnection
from edged.uplink.lanes import halves
from edged.uplink.together import Together
from tests.support.forwarding import context_of

INTERVAL = 10_000_000
MINUTES = FlowConfig(
    steps=(StepConfig(aggregate=AggregateConfig(every=Duration(10), functions=("avg",))),),
    connections={"c": BindingConfig()},
)
ENVELOPE = Envelope("e", 0, 0, Lane.LIVE)


def flow() -> Flow:
    return Flow(MINUTES, GatewayConfig(id=Name("plant-7")), lambda _: DeviceInfo())


def sample(seconds: float, device: str = "chiller") -> Sample:
    return Sample(device, round(seconds * 1e6), 0, ("a",), [seconds])


def log_of(rows: list[tuple[list[int], str, str]]) -> list[Batch]:
    """Of each row the times, the boot and the target."""
    batches, first = [], 1
    for times, boot, target in rows:
        samples = tuple(sample(time, f"d{time % 2}") for time in times)
        batches.append(Batch(first, samples, boot, len(samples), target))
        first += len(samples)
    return batches


def pieces(batches: list[Batch]) -> list[Window]:
    """All pieces that are at their end, as one reader makes them."""
    found: list[Window] = []
    after, sent = 0, set[int]()
    while True:
        piece, reached = Piece(INTERVAL), after
        for row in (one for one in batches if one.last > after):
            if piece.take(beyond(row, reached)):
                break
            reached = row.last
        else:
            return found
        found.append(piece.batch(sent))
        after = found[-1].last
        sent |= {one.time // INTERVAL for one in found[-1].samples}


ROWS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 60), min_size=1, max_size=8), st.sampled_from("bbbc"),
        st.sampled_from(["", "", PRIORITY]),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip


@given(ROWS)
def test_a_row_that_says_nothing_else_is_all_of_its_interval(rows: list[tuple[list[int], str, str]]) -> None:
    batches = log_of(rows)
    stored = [one for batch in batches for one in batch.samples]
    counted: Counter[tuple[str, int]] = Counter()
    for piece in pieces(batches):
        for row in flow().apply(piece.samples, cut=piece.cut).samples:
            values = dict(zip(row.points, row.values, strict=True))
            key = row.device, row.time // INTERVAL
            counted[key] += int(str(values["a_count"]))
            if not row.quality:
                so_far = [one for one in stored[: piece.last] if (one.device, one.time // INTERVAL) == key]
                assert values["a_count"] == len(so_far)
        stored_so_far = Counter((one.device, one.time // INTERVAL) for one in stored[: piece.last])
        assert counted == stored_so_far  # what is sent adds up, whatever was late


def test_an_interval_that_is_cut_says_so_in_both_parts() -> None:
    first, second, _ = (
        flow().apply(piece.samples, cut=piece.cut).samples
        for piece in pieces(log_of([([1, 3], "b", ""), ([5], "c", ""), ([11], "c", ""), ([21], "c", "")]))
    )
    assert [str(row.quality[row.points.index("a_avg")]) for row in (*first, *second)] == [
        "uncertain(partial)", "uncertain(late)",
    ]  # fmt: skip
    assert [row.quality.get(row.points.index("a_count")) for row in (*first, *second)] == [None, None]


def test_readings_with_priority_do_not_cut_an_interval() -> None:
    (piece,) = pieces(log_of([([1], "b", ""), ([3], "b", PRIORITY), ([5], "b", ""), ([11], "b", "")]))
    (row,) = flow().apply(piece.samples, cut=piece.cut).samples
    assert (row.values, dict(row.quality), piece.target) == ([3.0, 3], {}, "")


def test_rows_with_priority_that_are_settled_each_for_itself_stay_apart() -> None:
    first, second = log_of([([1], "b", ""), ([3], "b", PRIORITY)])
    piece = Piece(INTERVAL, apart=2)
    assert not piece.take(first)
    assert piece.take(second)
    assert piece.batch().cut.partial_from == 0


def encoder(**settings: Any) -> FlowEncoder:
    config = MqttConnection(connector="mqtt", url="mqtt://b", **settings)
    return FlowEncoder("minutes", flow(), JsonEncoder(config, context_of()))


def rows_of(payload: bytes) -> list[tuple[str, int, list[float]]]:
    return [
        (device, time, values)
        for table in orjson.loads(payload)["tables"]
        for device, time, values in zip(table["devices"], table["times"], table["values"], strict=True)
    ]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**30))
def test_an_interval_that_is_divided_carries_the_same(count: int, devices: int, seed: int) -> None:
    samples = tuple(sample(i % 10, f"d{i * 7 % devices}") for i in range(count))
    one = encoder()
    (whole,) = one.split(Window(100, samples, "b", count))
    together = rows_of(one.encode(whole, ENVELOPE).payload)
    todo: list[Chunk] = [whole]
    apart: list[tuple[str, int, list[float]]] = []
    left_out = 0
    while todo:
        piece = todo.pop(0)
        seed = (seed * 1103515245 + 12345) % 2**31
        if len(piece.samples) > 1 and seed % 3:
            todo[:0] = halves(piece)
            continue
        message = one.encode(replace(piece, boot="b"), ENVELOPE)
        left_out += message.left_out
        apart += [] if message.skip else rows_of(message.payload)
    assert (apart, left_out) == (together, 0)


def test_parts_are_settled_when_all_have_their_verdict() -> None:
    told: list[int] = []
    together = Together(1, 10)
    assert not together.settle([(1, 10)])
    together.add(6, 10, lambda: told.append(2))
    assert not together.settle([(1, 10)])
    together.add(1, 5, lambda: told.append(1))
    assert together.settle([(1, 10)])
    assert told == [1, 2]


def test_what_was_given_up_meanwhile_is_not_waited_for() -> None:
    told: list[int] = []
    together = Together(1, 10)
    together.add(6, 10, lambda: told.append(2))
    assert together.settle([(6, 10)])
    assert told == [2]


def test_what_is_sent_once_more_elsewhere_does_not_cut_an_interval() -> None:
    (piece,) = pieces(log_of([([1], "b", ""), ([3, 9], "a", "cloud/other"), ([5], "b", ""), ([11], "b", "")]))
    (row,) = flow().apply([one for one in piece.samples if one.points], cut=piece.cut).samples
    assert (row.values, dict(row.quality), piece.last) == ([3.0, 2], {}, 4)
