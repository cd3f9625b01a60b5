"""The example vectors of codecs: those of our own, and those of a checkout of The Things Network's device repository.

git clone --depth 1 https://github.com/TheThingsNetwork/lorawan-devices
EDGED_LORAWAN_DEVICES=lorawan-devices pytest tests/unit/mqtt_in/test_examples.py -s
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from edged.adapter import ConfigError
from edged_mqtt.codecs import examples
from edged_mqtt.codecs.runner import Output, Runner, Script

pytest.importorskip("_quickjs", reason="pip install 'edged[codecs]'")

CASES = Path(__file__).parents[2] / "cases/codecs"
CHECKOUT = os.environ.get("EDGED_LORAWAN_DEVICES", "")


@pytest.mark.parametrize("file", sorted(CASES.glob("*.js")), ids=lambda file: file.stem)
async def test_a_codec_fulfils_its_examples(file: Path) -> None:
    place = examples.beside(file)
    assert place is not None
    vectors = examples.load(place)
    runner, script = Runner(), Script(file, 0)
    try:
        assert {one.name: await examples.check(runner, script, one) for one in vectors} == {
            one.name: "" for one in vectors
        }
    finally:
        await runner.close()
    assert vectors


def test_there_are_enough_of_them() -> None:
    assert len(list(CASES.glob("*.js"))) >= 10


@pytest.mark.parametrize(("expected", "output", "said"), [
    ({"data": {"a": 1}}, Output({"a": 1.0}), ""),
    ({"data": {"a": 0.3}}, Output({"a": 0.1 + 0.2}), ""),
    ({"data": {"a": None}}, Output({}), ""),
    ({"data": {"a": 1}}, Output({"a": 2}), "data.a is 2, and the vector expects 1"),
    ({"data": {"a": 1}}, Output({"a": True}), "data.a is True, and the vector expects 1"),
    ({"data": {"a": "1"}}, Output({"a": 1}), "data.a is 1, and the vector expects 1"),
    ({"data": {"a": 1}}, Output({"a": 1, "b": 2}), "data.b is 2, and the vector has no such value"),
    ({"data": {"a": 1}}, Output({}), "data.a is missing"),
    ({"data": {"a": [1, {"b": 2}]}}, Output({"a": [1, {"b": 3}]}), "data.a.1.b is 3, and the vector expects 2"),
    ({"data": {"a": [1]}}, Output({"a": [1, 2]}), "data.a has 2 elements, and the vector expects 1"),
    ({"data": {}}, Output(None, ("no",)), "errors: ['no'], and the vector expects []"),
    ({"errors": ["no"]}, Output({}), "errors: [], and the vector expects ['no']"),
    ({"data": {}, "warnings": ["w"]}, Output({}), "warnings: [], and the vector expects ['w']"),
    ({"bytes": "0102"}, Output(frame=b"\1\3"), "bytes: 01 03, and the vector expects 01 02"),
    ({"bytes": [1], "fPort": 2}, Output(frame=b"\1", port=3), "fPort: 3, and the vector expects 2"),
])  # fmt: skip
def test_what_differs_is_said(expected: dict[str, object], output: Output, said: str) -> None:
    assert examples.difference(expected, output) == said


@pytest.mark.parametrize("text", ["[{type: uplink}]", "[{type: up, input: {}, output: {}}]", "3", "[1, 2", "a: {"])
def test_a_file_that_has_none_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        examples.load(file)


@pytest.mark.skipif(not CHECKOUT, reason="EDGED_LORAWAN_DEVICES names no checkout of TheThingsNetwork/lorawan-devices")
@pytest.mark.timeout(600)
async def test_published_codecs_fulfil_their_examples() -> None:
    runner, count = Runner(), Counter[str]()
    failed: list[str] = []
    try:
        for number, file in enumerate(sorted(Path(CHECKOUT).glob("vendor/*/*.yaml"))):
            if "fileName:" not in file.read_text("utf-8", "replace"):
                continue
            vectors = examples.load(file)
            scripts = {name: Script(file.parent / name, 100 * number + i) for i, name in
                       enumerate(sorted({one.script for one in vectors}))}  # fmt: skip
            wrong = [text for one in vectors if (text := await examples.check(runner, scripts[one.script], one))]
            failed += [f"{file.parent.name}/{file.name}: {text}" for text in wrong]
            count["codecs"] += bool(vectors)
            count["vectors"] += len(vectors)
            count["codecs unchanged"] += bool(vectors) and not wrong
            count["vectors unchanged"] += len(vectors) - len(wrong)
    finally:
        await runner.close()
    print(f"\n{dict(count)}\n" + "\n".join(failed))
    assert count["codecs unchanged"] >= min(50, count["codecs"])
    assert count["codecs unchanged"] >= 0.97 * count["codecs"]
