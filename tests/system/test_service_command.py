"""`edged service` on a root file system in a folder: what it puts there, and that it takes all of it away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged.cli.service import check_place, check_readable, describe
from edged.cli.system_files import shipped, unit_text
from edged.errors import ConfigError

EDGED = [sys.executable, "-m", "edged"]
UNIT = "etc/systemd/system/edged.service"
PLACES = (
    UNIT, "etc/sysusers.d/edged.conf", "etc/tmpfiles.d/edged.conf", "etc/udev/rules.d/70-edged.rules",
    "etc/dbus-1/system.d/edged.conf", "etc/polkit-1/rules.d/70-edged.rules",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("systemctl", "systemd-sysusers", "systemd-tmpfiles"))), reason="there is no systemd"
)


def service(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGED, "service", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system that has users, and nothing else."""
    root = tmp_path / "root"
    for folder in ("etc", "run", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ndialout:x:20:\n")
    return root


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}


@pytest.mark.skipif("os.geteuid() != 0", reason="systemd-sysusers and systemd-tmpfiles need root")
def test_install_and_purge_leave_the_system_as_it_was(root: Path) -> None:
    before = files(root)
    done = service("install", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert {*PLACES, "etc/edged/edged.yaml", "usr/local/bin/edged"} <= files(root)
    assert (root / "etc/systemd/system/multi-user.target.wants/edged.service").is_symlink()
    assert f"ExecStart={sys.prefix}/bin/edged run" in (root / UNIT).read_text("utf-8")
    assert "edged:x:" in (root / "etc/passwd").read_text()
    assert "dialout:x:20:edged" in (root / "etc/group").read_text()
    assert (root / "etc/edged/edged.yaml").stat().st_mode & 0o777 == 0o640
    assert service("uninstall", "--purge", "--root", str(root)).returncode == 0
    assert {one for one in files(root) - before if not one.startswith("etc/") or "edged" in one} <= {"etc/.pwd.lock"}
    assert "edged" not in (root / "etc/passwd").read_text()


@pytest.mark.skipif("os.geteuid() != 0", reason="systemd-sysusers and systemd-tmpfiles need root")
def test_what_a_person_has_changed_stays(root: Path) -> None:
    (root / "etc/edged").mkdir()
    (root / "etc/edged/edged.yaml").write_text("gateway: {id: mine}\n")
    assert service("install", "--root", str(root)).returncode == 0
    assert service("install", "--root", str(root)).returncode == 0, "again, as after an upgrade"
    done = service("uninstall", "--root", str(root))
    assert done.returncode == 0
    assert "kept: " in done.stdout
    assert (root / "etc/edged/edged.yaml").read_text() == "gateway: {id: mine}\n"
    assert not any((root / place).exists() for place in PLACES)


def test_a_unit_of_somebody_else_is_not_overwritten(root: Path) -> None:
    (root / UNIT).parent.mkdir(parents=True)
    (root / UNIT).write_text("[Service]\nExecStart=/opt/mine\n")
    done = service("install", "--root", str(root))
    assert done.returncode == 2
    assert f"{root / UNIT} is there already" in done.stderr
    service("uninstall", "--purge", "--root", str(root))
    assert (root / UNIT).read_text() == "[Service]\nExecStart=/opt/mine\n"


def test_beside_the_debian_package_it_refuses(root: Path) -> None:
    packaged = root / "usr/lib/systemd/system/edged.service"
    packaged.parent.mkdir(parents=True)
    packaged.write_text("")
    assert "Debian's package" in service("install", "--root", str(root)).stderr


def test_a_dry_run_changes_nothing_and_says_all(root: Path) -> None:
    before = files(root)
    done = service("install", "--dry-run", "--root", str(root))
    assert files(root) == before
    assert all(f"write {root / place}" in done.stdout for place in PLACES)
    assert "run systemctl" in done.stdout


def test_an_environment_in_a_home_is_shown_to_the_service_and_the_rest_of_the_home_is_not() -> None:
    prefix = Path("/home/pi/gateway/.venv")
    text = unit_text(shipped("edged.service"), prefix, [prefix, Path("/usr"), Path("/home/pi/gateway")])
    assert "ExecStart=/home/pi/gateway/.venv/bin/edged run\n" in text
    assert "ExecReload=/home/pi/gateway/.venv/bin/edged reload" in text
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/pi/gateway\nBindReadOnlyPaths=/home/pi/gateway/.venv\n" in text
    assert "ProtectHome=yes" in unit_text(
        shipped("edged.service"), Path("/opt/edged"), [Path("/opt/edged"), Path("/usr")]
    )


def test_the_units_of_a_bundle_name_whichever_release_runs_and_the_one_before() -> None:
    prefix = Path("/opt/edged/current")
    assert "ExecStart=/opt/edged/current/bin/edged run\n" in unit_text(shipped("edged.service"), prefix, [])
    watcher = unit_text(shipped("edged-upgrade.service"), prefix, [])
    assert "ExecStart=/opt/edged/previous/bin/python3 -I -m edged service settle" in watcher
    assert "ConditionPathExists=/opt/edged/trial.json" in watcher
    assert "/usr/lib/edged" not in watcher


@pytest.mark.parametrize("command", [["upgrade"], ["upgrade", "--dry-run"], ["rollback"]])
def test_a_plain_environment_says_how_it_is_upgraded(command: list[str]) -> None:
    done = service(*command)
    assert done.returncode == 2
    assert "upgrade it with pip" in done.stderr or "only root may do that" in done.stderr


def test_an_environment_in_a_temporary_folder_is_refused() -> None:
    prefix = Path("/tmp/venv")  # noqa: S108  # that is what is refused
    with pytest.raises(ConfigError, match="temporary"):
        check_place(prefix, [prefix])


def test_status_says_what_systemd_says() -> None:
    facts = {
        "LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active", "SubState": "running",
        "Result": "success", "StatusText": "polling 66 points", "MainPID": "37", "NRestarts": "2",
        "ExecMainStartTimestamp": "Sat 2026-11-21 04:21:17 UTC", "MemoryCurrent": "47185920", "FragmentPath": "/x",
    }  # fmt: skip
    assert list(describe(facts)) == [
        "active (running), enabled, /x", "says: polling 66 points",
        "process 37 since Sat 2026-11-21 04:21:17 UTC, 45 MiB", "started again by itself: 2 times",
    ]  # fmt: skip
    assert "sudo edged service install" in next(describe({"LoadState": "not-found"}))
    watchdog = [*describe({**facts, "Result": "watchdog", "MainPID": "0", "MemoryCurrent": "[not set]"})]
    assert "last ended by: watchdog (journalctl -u edged)" in watchdog


@pytest.mark.skipif("os.geteuid() != 0", reason="systemd-sysusers and systemd-tmpfiles need root")
def test_what_is_put_there_can_be_read_whatever_the_umask(root: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *EDGED, "service", "install", "--root", str(root)],
        check=False, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for place in (*PLACES, *(str(folder) for one in PLACES for folder in Path(one).parents)):
        assert (root / place).stat().st_mode & 0o004, place


def test_an_environment_that_only_root_may_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match=rf"may not look into {tmp_path}: sudo chmod -R a\+rX"):
        check_readable(tmp_path)
    check_readable(Path("/usr/bin"))


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for command in ("install", "uninstall"):
        done = service(command, "--root", str(tmp_path / "typo"))
        assert done.returncode == 2
        assert "does not exist" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_without_systemd_the_status_says_so_in_a_line() -> None:
    done = service("status")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "systemd does not run here" in done.stderr


@pytest.mark.skipif("os.geteuid() != 0", reason="only root can give folders away")
@pytest.mark.parametrize("command", ["check", "run", "doctor", "buffer stats", "commands list", "explain a/b"])
def test_who_may_not_read_the_configuration_is_told_what_to_do(tmp_path: Path, command: str) -> None:
    """The first that a technician meets who is not in the group edged."""
    shut = tmp_path / "etc"
    shut.mkdir()
    (shut / "edged.yaml").write_text("gateway: {id: plant-7}\n")
    shut.chmod(0o750)
    os.chown(shut, 65_534, 65_534)
    without = "--bounding-set=-dac_override,-dac_read_search"  # then root may look only into what is root's
    done = subprocess.run(
        ["setpriv", without, *EDGED, *command.split()], check=False, capture_output=True, text=True, timeout=50,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "EDGED_CONFIG": str(shut / "edged.yaml"), "STATE_DIRECTORY": str(shut / "state")},
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "permission denied; try with sudo, or join the group edged" in done.stderr
