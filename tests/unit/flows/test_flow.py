"""Flows: expressions that cannot do harm, matches, steps, what is counted, SQL, pieces of the log for intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.buffer.batch import Batch
from edged.config.flows import AggregateConfig, BindingConfig, FlowConfig, MapConfig, MatchConfig, StepConfig
from edged.config.model import GatewayConfig, SiteConfig
from edged.config.types import Duration, Name
from edged.flows.expression import EvaluationError, Expression, UnknownError
from edged.flows.flow import Flow, output_units
from edged.flows.match import DeviceInfo, Match, Site
from edged.flows.pieces import Piece, beyond
from edged.flows.sql import compile_sql
from edged.flows.units import linear
from edged.model import Sample, Value, bad

GATEWAY = GatewayConfig(id=Name("plant-7"), site=SiteConfig(building="B25"))
CHILLER = DeviceInfo("modbus-tcp", {"Room": "Plant", "floor": "2"}, {"supply": "°C"})


def flow(*steps: StepConfig, match: tuple[MatchConfig, ...] = ()) -> Flow:
    return Flow(FlowConfig(match=match, steps=steps, connections={"c": BindingConfig()}), GATEWAY, lambda _: CHILLER)


def sample(time: float = 0, device: str = "chiller", **values: Value) -> Sample:
    quality = {i: bad("timeout") for i, value in enumerate(values.values()) if value is None}
    return Sample(device, round(time * 1e6), 0, tuple(values), list(values.values()), quality)


def rows(samples: list[Sample]) -> list[dict[str, Value]]:
    return [dict(zip(one.points, one.values, strict=True)) for one in samples]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("supply > 50 and not ret > 30", True),
        ("1 if supply > 100 else 2", 2),
        ("round(supply * 1.8 + 32, 1)", 140.0),
        ("read('a-b') + 1", 8),
        ("label('Room') == 'Plant'", True),
        ("2 ** 10", 1024),
        ("min(supply, ret)", 20.0),
    ],
)
def test_an_expression_yields(text: str, expected: Value) -> None:
    names: dict[str, Value] = {"supply": 60.0, "ret": 20.0, "a-b": 7}
    assert Expression(text).value(names, lambda name: CHILLER.labels[name]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "supply.real", "().__class__", "[1] * 10**9", "[x for x in y]", "lambda: 1", "open('/etc/passwd')", "a[0]",
        "__import__('os')", "f'{supply:>1000000000}'", "1" + "+1" * 300,
        "(" * 50 + "1" + ")" * 50 + "+" + "-" * 30 + "1",
        "x" * 1001, "abs(x=1)", "abs()", "abs(1, 2)", "round(1, 2, 3)", "min()", "b'1'", "read(supply)",
        "1 << 1000000", "(a := 1)",
    ],
)  # fmt: skip
def test_what_could_do_harm_is_no_expression(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|function|takes|possible|nested"):
        Expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "9 ** 9 ** 9",
        "10 ** 5000",
        "text * 1000000000",
        "text % 5",
        "1 / 0",
        "sqrt(-1)",
        "(-8) ** 0.5",
        "1e308 * 10",
        "round(1, 999999999)",
    ],
)
def test_what_would_take_time_or_memory_is_an_error(text: str) -> None:
    with pytest.raises(EvaluationError):
        Expression(text).value({"text": "%1000000000d"}, str)


def test_a_text_does_not_grow_without_bound() -> None:
    with pytest.raises(EvaluationError, match="longer"):
        Expression("text + text").value({"text": "x" * 3000}, str)


def test_what_is_said_of_a_long_text_is_a_line() -> None:
    with pytest.raises(EvaluationError, match="is not a number") as caught:
        Expression("text * 2").value({"text": "x" * 4096}, str)
    assert len(str(caught.value)) < 100


def test_a_missing_or_bad_value_is_unknown() -> None:
    with pytest.raises(UnknownError):
        Expression("supply > 1").value({"supply": None}, str)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_yield_or_be_refused(text: str) -> None:
    try:
        Expression(text).value({"a": 1}, str)
    except (ValueError, EvaluationError, UnknownError):
        return


@pytest.mark.parametrize(
    ("matchers", "taken"),
    [
        ([], [0, 1, 2]),
        ([MatchConfig(key="CHILLER/supply*")], [0, 1]),
        ([MatchConfig(key="plant-7/ret")], [2]),
        ([MatchConfig(key="b25/chiller/*")], [0, 1, 2]),
        ([MatchConfig(key="chiller")], [0, 1, 2]),
        ([MatchConfig(key="boiler/*")], []),
        ([MatchConfig(labels={"ROOM": "plant", "floor": "3"})], []),
        ([MatchConfig(labels={"ROOM": "plant", "floor": "3"}), MatchConfig(labels={"floor": "2"}, point="ret")], [2]),
        ([MatchConfig(adapter="modbus-*", site="b25", device="chill?r", point="*_2")], [1]),
    ],
)
def test_matchers_are_and_inside_or_between(matchers: list[MatchConfig], taken: list[int]) -> None:
    match = Match(matchers, Site("plant-7", building="B25"))
    assert match.points("chiller", CHILLER, ("supply", "supply_2", "ret")) == taken


def test_steps_one_after_the_other_and_what_they_leave_out() -> None:
    one = flow(
        StepConfig(filter="supply > 50"),
        StepConfig(
            map=MapConfig(
                drop=("noise*",),
                convert={"supply": "°F"},
                scale={"ret": 10},
                add={"d": "supply - ret"},
                rename={"ret": "back"},
            )
        ),
    )
    result = one.apply([sample(supply=60.0, ret=2, noise=1), sample(supply=40.0, ret=2, noise=1)])
    assert rows(result.samples) == [{"supply": pytest.approx(140.0), "back": 20.0, "d": pytest.approx(120.0)}]
    assert result.left_out == 4


def test_a_condition_over_a_bad_value_is_not_true() -> None:
    result = flow(StepConfig(filter="supply > 50")).apply([sample(supply=None, ret=2)])
    assert (result.samples, result.left_out) == ([], 2)


def test_when_lets_others_pass_as_they_are() -> None:
    one = flow(StepConfig(when="device == 'chiller'", map=MapConfig(scale={"a": 2})))
    assert rows(one.apply([sample(a=1), sample(a=1, device="boiler")]).samples) == [{"a": 2.0}, {"a": 1}]


def test_a_filter_of_readings_takes_them_one_by_one() -> None:
    result = flow(StepConfig(filter="value > 2 and quality == 'good'")).apply([sample(a=1, b=3, c=None)])
    assert (rows(result.samples), result.left_out) == ([{"b": 3}], 2)


def test_what_cannot_be_worked_out_is_bad_and_counted() -> None:
    one = flow(StepConfig(map=MapConfig(add={"d": "a / b", "e": "c + 1"})))
    (out,) = one.apply([sample(a=1, b=0)]).samples
    assert [str(out.quality[i]) for i in (2, 3)] == ["bad(expression)", "bad(absent)"]
    assert one.errors.count == 1


def test_an_interval_per_device_aligned_by_reading_time() -> None:
    one = flow(StepConfig(aggregate=AggregateConfig(every=Duration(60), functions=("min", "max", "avg", "last"))))
    out = one.apply([sample(61, a=1), sample(62, a=None), sample(63, a=4), sample(121, a=9), sample(61, "boiler", a=7)])
    assert [(one.device, one.time) for one in out.samples] == [
        ("chiller", 60_000_000), ("chiller", 120_000_000), ("boiler", 60_000_000)
    ]  # fmt: skip
    assert rows(out.samples)[0] == {"a_min": 1, "a_max": 4, "a_avg": 2.5, "a_last": 4, "a_count": 2}
    assert out.left_out == 0


def test_a_sample_per_interval_is_the_first() -> None:
    out = flow(StepConfig(sample=Duration(10))).apply([sample(time, a=time) for time in range(25)])
    assert (rows(out.samples), out.left_out) == ([{"a": 0}, {"a": 10}, {"a": 20}], 22)


def test_units_as_a_flow_leaves_them() -> None:
    steps = (StepConfig(map=MapConfig(convert={"a": "°F"}, rename={"a": "b"}, scale={"c": 2})),)
    whole = FlowConfig(steps=steps, connections={"c": BindingConfig()})
    assert output_units(whole, {"a": "°C", "c": "W", "d": "V"}) == {"b": "°F", "d": "V"}


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (100, "°C", "°F", 212),
        (-40, "°F", "°C", -40),
        (1, "bar", "psi", 14.5037738),
        (36, "km/h", "m/s", 10),
        (1, "kWh", "MJ", 3.6),
    ],
)
def test_units_convert(value: float, source: str, target: str, expected: float) -> None:
    a, b = linear(source, target)
    assert value * a + b == pytest.approx(expected)


def test_sql_becomes_the_same_steps() -> None:
    match, steps = compile_sql(
        "SELECT supply, ret AS back, supply - ret AS d FROM 'plant-7/chiller' WHERE supply > 50 AND ret IN (1, 20)"
    )
    result = flow(*steps, match=match).apply([sample(supply=60, ret=20, x=1), sample(supply=60, ret=2, x=1)])
    assert rows(result.samples) == [{"supply": 60, "back": 20, "d": 40}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a + 1 AS a, a * 10 AS b FROM d", {"a": 3, "b": 20}),
        ("SELECT a AS b, a + 1 AS a FROM d", {"b": 2, "a": 3}),
        ("SELECT a AS b, b AS a FROM d", {"b": 2, "a": 5}),
        ("SELECT a AS x, a AS y, a FROM d", {"x": 2, "y": 2, "a": 2}),
        ("SELECT b - a AS a, a - b AS b FROM d WHERE NOT a = 3", {"a": 3, "b": -3}),
        ("SELECT d.a, `flow-1` FROM d", {"a": 2, "flow-1": 7}),
        ("SELECT 'from \"x\"' AS t, a FROM \"d\" WHERE 'it''s' = 'it''s'", {"t": 'from "x"', "a": 2}),
    ],
)
def test_every_column_of_sql_is_worked_out_of_the_points_as_they_came(text: str, expected: dict[str, object]) -> None:
    match, steps = compile_sql(text)
    one = Sample("d", 0, 0, ("a", "b", "flow-1"), [2, 5, 7])
    assert rows(flow(*steps, match=match).apply([one]).samples) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a, b AS a FROM d", "SELECT a, a FROM d", "SELECT a.value FROM d", "SELECT a || 'x' AS b FROM d",
        "SELECT a FROM 'it''s'", "SELECT a FROM d AS e", "SELECT", "SELECT a FROM", "SELECT FROM d",
        "", "DROP TABLE x", "SELECT a", "SELECT a FROM 'd'; SELECT b FROM 'd'", "SELECT a FROM 'd' LIMIT 1",
        "SELECT (SELECT 1) AS b FROM 'd'",
        "SELECT a+1 FROM 'd'", "SELECT a FROM 'x/y/z'", "SELECT a FROM 'd' WHERE sleep(9) > 1", "SELECT *, a FROM 'd'",
    ],
)  # fmt: skip
def test_other_sql_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_sql(text)


def pieces(batches: list[Batch], after: int) -> list[tuple[int, int]]:
    """Where the pieces of a log begin and end, from a position on."""
    found: list[tuple[int, int]] = []
    while True:
        piece, reached = Piece(10_000_000), after
        for row in (one for one in batches if one.last > after):
            if piece.take(beyond(row, reached)):
                break
            reached = row.last
        else:
            return found
        whole = piece.batch()
        found.append((whole.first, whole.last))
        after = whole.last


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8), min_size=1, max_size=12))
def test_pieces_do_not_depend_on_where_reading_began_again(times: list[list[int]]) -> None:
    batches, first = [], 1
    for some in times:
        samples = tuple(sample(time, a=1) for time in some)
        batches.append(Batch(first, samples, "b", len(samples)))
        first += len(samples)
    whole = pieces(batches, 0)
    assert [begin for begin, _ in whole] == [1, *(end + 1 for _, end in whole[:-1])][: len(whole)]
    for number, (_, end) in enumerate(whole):
        assert pieces(batches, end) == whole[number + 1 :]
