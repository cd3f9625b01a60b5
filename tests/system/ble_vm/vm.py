"""A virtual machine with a real kernel and a real bluetoothd: how it is built, and how it runs. No KVM is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / ".build/ble-vm"
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
"""Program → Debian's package of it."""
SUITE, PYTHON = "bookworm", "3.11"
"""The Debian of the virtual machine, and its Python."""
PACKAGES = (
    "bluez", "dbus", "initramfs-tools", "iproute2", "kmod", "linux-image-amd64", "mosquitto", "mosquitto-clients",
    "procps", "python3", "rfkill",
)  # fmt: skip
_QUIET = ('Acquire::Languages "none"', 'APT::Install-Recommends "false"')
_KERNEL = (
    "root=/dev/vda rw console=ttyS0 panic=-1 quiet mitigations=off audit=0 net.ifnames=0 "
    "module_blacklist=kvm,kvm_amd,kvm_intel,drm nowatchdog tsc=reliable no_timer_check"
)


def missing() -> str:
    """Why it cannot be built here; empty if it can."""
    if os.geteuid():
        return "building the virtual machine needs root"
    packages = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    return f"sudo apt install {' '.join(packages)}" if packages else ""


def image() -> Path:
    """The disk with Debian and all Python packages, built unless it was. Needs the network, and some minutes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = repr((SUITE, PACKAGES, project["dependencies"], (HERE / "init.sh").read_text("utf-8")))
    disk, stamp = BUILD / "disk.img", BUILD / "made-of"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return disk
    root = BUILD / "root"
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    tree(root, PACKAGES)
    platforms = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
    program(
        sys.executable, "-m", "pip", "install", "-q", "--target", str(root / "opt/site"), "--python-version", PYTHON,
        "--only-binary=:all:", *(f"--platform={platform}" for platform in platforms),
        *project["dependencies"], "bumble", "pip",
    )  # fmt: skip
    shutil.copy(HERE / "init.sh", root / "sbin/check-init")
    (root / "sbin/check-init").chmod(0o755)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((root / "boot").glob(f"{name}-*")), BUILD / name)
    with disk.open("wb") as file:
        file.truncate(3 << 30)
    program("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(disk))
    shutil.rmtree(root)
    stamp.write_text(wanted, "utf-8")
    return disk


def tree(root: Path, packages: Sequence[str]) -> None:
    """A small Debian in a folder. Needs the network."""
    options = [f"--aptopt={option}" for option in _QUIET]
    options += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "locale", "man")]
    program(
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}", *options, SUITE, str(root),
        "http://deb.debian.org/debian",
    )  # fmt: skip


def machine(build: Path, append: str) -> list[str]:
    """The command that boots the kernel in that folder; disks and devices are to be added."""
    return [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-machine", "q35",
        "-nodefaults", "-no-user-config", "-display", "none",
        "-kernel", str(build / "vmlinuz"), "-initrd", str(build / "initrd.img"), "-append", f"{_KERNEL} {append}",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def wheel(folder: Path) -> Path:
    """The wheel of what is checked out."""
    program(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    return next(folder.glob("edged-*.whl"))


def run(folder: Path, seconds: float) -> str:
    """Boot, check, power off; what the serial console said. Raises TimeoutExpired."""
    disk = image()
    with tarfile.open(folder / "host.tar", "w") as tar:
        for path in (HERE / "guest.py", HERE / "peripheral.py", wheel(folder)):
            tar.add(path, path.name)
    console = folder / "console.log"
    began = time.monotonic()
    program(
        *machine(BUILD, "init=/sbin/check-init"), "-no-reboot",
        "-drive", f"file={disk},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={folder / 'host.tar'},if=virtio,format=raw",
        "-serial", f"file:{console}",
        seconds=seconds,
    )  # fmt: skip
    return f"{console.read_text('utf-8', 'replace')}\n{time.monotonic() - began:.0f} s in the virtual machine"


def program(*command: str, seconds: float = 1800) -> None:
    """Raises CalledProcessError with what it said, and TimeoutExpired."""
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-3000:]}")
