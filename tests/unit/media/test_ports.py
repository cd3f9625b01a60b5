"""Ports found in a sysfs and a /dev made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.media import NoPortError, find_port, list_ports


class Machine:
    """A tree like that of a machine with USB adapters."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.dev = root / "sys", root / "dev"
        (self.sysfs / "class" / "tty").mkdir(parents=True)
        (self.dev / "serial" / "by-path").mkdir(parents=True)
        self.add_plain("ttyS0", "0")

    def add_plain(self, name: str, kind: str) -> None:
        """A UART on the board, or (`kind` 0) what the 8250 driver makes without there being one."""
        device = self.sysfs / "devices" / "platform" / name
        device.mkdir(parents=True)
        self._tty(name, device)
        (self.sysfs / "class" / "tty" / name / "type").write_text(kind)

    def add_usb(self, name: str, ids: str, serial: str = "", path: str = "") -> None:
        """A USB adapter, with the folders that ftdi_sio and cdc_acm make."""
        usb = self.sysfs / "devices" / "pci0" / "usb1" / f"1-{name}"
        device = usb / "1-1:1.0" / name
        device.mkdir(parents=True)
        vendor, product = ids.split(":")
        for file, text in (("idVendor", vendor), ("idProduct", product), ("product", "USB RS485"), ("serial", serial)):
            if text:
                (usb / file).write_text(text + "\n")
        self._tty(name, device)
        if path:
            (self.dev / "serial" / "by-path" / path).symlink_to(self.dev / name)

    def _tty(self, name: str, device: Path) -> None:
        entry = self.sysfs / "class" / "tty" / name
        entry.mkdir()
        (entry / "device").symlink_to(device)
        (self.dev / name).touch()

    def find(self, name: str) -> tuple[str, str]:
        return find_port(name, sysfs=self.sysfs, dev=self.dev)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_ports_without_hardware_are_not_listed(machine: Machine) -> None:
    machine.add_plain("ttyAMA0", "32")
    machine.add_usb("ttyUSB0", "0403:6001", "FT4XYZ")
    (machine.sysfs / "class" / "tty" / "tty1").mkdir()
    names = [port.name for port in list_ports(sysfs=machine.sysfs, dev=machine.dev)]
    assert names == ["usb:0403:6001/FT4XYZ", str(machine.dev / "ttyAMA0")]


def test_adapter_is_found_by_its_serial_number_whatever_its_device_file(machine: Machine) -> None:
    machine.add_usb("ttyUSB0", "0403:6001", "OTHER")
    machine.add_usb("ttyUSB1", "0403:6001", "FT4XYZ")
    assert machine.find("usb:0403:6001/FT4XYZ") == (str(machine.dev / "ttyUSB1"), "")


def test_adapter_without_serial_number_is_found_with_a_warning(machine: Machine) -> None:
    machine.add_usb("ttyUSB0", "1A86:7523", path="pci-0-usb-0:1.2:1.0-port0")
    path, warning = machine.find("usb:1a86:7523")
    assert path == str(machine.dev / "ttyUSB0")
    assert "no serial number" in warning
    assert "by-path" in warning


def test_two_adapters_that_cannot_be_told_apart_are_an_error_that_names_both(machine: Machine) -> None:
    machine.add_usb("ttyUSB0", "1a86:7523", path="first")
    machine.add_usb("ttyUSB1", "1a86:7523", path="second")
    with pytest.raises(NoPortError, match=r"2 ports are usb:1a86:7523.*first.*second"):
        machine.find("usb:1a86:7523")


def test_missing_adapter_is_an_error_that_lists_what_there_is(machine: Machine) -> None:
    machine.add_usb("ttyUSB0", "0403:6001", "FT4XYZ")
    with pytest.raises(NoPortError, match=r"usb:0403:6015/A.*plugged in.*usb:0403:6001/FT4XYZ \(USB RS485"):
        machine.find("usb:0403:6015/A")
    with pytest.raises(NoPortError, match="FT4XYZ"):
        machine.find(str(machine.dev / "ttyUSB7"))


def test_machine_without_ports_says_so(machine: Machine) -> None:
    with pytest.raises(NoPortError, match="no serial port at all"):
        machine.find("usb:0403:6001/A")


def test_dangling_link_is_told_from_a_missing_file(machine: Machine) -> None:
    link = machine.dev / "serial" / "by-path" / "gone"
    link.symlink_to(machine.dev / "ttyUSB9")
    with pytest.raises(NoPortError, match="leads nowhere"):
        machine.find(str(link))


def test_path_with_a_number_that_may_change_is_taken_with_a_warning(machine: Machine) -> None:
    machine.add_usb("ttyUSB0", "0403:6001", "FT4XYZ")
    path, warning = machine.find(str(machine.dev / "ttyUSB0"))
    assert path == str(machine.dev / "ttyUSB0")
    assert "port: usb:0403:6001/FT4XYZ" in warning
