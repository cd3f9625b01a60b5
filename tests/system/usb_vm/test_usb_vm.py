"""A real kernel with a real USB adapter (QEMU's FTDI) that is pulled out and put in: `make system-test-usb`.

The package is installed in a Debian with udev and systemd. Behind the adapter answers a Modbus device on this side.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.rogue import Rogue, good
from tests.system.ble_vm import vm
from tests.system.service.site import ROOT, built

HERE = Path(__file__).parent
BUILD = ROOT / ".build/usb-vm"
PACKAGES = (
    "dbus", "init-system-helpers", "initramfs-tools", "kmod", "linux-image-amd64", "procps", "python3", "systemd-sysv",
    "udev",
)  # fmt: skip
CONFIG = """\
gateway: {id: plant-7}
buses: {line: {adapter: modbus-rtu, port: "usb:0403:6001/EDGED0001", baudrate: 115200}}
devices: {meter: {bus: line, unit: 1, every: 1s, timeout: 3s, points: {power: {holding: 7}}}}
"""
CHECK = """\
[Service]
ExecStart=/usr/bin/python3 /root/guest.py
[Install]
WantedBy=multi-user.target
"""
_SECONDS = 1500.0


def disk() -> Path:
    """Debian with the package that is under test. Needs the network the first time."""
    base, root, image = BUILD / "base", BUILD / "root", BUILD / "disk.img"
    if not (base / "usr/bin/python3").exists():
        shutil.rmtree(BUILD, ignore_errors=True)
        BUILD.mkdir(parents=True)
        vm.tree(base, PACKAGES)
    shutil.rmtree(root, ignore_errors=True)
    vm.program("cp", "-a", str(base), str(root))
    package = built("edged_*.deb")
    shutil.copy(package, root / "root")
    vm.program("chroot", str(root), "dpkg", "-i", f"/root/{package.name}")
    (root / "root" / package.name).unlink()
    (root / "etc/edged/edged.yaml").write_text(CONFIG)
    shutil.copy(HERE / "guest.py", root / "root")
    (root / "etc/systemd/system/check.service").write_text(CHECK)
    vm.program("systemctl", f"--root={root}", "enable", "check.service")
    vm.program("systemctl", f"--root={root}", "mask", "serial-getty@ttyS0.service")
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((root / "boot").glob(f"{name}-*")), BUILD / name)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(3 << 30)
    vm.program("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(image))
    return image


class Monitor:
    """QEMU's own console."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, execute: str, **arguments: str) -> None:
        """Have a command carried out."""
        self._writer.write(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        while "return" not in (answer := json.loads(await self._reader.readline())):
            assert "error" not in answer, answer

    async def serve(self, request: str) -> None:
        """What the guest asks for."""
        if request == "plug":
            adapter = {
                "driver": "usb-serial",
                "id": "adapter",
                "chardev": "line",
                "bus": "xhci.0",
                "serial": "EDGED0001",
            }
            await self.say("device_add", **adapter)
        elif request == "unplug":
            await self.say("device_del", id="adapter")
        else:
            await self.say("system_reset")


async def watched(process: asyncio.subprocess.Process, folder: Path) -> str:
    """Do what the guest asks for until it has done; what it said."""
    console, monitor = folder / "console.log", folder / "monitor"
    while not monitor.exists():
        await asyncio.sleep(0.1)
    reader, writer = await asyncio.open_unix_connection(monitor)
    await reader.readline()
    qemu = Monitor(reader, writer)
    await qemu.say("qmp_capabilities")
    served, until = 0, time.monotonic() + _SECONDS
    while time.monotonic() < until and process.returncode is None:
        said = console.read_text("utf-8", "replace") if console.exists() else ""
        requests = [line.strip().removeprefix("HOST: ") for line in said.splitlines() if line.startswith("HOST: ")]
        for request in requests[served:]:
            await qemu.serve(request)
        served = len(requests)
        if "DONE:" in said or "FAILED" in said:
            break
        await asyncio.sleep(0.2)
    writer.close()
    return console.read_text("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    "EDGED_USB_VM" not in os.environ,
    reason="boots a virtual machine and builds it first: `make system-test-usb` does it",
)
async def test_an_adapter_comes_and_goes_on_a_real_kernel(tmp_path: Path) -> None:
    assert not vm.missing()
    image = await asyncio.to_thread(disk)
    async with Rogue([good], framing="rtu") as device:
        process = await asyncio.create_subprocess_exec(
            *vm.machine(BUILD, ""), "-drive", f"file={image},if=virtio,format=raw,snapshot=on",
            "-device", "qemu-xhci,id=xhci", "-chardev", f"socket,id=line,host=127.0.0.1,port={device.port},reconnect=1",
            "-serial", f"file:{tmp_path}/console.log", "-qmp", f"unix:{tmp_path}/monitor,server=on,wait=off",
        )  # fmt: skip
        try:
            console = await watched(process, tmp_path)
        finally:
            process.kill()
            await process.wait()
    lines = [line for line in console.splitlines() if line.startswith(("ok ", "FAILED", "DONE"))]
    print("\n".join(lines))
    assert "DONE: 0 failed" in console, console[-5000:]
    assert device.requests
