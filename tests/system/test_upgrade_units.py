"""Whichever release runs has its own units, rules and policies in place: forth, back, and whatever comes between.

On real files below a folder. systemd is a program of ours in its place, which starts what it is told to and writes it
down; `make system-test` does the same with systemd itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edged.cli.system_files import MARK, WATCHER, Run, fit, place, to_fit
from edged.upgrade import Home, Trial

SHIPPED = Path(__file__).parents[2] / "systemd"
OLD, NEW = "1.0-a", "1.1-b"
UNIT = "edged.service"


@dataclass(frozen=True, slots=True)
class System:
    """A root with two releases; the old one's files are in place."""

    root: Path
    home: Home

    def place(self, name: str) -> Path:
        return self.root / place(name, packaged=(self.home.path / "package").exists())

    def unpack(self, release: str) -> None:
        """As dpkg does: the files of this release, and none that others have."""
        for path in self.in_place():
            (self.root / path).unlink()
        for file in self.shipped(release).iterdir():
            self.place(file.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, self.place(file.name))

    def shipped(self, release: str) -> Path:
        return self.home.release(release) / "share/edged/systemd"

    def in_place(self) -> dict[str, str]:
        """Path → text of everything of edged's below the root, but the releases."""
        found = (path for path in self.root.rglob("*edged*") if path.is_file())
        named = {str(path.relative_to(self.root)): path for path in found}
        return {name: path.read_text() for name, path in named.items() if "/releases/" not in name}


def release(home: Path, name: str, changes: Mapping[str, str | None]) -> None:
    """With other files than the shipped ones: name → what is added to it, or None where it is not there."""
    folder = home / "releases" / name / "share/edged/systemd"
    shutil.copytree(SHIPPED, folder)
    for file, added in changes.items():
        if added is None:
            (folder / file).unlink()
            continue
        with (folder / file).open("a") as out:
            out.write(added)
    (home / "releases" / name / "release.json").write_text(json.dumps({"name": name}))


CHANGES = {
    UNIT: "# of the new one\n",
    WATCHER: "# of the new one\n",
    "edged.sysusers": "g edged-web -\n",
    "edged.tmpfiles": "d /var/lib/edged/more 0750 edged edged -\n",
    "edged.udev": "# of the new one\n",
    "edged.dbus": "<!-- of the new one -->\n",
    "edged-web.service": "[Service]\nExecStart=/usr/bin/edged web\n",
    "edged-backup.timer": None,
}


@pytest.fixture
def debian(tmp_path: Path) -> System:
    """Debian's package of the new release has been unpacked over that of the old one, which still runs."""
    home = tmp_path / "usr/lib/edged"
    (home / "package").mkdir(parents=True)
    release(home, OLD, {})
    release(home, NEW, CHANGES)
    system = System(tmp_path, Home(home))
    system.home.set_link("current", OLD)
    system.home.set_link("previous", OLD)
    system.unpack(OLD)
    return system


def carry_out(system: System, name: str, other: str, watcher: str = "") -> list[str]:
    """Do it, but run nothing; returns what would be run."""
    actions = to_fit(system.home, name, other, watcher=watcher, root=system.root)
    for action in actions:
        if not isinstance(action, Run):
            action.carry_out()
    return [" ".join(action.command) for action in actions if isinstance(action, Run)]


# -- the files ---------------------------------------------------------------------------------------------------------


def test_after_the_way_back_every_file_is_the_old_one_again_and_the_system_is_told(debian: System) -> None:
    before = debian.in_place()
    debian.unpack(NEW)
    assert debian.in_place() != before
    run = carry_out(debian, OLD, NEW)
    assert debian.in_place() == before
    assert [line.partition(" --action")[0] for line in run] == [
        "systemctl daemon-reload", "systemctl reload dbus.service", "systemd-sysusers edged.conf",
        "systemd-tmpfiles --create edged.conf", "udevadm control --reload", "udevadm trigger",
    ]  # fmt: skip
    assert to_fit(debian.home, OLD, NEW) == [], "once is enough"


