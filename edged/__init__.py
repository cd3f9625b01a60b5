"""edged: an edge gateway that polls field devices and forwards every reading upstream."""

from __future__ import annotations

__version__ = "0.1.0"
