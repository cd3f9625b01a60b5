"""The Debian package on a booted Debian, from its installation to its purge: `make system-test` prints the table.

One story in the order in which it happens on a gateway, because each step needs what the one before has left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.system.service import machine
from tests.system.service.machine import Machine
from tests.system.service.site import (
    FLUSH,
    SHOW,
    STATE,
    WATCHDOG,
    Site,
    Table,
    accounts,
    back,
    built,
    demonstrate,
    lost,
    newest_sample,
    repacked,
    traces,
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif("EDGED_SYSTEM_TEST" not in os.environ, reason="boots a machine: `make system-test` does it"),
]


def install(guest: Machine, site: Site, table: Table, package: Path) -> None:
    (guest.share / package.name).write_bytes(package.read_bytes())
    said = guest.shell(f"time dpkg -i /mnt/host/{package.name}", 300)
    table.add("package installs", "Setting up edged" in said and "rror" not in said, said.split("real")[-1].split()[0])
    table.add("user, groups", "dialout" in guest.shell("id -nG edged"), guest.shell("id edged").strip())
    enabled, active = guest.shell("systemctl is-enabled edged").strip(), guest.shell(STATE).strip()
    table.add("service enabled and started by the installation", (enabled, active) == ("enabled", "active"), active)
    shown = guest.shell("edged status; echo code $?")
    table.add("the shipped configuration runs", "code 0" in shown, shown.split("\n")[0])
    demonstrate(guest)


def boots(guest: Machine, site: Site, table: Table) -> None:
    guest.switch_off()
    began = time.time()
    guest.switch_on()
    first = site.arrival_after(began)
    active = guest.shell(STATE).strip()
    table.add("starts at boot", active == "active", f"{guest.boot_seconds:.1f} s until systemd has booted")
    table.add("boot to the first message at the receiver", first - began < 30, f"{first - began:.1f} s")
    table.add("credential arrives (the broker asks for it)", first)
    exposure = guest.shell("systemd-analyze security edged --no-pager | tail -1").strip()
    level = re.search(r"([0-9.]+) [A-Z]+", exposure)
    table.add("systemd-analyze security", level and float(level[1]) <= 2.0, level and level[1])
    table.measured(exposure=float(level[1]) if level else 10.0, boot_to_first_message_s=first - began)
    status = guest.shell(f"{SHOW} StatusText").strip()
    table.add("says in a line how it is", status, status)


def ready_comes_late(guest: Machine, table: Table) -> None:
    """A buffer that cannot be opened: not READY, not killed either, and told."""
    guest.shell(
        "systemctl stop edged; mkdir /tmp/b; mv /var/lib/edged/buffer.db* /tmp/b/; mkdir /var/lib/edged/buffer.db"
    )
    guest.shell("systemctl start --no-block edged; sleep 4")
    state, status = guest.shell(STATE).strip(), guest.shell(f"{SHOW} StatusText").strip()
    restarts = int(guest.shell(f"sleep 8; {SHOW} NRestarts").strip())
    table.add("what only a person can mend is tried again, gently", 0 < restarts < 4, f"{restarts} times in 12 s")
    table.add("READY only after the first successful start-up", state != "active", f"{state} {status[:60]}")
    guest.shell(
        "systemctl stop edged; rmdir /var/lib/edged/buffer.db; mv /tmp/b/* /var/lib/edged/; systemctl start edged"
    )


def killed(guest: Machine, site: Site, table: Table) -> None:
    slowest = 0.0
    for _ in range(3):
        pid = guest.shell(f"{SHOW} MainPID").strip()
        guest.shell(f"kill -9 {pid}")
        seconds = back(guest, pid, 20)
        resumed = site.arrival_after(time.time())
        slowest = max(slowest, seconds)
        table.add("kill -9: ready again", seconds < 2, f"{seconds:.2f} s")
        assert resumed
        time.sleep(2)
    table.measured(kill_to_ready_s=slowest)
    pid = guest.shell(f"{SHOW} MainPID").strip()
    guest.shell(f"kill -STOP {pid}")
    seconds = back(guest, pid, 60)
    table.add(f"SIGSTOP: the watchdog ({WATCHDOG} s here) restarts it", seconds < WATCHDOG + 10, f"{seconds:.1f} s")
    result = guest.shell("journalctl -u edged --no-pager -o cat | grep -c 'Watchdog timeout'").strip()
    table.add("the journal says that it was the watchdog", result not in ("", "0"), f"{result} line")


def reload(guest: Machine, site: Site, table: Table) -> None:
    path = guest.root / "etc/edged/edged.yaml"
    good = path.read_text("utf-8")
    pid = guest.shell(f"{SHOW} MainPID").strip()
    path.write_text(good.replace("every: 500ms", "every: 500 parsecs"))
    said = guest.shell("systemctl reload edged; echo code $?")
    reason = guest.shell("journalctl -u edged -n 40 --no-pager -o cat | grep -m1 -o 'edged.yaml:[0-9]*:[0-9]*'").strip()
    after = site.arrival_after(time.time())
    table.add(
        "reload of a broken file fails, the old configuration goes on",
        "code 1" in said and after and guest.shell(f"{SHOW} MainPID").strip() == pid, reason,
    )  # fmt: skip
    path.write_text(good.replace("every: 500ms", "every: 300ms"))
    said = guest.shell("systemctl reload edged; echo code $?")
    table.add("reload of a mended file", "code 0" in said and guest.shell(STATE).strip() == "active")


PROBE = """
import errno, os, socket, time
def attempt(name, function):
    try:
        function()
    except OSError as exc:
        print(name, errno.errorcode.get(exc.errno, exc.errno))
    else:
        print(name, 'allowed')
