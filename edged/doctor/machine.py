"""The machine: groups, ports, Bluetooth, clock, disk, temperature, supply. Looks, and changes nothing.

`root` stands for `/`, so that tests can show it another machine.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edged.backup import place
from edged.config.model import Config
from edged.errors import ConfigError
from edged.health.machine import machine
from edged.media import find_port
from edged.media.ports import NoPortError
from edged.timesync import RELEASED, kernel_synchronised

from .check import Check, ok, problem, skipped, warning

_HOT, _TOO_HOT = 70.0, 80.0
"""Degrees Celsius; a Pi slows down at 80."""
_WORN, _WORN_OUT = 8, 10
"""eMMC life time estimate in tenths: 0x08 is 70-80 % used, 0x0A 90-100 %."""
_LITTLE = 64 * 2**20
_SHARE = 0.1


def check_machine(config: Config | None, state: Path, root: Path = Path("/")) -> Iterator[Check]:
    """Everything about the machine."""
    yield check_groups(config)
    yield from check_ports(config, root)
    yield from check_bluetooth(config, root)
    yield check_clock(root)
    yield check_disk(config, state)
    yield check_wear(root)
    yield check_temperature(root)
    yield check_supply(root)
    if config is not None and config.backup.directory:
        yield check_backups(config, root)


def _uses(config: Config | None, *adapters: str) -> bool:
    return config is not None and any(bus.adapter in adapters and bus.enabled for bus in config.buses.values())


def _serial_buses(config: Config | None) -> list[tuple[str, Any]]:
    return [
        (name, bus)
        for name, bus in (config.buses.items() if config else ())
        if bus.enabled and hasattr(bus, "port") and hasattr(bus, "baudrate") and isinstance(bus.port, str)
    ]


def check_groups(config: Config | None) -> Check:
    """Whether this user may open serial ports."""
    name = "groups"
    if not _serial_buses(config):
        return skipped(name, "no serial bus is configured")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        return ok(name, "you are root, who may open every port; the service runs as `edged`")
    groups = {_group_name(number) for number in os.getgroups()}
    if "dialout" in groups:
        return ok(name, f"{user} is in dialout")
    return warning(
        name, f"{user} is not in the group dialout, which serial ports belong to",
        f"sudo usermod -aG dialout {user}, and log in again; the service `edged` has its own groups",
    )  # fmt: skip


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def check_ports(config: Config | None, root: Path) -> Iterator[Check]:
    """The port of each serial bus: there, readable, not the console."""
    buses = _serial_buses(config)
    if not buses:
        yield skipped("ports", "no serial bus is configured")
    for bus, settings in buses:
        name = f"port {bus}"
        if settings.port.startswith(("socket://", "rfc2217://")):
            yield skipped(name, f"{settings.port} is behind a serial server")
            continue
        try:
            path, warned = find_port(settings.port, sysfs=root / "sys", dev=root / "dev")
        except NoPortError as exc:
            yield problem(name, str(exc), "plug the adapter in, or correct `port`; `edged serial ports` lists them")
            continue
        yield _port(name, Path(path), warned)
        yield from _latency(bus, Path(path), settings, root)


def _port(name: str, path: Path, warned: str) -> Check:
    mode = path.stat()
    if not stat.S_ISCHR(mode.st_mode):
        return problem(name, f"{path} is no serial port", "correct `port`; `edged serial ports` lists them")
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group_name(mode.st_gid)
        return problem(
            name, f"you may not open {path}: it belongs to the group {group}", f"sudo usermod -aG {group} $USER"
        )
    if warned:
        return warning(name, warned, "write the name that survives replugging")
    return ok(name, f"{path} is there and may be opened")


def latency_of(path: Path, root: Path = Path("/")) -> int | None:
    """The latency timer of a USB adapter in ms; None if it has none that can be read."""
    text = _read(root / "sys/bus/usb-serial/devices" / path.resolve().name / "latency_timer")
    return int(text) if text.isdigit() else None


def _latency(bus: str, path: Path, settings: Any, root: Path) -> Iterator[Check]:
    latency = latency_of(path, root)
    if latency is None:
        return
    if latency > 1 and not settings.low_latency:
        yield warning(
            f"latency {bus}", f"the adapter holds bytes back for up to {latency} ms", "remove `low_latency: false`"
        )
    elif latency > 1:
        yield warning(
            f"latency {bus}",
            f"the adapter holds bytes back for up to {latency} ms; it is asked not to when it is opened",
            "if that stays so while the gateway runs, let its group write latency_timer (docs/how-to/serial-ports.md)",
        )
    else:
        yield ok(f"latency {bus}", f"the latency timer is {latency} ms")


def check_bluetooth(config: Config | None, root: Path) -> Iterator[Check]:
    """D-Bus, bluetoothd and the radio, without talking to either."""
    if not _uses(config, "ble"):
        yield skipped("bluetooth", "no radio is configured")
        return
    bus = root / "run/dbus/system_bus_socket"
    if not bus.exists():
        yield problem(
            "d-bus", f"there is no {bus}", "sudo apt install dbus; in a container, mount /run/dbus from the host"
        )
        return
    yield ok("d-bus", "the system bus is there")
    radios = sorted(path.name for path in (root / "sys/class/bluetooth").glob("hci[0-9]*"))
    if not any(":" not in radio for radio in radios):
        yield problem("radio", "this machine has no Bluetooth radio", "plug one in; see docs/how-to/ble-radio.md")
        return
    for switch in sorted((root / "sys/class/rfkill").glob("rfkill*")):
        if _read(switch / "type") == "bluetooth" and (_read(switch / "soft") == "1" or _read(switch / "hard") == "1"):
            yield problem(
                "radio",
                f"the radio {_read(switch / 'name')} is switched off by rfkill",
                "sudo rfkill unblock bluetooth",
            )
            return
    yield ok("radio", f"there is {', '.join(radio for radio in radios if ':' not in radio)}")


def check_clock(root: Path) -> Check:
    """Whether the clock can be right, and somebody sets it."""
    now = time.time()
    if now * 1e6 < RELEASED:
        return problem(
            "clock",
            f"it shows {time.strftime('%Y-%m-%d', time.gmtime(now))}",
            "connect a time server: timedatectl set-ntp true",
        )
    if kernel_synchronised() or (root / "run/systemd/timesync/synchronized").exists():
        return ok("clock", "it is set, and kept right by a time service")
    rtc = next(iter(sorted((root / "sys/class/rtc").glob("rtc*"))), None)
    if rtc is not None:
        return warning("clock", "no time service keeps it right, but there is a clock chip", "timedatectl set-ntp true")
    return warning(
        "clock", "no time service keeps it right, and there is no clock chip: after a power cut it will be wrong",
        "timedatectl set-ntp true, and give the machine a way to a time server",
    )  # fmt: skip


def check_disk(config: Config | None, state: Path) -> Check:
    """Room where the buffer lies."""
    place = Path(config.buffer.path).parent if config and config.buffer.path else state
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    least = int(config.buffer.min_free) if config else _LITTLE
    text = f"{usage.free / 2**20:,.0f} of {usage.total / 2**20:,.0f} MiB are free at {place}"
    if usage.free <= least:
        return problem(
            "disk", f"{text}; below {least / 2**20:.0f} MiB nothing is stored any more", "make room, or move the buffer"
        )
    if usage.free < _SHARE * usage.total and usage.free < 10 * least:
        return warning("disk", text, "make room before it is full")
    return ok("disk", text)


def check_wear(root: Path) -> Check:
    """The life that an eMMC says it has left. SD cards do not tell."""
    for path in sorted((root / "sys/block").glob("mmcblk*/device/life_time")):
        disk = path.parts[-3]
        grades = [int(word, 16) for word in _read(path).split() if word.startswith("0x")]
        if not grades or not max(grades):
            continue
        grade = max(grades)
        text = (
            f"{disk} has used {10 * (grade - 1)}-{10 * grade} % of its life"
            if grade <= _WORN_OUT
            else f"{disk} has outlived itself"
        )
        if grade > _WORN_OUT or _read(path.with_name("pre_eol_info")) == "0x03":
            return problem("wear", text, "replace it now, and copy the buffer first (edged buffer export)")
        if grade > _WORN:
            return warning("wear", text, "plan to replace it")
        return ok("wear", text)
    return skipped("wear", "no eMMC that tells its age (SD cards do not)")


def check_temperature(root: Path) -> Check:
    """The hottest thermal zone."""
    hottest = machine(root).temperature
    if hottest is None:
        return skipped("temperature", "no sensor here")
    if hottest >= _TOO_HOT:
        return problem("temperature", f"{hottest:.0f} °C: the processor slows down", "give it air, or a heat sink")
    if hottest >= _HOT:
        return warning("temperature", f"{hottest:.0f} °C", "give it air; at 80 °C a Pi slows down")
    return ok("temperature", f"{hottest:.0f} °C")


def check_supply(root: Path) -> Check:
    """What the firmware of a Raspberry Pi says of supply and heat, now and since it was started."""
    suffered = machine(root).throttled
    if suffered is None:
        return skipped("supply", "this is no Raspberry Pi, or its kernel does not tell")
    if any(one.startswith("under-voltage") for one in suffered):
        return problem(
            "supply", "the Pi has seen under-voltage since it started",
            "use the official supply and a short thick cable: under-voltage corrupts cards and USB adapters",
        )  # fmt: skip
    if suffered:
        return warning("supply", f"the Pi was slowed down since it started: {', '.join(suffered)}", "give it air")
    return ok("supply", "no under-voltage since it started")


def check_backups(config: Config, root: Path) -> Check:
    """Whether those that are to be made by themselves are."""
    folder = Path(config.backup.directory)
    try:
        place.check(folder, root)
    except ConfigError as exc:
        return problem("backup", str(exc), "journalctl -u edged-backup; docs/how-to/backup.md")
    found = [one for one in place.kept(folder, str(config.gateway.id)) if one.manifest is not None]
    if not found:
        return warning("backup", f"there is none of this gateway in {folder}", "sudo edged backup create")
    age = time.time() - found[-1].time.timestamp()
    text = f"the newest of {len(found)} in {folder} is {age / 3600:,.0f} h old"
    if age > 2 * config.backup.every:
        return warning("backup", text, "systemctl status edged-backup.timer; journalctl -u edged-backup")
    return ok("backup", text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
