"""Compiles the C programs that tests talk to, once per content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def compiled(source: Path, *flags: str, needs: str = "gcc", missing: tuple[str, ...] = ()) -> Path:
    """The program built from `source`.

    Skips the test, with the reason, where there is no compiler, or where its complaint contains one of the words in
    `missing`: then the Debian packages `needs` are not installed.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(f"no C compiler: apt install gcc {needs}")
    digest = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    program = Path(tempfile.gettempdir()) / f"edged-{source.stem}-{os.getuid()}-{digest}"
    if program.exists():
        return program
    staged = program.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-Wall", "-Wextra", str(source), "-o", str(staged), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        if any(word in result.stderr for word in missing):
            pytest.skip(f"a library for this test is not installed: apt install {needs}")
        raise AssertionError(result.stderr)
    staged.rename(program)
    return program
