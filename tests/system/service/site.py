"""What stands around a gateway that is booted for a test, and what is asked of it from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edged.testing.audit import Audit
from edged.testing.receiver import decode
from tests.support.checker import rows
from tests.system.service import machine
from tests.system.service.machine import Machine

ROOT = Path(__file__).parents[3]
FIGURES = ROOT / ".build/system.jsonl"
"""What was measured, in the form of the benchmark's lines: `make bench` shows it."""
DEMO = ROOT / "config/demo.yaml"
PASSWORD = "it arrives as a credential"
FLUSH = 0.5
"""Seconds, in the demo's configuration: what a power cut may take."""
WATCHDOG = 6
DROP_IN = f"""
[Service]
LoadCredential=mqtt:/etc/edged/secrets/mqtt
WatchdogSec={WATCHDOG}s
TimeoutAbortSec=1s
"""


class Table:
    """What was found out, for people; a check that failed is told with all others at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, what: str, good: object, figure: object = "") -> None:
        """One line."""
        self.rows.append((what, "ok" if good else "FAILED", str(figure)))
        print(f"{self.rows[-1][1]:7} {what}: {figure}", flush=True)

    def measured(self, **figures: float) -> None:
        """Keep figures for the benchmark."""
        FIGURES.parent.mkdir(exist_ok=True)
        with FIGURES.open("a") as file:
            file.write(json.dumps({"at": round(time.time()), "name": "system", "quick": False, **figures}) + "\n")

    def show(self) -> str:
        """All lines."""
        width = max(len(what) for what, _, _ in self.rows)
        return "\n".join(f"| {what:{width}} | {good:6} | {figure}" for what, good, figure in self.rows)

    def judge(self) -> None:
        """Show all lines, and fail if one does."""
        print("\n" + self.show())
        assert not [what for what, good, _ in self.rows if good != "ok"]


class Site:
    """What stands around a gateway: a broker that wants a password, devices, and a receiver behind the broker."""

    def __init__(self, folder: Path, network: int) -> None:
        self._folder, self._network = folder, network
        self._received = folder / "received"
        self._running = ExitStack()
        passwords = folder / "passwords"
        machine.run("mosquitto_passwd", "-b", "-c", passwords, "demo", PASSWORD)
        passwords.chmod(0o644)
        (folder / "broker.conf").write_text(
            f"listener 1883 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
            "max_queued_messages 0\n"
        )

    @contextmanager
    def open(self) -> Iterator[Site]:
        """Run it all."""
        with self._running:
            self._start("broker", "mosquitto", "-c", str(self._folder / "broker.conf"))
            time.sleep(0.5)
            self._start(
                "received", "mosquitto_sub", "-h", "127.0.0.1", "-u", "demo", "-P", PASSWORD, "-q", "1", "-t",
                "edged/demo/data", "-F", "%U %x",
            )  # fmt: skip
            self._start(
                "devices", sys.executable, "-m", "edged", "simulate", str(DEMO), "--state", str(self._folder / "cache")
            )
            yield self

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / name).open("wb") as out:
            process = subprocess.Popen(
                ["nsenter", "-t", str(self._network), "-n", "--", *command], stdout=out, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._running.callback(process.wait, 20)
        self._running.callback(process.send_signal, signal.SIGINT)

    def messages(self) -> list[tuple[float, dict[str, Any]]]:
        """What has arrived so far: when, and what."""
        found = []
        for line in self._received.read_text("ascii").splitlines():
            when, _, payload = line.partition(" ")
            with_numbers = decode(bytes.fromhex(payload)) if re.fullmatch(r"([0-9a-f]{2})+", payload) else None
            if with_numbers is not None:
                found.append((float(when), with_numbers))
        return found

    def arrival_after(self, moment: float, seconds: float = 30) -> float:
        """When the first message after `moment` arrived."""
        until = time.monotonic() + seconds
        while True:
            later = [when for when, _ in self.messages() if when > moment]
            if later:
                return later[0]
            assert time.monotonic() < until, "nothing arrives"
            time.sleep(0.05)


def lost(site: Site) -> tuple[int, int]:
    """How many samples never arrived, by the numbers in the messages alone; and how many messages came twice."""
    audit = Audit(from_the_beginning=True)
    for _, message in site.messages():
        audit.take(message)
    known = {(lane.gateway, lane.epoch) for lane in audit.lanes}
    gaps = [gap for gateway, epoch in known for gap in audit.gaps(gateway, epoch)]
    return sum(last - first + 1 for first, last in gaps) + len(audit.missing), audit.duplicates


def newest_sample(site: Site, before: float) -> float:
    """When the last sample was taken that was read before this moment, seconds since the epoch."""
    times = [moment for _, message in site.messages() for moment in sample_times(message) if moment < before]
    return max(times)


def sample_times(message: dict[str, Any]) -> Iterator[float]:
    """When the samples of a message were taken."""
    return (moment / 1e6 for _, moment, _ in rows(message))


SHOW = "systemctl show edged -P"
STATE = f"{SHOW} ActiveState"


def back(guest: Machine, pid: str, seconds: float) -> float:
    """Wait until another process has said READY; returns how long that took."""
    script = f'[ "$({SHOW} MainPID)" != {pid} ] && [ "$({SHOW} MainPID)" != 0 ] && {STATE}'
    return guest.wait_for(script, "active", seconds)


def demonstrate(guest: Machine) -> None:
    """Give the gateway the demo's configuration, and the password as a credential."""
    demo = DEMO.read_text("utf-8").replace(
        "    retry_max:", "    username: demo\n    password: !secret mqtt\n    retry_max:"
    )
    etc = guest.root / "etc"
    (etc / "edged/edged.yaml").write_text(demo)
    shutil.copy(DEMO.with_name("demo-ble.jsonl"), etc / "edged")
    (etc / "edged/secrets").mkdir(mode=0o700)
    (etc / "edged/secrets/mqtt").write_text(PASSWORD)
    (etc / "edged/secrets/mqtt").chmod(0o600)
    drop_in = etc / "systemd/system/edged.service.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(DROP_IN)


