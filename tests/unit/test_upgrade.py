"""Releases side by side: links, notes that survive a power cut, formats of files, the judgement of a new release."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.upgrade import Home, Record, Trial, Watch, expected, format_of, home_of, reasons, working

TRIAL = Trial("1.0-a", "1.1-b", "this boot", "2026-11-21T06:00:00Z", 50.0, ("device meter",), ("/b.db",), "/sock", "i")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With two releases, of which the first runs."""
    for name in ("1.0-a", "1.1-b"):
        add(tmp_path, name)
    home = Home(tmp_path)
    home.set_link("current", "1.0-a")
    return home


def add(folder: Path, name: str, *, complete: bool = True) -> Path:
    release = folder / "releases" / name
    release.mkdir(parents=True)
    if complete:
        (release / "release.json").write_text(json.dumps({"name": name}))
    return release


# -- links and notes ---------------------------------------------------------------------------------------------------


def test_a_link_is_changed_as_a_whole_even_over_what_a_power_cut_has_left(home: Home) -> None:
    (home.path / ".current.new").symlink_to("releases/half")
    home.set_link("current", "1.1-b")
    assert home.link("current") == "1.1-b"
    assert (home.path / "current/release.json").exists()
    assert sorted(path.name for path in home.path.iterdir()) == ["current", "releases"]


def test_a_release_that_is_not_complete_is_none(home: Home) -> None:
    add(home.path, "1.2-c", complete=False)
    home.set_link("previous", "1.2-c")
    assert home.link("previous") == ""
    assert set(home.names()) == {"1.0-a", "1.1-b"}


def test_an_environment_that_is_no_release_has_no_others(home: Home, tmp_path: Path) -> None:
    found = home_of(home.path / "current")
    assert found is not None
    assert found.path == home.path
    assert home_of(tmp_path) is None
    assert home_of(add(home.path, "half", complete=False)) is None


def test_what_is_under_way_is_noted_and_struck_out_when_it_is_over(home: Home) -> None:
    assert home.trial() is None
    home.begin(TRIAL)
    home.begin(replace(TRIAL, why="it ended"))
    found = home.trial()
    assert found is not None
    assert (found.new, tuple(found.worked), found.why) == ("1.1-b", ("device meter",), "it ended")
    record = Record("rolled-back", "1.0-a", "1.1-b", TRIAL.began, "2026-11-21T06:01:00Z", "it ended")
    home.end(record)
    assert (home.trial(), home.last()) == (None, record)
    assert "ROLLED BACK to 1.0-a" in str(record)


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "\x00" * 40, '{"of": "another release"}'])
def test_notes_that_a_bad_card_has_damaged_are_none(home: Home, content: str) -> None:
    (home.path / "trial.json").write_text(content)
    (home.path / "upgrade.json").write_text(content)
    assert home.trial() is None
    assert home.last() in (None, Record(*[""] * 6))  # type: ignore[arg-type]  # nothing of it is known


def test_two_releases_stay(home: Home) -> None:
    home.set_link("previous", "1.0-a")
    home.set_link("current", "1.1-b")
    add(home.path, "0.9-z")
    add(home.path, "half", complete=False)
    assert home.prune() == ["0.9-z", "half"]
    assert set(home.names()) == {"1.0-a", "1.1-b"}


# -- the formats of files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "newer", "one_way"), [(1, False, True), (2, False, False), (3, False, False), (4, True, False)]
)
def test_a_format_tells_whether_a_release_can_use_the_file_and_leave_it_as_it_is(
    tmp_path: Path, found: int, newer: bool, one_way: bool
) -> None:
    with closing(sqlite3.connect(tmp_path / "b.db")) as db:
        db.execute(f"PRAGMA user_version = {found}")
    one = format_of(tmp_path / "b.db", 3, 2)
    assert (one.newer, one.one_way) == (newer, one_way)


def test_a_file_that_is_not_there_yet_suits_everybody(tmp_path: Path) -> None:
    one = format_of(tmp_path / "none.db", 3, 2)
    assert (one.newer, one.one_way) == (False, False)
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"b\.db cannot be read"):
        format_of(tmp_path / "b.db", 3, 2)


# -- the judgement -----------------------------------------------------------------------------------------------------


def status(*up: str, down: tuple[str, ...] = (), connected: bool = True, polls: int = 100) -> dict[str, Any]:
    devices = [
        {"device": name, "health": health, "polls": polls, "last_error": "timeout" if health == "down" else ""}
        for names, health in ((up, "ok"), (down, "down"))
        for name in names
    ]
    return {"buses": [{"devices": devices}], "connections": {"cloud": {"connected": connected, "detail": "refused"}}}


def test_only_what_worked_and_is_polled_often_is_expected_again() -> None:
    assert expected(status("meter", down=("dead",)), 100, 50) == ("connection cloud", "device meter")
    assert expected(status("hourly", polls=1, connected=False), 3600, 50) == ()


def test_what_worked_and_does_not_is_why() -> None:
    watch = Watch(("connection cloud", "device meter"))
    watch.look(status("meter", connected=False))
    assert watch.failed() == ["worked before: connection cloud: refused"]
    for _ in range(3):
        watch.look(status("meter"))
    assert watch.failed() == []


def test_one_moment_of_silence_at_the_end_is_no_failure() -> None:
    watch = Watch(("device meter",))
    for _ in range(5):
        watch.look(status("meter"))
    watch.look(status(down=("meter",)))
    assert watch.failed() == []


def test_a_reason_that_many_share_is_told_once() -> None:
    said = reasons(status(down=("a", "b")), ["device a", "device b", "device gone"])
    assert said == ["device a, device b: timeout", "device gone: nothing has come yet"]


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3), max_size=3))
def test_whatever_a_release_adds_to_its_status_is_understood(more: dict[str, object]) -> None:
    assert working({**more, **status("meter")}) == {"device meter", "connection cloud"}
