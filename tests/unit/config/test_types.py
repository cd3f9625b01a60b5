"""Durations, sizes, names and secrets as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.types import Duration, Name, Secret, Size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1s", 1),
        ("1h30m", 5400),
        (" 2 min ", 120),
        ("1.5h", 5400),
        ("100us", 1e-4),
        ("1w", 604800),
        (0, 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [5, 1.5, "5", "", " ", "s", "5 x", "-5s", "5s6", None, True, [], "9" * 400 + "s", "1e5s"]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match=r"duration|large"):
        Duration.parse(text)


@pytest.mark.parametrize(("text", "size"), [("64MB", 64_000_000), ("1GiB", 2**30), ("1.5kB", 1500), (0, 0), ("7B", 7)])
def test_sizes(text: object, size: int) -> None:
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", [5, "5", "5 mb", "1TB", "-1MB", None, "9" * 400 + "GiB"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match=r"size|large"):
        Size.parse(text)


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_a_duration_is_shown_as_it_can_be_written(seconds: float) -> None:
    assert Duration.parse(str(Duration(seconds))) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize("text", ["meter-1", "a", "_x", "1", "A.b_c-d", "x" * 64])
def test_names(text: str) -> None:
    assert Name.parse(text) == text


@pytest.mark.parametrize("text", ["", "-a", ".a", "a b", "a/b", "a+", "#", "ä", "x" * 65, "a\n", 5, None])
def test_what_is_no_name(text: object) -> None:
    with pytest.raises(ValueError, match="name"):
        Name.parse(text)


def test_a_secret_never_shows_its_text() -> None:
    assert "hunter2" not in f"{Secret(text='hunter2')!r} {Secret(text='hunter2')}"
