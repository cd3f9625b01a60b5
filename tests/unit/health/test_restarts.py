"""Why the gateway was started: told from what the run before has noted, and kept whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edged.health.restarts import FILE, RESULT, Runs, why

CASES: list[tuple[dict[str, Any] | None, str, str]] = [
    (None, "", "first"),
    ({"ended": True, "version": "2", "boot": "a"}, "", "clean"),
    ({"ended": True, "version": "2", "boot": "b"}, "", "clean"),
    ({"ended": True, "version": "1", "boot": "a"}, "", "upgrade"),
    ({"ended": False, "version": "2", "boot": "a"}, "", "crash"),
    ({"ended": False, "version": "2", "boot": "a"}, "signal", "crash"),
    ({"ended": False, "version": "2", "boot": "a"}, "watchdog", "watchdog"),
    ({"ended": False, "version": "2", "boot": "a"}, "oom-kill", "memory"),
    ({"ended": False, "version": "2", "boot": "b"}, "", "power"),
    ({"ended": False, "version": "2", "boot": "b"}, "watchdog", "power"),
    ({}, "", "power"),
]


@pytest.mark.parametrize(("previous", "result", "reason"), CASES)
def test_each_end_has_its_reason(previous: dict[str, Any] | None, result: str, reason: str) -> None:
    assert why(previous, "a", "2", result) == reason


def start(state: Path, boot: str = "a", version: str = "2") -> Runs:
    runs = Runs(state)
    runs.begin(boot, version, "2026-11-21T12:00:00Z")
    return runs


def test_restarts_are_counted_over_restarts(tmp_path: Path) -> None:
    start(tmp_path).end()
    start(tmp_path)
    start(tmp_path)
    (tmp_path / RESULT).write_text("watchdog\n")
    start(tmp_path)
    assert not (tmp_path / RESULT).exists(), "it speaks of one end only"
    runs = start(tmp_path, boot="b")
    runs.reloaded()
    assert runs.changed
    runs.end()
    found = start(tmp_path, boot="b", version="3").state()
    assert found.by_reason == {"first": 1, "clean": 1, "crash": 1, "watchdog": 1, "power": 1, "upgrade": 1}
    assert [one.reason for one in found.last] == ["first", "clean", "crash", "watchdog", "power", "upgrade"]
    assert found.reloads == 1


def test_the_book_does_not_grow(tmp_path: Path) -> None:
    for _ in range(29):
        start(tmp_path)
    runs = start(tmp_path)
    assert len(runs.state().last) == 20
    assert runs.state().by_reason == {"first": 1, "crash": 29}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"by_reason": 1}', '{"by_reason": {}, "last": [1]}'])
def test_a_damaged_book_is_begun_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    assert start(tmp_path).state().by_reason == {"first": 1}
    assert "counted anew" in caplog.text
    start(tmp_path).end()
    assert start(tmp_path).state().by_reason["clean"] == 1


def test_a_disk_that_refuses_costs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    runs = start(tmp_path / "file/state")
    runs.reloaded()
    runs.keep()
    runs.end()
    assert caplog.text.count("cannot be written") == 1
