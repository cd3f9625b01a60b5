"""`edged scan`: what is there. One command per kind of bus, imported only when it is used."""

from __future__ import annotations

import click

from edged.cli import LazyGroup

SCANS = {
    "modbus": ("edged.cli.scan_modbus:scan", "Find Modbus devices on a line or at a host, and write their YAML."),
    "ble": ("edged.cli.ble:scan", "List the Bluetooth sensors in range."),
    "serial": ("edged.cli.serial:scan", "Find M-Bus devices on a serial line."),
}
"""As `edged.cli.COMMANDS`."""


@click.group(cls=LazyGroup, table=SCANS, short_help="Find what is there: Bluetooth sensors, devices on a serial line.")
def scan() -> None:
    """Find what is there, with what the configuration needs to read it.

    `edged ble scan` and `edged serial scan` are the same commands. A device that only talks, in a format that nobody
    knows, is for `edged serial learn`.
    """
