"""An archive that is damaged is found out, and one that somebody made to do harm is refused before it can."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edged.backup import manifest as words
from edged.backup.archive import extract_to, manifest_of, opened, write
from edged.backup.check import verify
from edged.backup.create import due
from edged.backup.manifest import Manifest, Member, parse, part_of
from edged.backup.place import kept, surplus
from edged.cli.backup import list_backups
from edged.errors import ConfigError, PermanentError, TransientError
from tests.support.backups import site


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return site(folder / "gateway").backup(folder / "backups", secrets=True).path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]  # all are files


def packed(path: Path, entries: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """An archive made by hand."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


def unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def repacked(sound: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    found = members(sound)
    change(found)
    return packed(path, dict(found))


def test_it_is_a_tar_that_any_tool_can_unpack(sound: Path) -> None:
    found = members(sound)
    assert next(iter(found)) == "manifest.json"
    assert found["config/edged.yaml"].startswith(b"gateway:")
    assert json.loads(found["manifest.json"])["format"] == 1


def test_each_flipped_bit_is_found(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    for place in [*range(0, 40, 9), *range(40, len(content), len(content) // 15)]:
        changed = bytearray(content)
        changed[place] ^= 0x10
        if unpacked(bytes(changed)) == unpacked(content):
            continue  # when it was compressed, or a reference to another place with the same bytes: nothing is damaged
        damaged.write_bytes(changed)
        assert not verify(damaged).ok, place


def test_each_cut_is_found(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    for length in [0, 1, 9, 18, *range(30, len(content), len(content) // 9), len(content) - 1]:
        damaged.write_bytes(content[:length])
        assert not verify(damaged).ok, length


@pytest.mark.parametrize("junk", [b"x", b"\0" * 512 + b"x", gzip.compress(b"x" * 512)], ids=["byte", "zeros", "gzip"])
def test_something_behind_the_end_is_found(sound: Path, tmp_path: Path, junk: bytes) -> None:
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(sound.read_bytes() + junk)
    assert not verify(damaged).ok


def swapped(found: dict[str, bytes]) -> None:
    manifest = found.pop("manifest.json")
    found["manifest.json"] = manifest


CHANGES: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "a file is missing": (lambda found: found.pop("config/edged.yaml"), "should be"),
    "the last file is missing": (lambda found: found.pop(list(found)[-1]), "missing"),
    "a file too many": (lambda found: found.update({"config/evil.yaml": b"x"}), "more in it"),
    "another content of the same length": (
        lambda found: found.update({"config/edged.yaml": found["config/edged.yaml"].swapcase()}), "checksum"
    ),
    "no manifest": (lambda found: found.pop("manifest.json"), "no backup"),
    "the manifest is not first": (swapped, "no backup"),
    "the manifest is no JSON": (lambda found: found.update({"manifest.json": b"{"}), "manifest"),
    "a manifest of another kind": (lambda found: found.update({"manifest.json": b"[]"}), "manifest"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_each_other_damage_is_found(
    sound: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], Any], said: str
) -> None:
    verdict = verify(repacked(sound, tmp_path / "damaged.tar.gz", change))
    assert said in verdict.problems[0]


def with_manifest(sound: Path, path: Path, change: Callable[[dict[str, Any]], None], **more: Any) -> Path:
    found: dict[str, Any] = dict(members(sound))
    record = json.loads(found["manifest.json"])
    change(record)
    found["manifest.json"] = json.dumps(record).encode()
    return packed(path, found | more)


def test_a_damaged_database_is_found_although_its_checksum_is_right(sound: Path, tmp_path: Path) -> None:
    content = bytearray(members(sound)["state/buffer.db"])
    content[-600:-500] = bytes(100)

    def change(record: dict[str, Any]) -> None:
        one = next(one for one in record["members"] if one["name"] == "state/buffer.db")
        one["sha256"] = hashlib.sha256(content).hexdigest()

    verdict = verify(with_manifest(sound, tmp_path / "x.tar.gz", change, **{"state/buffer.db": bytes(content)}))
    assert "state/buffer.db" in verdict.problems[0]


def test_one_of_a_newer_format_is_refused_with_what_to_do(sound: Path, tmp_path: Path) -> None:
    path = with_manifest(sound, tmp_path / "x.tar.gz", lambda record: record.update(format=2))
    with pytest.raises(ConfigError, match="format 2; this edged knows 1: update edged"):
        verify(path)


NAMES = [
    "config/../../etc/passwd", "config/..", "/etc/passwd", "config//etc/passwd", "config/./x", "../x", "outside/../x",
    "state/x", "state/buffer.db/x", "state/history/../../x.json", "state/connections/../../x", "etc/passwd", "config/",
    "config/a\\b", "config/\n", "state/buffer.db-wal", "manifest.json", "", "config/" + "x" * 300, "state/config/x",
    "config/.restore-x/y", "config/before-restore-x/y",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(sound: Path, tmp_path: Path, name: str) -> None:
    assert part_of(name) is None

    def change(record: dict[str, Any]) -> None:
        record["members"][0]["name"] = name

    with pytest.raises(PermanentError):
        manifest_of(with_manifest(sound, tmp_path / "x.tar.gz", change))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_plain_file_is_refused(sound: Path, tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("config/conf.d/lab.yaml")
    entry.type, entry.linkname = kind, "/etc/passwd"
    path = packed(tmp_path / "x.tar.gz", {**members(sound), "config/conf.d/lab.yaml": entry})
    verdict = verify(path)
    assert not verdict.ok
    assert "not a plain file" in verdict.problems[0]


SIZES: list[tuple[str, int]] = [("config/edged.yaml", 2**40), ("state/buffer.db", 2**60), ("config/edged.yaml", -1)]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_a_huge_member_is_refused_before_it_is_written(sound: Path, tmp_path: Path, name: str, size: int) -> None:
    def change(record: dict[str, Any]) -> None:
        next(one for one in record["members"] if one["name"] == name)["size"] = size

    path = with_manifest(sound, tmp_path / "x.tar.gz", change)
    with suppress(TransientError):  # no disk has so much room
        assert not verify(path).ok
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


def test_a_bomb_stops_at_the_size_that_was_said(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    found = {"manifest.json": members(sound)["manifest.json"], "config/edged.yaml": bytes(50 * 2**20)}
    packed(path, found)  # type: ignore[arg-type]  # a dict of bytes is one
    assert "should be" in verify(path).problems[0]


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", {"manifest.json": bytes(words.MAX_MANIFEST + 1)})
    with pytest.raises(PermanentError, match="too large"):
        manifest_of(path)


def test_setuid_is_refused(sound: Path, tmp_path: Path) -> None:
    path = with_manifest(sound, tmp_path / "x.tar.gz", lambda record: record["members"][0].update(mode=0o4755))
    with pytest.raises(PermanentError):
        manifest_of(path)


@given(st.binary(max_size=600))
def test_no_manifest_is_too_strange_to_be_refused(data: bytes) -> None:
    try:
        parse(data)
    except (PermanentError, ConfigError):
        return
    raise AssertionError(data)


@pytest.mark.parametrize(
    "change",
    [
        {"time": "yesterday"}, {"time": ""}, {"time": "2026-01-01T00:00:00"}, {"readings": "many"}, {"readings": 1e400},
        {"head": None}, {"gateway": "../x"}, {"gateway": "\x1b[2J"}, {"secrets": "no"}, {"valid": 1},
        {"buffer_path": "\0"}, {"edged": "\x1b[2J"}, {"pending": {"\x1b[2J": 1}},
    ],
)  # fmt: skip
def test_what_cannot_be_listed_or_compared_is_damaged(sound: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """One such file in the folder must not keep the timer from making the next backup."""
    bad = with_manifest(sound, tmp_path / "edged-plant-7-x.tar.gz", lambda record: record.update(change))
    assert not verify(bad).ok
    (found,) = kept(tmp_path)
    assert due([found], 60, datetime.now(UTC))
    assert surplus([found], keep=1, weeks=1) == []
    assert CliRunner().invoke(list_backups, [str(tmp_path)]).stdout.count("DAMAGED") == 1


def test_what_a_newer_edged_adds_to_a_manifest_is_passed_over(sound: Path, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record.update(news="x", notes=["a\x1b[2Jnote"])
        record["members"][0]["news"] = 1

    verdict = verify(with_manifest(sound, tmp_path / "x.tar.gz", change))
    assert verdict.ok
    assert verdict.manifest is not None
    assert verdict.manifest.notes == ("a·[2Jnote",)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


@given(st.data())
def test_no_value_in_a_manifest_is_too_strange_to_be_refused(data: st.DataObject) -> None:
    member = Member("config/edged.yaml", 1, "0" * 64, 0o640, "config")
    good = Manifest(
        edged="1", gateway="g", epoch="", head=0, time="2026-11-21T12:00:00Z", folder="/etc/edged",
        main="config/edged.yaml", members=(member,),
    )  # fmt: skip
    record = json.loads(good.dump())
    assert parse(good.dump()) == good
    where = data.draw(st.sampled_from([record, record["members"][0]]))
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(JSON)
    try:
        parsed = parse(json.dumps(record).encode())
    except (PermanentError, ConfigError):
        return
    assert all(part_of(one.name) == one.part and one.size >= 0 for one in parsed.members)


def test_nothing_is_overwritten_while_extracting(tmp_path: Path) -> None:
    content = b"x" * 5
    member = Member("config/edged.yaml", 5, "", 0o640, "config")
    path = tmp_path / "link"
    path.symlink_to(tmp_path / "elsewhere")

    def pieces() -> Iterator[bytes]:
        yield content

    with pytest.raises(FileExistsError):
        extract_to({member.name: path})(member, pieces())
    assert not (tmp_path / "elsewhere").exists()


def test_a_member_that_grows_while_it_is_written_leaves_no_archive(sound: Path, tmp_path: Path) -> None:
    manifest = dataclasses.replace(manifest_of(sound))
    sources: dict[str, Any] = dict.fromkeys((member.name for member in manifest.members), b"")
    with pytest.raises(ConfigError, match="no backup can be written"):
        write(tmp_path / "x.tar.gz", manifest, sources)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"), opened(tmp_path):
        pass
