"""Media that several adapters share. They move bytes and know no protocol; adapters may import them.

`Medium` is a serial line: a port of this machine, or one behind a serial server. What configuration needs is loaded at
once, the rest when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .settings import LineSettings, Parity, check_port

if TYPE_CHECKING:
    from .notes import Defect, FrameNote, NoteKind, Part
    from .ports import NoPortError, SerialPort, candidates, find_port, list_ports
    from .remote import SocketPort
    from .ring import Frame, FrameRing, LineErrors
    from .serial import Chunk, Medium
    from .timer import Alarm, PreciseTimer, held_up

__all__ = [
    "Alarm", "Chunk", "Defect", "Frame", "FrameNote", "FrameRing", "LineErrors", "LineSettings", "Medium",
    "NoPortError", "NoteKind", "Parity", "Part", "PreciseTimer", "SerialPort", "SocketPort", "candidates", "check_port",
    "find_port", "held_up", "list_ports",
]  # fmt: skip

_WHERE = {
    "NoPortError": "ports", "SerialPort": "ports", "candidates": "ports", "find_port": "ports", "list_ports": "ports",
    "Defect": "notes", "FrameNote": "notes", "NoteKind": "notes", "Part": "notes",
    "SocketPort": "remote",
    "Frame": "ring", "FrameRing": "ring", "LineErrors": "ring",
    "Chunk": "serial", "Medium": "serial",
    "Alarm": "timer", "PreciseTimer": "timer", "held_up": "timer",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
