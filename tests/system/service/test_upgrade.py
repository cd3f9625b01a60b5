"""Another release in the place of the one that runs, on a booted Debian, under load and with a receiver that counts.

New releases are made of the one that is installed, each with one change: most of them fail, each in its own way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edged.cli.system_files import place
from tests.support.checker import rows
from tests.system.service import machine
from tests.system.service.machine import Machine
from tests.system.service.site import SHOW, STATE, Site, Table, accounts, built, demonstrate, lost, repacked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("EDGED_SYSTEM_TEST" not in os.environ, reason="boots a machine: `make system-test` does it"),
]
HOME = "usr/lib/edged"
WATCH = 15
MINUTE = 60.0
NEVER_ENDS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)\n"
RUN = "def run_daemon(config: Config, places: Places, start: Start | None = None) -> None:\n"
CONNECT = "    async def connect(self, epoch: str) -> str:\n"
KNOWS = "FORMAT = 3\n"


class Releases:
    """What lies in the guest, and what it says of it."""

    def __init__(self, guest: Machine) -> None:
        self._guest = guest
        self._home = guest.root / HOME

    def current(self) -> str:
        return (self._home / "current").readlink().name

    def previous(self) -> str:
        return (self._home / "previous").readlink().name

    def outcome(self) -> dict[str, str]:
        """What became of the last upgrade."""
        path = self._home / "upgrade.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def settled(self, seconds: float) -> dict[str, str]:
        """Wait for the end of an upgrade that is under way."""
        until = time.monotonic() + seconds
        while (self._home / "trial.json").exists():
            assert time.monotonic() < until, self._guest.shell("journalctl -u edged-upgrade -n 30 --no-pager -o cat")
            time.sleep(0.1)
        return self.outcome()

    def begun(self, name: str) -> None:
        """Wait until an upgrade is under way; with a name, until that release has taken over."""
        until = time.monotonic() + MINUTE
        while not ((self._home / "trial.json").exists() and (not name or self.current() == name)):
            assert time.monotonic() < until, "no upgrade begins"
            time.sleep(0.02)

    def make(self, name: str, *changes: tuple[str, str, str]) -> str:
        """Another release: (module, text, what is there instead). Returns where it lies in the guest."""
        old, new = self._home / "releases" / self.current(), self._home / "releases" / name
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(["cp", "-a", old, new], check=True)
        for path in (new / "release.json", new / "bin/edged"):
            path.write_text(path.read_text().replace(old.name, name))
        (site,) = new.glob("lib/python3*/site-packages")
        for module, text, instead in changes:
            source = (new if module.startswith("share/") else site) / module
            content = source.read_text("utf-8")
            assert text in content, (module, text)
            source.write_text(content.replace(text, instead, 1), "utf-8")
            for compiled in source.parent.glob(f"__pycache__/{source.stem}.*.pyc"):
                compiled.unlink()
        return f"/{HOME}/releases/{name}"


def polls(site: Site, device: str) -> Iterator[float]:
    """When samples of a device were taken, in order."""
    return iter(
        sorted({when / 1e6 for _, message in site.messages() for name, when, _ in rows(message) if name == device})
    )


def gap(site: Site, device: str, after: float) -> float:
    """The longest time without a sample of the device since then."""
    times = [when for when in polls(site, device) if when > after]
    return max(later - earlier for earlier, later in pairwise(times))


def by_package(guest: Machine, site: Site, table: Table, releases: Releases, package: Path) -> None:
    """dpkg -i of a newer one: the way it is done in the field."""
    (guest.share / package.name).write_bytes(package.read_bytes())
    before, epochs = releases.current(), {message["epoch"] for _, message in site.messages()}
    began = time.time()
    said = guest.shell(f"dpkg -i /mnt/host/{package.name} </dev/null", 300)
    running = guest.shell(f"readlink -f /proc/$({SHOW} MainPID)/exe; tr '\\0' ' ' </proc/$({SHOW} MainPID)/cmdline")
    table.add("upgrade by dpkg: the new release has taken over", "-second" in running, f"{time.time() - began:.1f} s")
    outcome = releases.settled(2 * MINUTE)
    good = outcome.get("outcome") == "good" and releases.current().endswith("-second")
    table.add("upgrade by dpkg: watched and kept", good, outcome.get("why") or said.splitlines()[-1])
    time.sleep(3)
    meters, tank = gap(site, "meter-1", began), gap(site, "tank", began)
    table.add("upgrade gap: at most one poll of a device with every: 1s is missed", meters < 2.3, f"{meters:.2f} s")
    table.measured(upgrade_gap_s=meters, upgrade_gap_quick_s=tank)
    table.add("upgrade gap of a device with every: 250ms", tank < 3, f"{tank:.2f} s without a poll")
    missing, twice = lost(site)
    same = {message["epoch"] for _, message in site.messages()} == epochs
    table.add("upgrade: nothing lost, the same epoch", missing == 0 and same, f"{missing} missing, {twice} twice")
    shown = guest.shell("edged service status")
    table.add("edged service status tells of it", f"upgraded to {releases.current()}" in shown, before)


def change(guest: Machine, release: str, options: str = "") -> tuple[str, float]:
    """`edged service upgrade`; what it said, and how long it took."""
    began = time.monotonic()
    said = guest.shell(f"edged service upgrade --watch {WATCH} {options} {release}; echo code $?", 180)
    return said, time.monotonic() - began


def refused(guest: Machine, table: Table, releases: Releases, what: str, release: str, why: str) -> None:
    """A release that does not even prove itself: nothing changes, not even the process."""
    pid, current = guest.shell(f"{SHOW} MainPID"), releases.current()
    said, _ = change(guest, release)
    same = (guest.shell(f"{SHOW} MainPID"), releases.current()) == (pid, current)
    line = next((line for line in said.splitlines() if why in line), said)
    table.add(f"refused: {what}", "code 2" in said and why in said and same, line[:150])


def undone(guest: Machine, site: Site, table: Table, releases: Releases, what: str, release: str, why: str) -> None:
    """A release that fails after it has taken over: undone by itself within the minute."""
    current = releases.current()
    said, seconds = change(guest, release)
    guest.wait_for(STATE, "active", 30)
    site.arrival_after(time.time())
    back = releases.current() == current and releases.outcome().get("outcome") == "rolled-back"
    told = "ROLLED BACK" in guest.shell("edged service status") and why in guest.shell("edged status --json")
    journal = "rolling back" in guest.shell("journalctl -u edged-upgrade --no-pager -o cat -n 20")
    good = "code 1" in said and why in said and back and told and journal and seconds < MINUTE
    table.add(f"rolled back by itself: {what}", good, f"{seconds:.1f} s: {releases.outcome().get('why', said)[:110]}")


def failures(guest: Machine, site: Site, table: Table, releases: Releases) -> None:
    crash = releases.make("crash", ("edged/daemon.py", RUN, "raise RuntimeError('broken')\n" + RUN))
    refused(guest, table, releases, "it cannot even be loaded", crash, "RuntimeError: broken")
    config = guest.root / "etc/edged/edged.yaml"
    good = config.read_text("utf-8")
    config.write_text(good.replace("every: 500ms", "every: 500 parsecs"))
    refused(guest, table, releases, "it does not take the configuration", releases.make("plain"), "edged.yaml:")
    config.write_text(good)
    ends = releases.make("ends", ("edged/daemon.py", RUN, f"{RUN}    raise SystemExit(7)\n"))
    undone(guest, site, table, releases, "it ends at its start", ends, "it ended by itself")
    hangs = releases.make("hangs", ("edged/daemon.py", RUN, f"{RUN}    {NEVER_ENDS}"))
    undone(guest, site, table, releases, "it hangs before READY, deaf to SIGTERM", hangs, "it did not get ready")
    text = "from edged.errors import TransientError\n        raise TransientError('no way', reason='refused')\n"
    deaf = releases.make("deaf", ("edged/uplink/links/mqtt.py", CONNECT, f"{CONNECT}        {text}"))
    undone(guest, site, table, releases, "it does not reach the broker", deaf, "connection cloud")
    missing, twice = lost(site)
    table.add("after all these nothing is lost", missing == 0, f"{missing} missing, {twice} twice")


def formats(guest: Machine, site: Site, table: Table, releases: Releases, package: Path, folder: Path) -> None:
    """The buffer's format, up and down."""
    older = ("edged/buffer/store.py", KNOWS, "FORMAT = 2\n")
    refused(guest, table, releases, "a buffer newer than it knows", releases.make("older", older), "by a newer edged")
    content, deb = folder / "older", folder / "older.deb"
    machine.run("dpkg-deb", "-R", package, content)
    script = content / "DEBIAN/preinst"
    script.write_text(re.sub(r"-gt \d+", "-gt 2", script.read_text("utf-8")))
    machine.run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", content, deb)
    shutil.rmtree(content)
    (guest.share / deb.name).write_bytes(deb.read_bytes())
    pid, current = guest.shell(f"{SHOW} MainPID"), releases.current()
    said = guest.shell(f"dpkg -i /mnt/host/{deb.name} </dev/null; echo code $?", 300)
    same = (guest.shell(f"{SHOW} MainPID"), releases.current()) == (pid, current)
    whole = "install ok installed" in guest.shell("dpkg -s edged")
    line = next((line for line in said.splitlines() if "downgrade refused" in line), said)
    table.add("downgrade by dpkg refused, what was there goes on", "code 1" in said and same and whole, line[:120])
    newer = (
        ("edged/buffer/store.py", KNOWS, "FORMAT = 4\n"),
        ("edged/buffer/store.py", "_MIGRATIONS = {\n", '_MIGRATIONS = {\n    3: "CREATE TABLE more (id INTEGER)",\n'),
    )
    dies = "    def status(self) -> dict[str, Any]:\n        raise SystemExit(7)\n\n    def never(self)"
    ends = ("edged/running.py", "    def status(self)", dies)
    fails = releases.make("later", newer[0], newer[1], ends, ("edged/buffer/store.py", "USABLE = 2", "USABLE = 3"))
    undone(guest, site, table, releases, "... and the migration had waited for the proof", fails, "it ended by itself")
    found = guest.shell("python3 -c \"import sqlite3; print(sqlite3.connect('/var/lib/edged/buffer.db').execute("
                        "'PRAGMA user_version').fetchone())\"").strip()  # fmt: skip
    table.add("the buffer has the format that it had", found == "(3,)", found)
    oneway = ("edged/buffer/store.py", "USABLE = 2", "USABLE = 4")
    release = releases.make("oneway", *newer, ends, oneway)
    refused(guest, table, releases, "it would leave no way back", release, "--one-way")
    said, seconds = change(guest, release, "--one-way")
    guest.wait_for(STATE, "active", 30)
    site.arrival_after(time.time())
    aside = guest.shell("ls /var/lib/edged | grep format-4").split()
    table.add("--one-way, and it fails: its buffer is set aside, the old release goes on", "code 1" in said and aside,
              f"{seconds:.1f} s, {' '.join(aside)}")  # fmt: skip


