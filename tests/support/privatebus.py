"""A D-Bus of a test's own, which everything in its process takes for the system's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
{more}</policy></busconfig>"""


def dbus_daemon() -> str | None:
    """Where Debian's dbus-daemon is; None if it is not installed."""
    return shutil.which("dbus-daemon")


class PrivateBus:
    """A D-Bus system bus that can be stopped and started again at the same address."""

    def __init__(self, folder: Path, policy: str = "") -> None:
        self.path = folder / "bus"
        self._config = folder / "dbus.conf"
        self._config.write_text(_CONFIG.format(path=self.path, more=policy), encoding="utf-8")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        program = dbus_daemon()
        assert program is not None
        self.path.unlink(missing_ok=True)
        command = [program, f"--config-file={self._config}", "--nofork", "--print-address=1"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def private_bus(folder: Path, policy: str = "") -> Iterator[PrivateBus]:
    """A private bus that everything in this process takes for the system's."""
    bus = PrivateBus(folder, policy)
    before = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={bus.path}"
    bus.start()
    try:
        yield bus
    finally:
        bus.stop()
        if before is None:
            del os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
        else:
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = before
