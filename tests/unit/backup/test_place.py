"""Where backups go and which are kept: pure decisions, and looks at real files in a tree of the test's own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edged.backup import create
from edged.backup.archive import write
from edged.backup.manifest import Manifest
from edged.backup.place import Kept, alone, check, file_name, kept, surplus
from edged.cli import main
from edged.config.load import load
from edged.config.model import BackupConfig
from edged.config.types import Duration, Size
from edged.doctor.machine import check_backups
from edged.errors import ConfigError, TransientError
from tests.support.backups import FILES, site

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)


def backup(days: float, size: int = 10, *, damaged: bool = False) -> Kept:
    """One that was made so many days ago."""
    time = (NOW - timedelta(days=days)).isoformat()
    manifest = Manifest(edged="1", gateway="g", epoch="", head=0, time=time, folder="/etc/edged", main="config/e.yaml")
    return Kept(Path(f"b-{days}"), size, None if damaged else manifest)


def kept_of(found: list[Kept], **limits: int) -> list[str]:
    gone = surplus(found, **limits)
    return [one.path.name for one in found if one not in gone]


def test_the_newest_and_the_last_of_each_week_stay() -> None:
    found = [backup(days) for days in range(40, -1, -1)]
    # 21 November 2026 is a Saturday: the weeks end 6, 13, … days ago
    assert kept_of(found, keep=3, weeks=3) == ["b-13", "b-6", "b-2", "b-1", "b-0"]


def test_a_limit_takes_the_oldest_but_never_the_newest() -> None:
    found = [backup(2), backup(1), backup(0, size=500)]
    assert kept_of(found, keep=3, weeks=0, max_bytes=15) == ["b-0"]
    assert kept_of(found, keep=3, weeks=0, max_bytes=510) == ["b-1", "b-0"]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1000), st.booleans()), max_size=30),
    st.integers(1, 5), st.integers(0, 5), st.integers(0, 2000),
)  # fmt: skip
def test_the_newest_that_can_be_read_always_stays(
    made: list[tuple[float, int, bool]], keep: int, weeks: int, max_bytes: int
) -> None:
    found = sorted((backup(days, size, damaged=bad) for days, size, bad in made), key=lambda one: one.time)
    gone = surplus(found, keep=keep, weeks=weeks, max_bytes=max_bytes)
    readable = [one for one in found if one.manifest is not None]
    assert not readable or readable[-1] not in gone
    assert all(one.manifest is not None for one in gone), "a person should see what is damaged"


def test_one_is_due_when_the_last_is_old_enough_and_one_of_the_future_does_not_count() -> None:
    assert create.due([], 86_400, NOW)
    assert not create.due([backup(3), backup(0.5)], 86_400, NOW)
    assert create.due([backup(3), backup(1)], 86_400, NOW)
    assert create.due([backup(3), backup(1), backup(-400)], 86_400, NOW)
    assert create.due([backup(0.5, damaged=True)], 86_400, NOW)


MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/root rw
35 21 8:17 / /media/usb\\040stick rw - vfat /dev/sda1 rw
"""


def system(root: Path, *, fstab: str = "", mounts: str = MOUNTS) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mounts)
    (root / "etc").mkdir()
    (root / "etc/fstab").write_text(fstab)
    return root


@pytest.mark.parametrize("place", ["/media/usb", "/media/usb/edged", "/mnt/backups", "/run/media/pi/STICK"])
def test_a_stick_that_is_not_there_is_told_and_the_card_is_not_filled(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=f"nothing is mounted at {place}: is the stick or disk plugged in"):
        check(Path(place), system(tmp_path))


def test_a_mount_point_of_fstab_must_be_mounted(tmp_path: Path) -> None:
    folder = tmp_path / "data/edged"
    folder.mkdir(parents=True)
    line = f"# disks\nLABEL=B {tmp_path}/data ext4 nofail 0 2\n/dev/sda2 none swap sw 0 0\n"
    with pytest.raises(ConfigError, match=f"nothing is mounted at {tmp_path}/data"):
        check(folder, system(tmp_path / "off", fstab=line))
    check(
        folder,
        system(tmp_path / "on", fstab=line, mounts=f"{MOUNTS}36 21 8:18 / {tmp_path}/data rw - ext4 /dev/sdb rw"),
    )


def test_a_stick_that_is_there_is_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):  # it is only mounted in the test's table
        check(Path("/media/usb stick/edged"), system(tmp_path))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        check(tmp_path / "nowhere")