UNIT = "share/edged/systemd/edged.service"
LIMIT = (UNIT, "LimitCORE=0\n", "LimitCORE=0\nLimitNOFILE=4242\n")
OTHERS = (
    ("share/edged/systemd/edged.udev", 'LABEL="edged_end"', '# of another release\nLABEL="edged_end"'),
    ("share/edged/systemd/edged.tmpfiles", "d /etc/edged 0750", "d /etc/edged 0755"),
    ("share/edged/systemd/edged.sysusers", "m edged dialout", "m edged dialout\nm edged audio"),
    ("share/edged/systemd/edged.dbus", "</policy>", '<allow send_destination="org.example"/></policy>'),
)


def fitting(guest: Machine, table: Table, releases: Releases, when: str) -> None:
    """What is in place and what systemd goes by are those of the release that runs."""
    folder = guest.root / HOME / "releases" / releases.current() / "share/edged/systemd"
    places = {path: guest.root / place(path.name, packaged=True) for path in folder.iterdir()}
    apart = [path.name for path, there in places.items() if path.read_text() != there.read_text()]
    wanted = "4242" if "LimitNOFILE=4242" in (folder / "edged.service").read_text() else ""
    limit, stale = guest.shell(f"{SHOW} LimitNOFILE; {SHOW} NeedDaemonReload").split()
    mode = guest.shell("stat -c %a /etc/edged").strip()
    good = not apart and (limit == "4242") == bool(wanted) and stale == "no" and mode == "750"
    table.add(f"{when}: units and rules are those of what runs", good, f"{apart or 'all'}, LimitNOFILE={limit}")


