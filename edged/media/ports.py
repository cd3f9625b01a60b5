"""Which serial ports there are, and which one a name in the configuration means.

Reads sysfs itself, since a USB adapter is told apart only by what is found there. `sysfs` and `dev` can point elsewhere
for tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
DEV = Path("/dev")
_MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class SerialPort:
    """One serial port of this machine."""

    path: str
    """Its device file, e.g. `/dev/ttyUSB0`."""
    vendor: str = ""
    """The USB vendor, four hexadecimal digits; empty if it is no USB adapter."""
    product: str = ""
    """The USB product, four hexadecimal digits."""
    serial: str = ""
    """The serial number of the USB adapter, if it has one."""
    description: str = ""
    """What the adapter calls itself, or the driver."""
    by_id: str = ""
    """Its link in /dev/serial/by-id."""
    by_path: str = ""
    """Its link in /dev/serial/by-path."""

    @property
    def name(self) -> str:
        """What to write as `port`: the name that survives replugging, as far as there is one."""
        if self.serial:
            return f"usb:{self.vendor}:{self.product}/{self.serial}"
        return self.by_path or (f"usb:{self.vendor}:{self.product}" if self.vendor else self.path)

    def __str__(self) -> str:
        details = ", ".join(text for text in (self.description, "" if self.name == self.path else self.path) if text)
        return f"{self.name} ({details})" if details else self.name


class NoPortError(LookupError):
    """No port, or more than one, fits the name. The message lists what there is."""


def list_ports(*, sysfs: Path = SYSFS, dev: Path = DEV) -> list[SerialPort]:
    """All serial ports that have hardware behind them, USB adapters first."""
    links = {folder: _links(dev / "serial" / folder) for folder in ("by-id", "by-path")}
    found = [_describe(entry, dev, links) for entry in _entries(sysfs)]
    return sorted(found, key=lambda port: (not port.vendor, port.path))


def find_port(name: str, *, sysfs: Path = SYSFS, dev: Path = DEV) -> tuple[str, str]:
    """The device file that `name` (a path or `usb:VID:PID[/serial]`) means now, and a warning or "".

    Raises NoPortError.
    """
    ports = list_ports(sysfs=sysfs, dev=dev)
    if name.startswith("usb:"):
        return _find_usb(name, ports)
    if not os.path.lexists(name):
        raise NoPortError(f"there is no port {name}: is the adapter plugged in? {candidates(ports)}")
    if not os.path.exists(name):  # noqa: PTH110  # beside lexists
        raise NoPortError(f"{name} leads nowhere: is the adapter plugged in? {candidates(ports)}")
    return name, _unstable(name, ports)


def candidates(ports: Sequence[SerialPort]) -> str:
    """The ports there are, as the end of a message."""
    if not ports:
        return "This machine has no serial port at all"
    more = f" and {len(ports) - _MOST_NAMED} more" if len(ports) > _MOST_NAMED else ""
    return "There are: " + ", ".join(map(str, ports[:_MOST_NAMED])) + more


def _find_usb(name: str, ports: Sequence[SerialPort]) -> tuple[str, str]:
    ids, _, serial = name.removeprefix("usb:").partition("/")
    vendor, _, product = ids.lower().partition(":")
    fits = [port for port in ports if (port.vendor, port.product) == (vendor, product)]
    fits = [port for port in fits if not serial or port.serial == serial]
    if not fits:
        raise NoPortError(f"there is no adapter {name}: is it plugged in? {candidates(ports)}")
    if len(fits) > 1:
        paths = ", ".join(port.by_path or port.by_id or port.path for port in fits)
        raise NoPortError(f"{len(fits)} ports are {name}: write the path of the one you mean, {paths}")
    port = fits[0]
    if not port.serial:
        where = port.by_path or "its path in /dev/serial/by-path"
        return port.path, (
            f"the adapter {name} has no serial number: a second one of its kind could not be told from it; "
            f"{where} names the USB socket instead"
        )
    return port.path, ""


def _unstable(name: str, ports: Sequence[SerialPort]) -> str:
    if not Path(name).name.startswith(("ttyUSB", "ttyACM")) or "/serial/" in name:
        return ""
    stable = next((port.name for port in ports if port.path == name and port.name != name), "")
    return f"the number in {name} may change when adapters are plugged; better write `port: {stable}`" if stable else ""


def _links(folder: Path) -> dict[str, str]:
    """Device file → link, of one folder of /dev/serial."""
    try:
        return {os.path.realpath(link): str(link) for link in sorted(folder.iterdir())}
    except OSError:
        return {}


def _entries(sysfs: Path) -> Iterator[Path]:
    """Those below /sys/class/tty that have hardware behind them."""
    try:
        entries = sorted((sysfs / "class" / "tty").iterdir())
    except OSError:
        return
    for entry in entries:
        if not (entry / "device").exists():
            continue  # consoles and pseudo terminals
        # The 8250 driver makes /dev/ttyS0 to ttyS3 whether there are such UARTs or not; type 0 means there is none.
        if _text(entry / "type") == "0":
            continue
        yield entry


def _describe(entry: Path, dev: Path, links: dict[str, dict[str, str]]) -> SerialPort:
    path = str(dev / entry.name)
    real = os.path.realpath(path)
    by_id, by_path = links["by-id"].get(real, ""), links["by-path"].get(real, "")
    device = (entry / "device").resolve()
    for folder in (device, *device.parents):
        if (folder / "idVendor").exists():
            names = (_text(folder / "manufacturer"), _text(folder / "product"))
            return SerialPort(
                path, _text(folder / "idVendor").lower(), _text(folder / "idProduct").lower(),
                _text(folder / "serial"), " ".join(name for name in names if name), by_id, by_path,
            )  # fmt: skip
    driver = (device / "driver").resolve().name if (device / "driver").exists() else ""
    return SerialPort(path, description=driver, by_id=by_id, by_path=by_path)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