def test_two_at_once_are_refused_and_what_a_killed_one_has_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".edged-scratch-x").mkdir()
    (tmp_path / ".edged-scratch-x/buffer.db").write_text("x")
    (tmp_path / ".edged-g-2026.tar.gz.1234.part").write_text("x")
    (tmp_path / "edged-mine.txt").write_text("x")
    with alone(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["edged-mine.txt"]
        with pytest.raises(TransientError, match="another backup is being made"), alone(tmp_path):
            pass


def test_the_schedule_makes_one_when_it_is_due_and_removes_what_is_too_many(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=200)
    folder = tmp_path / "backups"
    folder.mkdir()
    config = BackupConfig(directory=str(folder), keep=2, keep_weeks=0, min_free=Size(0))
    old = one.backup(tmp_path / "old")
    for days in (2, 3, 4):
        manifest = dataclasses.replace(
            old.manifest, time=(datetime.now(UTC) - timedelta(days=days)).isoformat(), members=(), main=""
        )
        write(folder / file_name(manifest), manifest, {})
    other = dataclasses.replace(old.manifest, gateway="plant-7-annex", members=(), main="", time=old.manifest.time)
    write(folder / file_name(other), other, {})
    made, removed = create.scheduled(one.main, one.state, config, "plant-7")
    assert made is not None
    assert len(removed) == 2
    assert [found.path for found in kept(folder, "plant-7")][-1] == made.path
    assert len(kept(folder)) == 3, "the other gateway's is not ours to remove"
    assert create.scheduled(one.main, one.state, config, "plant-7") == (None, [])


def test_a_gateway_whose_configuration_is_broken_is_still_backed_up_under_its_name(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=0)
    one.main.write_text(FILES["edged.yaml"] + "x: 1\n")
    config = BackupConfig(directory=str(one.state / "backups"), every=Duration(3600), min_free=Size(0))
    made, _ = create.scheduled(one.main, one.state, config, "plant-7")
    assert made is not None
    assert made.path.name.startswith("edged-plant-7-")
    assert create.scheduled(one.main, one.state, config, "plant-7") == (None, [])


def test_when_the_disk_is_short_of_room_the_oldest_go_but_not_the_last_good_one(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=200)
    made = one.backup(tmp_path / "backups")
    old = dataclasses.replace(made.manifest, time="2026-01-01T00:00:00+00:00", members=(), main="")
    write(made.path.parent / file_name(old), old, {})
    damaged = made.path.with_name("edged-plant-7-29990101T000000Z.tar.gz")
    damaged.write_bytes(made.path.read_bytes()[:-200])
    found = kept(made.path.parent, "plant-7")
    assert len(found) == 3
    assert create.make_room(made.path.parent, found, 2**60) == [found[0].path]
    assert [one.path for one in kept(made.path.parent, "plant-7")] == [made.path, damaged]


def test_the_timer_says_why_it_made_none(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=0)
    one.main.write_text(FILES["edged.yaml"] + "backup: {directory: /media/edged-test/nowhere}\n")
    place = ["--config", str(one.main), "--state", str(one.state), "--socket", str(tmp_path / "none.sock")]
    result = CliRunner().invoke(main, ["backup", "create", "--scheduled", *place])
    assert result.exit_code == 2
    assert "nothing is mounted at /media/edged-test/nowhere" in result.output
    one.main.write_text(FILES["edged.yaml"])
    result = CliRunner().invoke(main, ["backup", "create", "--scheduled", *place])
    assert (result.exit_code, result.output) == (0, "")


def test_people_are_told_what_was_made_and_what_is_there(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    place = ["--config", str(one.main), "--state", str(one.state)]
    made = CliRunner().invoke(main, ["backup", "create", *place, "--socket", str(tmp_path / "none.sock")])
    assert made.exit_code == 0, made.output
    for words in ("it is whole", "own.key (--with-secrets takes it)", "on the same disk", "up to seq 300"):
        assert words in made.output
    listed = CliRunner().invoke(main, ["backup", "list", *place])
    assert "gateway plant-7" in listed.output
    (archive,) = (one.state / "backups").glob("*.tar.gz")
    archive.write_bytes(archive.read_bytes()[:100])
    assert "DAMAGED" in CliRunner().invoke(main, ["backup", "list", *place]).output
    verified = CliRunner().invoke(main, ["backup", "verify", str(archive)])
    assert (verified.exit_code, "NOT whole" in verified.output) == (1, True)
    other = CliRunner().invoke(main, ["backup", "restore", str(archive), "--state", str(one.state)])
    assert other.exit_code in {1, 2}


def test_the_doctor_looks_whether_they_are_made(tmp_path: Path) -> None:
    def examined() -> tuple[str, str]:
        loaded = load(one.main).config
        assert loaded is not None
        found = check_backups(loaded, Path("/"))
        return found.state, found.evidence

    one = site(tmp_path / "gateway", samples=0)
    folder = tmp_path / "backups"
    one.main.write_text(FILES["edged.yaml"] + f"backup: {{directory: {folder}, every: 2h}}\n")
    assert examined()[0] == "problem"
    folder.mkdir()
    assert examined() == ("warning", f"there is none of this gateway in {folder}")
    made = one.backup(folder)
    assert examined()[0] == "ok"
    old = dataclasses.replace(made.manifest, time="2026-01-01T00:00:00+00:00", members=(), main="")
    write(made.path, old, {})
    assert examined()[0] == "warning"
