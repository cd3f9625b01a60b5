"""Readings in files: nothing lost, nothing twice, whatever happens to the process, the file or the disk."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.types import FileName, Size
from edged.errors import ConfigError, TransientError
from edged.testing.audit import Audit
from edged.uplink.api import Message
from edged.uplink.dialects.csv import COLUMNS, HEAD
from edged.uplink.links.file_store import Store, Target, read_csv, read_json
from edged.uplink.state import State
from tests.support.draining import killed
from tests.support.forwarding import assert_complete, gateway
from tests.support.waiting import until

SMALL = Size(64 * 1024)


def sending(path: Path, name: str = "readings.jsonl", **settings: Any) -> Any:
    """A gateway that writes there."""
    known = {"min_free": Size(0), "path": FileName(path / "out" / name), **settings}
    return gateway(path / "buffer.db", 0, connector="file", **known)


def files(path: Path) -> list[Path]:
    """In the order in which they were written."""
    found = list((path / "out").iterdir())
    assert not [one for one in found if one.suffix == ".tmp"]
    return sorted(found, key=lambda one: (one.stem == "readings", one.name))


def lines(path: Path) -> Iterator[bytes]:
    for one in files(path):
        content = one.read_bytes()
        yield from (gzip.decompress(content) if one.suffix == ".gz" else content).splitlines(keepends=True)


def audit_of(path: Path) -> Audit:
    audit = Audit()
    for line in lines(path):
        audit.take(orjson.loads(line))
    return audit


def rows(path: Path) -> list[dict[str, str]]:
    text = [line.decode() for line in lines(path) if line != HEAD]
    return [dict(zip(COLUMNS, row, strict=True)) for row in csv.reader(text, strict=True)]


def audit_of_rows(path: Path) -> Audit:
    audit = Audit()
    of_message: list[dict[str, str]] = []
    for row in rows(path):
        of_message.append(row)
        if row["left"] == "0":
            numbers = {name: int(row[name]) for name in ("first", "seq", "prev")}
            audit.take({**row, **numbers, "readings": len(of_message)})
            of_message = []
        else:
            assert int(row["left"]) > 0
    assert not of_message, "the last message is whole"
    return audit


@pytest.mark.parametrize("layout", ["samples", "columns"])
async def test_everything_is_written_once_and_in_order_over_restarts_and_many_files(
    tmp_path: Path, layout: str
) -> None:
    for run in range(1, 4):
        async with sending(tmp_path, layout=layout, max_size=SMALL, keep=0) as one:
            one.poll(20)
            one.alarm(run)
            await one.drained()
            assert (await one.saved()) == {"delivered": run * 10_001, "pending": 0, "dead": 0}
            assert one.forwarder.state().detail.startswith(f"{tmp_path}/out/readings.jsonl, ")
            audit = audit_of(tmp_path)
            assert_complete(audit, one)
            assert audit.readings == run * 10_001
    assert len(files(tmp_path)) > 2
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o640 for one in files(tmp_path))
    assert all(one.stat().st_size <= SMALL for one in files(tmp_path))


async def test_csv_is_written_likewise(tmp_path: Path) -> None:
    for _ in range(2):
        async with sending(tmp_path, "readings.csv", layout="csv", max_size=SMALL, keep=0, compress=False) as one:
            one.poll(4)
            await one.drained()
            assert_complete(audit_of_rows(tmp_path), one)
    assert all(file.read_bytes().startswith(HEAD) for file in files(tmp_path))
    found = rows(tmp_path)
    assert len(found) == 8 * 500
    assert {row["value"] for row in found} == {"1.0", "2.0", "3.0", "4.0"}


async def test_the_oldest_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    async with sending(tmp_path, max_size=SMALL, keep=2) as one:
        one.poll(60)
        await one.drained()
    names = [one.name for one in files(tmp_path)]
    assert len(names) == 3
    assert names[-1] == "readings.jsonl"
    assert all(name.endswith(".jsonl.gz") for name in names[:-1])
    last = orjson.loads(list(lines(tmp_path))[-1])
    assert (last["device"], last["values"]["p0"]) == ("d9", 60.0)


@pytest.mark.parametrize("layout", ["samples", "csv"])
async def test_kill_9_loses_nothing_and_writes_nothing_twice(tmp_path: Path, layout: str) -> None:
    out = tmp_path / "out" / ("readings.csv" if layout == "csv" else "readings.jsonl")
    kills = await killed(
        tmp_path / "buffer.db", 0, 200, lambda: len(list(out.parent.glob("*"))), 1, 6,
        connector="file", path=str(out), min_free=0, max_size=SMALL, keep=0, layout=layout,
    )  # fmt: skip
    audit = audit_of_rows(tmp_path) if layout == "csv" else audit_of(tmp_path)
    assert kills
    assert (audit.missing, audit.out_of_order, audit.duplicates, audit.readings) == ([], 0, 0, 200 * 500)


# -- the files, without a gateway --------------------------------------------------------------------------------------


class At:
    """A clock of one's own."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def target(path: Path, **settings: Any) -> Target:
    known: dict[str, Any] = {
        "path": path / "out" / "readings.jsonl", "head": b"", "read": read_json, "max_size": 10_000, "daily": True,
        "keep": 5, "compress": True, "min_free": 0, "zone": UTC, "window": 20,
    }  # fmt: skip
    return Target(**known | settings)


