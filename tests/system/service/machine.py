"""A Debian that is really booted: systemd as PID 1 on an overlay of this machine's own tree, with a disk of its own.
With EDGED_SYSTEM_ROOT=FOLDER it is the tree of another Debian.

Nothing is downloaded and nothing of this machine is changed: what the guest writes goes to an ext4 image. Broker and
devices run outside of it, in a network that they share with the guest and nobody else, so that a power cut takes only
the gateway away. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.powercut import cut_power

HERE = Path(__file__).parent
SYSTEM = Path(os.environ.get("EDGED_SYSTEM_ROOT") or "/")
"""The tree that is booted: this machine's own, or that of another Debian in a folder."""
PROGRAMS = {
    "systemd-nspawn": "systemd-container", "mkfs.ext4": "e2fsprogs", "dpkg-deb": "dpkg", "mosquitto": "mosquitto",
    "mosquitto_sub": "mosquitto-clients", "dbus-daemon": "dbus",
}  # fmt: skip
"""Program → Debian's package of it."""
_MASKED = (
    "bluetooth", "e2scrub_reap", "ldconfig", "mosquitto", "postgresql", "redis-server", "systemd-binfmt",
    "systemd-firstboot", "systemd-networkd", "systemd-resolved", "systemd-timesyncd", "systemd-udev-trigger",
    "systemd-update-utmp",
)  # fmt: skip
_READY = ("running", "degraded")


def missing() -> str:
    """Why this machine cannot do it; empty if it can."""
    if os.geteuid():
        return "booting a container needs root"
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if packages:
        return f"sudo apt install {' '.join(packages)}"
    if not Path("/dev/loop-control").exists():
        return "the kernel has no loop devices"
    if f"{sys.version_info.major}.{sys.version_info.minor}" != debian_python():
        return (
            f"the package for this Debian has to be built with its own Python, {debian_python() or 'which is missing'}"
        )
    return ""


def debian_python() -> str:
    """The minor version of that Debian's own Python."""
    with suppress(OSError):
        return (SYSTEM / "usr/bin/python3").readlink().name.removeprefix("python")
    return ""


