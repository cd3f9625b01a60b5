"""What is asked of drivers that hold back what they received. FTDI's does so for 16 ms."""

from __future__ import annotations

import ctypes
import os
import termios
from pathlib import Path

from edged.media.tty import ASYNC_LOW_LATENCY, ask_for_low_latency


class SerialStruct(ctypes.Structure):
    """The beginning of the kernel's (linux/serial.h)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("line", ctypes.c_int),
        ("port", ctypes.c_uint),
        ("irq", ctypes.c_int),
        ("flags", ctypes.c_int),
    )


class Driver:
    """A driver that keeps the flags it is given."""

    def __init__(self) -> None:
        self.settings = SerialStruct(type=4, line=1, port=0x3F8, irq=4, flags=1 << 4)
        self.asked: list[int] = []

    def ioctl(self, _fd: int, request: int, data: bytearray) -> None:
        self.asked.append(request)
        size = ctypes.sizeof(SerialStruct)
        if request == termios.TIOCGSERIAL:
            data[:size] = bytes(self.settings)
        else:
            self.settings = SerialStruct.from_buffer_copy(data)


def test_the_flag_is_set_and_everything_else_stays(tmp_path: Path) -> None:
    driver = Driver()
    ask_for_low_latency(0, "/dev/ttyS0", tmp_path, driver.ioctl)
    assert driver.asked == [termios.TIOCGSERIAL, termios.TIOCSSERIAL]
    settings = driver.settings
    assert settings.flags == ASYNC_LOW_LATENCY | 1 << 4
    assert (settings.type, settings.line, settings.port, settings.irq) == (4, 1, 0x3F8, 4)


def test_ftdis_timer_is_set_by_whatever_name_the_port_goes(tmp_path: Path) -> None:
    timer = tmp_path / "class" / "tty" / "ttyUSB7" / "device" / "latency_timer"
    timer.parent.mkdir(parents=True)
    timer.write_text("16\n", encoding="ascii")
    link = tmp_path / "by-id"
    link.symlink_to("/dev/ttyUSB7")
    ask_for_low_latency(0, str(link), tmp_path, Driver().ioctl)
    assert timer.read_text(encoding="ascii") == "1"


def test_an_adapter_without_such_switches_is_no_failure_and_gets_no_file(tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        ask_for_low_latency(slave, "/dev/ttyACM0", tmp_path)
    finally:
        os.close(master)
        os.close(slave)
    assert list(tmp_path.iterdir()) == []