def refused_package(guest: Machine, table: Table, releases: Releases, package: Path, folder: Path) -> None:
    """dpkg has unpacked other units already when the release is refused."""

    def change(content: Path) -> None:
        (inner,) = content.glob("usr/lib/edged/package/lib/python3*/site-packages/edged/daemon.py")
        inner.write_text(inner.read_text("utf-8").replace(RUN, f"raise RuntimeError('broken')\n{RUN}"), "utf-8")
        for compiled in inner.parent.glob("__pycache__/daemon.*.pyc"):
            compiled.unlink()
        for path in (content / "usr/lib/systemd/system/edged.service", content / "usr/lib/edged/package" / UNIT):
            path.write_text(path.read_text().replace(*LIMIT[1:]))

    broken = repacked(package, folder, "broken", change)
    (guest.share / broken.name).write_bytes(broken.read_bytes())
    pid, current = guest.shell(f"{SHOW} MainPID"), releases.current()
    said = guest.shell(f"dpkg -i /mnt/host/{broken.name} </dev/null; echo code $?", 300)
    same = (guest.shell(f"{SHOW} MainPID"), releases.current()) == (pid, current)
    table.add("dpkg installs a broken package: refused, what ran goes on", "RuntimeError: broken" in said and same)
    fitting(guest, table, releases, "a package that was refused")