def test_a_release_on_trial_has_all_its_files_but_the_old_one_watches(debian: System) -> None:
    debian.unpack(NEW)
    wanted = debian.in_place()
    debian.unpack(OLD)
    carry_out(debian, NEW, OLD, watcher=OLD)
    watcher = str(debian.place(WATCHER).relative_to(debian.root))
    assert debian.in_place() == {**wanted, watcher: (SHIPPED / WATCHER).read_text()}
    carry_out(debian, NEW, OLD)
    assert debian.in_place() == wanted


def test_where_nothing_differs_nothing_is_touched(debian: System) -> None:
    release(debian.home.path, "1.2-c", {})
    debian.place(UNIT).touch()
    stamp = debian.place(UNIT).stat().st_mtime_ns
    assert carry_out(debian, "1.2-c", OLD) == []
    assert debian.place(UNIT).stat().st_mtime_ns == stamp


def test_a_release_that_does_not_bring_its_files_changes_none(debian: System) -> None:
    shutil.rmtree(debian.shipped(OLD))
    assert to_fit(debian.home, OLD, NEW) == []


def test_a_bundle_has_them_for_its_own_folder_and_a_persons_own_stay(tmp_path: Path) -> None:
    home = tmp_path / "opt/edged"
    release(home, OLD, {})
    release(home, NEW, CHANGES)
    system = System(tmp_path, Home(home))
    assert to_fit(system.home, NEW, OLD, root=tmp_path) == [], "there is no service"
    system.unpack(OLD)
    assert to_fit(system.home, NEW, OLD, root=tmp_path) == [], "somebody else's service"
    unit, timer = system.place(UNIT), system.place("edged-backup.timer")
    for path in (unit, timer, system.place(WATCHER)):
        path.write_text(f"# {MARK}\n")
    system.place("edged.udev").write_text("# my own\n")
    carry_out(system, NEW, OLD, watcher=OLD)
    assert f"ExecStart={home}/current/bin/edged run\n" in unit.read_text()
    assert f"# of the new one\n# {MARK}\n" in unit.read_text()
    assert "of the new one" not in system.place(WATCHER).read_text()
    assert f"ExecStart={home}/current/bin/edged web" in system.place("edged-web.service").read_text()
    assert not timer.exists()
    carry_out(system, OLD, NEW)
    assert "of the new one" not in unit.read_text()
    assert timer.exists()
    assert not system.place("edged-web.service").exists()
    assert system.place("edged.udev").read_text() == "# my own\n"


def test_a_disk_that_cannot_be_written_to_leaves_the_old_file_whole(debian: System) -> None:
    before = debian.place(UNIT).read_text()
    (debian.place(UNIT).parent / ".edged.service.new").mkdir()  # something is in the way
    with pytest.raises(Exception, match=r"the units of 1\.1-b cannot be put in place"):
        fit(debian.home, NEW, OLD)
    assert debian.place(UNIT).read_text() == before


# -- the road, with a systemd of ours ----------------------------------------------------------------------------------

SYSTEMCTL = r"""#!/bin/sh
# What systemctl would do for one service: the file `state` is what systemd knows of it.
cd "$(dirname "$0")/.."
echo "$(basename "$0") $*" >>log
[ "$(basename "$0")" = systemctl ] || exit 0
unit=usr/lib/systemd/system/edged.service
start() {
    if grep -q refuse $unit; then echo "edged.service has a bad unit file setting" >&2; exit 1; fi
    if grep -q dies $unit; then now=failed; else now=active; fi
    printf 'InvocationID=%s\nActiveState=%s\nSubState=%s\n' "$(date +%s%N)" $now $now >state
    cp $unit started
}
case $1 in
    show)
        if [ "$2" = edged.service ]; then
            cat state; printf 'NRestarts=0\nResult=success\nExecMainStatus=1\n'
        else
            echo UserspaceTimestamp=today
        fi ;;
    restart|start) start ;;
esac
"""


@pytest.fixture
def running(debian: System) -> System:
    """The old release runs, and could run `settle`."""
    folder = debian.home.release(OLD)
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    site.mkdir(parents=True)
    (site / "all.pth").write_text(f"{SHIPPED.parent}\n{SHIPPED.parent}/adapters\n{sysconfig.get_path('purelib')}\n")
    (programs := debian.root / "programs").mkdir()
    for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "udevadm"):
        (programs / name).write_text(SYSTEMCTL)
        (programs / name).chmod(0o755)
    (debian.root / "state").write_text("InvocationID=first\nActiveState=active\nSubState=running\n")
    shutil.copy(debian.place(UNIT), debian.root / "started")
    return debian


