"""Log lines as journald gets them, over a real datagram socket; what it does not take goes to standard error."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.discretion import hide
from edged.logs import JournalHandler

Fields = dict[str, str]


class Journal:
    """Understands journald's native protocol."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(10)

    def entry(self) -> Fields:
        data, fields = self._socket.recv(200_000), {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[8 + size + 1 :]
            fields[name.decode()] = value.decode()
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def log(journal: Journal) -> Iterator[logging.Logger]:
    handler, log = JournalHandler(journal.path), logging.getLogger("edged.some")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield log
    log.removeHandler(handler)
    handler.close()


def test_an_entry_has_the_priority_and_says_what_it_is_about(log: logging.Logger, journal: Journal) -> None:
    log.warning("%s: %s does not answer", "line-a", "meter-1")
    entry = journal.entry()
    assert entry["MESSAGE"] == "edged.some: line-a: meter-1 does not answer"
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("4", "edged")
    assert (entry["EDGED_LOGGER"], entry["EDGED_SUBJECT"]) == ("edged.some", "line-a")
    assert entry["CODE_FILE"] == __file__
    log.info("nothing in particular")
    assert "EDGED_SUBJECT" not in journal.entry()


def test_several_lines_are_one_entry(log: logging.Logger, journal: Journal) -> None:
    try:
        raise ValueError("first\nsecond=third")  # a traceback is wanted
    except ValueError:
        log.exception("%s: a bug", "x")
    entry = journal.entry()
    assert entry["MESSAGE"].endswith("ValueError: first\nsecond=third")
    assert entry["PRIORITY"] == "3"


def test_a_secret_does_not_reach_the_journal(log: logging.Logger, journal: Journal) -> None:
    hide("s3cret-of-the-journal")
    log.error("%s: refused s3cret-of-the-journal", "cloud")
    assert "s3cret" not in str(journal.entry())


def test_what_is_far_too_long_is_cut(log: logging.Logger, journal: Journal) -> None:
    log.error("%s", "x" * 10**6)
    assert 30_000 < len(journal.entry()["MESSAGE"]) < 40_000


@pytest.mark.parametrize("there", [False, True])
def test_without_a_journal_or_when_it_is_full_lines_go_to_standard_error(
    tmp_path: Path, there: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path / "journal") if there else None
    handler = JournalHandler(str(tmp_path / "journal"))
    for number in range(2000):
        handler.emit(logging.LogRecord("edged", logging.WARNING, __file__, 1, "line %s\nof two", (number,), None))
    handler.close()
    if journal:
        journal.close()
    assert "<4>edged: line 1999\n<4>of two\n" in capfd.readouterr().err


def test_the_journal_is_used_only_where_standard_error_is_one(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by whatever a service starts; its standard error may be something else."""
    code = """
import logging, json, edged.logs
edged.logs.set_up()
print(json.dumps([type(handler).__name__ for handler in logging.getLogger().handlers]))
"""
    with (tmp_path / "stderr").open("w") as stderr:
        status = os.fstat(stderr.fileno())
        for stream, expected in (
            (f"{status.st_dev}:{status.st_ino}", "JournalHandler"),
            ("1:2", "StreamHandler"),
        ):
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, check=True,
                env={**os.environ, "JOURNAL_STREAM": stream},
            )  # fmt: skip
            assert json.loads(done.stdout) == [expected]
