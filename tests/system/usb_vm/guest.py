"""Runs in the virtual machine, beside the service: what udev, systemd and edged make of an adapter that comes and goes.

The host reads the serial console. A line `HOST: …` asks it for what only it can do, such as pulling the adapter out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = Path("/dev/edged/0403-6001-EDGED0001")
BEFORE_RESET = Path("/root/before-reset")
TTY = Path("/sys/class/tty/ttyUSB0/device/latency_timer")


def say(line: str) -> None:
    with Path("/dev/ttyS0").open("w") as console:
        console.write(f"\n{line}\n")


def shell(command: str) -> str:
    done = subprocess.run(command, shell=True, check=False, capture_output=True, text=True, timeout=300)  # noqa: S602  # a shell is what is wanted
    return (done.stdout + done.stderr).strip()


def until(what: str, found: Callable[[], Any], seconds: float = 240.0) -> None:
    """Look until it is so, and tell how long that took."""
    began = time.monotonic()
    while not (value := found()):
        if time.monotonic() - began > seconds:
            say(f"FAILED {what}")
            say(
                shell("journalctl -u edged -n 25 --no-pager -o cat; systemctl status edged --no-pager; dmesg | tail -5")
            )
            sys.exit("FAILED")
        time.sleep(0.5)
    say(f"ok     {what}: {value if value is not True else ''} ({time.monotonic() - began:.1f} s)")


def status() -> dict[str, Any]:
    try:
        return dict(json.loads(shell("edged status --json")))
    except ValueError:
        return {}


def meter() -> dict[str, Any]:
    return next((one for bus in status().get("buses", []) for one in bus["devices"]), {})


def reads() -> bool:
    """Whether a poll has been answered since."""
    before = meter()
    time.sleep(3)
    after = meter()
    return after.get("health") == "ok" and after.get("polls", 0) > before.get("polls", 0)


def reasons() -> dict[str, int]:
    health = status().get("health") or {}
    return dict((health.get("restarts") or {}).get("by_reason", {}))


def adapter() -> None:
    until("the service runs, and no adapter was there when it started", lambda: bool(meter()) and not NAME.exists())
    say("HOST: plug")
    until("a name by vendor, product and serial number", NAME.exists)
    until("a name by the socket that it is plugged into", lambda: [*Path("/dev/edged").glob("at-*")])
    until("FTDI hands over what it has after 1 ms", lambda: TTY.read_text().strip() == "1")
    until("the device is read, through the sandbox", reads)
    say("HOST: unplug")
    until("the name is gone", lambda: not NAME.exists())
    until("the outage is told", lambda: meter().get("health") == "down")
    process = shell("systemctl show edged -P MainPID")
    say("HOST: plug")
    until("plugged in again: it is read again, nobody has to do anything", reads)
    until("by the same process", lambda: shell("systemctl show edged -P MainPID") == process)


def limits() -> None:
    until("systemd has set the limits", lambda: "infinity" not in shell("systemctl show edged -P MemoryMax"))
    shell("systemctl set-property --runtime edged MemoryHigh=infinity MemoryMax=12M")
    until("more memory than it may have: the kernel ends it", lambda: shell("systemctl show edged -P NRestarts") != "0")
    shell("systemctl set-property --runtime edged MemoryMax=infinity")
    until("the next start tells why", lambda: reasons().get("memory"))
    until("and reads again", reads)


def main() -> None:
    if BEFORE_RESET.exists():
        until("after a reset it starts by itself, and reads", reads)
        until("it knows that the machine was not shut down", lambda: reasons().get("power"))
        say("DONE: 0 failed")
        return
    adapter()
    limits()
    BEFORE_RESET.touch()
    shell("sync")
    say("HOST: reset")


main()