def accounts(guest: Machine, table: Table, when: str) -> None:
    said = guest.shell("edged verify --json")
    problems = json.loads(said).get("problems") if said.startswith("{") else said
    table.add(f"edged verify {when}", problems == [], problems)


def traces(guest: Machine) -> set[str]:
    """Everything in the guest that bears the name."""
    # The checkout is below the guest, and others may work there.
    places = ("/proc", "/sys", "/tmp", "/mnt", "/var/log/journal", ROOT)  # noqa: S108  # nothing is put there
    elsewhere = " -o ".join(f"-path {place}" for place in places)
    script = (
        f"find / -xdev \\( {elsewhere} \\) -prune -o -iname '*edged*' -print; getent passwd edged; getent group edged; "
        "systemctl list-unit-files --no-legend 'edged*'; systemctl list-units --all --no-legend 'edged*'"
    )
    return set(guest.shell(script).splitlines())


def built(pattern: str) -> Path:
    """What is under test: the newest of that kind that `make system-test` has built."""
    folder = Path(os.environ.get("EDGED_DIST") or ROOT / ".build/deb")
    packages = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    assert packages, f"there is no {folder}/{pattern}: make system-test builds it"
    return packages[-1]


def repacked(package: Path, folder: Path, suffix: str, change: Callable[[Path], None] = lambda _: None) -> Path:
    """The same with a higher version and as another release, for an upgrade to it; `change` alters what is in it."""
    content, newer = folder / "newer", folder / f"newer{suffix}.deb"
    machine.run("dpkg-deb", "-R", package, content)
    control = content / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: (.*)$", rf"Version: \1+{suffix}", control.read_text("utf-8")), "utf-8")
    release = json.loads((content / "usr/lib/edged/package/release.json").read_text())["name"]
    for name in ("DEBIAN/postinst", "usr/lib/edged/package/release.json", "usr/lib/edged/package/bin/edged"):
        path = content / name
        path.write_text(path.read_text("utf-8").replace(release, f"{release}-{suffix}"), "utf-8")
    change(content)
    machine.run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", content, newer)
    shutil.rmtree(content)
    return newer
