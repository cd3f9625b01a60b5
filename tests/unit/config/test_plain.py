"""Dataclasses to plain data and back, whatever they are made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.base import LinearMap
from edged.config.plain import build, dump
from edged.config.types import Duration, Name, Secret, Size


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Weird(Enum):
    PAIR = "pair"


@dataclass(frozen=True, kw_only=True)
class Left:
    left: int


@dataclass(frozen=True, kw_only=True)
class Right:
    right: int
    more: str = "x"


@dataclass(frozen=True, kw_only=True)
class Everything:
    whole: int
    ratio: float = 1.0
    text: str = ""
    switch: bool = False
    wait: Duration = Duration(1)
    size: Size = Size(2)
    name: Name = Name("a")  # noqa: RUF009  # a name is as immutable as a text
    secret: Secret | None = None
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    weird: Weird = Weird.PAIR
    folder: Path = Path("/")
    word: Literal["on", "off"] | int = "on"
    loose: float | str | None = None
    mixed: int | float | str | bool | None = None
    pause: Duration | Literal["auto"] | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    names: list[Name] = field(default_factory=list)
    map: LinearMap | None = None
    either: Left | Right | None = None
    words: dict[int, str] = field(default_factory=dict)
    waits: dict[Name, Duration] = field(default_factory=dict)
    parts: dict[str, Right] = field(default_factory=dict)
    noted: Annotated[int | None, "a note"] = None


NUMBERS = st.floats(allow_nan=False)
DURATIONS = st.floats(0, 1e9).map(Duration)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,5}", fullmatch=True).map(Name)
RIGHTS = st.builds(Right, right=st.integers(), more=TEXTS)
SIMPLE = {
    "whole": st.integers(), "ratio": NUMBERS, "text": TEXTS, "switch": st.booleans(), "wait": DURATIONS,
    "size": st.integers(0, 2**60).map(Size), "name": NAMES,
    "secret": st.none() | st.builds(Secret, name=NAMES.map(str)) | st.builds(Secret, text=TEXTS.filter(bool)),
    "colour": st.sampled_from(Colour), "level": st.sampled_from(Level), "folder": TEXTS.map(Path),
    "word": st.sampled_from(["on", "off", 5]), "loose": st.none() | NUMBERS | TEXTS,
    "mixed": st.none() | st.integers() | NUMBERS | TEXTS | st.booleans(),
    "pause": st.none() | DURATIONS | st.just("auto"), "pair": st.tuples(NUMBERS, NUMBERS),
    "many": st.lists(st.integers(), max_size=3).map(tuple), "names": st.lists(NAMES, max_size=3),
    "map": st.none() | st.just(LinearMap(raw=(4, 20), to=(0.0, 10.0))),
    "either": st.none() | st.builds(Left, left=st.integers()) | RIGHTS,
    "words": st.dictionaries(st.integers(), TEXTS, max_size=3), "waits": st.dictionaries(NAMES, DURATIONS, max_size=3),
    "parts": st.dictionaries(TEXTS, RIGHTS, max_size=3), "noted": st.none() | st.integers(),
}  # fmt: skip


def types_of(value: Any) -> Any:
    """The same tree with types for leaves: equal numbers of different types are not the same."""
    if isinstance(value, dict):
        return {key: types_of(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [types_of(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: types_of(getattr(value, name)) for name in value.__dataclass_fields__}
    return type(value)


@given(st.fixed_dictionaries({"whole": SIMPLE["whole"]}, optional={k: v for k, v in SIMPLE.items() if k != "whole"}))
def test_what_was_dumped_is_built_again(settings: dict[str, Any]) -> None:
    config = Everything(**settings)
    again = build(Everything, json.loads(json.dumps(dump(config))))
    assert again == config
    assert types_of(again) == types_of(config)


def test_defaults_are_left_out() -> None:
    assert dump(Everything(whole=1)) == {"whole": 1}


def test_a_named_secret_is_only_its_name() -> None:
    assert dump(Secret(name="mqtt")) == {"name": "mqtt"}


def test_a_foreign_type_is_refused() -> None:
    with pytest.raises(TypeError):
        dump(object())


@pytest.mark.parametrize("data", [{}, {"whole": 1, "unknown": 2}, [], None, {"whole": 1, "colour": "green"}])
def test_data_that_does_not_fit_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError, LookupError, AttributeError)):
        build(Everything, data)
