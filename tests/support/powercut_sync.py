"""Writes and syncs, and nothing else: `python -m tests.support.powercut_sync PATH`. What the kernel's word is worth."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SIZE = 1048
"""Bytes: as a frame of the buffer's journal."""


def record(n: int) -> bytes:
    """The record `n`, from 1."""
    return n.to_bytes(8, "big") * (SIZE // 8)


def main(path: Path) -> None:
    """Append until nothing can be written any more. Every line is the kernel's promise, and when it was given."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    for n in range(1, 1_000_000):
        os.write(handle, record(n))
        os.fdatasync(handle)
        print(n, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
