"""A private mosquitto on an ephemeral port of 127.0.0.1, with whatever configuration a test needs."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_START = 10.0


def find_mosquitto() -> str | None:
    """Where Debian puts it, a folder that is not in every user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/local/bin")


def free_port() -> int:
    """A port that nobody listens on. Kept over restarts, so that clients find the broker again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def password_file(path: Path, **users: str) -> Path:
    """A file for `password_file`, with these users and their passwords."""
    lines = []
    for user, password in users.items():
        digest = hashlib.pbkdf2_hmac("sha512", password.encode(), b"salt" * 3, 101, 64)
        lines.append(f"{user}:$7$101${b64encode(b'salt' * 3).decode()}${b64encode(digest).decode()}\n")
    path.write_text("".join(lines))
    return path


class Mosquitto:
    """A broker that runs while its context lasts. It can be stopped, killed and started again in between.

    `options` are lines for the whole broker, `listener` lines for its one listener (TLS, websockets, …).
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Sequence[str] = (),
        listener: Sequence[str] = (),
        persistence: bool = False,
        anonymous: bool = True,
    ) -> None:
        program = find_mosquitto()
        if program is None:
            pytest.skip("mosquitto is not installed: sudo apt install mosquitto")
        self._program = program
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        lines = ["user root"] if os.geteuid() == 0 else []
        lines += [f"allow_anonymous {str(anonymous).lower()}", "max_queued_messages 100000", *options]
        if persistence:
            lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        lines += [f"listener {self.port} 127.0.0.1", *listener]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the broker said so far."""
        return self._log.read_text()

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-v", "-c", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mosquitto does not start:\n{self.log}") from None
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it as its service manager would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START)
            self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_START)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
