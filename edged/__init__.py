"""edged: an edge gateway that polls field devices and forwards every reading upstream."""

__version__ = "0.1.0"
