"""Parity that arrives is looked at: for some protocols it is the only check there is."""

from __future__ import annotations

import os
import termios
from pathlib import Path

from edged.media import LineSettings
from edged.media.tty import check_parity, close_tty, open_tty


def checks(fd: int) -> bool:
    return bool(termios.tcgetattr(fd)[0] & termios.INPCK)


def test_the_driver_is_told_to_check_the_parity() -> None:
    master, slave = os.openpty()
    try:
        assert not checks(slave)
        check_parity(slave)
        assert checks(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_a_line_with_parity_checks_it_and_one_without_does_not() -> None:
    for parity, expected in (("none", False), ("even", True), ("odd", True)):
        master, slave = os.openpty()
        path = Path(os.ttyname(slave))
        try:
            port, _, _ = open_tty(LineSettings(port=str(path), parity=parity))  # type: ignore[arg-type]  # one of its words
            assert checks(port.fileno()) is expected
            close_tty(port)
        finally:
            os.close(master)
            os.close(slave)