class Machine:
    """One guest: can be switched on and off, and have its power cut, any number of times."""

    def __init__(self, folder: Path, network: int) -> None:
        self.share = folder / "share"
        self.root = folder / "root"
        self.boot_seconds = 0.0
        self.disk_cut = 0.0
        """When the power was cut, seconds since the epoch."""
        self._folder, self._network = folder, network
        self._image, self._disk, self._lower = folder / "disk.img", folder / "disk", folder / "lower"
        self._name = f"edged-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._mounts = ExitStack()
        for path in (self.share, self.root, self._disk, self._lower):
            path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(2 << 30)
        run("mkfs.ext4", "-q", "-F", self._image)

    # -- its disk --------------------------------------------------------------------------------------------------

    def mount(self) -> None:
        """Put the disk in."""
        for arguments in (
            ("--bind", SYSTEM, self._lower),
            ("-o", "loop,noatime", self._image, self._disk),
        ):
            self._mount(*arguments)
        (self._disk / "upper").mkdir(exist_ok=True)
        (self._disk / "work").mkdir(exist_ok=True)
        layers = f"lowerdir={self._lower},upperdir={self._disk}/upper,workdir={self._disk}/work"
        self._mount("-t", "overlay", "overlay", "-o", layers, self.root)

    def _mount(self, *arguments: str | Path) -> None:
        run("mount", *arguments)
        self._mounts.callback(run, "umount", arguments[-1])

    def unmount(self) -> None:
        """Take the disk out."""
        self._mounts.close()

    def furnish(self) -> None:
        """Make of this machine's tree one that boots without its services, and without what it has of edged."""
        etc = self.root / "etc"
        for left in ("etc/edged", "var/lib/edged", "etc/systemd/system/edged.service.d"):
            shutil.rmtree(self.root / left, ignore_errors=True)
        for wants in (etc / "systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        for name in _MASKED:
            mask = etc / f"systemd/system/{name}.service"
            mask.unlink(missing_ok=True)
            mask.symlink_to("/dev/null")
        (etc / "fstab").write_text("")
        (etc / "hostname").write_text("gateway\n")
        (etc / "machine-id").write_text("")
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        (self.root / "home/technician").mkdir(parents=True, exist_ok=True)
        (self.root / "home/technician/private").write_text("nobody's business\n")
        (self.root / "var/log/journal").mkdir(parents=True, exist_ok=True)

    # -- power -----------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Boot; returns when systemd says that it has."""
        began = time.monotonic()
        with (self._folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [HERE / "boot.sh", self.root, self._name, self.share, str(self._network)],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        until = began + 60
        while time.monotonic() < until and self._process.poll() is None:
            if self._find_leader():
                state = self.shell("systemctl is-system-running 2>&1 || true").strip()
                if state in _READY:
                    self.boot_seconds = time.monotonic() - began
                    return
            time.sleep(0.05)
        raise AssertionError((self._folder / "console.log").read_text("utf-8", "replace")[-3000:])

    def _find_leader(self) -> int:
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with suppress(OSError, IndexError):
            leader = int(children.read_text().split()[0])
            if Path(f"/proc/{leader}/comm").read_text() == "systemd\n":  # not a program that prepares its start
                self._leader = leader
        return self._leader

    def switch_off(self) -> None:
        """Shut down in good order."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._leader, signal.SIGRTMIN + 4)  # systemd's signal for a power-off
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._kill()
        self._gone()

    def cut_power(self) -> None:
        """Nothing reaches the disk from this moment on; then everything in the guest is gone."""
        cut_power(self._disk)
        self.disk_cut = time.time()
        self._kill()
        self._gone()

    def _kill(self) -> None:
        assert self._process
        with suppress(ProcessLookupError):
            os.kill(self._leader, signal.SIGKILL)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)

    def _gone(self) -> None:
        self._process, self._leader = None, 0
        for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{self._name}"), reverse=True):
            for inner in sorted(group.rglob("*"), reverse=True):
                if inner.is_dir():
                    with suppress(OSError):
                        inner.rmdir()
            with suppress(OSError):
                group.rmdir()

    # -- inside ----------------------------------------------------------------------------------------------------

    def shell(self, script: str, timeout: float = 120) -> str:
        """Run a shell script in the guest; returns what it said, errors too."""
        result = subprocess.run(
            [
                "nsenter", "-t", str(self._leader), "-m", "-p", "-u", "-i", "-n", "-C", "--", "/usr/bin/env", "-i",
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root", "TERM=dumb", "LANG=C.UTF-8", "/bin/bash", "-c",
                script,
            ],
            check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout,
        )  # fmt: skip
        return result.stdout.decode("utf-8", "replace")

    def wait_for(self, script: str, wanted: str, seconds: float) -> float:
        """Repeat the script until its whole output is `wanted`; returns how long that took."""
        began = time.monotonic()
        while (said := self.shell(script).strip()) != wanted:
            assert time.monotonic() - began < seconds, f"{script}: {said!r} after {seconds} s, not {wanted!r}"
            time.sleep(0.03)
        return time.monotonic() - began


def run(*command: str | Path) -> None:
    """Run a program that must succeed."""
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{command}: {result.stderr}"


@contextmanager
def network() -> Iterator[int]:
    """A network with nothing but a loopback interface; yields a process in it."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"up\n"
        try:
            yield holder.pid
        finally:
            holder.kill()


@contextmanager
def guest(folder: Path, network: int) -> Iterator[Machine]:
    """A machine with its disk in, switched off; taken away whatever happens."""
    machine = Machine(folder, network)
    try:
        machine.mount()
        yield machine
    finally:
        machine.switch_off()
        machine.unmount()