def write(path):
    with open(path, 'w') as file:
        file.write('x')
for path in ('/etc/x', '/etc/edged/x', '/usr/x', '/var/x', '/home/x', '/var/lib/edged/x', '/run/edged/x'):
    attempt('write ' + path, lambda: write(path))
attempt('read /home', lambda: open('/home/technician/private').read())
attempt('list /root', lambda: os.listdir('/root'))
attempt('open /dev/fuse', lambda: os.open('/dev/fuse', os.O_RDWR))
attempt('open /dev/loop0', lambda: os.open('/dev/loop0', os.O_RDONLY))
attempt('open /dev/ttyS0', lambda: os.open('/dev/ttyS0', os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
attempt('set the clock', lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
attempt('raw packets', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt('chroot', lambda: os.chroot('/var/lib/edged'))
attempt('D-Bus', lambda: socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket'))
"""
_NOT_FOR_A_PROBE = ("ExecReload", "ExecStopPost", "Watchdog", "Restart=", "Type=")
ALLOWED = {"write /var/lib/edged/x", "write /run/edged/x", "open /dev/ttyS0", "D-Bus"}


def sandbox(guest: Machine, table: Table) -> None:
    """Ask in the place of the daemon: the same unit, another program."""
    (guest.root / "usr/local/bin/probe.py").write_text(PROBE)
    unit = (guest.root / "usr/lib/systemd/system/edged.service").read_text("utf-8")
    lines = [line for line in unit.splitlines() if not line.startswith(_NOT_FOR_A_PROBE)]
    text = "\n".join(lines).replace("/usr/bin/edged run", "/usr/lib/edged/current/bin/python3 /usr/local/bin/probe.py")
    (guest.root / "etc/systemd/system/probe.service").write_text(
        text.replace("StandardOutput=journal", "StandardOutput=truncate:/probe.txt")
        .replace("RuntimeDirectory=edged", "RuntimeDirectoryPreserve=yes\nRuntimeDirectory=edged")
        .replace("[Service]", "[Service]\nType=oneshot")
    )
    said = guest.shell(
        "for d in 'loop0 b 7 0' 'fuse c 10 229' 'ttyS0 c 4 64'; do mknod /dev/$d 2>/dev/null; chmod 666 /dev/${d%% *}; "
        "done; systemctl daemon-reload; systemctl start probe; cat /probe.txt"
    )
    guest.shell("rm -f /var/lib/edged/x /run/edged/x /etc/systemd/system/probe.service; systemctl daemon-reload")
    results = dict(line.rsplit(" ", 1) for line in said.splitlines() if " " in line)
    refused = {"EPERM", "EACCES", "EROFS", "ENOENT", "EAFNOSUPPORT"}
    wrong = {name: result for name, result in results.items() if (result in refused) == (name in ALLOWED)}
    table.add(
        "sandbox: writes only to its own folders, sees no home",
        results and not wrong,
        wrong or f"{len(results)} attempts, {len(ALLOWED)} allowed",
    )


def power_cut(guest: Machine, site: Site, table: Table) -> None:
    guest.shell("sync")  # what dpkg and a person have written: only the last seconds are the gateway's own affair
    time.sleep(5)
    guest.cut_power()
    guest.unmount()
    guest.mount()
    guest.switch_on()
    site.arrival_after(guest.disk_cut + 0.5)
    time.sleep(4)
    newest = newest_sample(site, guest.disk_cut)
    window = guest.disk_cut - newest
    missing, twice = lost(site)
    table.add("power cut: boots again", guest.shell(STATE).strip() == "active", f"{guest.boot_seconds:.1f} s")
    table.add(
        "power cut: nothing lost beyond the flush window", window < FLUSH + 0.5, f"{1000 * window:.0f} ms of readings"
    )
    table.measured(power_cut_ms=1000 * window)
    table.add(
        "power cut: what was stored has arrived", missing == 0, f"{missing} samples missing, {twice} messages twice"
    )


def upgrade(guest: Machine, site: Site, table: Table, newer: Path) -> None:
    guest.shell("echo '# mine' >>/etc/edged/edged.yaml")
    epoch = {message["epoch"] for _, message in site.messages()}
    (guest.share / newer.name).write_bytes(newer.read_bytes())
    began = time.time()
    said = guest.shell(f"dpkg -i /mnt/host/{newer.name} </dev/null", 300)
    site.arrival_after(time.time())
    time.sleep(2)
    kept = "# mine" in (guest.root / "etc/edged/edged.yaml").read_text("utf-8")
    same = {message["epoch"] for _, message in site.messages()} == epoch
    table.add(
        "upgrade keeps configuration and buffer",
        "Setting up edged" in said and kept and same,
        f"{time.time() - began:.0f} s",
    )


def purge(guest: Machine, table: Table, before: set[str]) -> None:
    guest.shell("dpkg -r edged", 120)
    table.add("removal keeps configuration and buffer", (guest.root / "var/lib/edged/buffer.db").exists())
    said = guest.shell("dpkg -P edged", 120)
    left = traces(guest) - before
    table.add("purge leaves nothing", not left and "rror" not in said, ", ".join(sorted(left)[:5]))


def from_the_bundle(guest: Machine, table: Table, archive: Path, before: set[str]) -> None:
    """Another way to the same service: wheels, no index, no network, a virtual environment."""
    (guest.share / archive.name).write_bytes(archive.read_bytes())
    folder = archive.name.removesuffix(".tar.gz")
    command = f"cd /tmp && tar xf /mnt/host/{archive.name} && umask 077 && time {folder}/install /opt/edged --service"
    said = guest.shell(command, 300)
    active = guest.shell(STATE).strip()
    seconds = said.split("real")[-1].split()[0]
    table.add("a bundle installs itself and the service, offline, whatever the umask", active == "active", seconds)
    status = guest.shell("edged service status; echo code $?")
    table.add(
        "edged service status", "code 0" in status and "active (running), enabled" in status, status.split("\n")[0]
    )
    again = guest.shell("/opt/edged/current/bin/edged service install; echo code $?")
    table.add("edged service install once more", "code 0" in again)
    guest.shell("echo '# mine' >>/etc/edged/edged.yaml; edged service install")
    kept = "# mine" in (guest.root / "etc/edged/edged.yaml").read_text("utf-8")
    table.add("... never overwrites a configuration", kept)
    newer = rebundled(archive, guest.share)
    said = guest.shell(f"edged service upgrade --watch 10 /mnt/host/{newer.name}; echo code $?", 300)
    runs = guest.shell("readlink /opt/edged/current").strip()
    table.add("edged service upgrade BUNDLE", "code 0" in said and "-newer" in runs, runs)
    said = guest.shell("edged service rollback; echo code $?", 180)
    runs = guest.shell("readlink /opt/edged/current").strip()
    table.add("edged service rollback", "code 0" in said and "-newer" not in runs, said.splitlines()[-2][:90])
    guest.shell("/opt/edged/current/bin/edged service uninstall </dev/null")
    table.add(
        "edged service uninstall keeps what nobody said to remove", (guest.root / "etc/edged/edged.yaml").exists()
    )
    said = guest.shell("/opt/edged/current/bin/edged service uninstall --purge; rm -rf /opt/edged")
    left = traces(guest) - before
    table.add("edged service uninstall --purge leaves nothing", not left, ", ".join(sorted(left)[:5]))


def rebundled(archive: Path, folder: Path) -> Path:
    """The same bundle under another name, as a newer release."""
    (content := folder / "bundle").mkdir()
    machine.run("tar", "-xf", archive, "-C", content)
    (inner,) = content.iterdir()
    script = inner / "install"
    script.write_text(re.sub(r"(?m)^name=(.*)$", r"name=\1-newer", script.read_text("utf-8")), "utf-8")
    newer = folder / "newer.tar.gz"
    machine.run("tar", "-czf", newer, "-C", content, inner.name)
    shutil.rmtree(content)
    return newer


def test_the_package_on_a_booted_debian(site: Site, guest: Machine, tmp_path: Path) -> None:
    package = built("edged_*.deb")
    newer = repacked(package, tmp_path, "newer")
    table = Table()
    before = traces(guest)
    install(guest, site, table, package)
    boots(guest, site, table)
    ready_comes_late(guest, table)
    killed(guest, site, table)
    reload(guest, site, table)
    sandbox(guest, table)
    time.sleep(3)
    missing, twice = lost(site)
    table.add("nothing lost so far, by the receiver's account", missing == 0, f"{missing} missing, {twice} twice")
    accounts(guest, table, "before the power cut")
    power_cut(guest, site, table)
    upgrade(guest, site, table, newer)
    accounts(guest, table, "after the upgrade")
    purge(guest, table, before)
    from_the_bundle(guest, table, built("edged-*.tar.gz"), before)
    table.judge()