TRIAL = Trial(OLD, NEW, "UserspaceTimestamp=today", "2026-11-21T06:00:00Z", 0.6, invocation="first")


def settle(system: System, trial: Trial = TRIAL) -> list[str]:
    """See it through; returns what systemd was told."""
    system.home.begin(trial)
    done = subprocess.run(
        [system.home.path / "previous/bin/python3", "-I", "-m", "edged", "service", "settle"],
        check=False, capture_output=True, text=True, timeout=50,
        env={"PATH": f"{system.root}/programs:{os.defpath}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert system.home.trial() is None
    lines = (system.root / "log").read_text().splitlines()
    return [line.removeprefix("systemctl ") for line in lines if " show " not in line]


def outcome(system: System) -> tuple[str, str]:
    record = system.home.last()
    assert record
    return record.outcome, record.why


def test_a_new_release_is_tried_with_its_own_units_and_keeps_them(running: System) -> None:
    told = settle(running)
    assert outcome(running) == ("good", "")
    assert (running.root / "started").read_text().endswith("# of the new one\n")
    assert told.index("daemon-reload") < told.index("restart --no-block edged.service")
    assert running.place(WATCHER).read_text().endswith("# of the new one\n"), "from now on its own one watches"
    assert not running.place("edged-backup.timer").exists()


def test_units_that_do_not_work_go_with_their_release(running: System) -> None:
    before = running.in_place()
    with (running.shipped(NEW) / UNIT).open("a") as file:
        file.write("# dies\n")
    running.unpack(NEW)
    told = settle(running)
    assert outcome(running)[0] == "rolled-back"
    assert running.in_place() == before
    assert running.home.link("current") == OLD
    assert "dies" not in (running.root / "started").read_text(), "it was started with its own unit"
    back = told[told.index("restart --no-block edged.service") :]
    assert "daemon-reload" in back[: back.index("start --no-block edged.service")]


def test_a_unit_that_systemd_refuses_is_undone_without_a_stop(running: System) -> None:
    before = running.in_place()
    with (running.shipped(NEW) / UNIT).open("a") as file:
        file.write("# refuse\n")
    told = settle(running)
    assert outcome(running)[0] == "rolled-back"
    assert "bad unit file setting" in outcome(running)[1]
    assert running.in_place() == before
    assert "InvocationID=first\n" in (running.root / "state").read_text(), "the old one has gone on all the time"
    assert not [line for line in told if line.startswith(("stop", "kill", "start"))]


@pytest.mark.parametrize("written", [0, 1, 4, 8])
def test_a_way_back_that_was_interrupted_is_gone_to_its_end(running: System, written: int) -> None:
    before = running.in_place()
    running.unpack(NEW)
    running.home.set_link("current", NEW)
    actions = [action for action in to_fit(running.home, OLD, NEW) if not isinstance(action, Run)]
    for action in actions[:written]:  # so far it came before the power failed
        action.carry_out()
    settle(running, replace(TRIAL, why="it ended by itself", boot="UserspaceTimestamp=yesterday"))
    assert outcome(running) == ("rolled-back", "it ended by itself")
    assert running.in_place() == before


def test_a_hand_over_that_was_interrupted_has_all_new_units_before_it_is_watched(running: System) -> None:
    running.home.set_link("current", NEW)
    settle(running, replace(TRIAL, boot="UserspaceTimestamp=yesterday"))
    assert outcome(running)[0] == "good"
    assert running.place(UNIT).read_text().endswith("# of the new one\n")


def test_an_upgrade_that_never_began_leaves_the_units_of_what_runs(running: System) -> None:
    before = running.in_place()
    running.unpack(NEW)
    settle(running, replace(TRIAL, boot="UserspaceTimestamp=yesterday"))
    assert outcome(running)[0] == "interrupted"
    assert running.in_place() == before