def units(guest: Machine, site: Site, table: Table, releases: Releases) -> None:
    """Releases whose units are the trouble, or go down with it."""
    ends = ("edged/daemon.py", RUN, f"{RUN}    raise SystemExit(7)\n")
    release = releases.make("units-1", LIMIT, *OTHERS, ends)
    undone(guest, site, table, releases, "it ends, and had brought other units", release, "it ended by itself")
    fitting(guest, table, releases, "rolled back")
    alone = releases.make("units-2", (UNIT, "LimitCORE=0\n", "LimitCORE=0\nPrivateNetwork=yes\n"))
    undone(guest, site, table, releases, "its unit keeps it from the network", alone, "connection cloud")
    pid = guest.shell(f"{SHOW} MainPID")
    command = releases.make("units-3", (UNIT, "ExecStart=/usr/bin/edged", "ExecStart=bin/edged"))
    undone(guest, site, table, releases, "its unit is none for systemd", command, "it cannot take over")
    table.add("... and nothing was stopped for it", guest.shell(f"{SHOW} MainPID") == pid, pid.strip())
    said, seconds = change(guest, releases.make("units-4", LIMIT, OTHERS[0]))
    table.add("a release with other units that works is kept", "code 0" in said, f"{seconds:.1f} s")
    fitting(guest, table, releases, "kept")


def power(guest: Machine, site: Site, table: Table, releases: Releases) -> None:
    """Amid an upgrade: the watcher is killed, or the power fails."""
    release = releases.make("fourth")
    guest.shell(f"edged service upgrade --no-wait --watch {WATCH} {release}")
    guest.shell("systemctl kill --signal=KILL edged-upgrade")
    outcome = releases.settled(MINUTE)
    table.add("the watcher is killed: it goes on", outcome.get("outcome") == "good" and "fourth" in releases.current())
    hangs = ("edged/daemon.py", RUN, f"{RUN}    {NEVER_ENDS}")
    for name, changes, seconds, wanted, current in (
        ("fifth", (), 2, ("good",), ("fifth",)),
        ("sixth", (hangs,), 2, ("rolled-back",), ("fifth",)),
        ("seventh", (), 0, ("good", "interrupted"), ("fifth", "seventh")),
    ):
        release = releases.make(name, *changes)
        guest.shell("sync")
        guest.shell(f"(edged service upgrade --watch {WATCH} {release} >/dev/null 2>&1 &)")
        releases.begun(name if seconds else "")
        time.sleep(seconds)
        guest.cut_power()
        guest.unmount()
        guest.mount()
        guest.switch_on()
        outcome = releases.settled(2 * MINUTE)
        guest.wait_for(STATE, "active", 30)
        site.arrival_after(time.time())
        told = outcome.get("outcome") in wanted and outcome["new"] == name
        if not seconds and outcome["new"] != name:  # the power failed before the disk knew of the upgrade
            told = releases.current() == "fifth"
        good = told and releases.current() in current and releases.previous() != releases.current()
        when = f"{seconds} s after the hand-over" if seconds else "at the hand-over"
        said = f"{outcome.get('outcome')} {outcome.get('why', '')}"[:100]
        table.add(f"power cut {when}: {' or '.join(wanted)} in the end", good, said)


def test_an_upgrade_on_a_booted_debian(site: Site, guest: Machine, tmp_path: Path) -> None:
    package = built("edged_*.deb")
    second = repacked(package, tmp_path, "second")
    table = Table()
    (guest.share / package.name).write_bytes(package.read_bytes())
    guest.shell(f"dpkg -i /mnt/host/{package.name}", 300)
    demonstrate(guest)
    guest.shell("systemctl daemon-reload; rm -rf /var/lib/edged/*; systemctl restart edged")
    site.arrival_after(time.time())
    time.sleep(15)
    releases = Releases(guest)
    by_package(guest, site, table, releases, second)
    failures(guest, site, table, releases)
    power(guest, site, table, releases)
    accounts(guest, table, "after all upgrades")
    formats(guest, site, table, releases, package, tmp_path)
    refused_package(guest, table, releases, package, tmp_path)
    units(guest, site, table, releases)
    before = releases.previous()
    said = guest.shell("edged service rollback; echo code $?", 180)
    good = "code 0" in said and releases.current() == before
    table.add("edged service rollback", good, said.splitlines()[-2][:100])
    fitting(guest, table, releases, "edged service rollback")
    table.judge()