def message(seq: int, text: bytes | None = None, **more: str) -> Message:
    line = text or orjson.dumps({"epoch": "e", "seq": seq, **more}) + b"\n"
    return Message("f", line, properties={"epoch": "e", "seq": str(seq), **more})


def opened(path: Path, at: At | None = None, **settings: Any) -> Store:
    store = Store("cloud", target(path, **settings), at or At())
    store.open()
    return store


def test_a_day_ends_at_midnight(tmp_path: Path) -> None:
    at = At()
    store = opened(tmp_path, at)
    store.append([message(1)])
    at.now = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
    store.append([message(2)])
    at.now = datetime(1970, 1, 1, tzinfo=UTC)  # a clock that has lost the time
    store.append([message(3)])
    store.close()
    assert [one.name for one in files(tmp_path)] == ["readings-000001-2026-11-21.jsonl.gz", "readings.jsonl"]
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("torn", [b'{"epoch":"e","se', b"\0" * 5000, b"\0" * 50 + b"\n", b"\xff\xfe", b'{"epoch":"e"}'])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    store = opened(tmp_path)
    store.append([message(1), message(2)])
    store.close()
    path = tmp_path / "out" / "readings.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    store = Store("cloud", target(tmp_path), At())
    assert f"{len(torn):,} torn bytes removed" in store.open()
    assert path.read_bytes() == whole
    assert store.written == {("e", ""): 2}
    store.append([message(3)])
    store.close()
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_message_that_lacks_only_its_line_break_is_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append([message(1), message(2)])
    store.close()
    path = tmp_path / "out" / "readings.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    store = opened(tmp_path)
    assert (path.read_bytes(), store.written) == (whole, {("e", ""): 2})
    store.append([message(3)])
    store.close()
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("foreign", [b"a note\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b"a note\n{"])
def test_what_somebody_else_wrote_is_put_aside_and_never_removed(tmp_path: Path, foreign: bytes) -> None:
    store = opened(tmp_path, compress=False)
    store.append([message(1)])
    store.close()
    path = tmp_path / "out" / "readings.jsonl"
    before = path.read_bytes() + foreign
    path.write_bytes(before)
    store = opened(tmp_path, compress=False)
    assert store.written == {("e", ""): 1}
    store.append([message(2)])
    store.close()
    aside, now = files(tmp_path)
    assert (aside.read_bytes(), now.read_bytes()) == (before, message(2).payload)


@given(
    st.one_of(st.binary(), st.text().map(str.encode), st.from_type(float).map(lambda n: b'{"epoch":1,"seq":%f}' % n))
)
def test_no_line_breaks_the_reading_of_a_file(line: bytes) -> None:
    for read in (read_json, read_csv):
        with contextlib.suppress(ValueError):
            read(line)


async def test_another_layout_begins_another_file(tmp_path: Path) -> None:
    for layout in ("samples", "csv", "columns"):
        async with sending(tmp_path, layout=layout, compress=False) as one:
            one.poll(2)
            await one.drained()
    first, second, third = (file.read_bytes() for file in files(tmp_path))
    assert (first.count(b"\n"), second.count(b"\n"), third.count(b"\n")) == (20, 1 + 2 * 500, 2)


def test_a_message_of_several_lines_is_whole_or_not_there(tmp_path: Path) -> None:
    def of(seq: int, left: int) -> bytes:
        return f"t,d,p,1,,good,g,,live,e,{seq},{seq},0,{left}\n".encode()

    store = opened(tmp_path, head=HEAD, read=read_csv)
    store.append([message(1, of(1, 1) + of(1, 0))])
    store.close()
    path = tmp_path / "out" / "readings.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + of(2, 2) + of(2, 1))
    store = opened(tmp_path, head=HEAD, read=read_csv)
    store.close()
    assert (path.read_bytes(), store.written) == (whole, {("e", ""): 1})


def test_what_is_there_is_known_for_each_flow_also_after_an_exchange(tmp_path: Path) -> None:
    store = opened(tmp_path, max_size=200)
    for seq in range(1, 5):
        store.append([message(seq, flow="a"), message(seq * 10, flow="b")])
    store.close()
    assert len(files(tmp_path)) > 1
    (tmp_path / "out" / "readings.jsonl").unlink()
    again = opened(tmp_path, max_size=200)
    again.close()
    assert again.written == {("e", "a"): 2, ("e", "b"): 20}


def test_what_a_crash_left_half_done_is_finished(tmp_path: Path) -> None:
    store = opened(tmp_path, compress=False, max_size=100)
    for seq in range(1, 10):
        store.append([message(seq)])
    store.close()
    finished = files(tmp_path)[:-1]
    assert len(finished) == 2
    (tmp_path / "out" / f"{finished[0].name}.gz").write_bytes(gzip.compress(finished[0].read_bytes()))
    (tmp_path / "out" / f"{finished[1].name}.tmp").write_bytes(b"half")
    opened(tmp_path, max_size=100).close()
    assert [one.suffix for one in files(tmp_path)] == [".gz", ".gz", ".jsonl"]
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == list(range(1, 10))


def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.append([message(1)])
    (tmp_path / "out" / "readings.jsonl").rename(tmp_path / "moved")
    store.append([message(2)])
    store.close()
    assert orjson.loads((tmp_path / "moved").read_bytes())["seq"] == 1
    assert [orjson.loads(line)["seq"] for line in lines(tmp_path)] == [2]


def test_what_others_append_or_cut_while_we_write_leaves_no_hole_and_overwrites_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    path = tmp_path / "out" / "readings.jsonl"
    store.append([message(1)])
    with path.open("ab") as other:
        other.write(b"a note\n")
    store.append([message(2)])
    assert path.read_bytes() == message(1).payload + b"a note\n" + message(2).payload
    os.truncate(path, 0)
    store.append([message(3)])
    store.close()
    assert path.read_bytes() == message(3).payload


def test_two_cannot_write_the_same_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(ConfigError, match="another connection or gateway"):
        Store("other", target(tmp_path), At()).open()
    store.close()


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="below /var/lib/edged"):
        Store("cloud", target(tmp_path), At()).open()


def test_room_is_left_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="are to stay so"):
        Store("cloud", target(tmp_path, min_free=2**60), At()).open()


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
async def test_a_full_disk_loses_nothing_and_leaves_no_half_message(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=128k", "none", tmp_path / "out")
    try:
        async with sending(tmp_path, max_size=SMALL, keep=0, compress=False) as one:
            one.poll(60)
            await until(lambda: one.forwarder.state().state is State.CLOSED)
            await until(lambda: "No space left" in one.forwarder.state().last_error)
            first = audit_of(tmp_path)
            assert (first.missing, first.duplicates) == ([], 0)
            await run("mount", "-o", "remount,size=4m", tmp_path / "out")
            await one.drained()
            assert_complete(audit_of(tmp_path), one)
            assert audit_of(tmp_path).readings == 60 * 500
    finally:
        await run("umount", tmp_path / "out")
