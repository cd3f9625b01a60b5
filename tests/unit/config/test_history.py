"""The history of configurations: kept whole, bounded, and put back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.history import KEEP, Entry, History, Source, lay_out, put_back, snapshot
from edged.config.inputs import digest
from edged.errors import ConfigError, TransientError


def added(history: History, main: Path, content: bytes, result: str = "good") -> Entry:
    return history.add(main, {str(main): Source(content)}, time="2026-01-01T00:00:00Z", result=result)  # type: ignore[arg-type]  # one of the words


@given(content=st.binary(max_size=200), name=st.text("abc-ü ", min_size=1, max_size=10))
def test_what_is_kept_comes_back_byte_for_byte(
    content: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history")
    history = History(folder / "history")
    entry = added(history, folder / name, content)
    assert history.find(entry.number) == entry
    assert history.last_good() == history.last_good(folder / name) == entry
    assert history.last_good(folder / "another.yaml") is None


def test_the_number_of_entries_is_bounded_and_the_last_good_one_stays(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    good = added(history, tmp_path / "edged.yaml", b"good")
    for index in range(KEEP + 5):
        added(history, tmp_path / "edged.yaml", b"%d" % index, "rolled-back")
    entries = history.entries()
    assert len(entries) == KEEP + 1
    assert entries[0] == good == history.last_good()
    assert entries[-1].number == KEEP + 6
    assert history.conclude(entries[-1], "good").number == entries[-1].number
    assert history.last_good() != good


def test_a_trial_that_was_cut_short_is_known_again(tmp_path: Path) -> None:
    history, main = History(tmp_path / "history"), tmp_path / "edged.yaml"
    assert history.on_trial(main, "") is None
    entry = added(history, main, b"a", "trial")
    assert history.on_trial(main, entry.fingerprint) == entry
    assert history.on_trial(main, "another") is None
    assert history.on_trial(tmp_path / "other.yaml", entry.fingerprint) is None
    history.conclude(entry, "good")
    assert history.on_trial(main, entry.fingerprint) is None


def test_a_damaged_entry_hides_no_other(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    first, second = (added(history, tmp_path / "edged.yaml", text) for text in (b"a", b"b"))
    (tmp_path / "history" / f"{second.number:06}.json").write_text("{")
    assert history.last_good() == first
    with pytest.raises(ConfigError, match="no configuration number 7 in the history; there are: 1"):
        history.find(7)


def test_a_file_that_changes_while_it_is_checked_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "edged.yaml"
    file.write_bytes(b"new")
    assert snapshot({str(file): digest(b"new")})[str(file)].content == b"new"
    with pytest.raises(TransientError, match="was changed while it was being checked"):
        snapshot({str(file): digest(b"old")})
    with pytest.raises(TransientError, match="cannot be read any more"):
        snapshot({str(file) + "x": ""})


def test_files_are_put_back_with_their_modes_and_others_removed(tmp_path: Path) -> None:
    main, extra, gone = tmp_path / "edged.yaml", tmp_path / "conf.d" / "a.yaml", tmp_path / "old.yaml"
    files = {str(main): Source(b"1", 0o600), str(gone): Source(b"2", 0o640)}
    entry = Entry(1, "", "good", str(main), files)
    main.write_bytes(b"changed")
    main.chmod(0o604)
    extra.parent.mkdir()
    extra.write_bytes(b"extra")
    now = {str(main): Source(b"changed", 0o604), str(extra): Source(b"extra")}
    assert len(put_back(entry, now)) == 3  # one restored, one put back, one removed
    assert (main.read_bytes(), gone.read_bytes(), extra.exists()) == (b"1", b"2", False)
    assert (main.stat().st_mode & 0o777, gone.stat().st_mode & 0o777) == (0o604, 0o640)


def test_a_main_file_that_is_a_link_is_laid_out_beside_what_it_leads_to(tmp_path: Path) -> None:
    real = tmp_path / "real" / "edged.yaml"
    real.parent.mkdir()
    real.write_bytes(b"x")
    link = tmp_path / "etc" / "edged.yaml"
    link.parent.mkdir()
    link.symlink_to(real)
    entry = Entry(1, "", "good", str(link), {str(link): Source(b"x"), str(real.parent / "conf.d/a.yaml"): Source(b"y")})
    main = lay_out(entry, tmp_path / "root")
    assert (main.resolve().parent / "conf.d/a.yaml").read_bytes() == b"y"
    assert main.read_bytes() == b"x"
