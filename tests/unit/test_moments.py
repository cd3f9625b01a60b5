"""Moments as people write them: time zones, the hours that come twice or never, and what is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import click
import pytest

from edged.cli.moments import chosen_range, moment_of
from edged.clock import wall_us


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Berlin."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def utc(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1e6)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11-20", "2026-11-19T23:00", "2026-11-19T23:00"),
        ("2026-07-20 12:00", "2026-07-20T10:00", "2026-07-20T10:00"),
        ("2026-07-20T12:00Z", "2026-07-20T12:00", "2026-07-20T12:00"),
        ("2026-07-20T12:00:00.000001-05:30", "2026-07-20T17:30:00.000001", "2026-07-20T17:30:00.000001"),
        ("2026-10-25T02:30", "2026-10-25T00:30", "2026-10-25T01:30"),  # comes twice
        ("2026-10-25T02:30+01:00", "2026-10-25T01:30", "2026-10-25T01:30"),
        ("2026-03-29T02:30", "2026-03-29T00:30", "2026-03-29T01:30"),  # never comes
    ],
)
def test_a_moment(text: str, first: str, last: str) -> None:
    assert moment_of(text) == utc(first)
    assert moment_of(text, last=True) == utc(last)


def test_how_long_ago() -> None:
    before = wall_us()
    assert before - 5_400_000_000 <= moment_of("1h30m") <= wall_us() - 5_400_000_000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "12:27", "1e400", "99999999d", "-5s", "0001-01-01T00:00+14:00", "0001-01-01", "2026-02-29", "5"],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(click.UsageError, match="is not a moment"):
        moment_of(text)


def test_an_end_before_the_beginning_is_told() -> None:
    """Nothing would ever be found, and it would look as if nothing were there."""
    with pytest.raises(click.UsageError, match="--to 2h is not later than --from 1h"):
        chosen_range("1h", "2h", ())
    assert chosen_range(None, None, ("a", "b")) == {"device": ["a", "b"]}
