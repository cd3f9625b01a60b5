"""The schema and the reference page are current, and agree with what is accepted."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it comes without types

from edged.adapter import adapter_names
from edged.config.nodes import Items, Mapping, Node, Scalar, parse
from edged.config.problems import Report, SourceFile
from edged.config.schema import json_schema, reference, written
from edged.config.types import Duration, Size
from tests.unit.config.test_shipped import CONFIG, with_examples

ROOT = Path(__file__).parents[3]


def as_editor(text: str) -> Any:
    """The data as an editor's YAML support sees it: a `!secret` is a text, a variable is not replaced."""

    def data(node: Node) -> Any:
        match node:
            case Scalar():
                return node.secret or node.value
            case Mapping():
                return {key: data(entry.value) for key, entry in node}
            case Items():
                return [data(item) for item in node.items]
        raise AssertionError(node)

    report = Report()
    node = parse(text, SourceFile("f", text.split("\n")), report, lambda _node, _path: None)
    assert node is not None
    assert not report.problems
    return data(node)


def complaints(text: str) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(as_editor(text))]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.fixture
def as_the_project_says() -> None:
    """The kept files describe the adapters of pyproject.toml: no fewer, as in an old environment, and no others."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        adapters = tomllib.load(file)["project"]["entry-points"]["edged.adapters"]
    if sorted(adapters) != adapter_names():
        pytest.skip("the installed adapters are not those of pyproject.toml: pip install -e .")


@pytest.mark.usefixtures("as_the_project_says")
def test_the_kept_schema_is_current() -> None:
    kept = json.loads((CONFIG / "edged.schema.json").read_text(encoding="utf-8"))
    assert kept == json_schema(), "run: edged schema > config/edged.schema.json"


@pytest.mark.usefixtures("as_the_project_says")
def test_the_reference_page_is_current() -> None:
    kept = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    assert kept == reference(), "run: edged schema --markdown > docs/reference/configuration.md"


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIG.glob("*.yaml")))
def test_what_is_shipped_satisfies_the_schema(file: str) -> None:
    assert not complaints((CONFIG / file).read_text(encoding="utf-8"))


def test_the_examples_satisfy_the_schema() -> None:
    assert not complaints(with_examples((CONFIG / "edged.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "gateway: {}", "gateway: {id: a b}", "bufer: {}", "buses: {a: {adapter: nothing}}", "buffer: {flush: 5}",
        "buses: {a: {adapter: modbus-tcp}}", "buses: {a: {adapter: modbus-tcp, host: h, prot: 1}}",
        'buses: {a: {adapter: modbus-tcp, host: h, port: "1"}}', "devices: {a: {points: {}}}",
        "devices: {a: {bus: b, points: {p: null}}}", "devices: {a: {bus: b, points: {p: {holding: yes}}}}",
        "devices: {a: {bus: b, profile: x, points: {p: {holdin: 1}}}}", "connections: {a: {connector: mqtt}}",
    ],
)  # fmt: skip
def test_mistakes_are_seen_in_the_editor(text: str) -> None:
    assert complaints(text)


@pytest.mark.parametrize(
    "text",
    [
        "gateway: {id: a}\nbuses:\ndevices:\n", "include: [a, b]", "buffer: {flush: 0, max_bytes: 1.5GiB}", "buffer:",
        "buses: {a: {adapter: modbus-tcp, host: h, port: '${P:-1}'}}",
        "devices: {a: {bus: b, profile: x, points: {p: null, q: {deadband: 1}}}}",
    ],
)  # fmt: skip
def test_what_is_accepted_is_not_complained_about(text: str) -> None:
    assert not complaints(text)


def test_every_setting_is_explained() -> None:
    """An editor shows the description; a setting without one is a riddle."""
    for name, schema in json_schema()["$defs"].items():
        for key, one in schema.get("properties", {}).items():
            assert one.get("description"), f"{name}.{key} has no docstring"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Duration(0.5), "500ms"),
        (Duration(5400), "90m"),
        (Size(2**28), "256MiB"),
        (Size(5), "5B"),
        (Size(0), "0B"),
        ((1, 2), [1, 2]),
    ],
)
def test_defaults_are_shown_as_they_are_written(value: object, text: object) -> None:
    assert written(value) == text
