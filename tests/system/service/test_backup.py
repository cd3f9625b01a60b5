"""Backups and restarts on a booted Debian: by the timer's unit in its sandbox, after a wipe, over a power cut."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.system.service.machine import Machine
from tests.system.service.site import STATE, Table, built

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif("EDGED_SYSTEM_TEST" not in os.environ, reason="boots a machine: `make system-test` does it"),
]
CONFIG = """\
gateway: {id: plant-7}
buses: {lab: {adapter: sim}}
devices: {oven: {bus: lab, every: 200ms, points: {t: {}}}}
backup: {directory: /var/lib/edged/backups, every: 1h}
"""
FOLDER = "/var/lib/edged/backups"
BACK_UP = "systemctl start edged-backup.service; echo code $?"
SAYS = "journalctl -u edged-backup --no-pager -o cat"


def reasons(guest: Machine) -> dict[str, int]:
    guest.wait_for(STATE, "active", 30)
    record: dict[str, int] = json.loads(guest.shell("edged status --json"))["health"]["restarts"]["by_reason"]
    return record


def by_the_timer(guest: Machine, table: Table) -> None:
    known = guest.shell("systemctl is-enabled edged-backup.timer; systemctl is-active edged-backup.timer").split()
    table.add("the timer is enabled and started by the installation", known == ["enabled", "active"], known)
    said = guest.shell(BACK_UP)
    count = guest.shell(f"ls {FOLDER} | wc -l").strip()
    table.add("a backup in its sandbox, as the gateway's user", ("code 0" in said, count) == (True, "1"), said.strip())
    guest.shell(BACK_UP)
    count = guest.shell(f"ls {FOLDER} | wc -l").strip()
    table.add("none before it is due", count == "1", count)
    verified = guest.shell(f"edged backup verify {FOLDER}/*.gz; echo code $?")
    table.add("it is whole", "code 0" in verified, verified.split("\n")[0].rpartition("/")[2])
    config = guest.root / "etc/edged/edged.yaml"
    config.write_text(CONFIG.replace(FOLDER, "/media/usb/edged"))
    said, journal = guest.shell(BACK_UP), guest.shell(SAYS)
    told = "nothing is mounted at /media/usb/edged" in journal
    table.add("a stick that is not there: an error, and the card is not filled", "code 1" in said and told)
    table.add("nothing is made below its mount point", "media" not in guest.shell("find /media -mindepth 1"))
    config.write_text(CONFIG)


def ends(guest: Machine, table: Table) -> None:
    before = reasons(guest)
    guest.shell("systemctl kill --signal=KILL edged; sleep 2")
    table.add("killed: told as a crash", reasons(guest).get("crash", 0) == before.get("crash", 0) + 1)
    drop_in = guest.root / "etc/systemd/system/edged.service.d/test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nWatchdogSec=3s\n")
    guest.shell("systemctl daemon-reload; systemctl restart edged; sleep 2")
    guest.shell("kill -STOP $(systemctl show edged -P MainPID); sleep 10")
    table.add("stuck: told as the watchdog's work", reasons(guest).get("watchdog") == 1, reasons(guest))


def wiped(guest: Machine, table: Table) -> None:
    archive = "/root/backup.tar.gz"
    guest.shell(f"cp {FOLDER}/*.gz {archive}")
    said = guest.shell(f"edged backup restore --force {archive}; echo code $?")
    table.add("no restore while it runs", "code 2" in said and "systemctl stop edged" in said, said.split("\n")[0])
    guest.shell("systemctl stop edged; rm -rf /var/lib/edged/* /etc/edged/edged.yaml")
    said = guest.shell(f"edged backup restore {archive}; echo code $?")
    owner = guest.shell("stat -c '%U:%G %a' /var/lib/edged/buffer.db /etc/edged/edged.yaml").split("\n")[:2]
    good = "code 0" in said and owner == ["edged:edged 640", "root:edged 640"]
    table.add("wipe and restore: everything belongs to whom it should", good, owner)
    table.add("the configuration is the same", (guest.root / "etc/edged/edged.yaml").read_text() == CONFIG)
    guest.shell("systemctl start edged")
    guest.wait_for(STATE, "active", 30)
    journal = guest.shell("journalctl -u edged --no-pager -o cat | grep 'begins the new epoch' | tail -1")
    table.add("it goes on under a new epoch", "copied or restored" in journal)
    guest.shell("edged backup create /root --socket /run/edged/edged.sock; sync")
    guest.cut_power()
    guest.unmount()
    guest.mount()
    guest.switch_on()
    found = reasons(guest)  # the guest has the boot id of the machine that it runs on, so it may look like a crash
    table.add("a power cut: told as a bad end", "power" in found or "crash" in found, found)
    verified = guest.shell("edged backup verify /root/edged-*.gz; echo code $?")
    table.add("the backup made before it is whole", "code 0" in verified)


def test_backups_on_a_booted_debian(guest: Machine) -> None:
    package = built("edged_*.deb")
    table = Table()
    (guest.share / package.name).write_bytes(package.read_bytes())
    guest.shell(f"dpkg -i /mnt/host/{package.name}", 300)
    (guest.root / "etc/edged/edged.yaml").write_text(CONFIG)
    guest.shell("systemctl restart edged")
    time.sleep(3)
    by_the_timer(guest, table)
    ends(guest, table)
    wiped(guest, table)
    guest.shell("dpkg --purge edged", 120)
    left = guest.shell("ls -d /etc/systemd/system/*/edged* /var/lib/edged /etc/edged 2>/dev/null").split()
    table.add("purge leaves nothing", not left, left)
    table.judge()
