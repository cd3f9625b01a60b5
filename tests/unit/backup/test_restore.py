"""Backup, wipe, restore: everything comes back; and nothing is overwritten that somebody may still want."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edged.backup.archive import manifest_of
from edged.backup.check import verify
from edged.backup.manifest import PARTS
from edged.backup.pending import JOURNAL, Step, begin, finish
from edged.backup.restore import Goal, Plan, planned, restore
from edged.buffer.lock import Lock
from edged.buffer.log import Buffer
from edged.cli.backup import backup
from edged.clock import boot_id
from edged.config.load import load
from edged.config.model import BufferConfig
from edged.downlink.store import Store, read_offline
from edged.errors import ConfigError
from edged.model import Quality
from edged.twin import KeptTwin
from tests.support.backups import FILES, SECRETS, Site, command, content, rows, site


def wipe(one: Site) -> None:
    shutil.rmtree(one.folder / "etc")
    shutil.rmtree(one.state)
    one.main.parent.mkdir()


def put_back(one: Site, archive: Path, **goal: Any) -> Plan:
    wanted = Goal(one.main, one.state, **goal)
    plan = planned(archive, wanted)
    restore(archive, wanted, plan)
    return plan


async def opened_buffer(path: Path) -> tuple[str, int, int]:
    """(Epoch, head, pending) as a gateway finds them."""
    buffer = Buffer(path, BufferConfig(), ["cloud"], boot=boot_id())
    await buffer.start()
    try:
        return buffer.epoch, buffer.head, buffer.stats().connections["cloud"].pending
    finally:
        await buffer.stop()


def test_after_a_wipe_everything_comes_back(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    before = content(one)
    made = one.backup(tmp_path / "backups", secrets=True)
    assert made.manifest.parts == list(PARTS)
    wipe(one)
    put_back(one, made.path)
    after = content(one)
    assert after == before
    assert one.main.stat().st_mode & 0o777 == 0o640
    assert not list(one.folder.rglob(".restore-*"))


def test_a_restored_buffer_begins_another_epoch_and_sends_what_waited(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    epoch = rows(one.state / "buffer.db", "state", "epoch, id")[0][0]
    wipe(one)
    put_back(one, made.path)
    after = asyncio.run(opened_buffer(one.state / "buffer.db"))
    assert after[0] not in {"", epoch}
    assert after[1:] == (300, 2 * 300 - 240 - 20)
    assert asyncio.run(opened_buffer(one.state / "buffer.db"))[0] == after[0], "and keeps it from then on"


def test_private_keys_and_secrets_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    plain = one.backup(tmp_path / "plain")
    names = {member.name.partition("/")[2] for member in plain.manifest.members}
    assert names >= FILES.keys()
    assert not names & SECRETS.keys()
    assert sorted(Path(name).name for name in plain.manifest.left_out) == ["own.key", "secrets.env"]
    assert plain.path.stat().st_mode & 0o777 == 0o600
    whole = one.backup(tmp_path / "whole", secrets=True)
    assert {member.name for member in whole.manifest.members if member.secret} == {
        "config/certs/own.key", "config/secrets.env",
    }  # fmt: skip
    wipe(one)
    plan = put_back(one, plain.path)
    assert sum("not in this backup" in note for note in plan.notes) == 2


def test_passwords_in_the_configuration_are_told(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    key = "  api: {connector: http, url: https://h/x?code=in-the-clear}\n"
    one.main.write_text(FILES["edged.yaml"].replace("!secret mqtt", "in-the-clear") + key)
    notes = one.backup(tmp_path / "backups").manifest.notes
    assert any("2 secrets in the clear" in note for note in notes)
    assert not any("in-the-clear" in note for note in notes)


def test_a_configuration_with_errors_is_backed_up_as_it_is(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    one.main.write_text("gateway: {id: plant-7}\nbuses: {x: {adapter: modbus-tpc}}\n")
    made = one.backup(tmp_path / "backups")
    assert not made.manifest.valid
    verdict = verify(made.path)
    assert verdict.ok
    assert "edged.yaml:2:9: buses.x: `host` is missing" in verdict.warnings[0]
    wipe(one)
    put_back(one, made.path)
    assert "modbus-tpc" in one.main.read_text()


def test_what_is_there_is_kept_and_only_replaced_when_a_person_says_so(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups", secrets=True)
    before = content(one)
    other = Site(one.folder)
    other.main.write_text("gateway: {id: plant-8}\n")
    (one.main.parent / "conf.d/later.yaml").write_text("devices: {}\n")
    later = one.main.read_bytes()
    with pytest.raises(ConfigError, match=r"of the gateway plant-8, not plant-7.*300 wait|340 wait.*--force"):
        put_back(one, made.path)
    assert one.main.read_bytes() == later
    assert not list(one.folder.rglob("*restore*"))
    plan = put_back(one, made.path, force=True)
    assert content(one) == before
    assert not (one.main.parent / "conf.d/later.yaml").exists()
    aside = plan.aside[one.main.parent]
    assert (aside / "edged.yaml").read_bytes() == later
    assert (aside / "conf.d/later.yaml").exists()
    assert (plan.aside[one.state] / "buffer.db").exists()


def test_a_restore_of_one_part_leaves_the_others_alone(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    buffer = (one.state / "buffer.db").stat().st_ino
    one.main.write_text("gateway: {id: plant-9}\n")
    lock = Lock(one.state / "buffer.db")  # the gateway runs
    try:
        put_back(one, made.path, only=frozenset({"config"}), force=True)
        assert one.main.read_text() == FILES["edged.yaml"]
        with pytest.raises(ConfigError, match="systemctl stop edged"):
            put_back(one, made.path, force=True)
    finally:
        lock.release()
    assert (one.state / "buffer.db").stat().st_ino == buffer


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    one.main.write_text("gateway: {id: plant-8}\n")
    everything = {path: path.stat().st_mtime_ns for path in one.folder.rglob("*[!m]") if path.is_file()}
    plan = planned(made.path, Goal(one.main, one.state))
    what = {change.target.name: change.what for change in plan.changes}
    assert (what["edged.yaml"], what["lab.yaml"], what["buffer.db"]) == ("replaced", "unchanged", "replaced")
    assert {path: stat for path, stat in everything.items() if path.stat().st_mtime_ns != stat} == {}


def test_commands_that_waited_are_never_carried_out(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    wipe(one)
    assert put_back(one, made.path).waited == 1
    states = {row.command.id: (row.state, row.reason) for row in read_offline(one.state / "commands.db", 10)}
    assert states == {"c0": ("failed", "restored"), "c1": ("executing", ""), "c2": ("verified", "")}


def test_commands_carried_out_since_stay_known(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")

    async def later() -> None:
        store = Store(one.state / "commands.db")
        await store.open()
        writing = asyncio.create_task(store.run())
        for ident in ("c0", "c9"):
            row = command(ident, "verified")
            stored = await store.add(row, 1, 1, trusted=True)
            stored.state = "verified"
            await store.update(stored)
        writing.cancel()
        await store.close()

    asyncio.run(later())
    assert put_back(one, made.path, force=True).waited == 0
    states = {row.command.id: row.state for row in read_offline(one.state / "commands.db", 10)}
    assert states == {"c0": "verified", "c1": "executing", "c2": "verified", "c9": "verified"}


def test_the_twin_comes_back_stale(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    wipe(one)
    put_back(one, made.path)

    async def look() -> Any:
        config = load(one.main).config
        assert config is not None
        store = Store(one.state / "commands.db")
        await store.open()
        working = asyncio.create_task(store.run())
        twin = KeptTwin(config.devices, store)
        reading = asyncio.create_task(twin.run())
        await asyncio.sleep(0.05)
        found = await twin.device("oven")
        reading.cancel()
        working.cancel()
        await store.close()
        return found["t"]

    point = asyncio.run(look())
    assert point.reported.value == 21.5
    assert point.reported.quality == Quality("uncertain", "stale")


def test_files_outside_go_there_only_when_allowed(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    outside = tmp_path / "elsewhere/more.yaml"
    outside.parent.mkdir()
    outside.write_text("control: {watch: 2m}\n")
    one.main.write_text(FILES["edged.yaml"].replace("more/*.yaml", f"[more/*.yaml, {outside}]"))
    made = one.backup(tmp_path / "backups")
    wipe(one)
    outside.unlink()
    plan = put_back(one, made.path)
    assert any("--outside" in note for note in plan.notes)
    assert not outside.exists()
    put_back(one, made.path, outside=True, force=True)
    assert outside.read_text() == "control: {watch: 2m}\n"


def test_a_buffer_elsewhere_is_restored_there_only_when_allowed(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    (tmp_path / "data").mkdir()
    (one.state / "buffer.db").rename(tmp_path / "data/readings")
    one.main.write_text(FILES["edged.yaml"] + f"buffer: {{path: {tmp_path}/data/readings}}\n")
    made = one.backup(tmp_path / "backups")
    assert made.manifest.readings > 0
    (tmp_path / "data/readings").unlink()
    wipe(one)
    with pytest.raises(ConfigError, match="--outside"):
        put_back(one, made.path)
    put_back(one, made.path, outside=True)
    assert asyncio.run(opened_buffer(tmp_path / "data/readings"))[1] == 300


def test_a_gateway_that_runs_is_noticed_wherever_its_buffer_is(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    (tmp_path / "data").mkdir()
    one.main.write_text(FILES["edged.yaml"] + f"buffer: {{path: {tmp_path}/data/readings}}\n")
    lock = Lock(tmp_path / "data/readings")
    try:
        with pytest.raises(ConfigError, match="systemctl stop edged"):
            put_back(one, made.path, only=frozenset({"commands"}), force=True)
    finally:
        lock.release()
    put_back(one, made.path, only=frozenset({"commands"}), force=True)


def test_a_journal_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make a file of somebody else")
    begin(tmp_path, [Step(str(tmp_path / "target"), str(tmp_path / "old"), str(tmp_path / "new"))], [])
    (tmp_path / "new").write_text("evil")
    os.chown(tmp_path / JOURNAL, 12345, 12345)
    with pytest.raises(ConfigError, match="was not written by this user"):
        finish(tmp_path)
    assert not (tmp_path / "target").exists()


def test_the_manifest_can_be_read_alone(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway", samples=0)
    made = one.backup(tmp_path / "backups")
    assert manifest_of(made.path) == made.manifest
    assert (made.manifest.gateway, made.manifest.folder) == ("plant-7", str(one.main.parent))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led elsewhere by another user")
def test_root_follows_no_link_of_the_service(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    elsewhere = tmp_path / "cron.d"
    elsewhere.mkdir()
    (elsewhere / "000009.json").write_text("nobody else's business")
    shutil.rmtree(one.state / "connections")
    (one.state / "connections").symlink_to(elsewhere)
    os.chown(one.state / "connections", 65_534, 65_534, follow_symlinks=False)
    with pytest.raises(ConfigError, match="is a link that this user has not made"):
        put_back(one, made.path, force=True)
    assert [path.name for path in elsewhere.iterdir()] == ["000009.json"]
    (one.state / "history/000009.json").symlink_to(elsewhere / "000009.json")
    (one.state / "clock.json").unlink(missing_ok=True)
    (one.state / "clock.json").symlink_to(elsewhere / "000009.json")
    names = [member.name for member in one.backup(tmp_path / "more").manifest.members]
    assert "state/buffer.db" in names
    assert not {"state/history/000009.json", "state/clock.json"} & set(names)


def test_only_what_is_restored_is_told(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    options = ["--config", str(one.main), "--state", str(one.state), "--force"]
    assert "epoch" not in CliRunner().invoke(backup, ["restore", str(made.path), *options, "--only", "config"]).stdout
    assert "under a new epoch" in CliRunner().invoke(backup, ["restore", str(made.path), *options]).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_who_forgets_sudo_is_told_to_use_it(tmp_path: Path) -> None:
    one = site(tmp_path / "gateway")
    made = one.backup(tmp_path / "backups")
    for folder in (one.main.parent, one.state):
        os.chown(folder, 65_534, 65_534)
        folder.chmod(0o700)
    without = "--bounding-set=-dac_override,-dac_read_search"  # then root may look only into what is root's
    options = ["--config", str(one.main), "--state", str(one.state)]
    for words in (
        ["restore", str(made.path), *options], ["restore", str(made.path), *options, "--dry-run"],
        ["list", *options], ["create", *options],
    ):  # fmt: skip
        done = subprocess.run(
            ["setpriv", without, sys.executable, "-m", "edged", "backup", *words],
            check=False, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert "sudo" in last, words
