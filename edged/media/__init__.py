"""Media that several adapters share. They move bytes and know no protocol; adapters may import them.

`Medium` is a serial line: a port of this machine, or one behind a serial server.
"""

from __future__ import annotations

from .ports import NoPortError, SerialPort, candidates, find_port, list_ports
from .ring import Frame, FrameRing
from .serial import Chunk, Medium
from .settings import LineSettings, Parity, check_port
from .timer import PreciseTimer
from .tty import LineErrors

__all__ = [
    "Chunk", "Frame", "FrameRing", "LineErrors", "LineSettings", "Medium", "NoPortError", "Parity", "PreciseTimer",
    "SerialPort", "candidates", "check_port", "find_port", "list_ports",
]  # fmt: skip
