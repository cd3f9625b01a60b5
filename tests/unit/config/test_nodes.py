"""Plain scalars are YAML 1.2; every key and value knows its place."""

from __future__ import annotations

import math

import pytest

from edged.config.nodes import Mapping, Node, core, locate, parse, plain
from edged.config.problems import Report, SourceFile


def tree(text: str) -> tuple[Node | None, Report]:
    report = Report()
    return parse(text, SourceFile("f.yaml", text.split("\n")), report, lambda _node, _path: None), report


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # the table of YAML 1.2.2, section 10.3.2
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False),
        ("0", 0), ("-7", -7), ("+12", 12), ("010", 10), ("0o14", 12), ("0xFf", 255),
        ("0.5", 0.5), (".5", 0.5), ("-1.", -1.0), ("1e3", 1000.0), ("-2.5E-3", -0.0025),
        (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
        # and what YAML 1.1 would have made something else of
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("OFF", "OFF"), ("y", "y"), ("tRUE", "tRUE"),
        ("12:30:45", "12:30:45"), ("1_000", "1_000"), ("0b101", "0b101"), ("-0x1F", "-0x1F"),
        ("11:22:33:44:55:10", "11:22:33:44:55:10"), ("2026-11-20", "2026-11-20"), ("1.2.3", "1.2.3"), (".", "."),
        ("٣", "٣"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = core(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(core(".nan"))  # type: ignore[arg-type]  # that it is a float is what is tested


def test_quotes_make_a_text() -> None:
    node, report = tree("a: '12'\nb: \"true\"\nc: |\n  12\n")
    assert node is not None
    assert plain(node) == {"a": "12", "b": "true", "c": "12\n"}
    assert not report.problems


@pytest.mark.parametrize(
    ("path", "key", "line", "column", "length"),
    [
        (("b", "c"), False, 2, 8, 3),
        (("b", "c"), True, 2, 5, 1),
        (("d", 1), False, 4, 5, 3),
        (("d", 7), False, 3, 4, 1),
        (("b", "nothing"), False, 2, 4, 1),
        (("empty",), False, 5, 1, 5),
    ],
)
def test_positions_point_at_what_was_written(
    path: tuple[str | int, ...], key: bool, line: int, column: int, length: int
) -> None:
    node, _ = tree("a: 1\nb: {c: foo}\nd: [1,\n    two]\nempty:\n")
    assert node is not None
    mark = locate(node, path, key=key)
    assert (mark.line, mark.column, mark.length) == (line, column, length)


def test_an_alias_repeats_and_a_merge_key_adds_what_is_not_there() -> None:
    node, report = tree("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [*a, {z: 4, x: 9}], '<<': text}\n")
    assert node is not None
    assert plain(node) == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"y": 3, "x": 1}, "d": {"<<": "text", "x": 1, "y": 2, "z": 4}
    }  # fmt: skip
    assert not report.problems


def test_keys_keep_their_text_and_whole_numbers_become_decimal() -> None:
    node, _ = tree("{1: a, 0x10: b, true: c, 1.50: d, no: e}")
    assert isinstance(node, Mapping)
    assert list(node.entries) == ["1", "16", "true", "1.50", "no"]


@pytest.mark.parametrize("text", ["? [1, 2]\n: x\n", ": x\n", "{[a]: b}"])
def test_a_key_that_is_no_word_is_reported(text: str) -> None:
    _, report = tree(text)
    assert report.failed


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    _, report = tree("a: " + "[" * 5000 + "]" * 5000)
    assert "levels deep" in report.problems[0].message


@pytest.mark.parametrize("escape", [r'"\UFFFFFFFF"', r'"\ud800"', r'"\U00110000"', r'"\q"', r'"\x1"'])
def test_an_impossible_escape_is_reported(escape: str) -> None:
    _, report = tree(f"a: 1\nb: {escape}\n")
    assert report.failed
    assert report.problems[0].mark.line in {1, 2}
