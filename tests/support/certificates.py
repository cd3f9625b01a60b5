"""Certificates for TLS tests, made by the `openssl` command. Skips the test, with the reason, where there is none."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str = "ca"

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @classmethod
    def make(cls, folder: Path, name: str = "ca") -> Authority:
        """A new one."""
        folder.mkdir(exist_ok=True)
        authority = cls(folder, name)
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", authority.certificate,
        )  # fmt: skip
        return authority

    def issue(self, name: str, alternatives: str) -> tuple[Path, Path]:
        """A certificate for e.g. `DNS:plc.test,IP:127.0.0.1`, and its key."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / f"{self.name}.key",
            "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no `openssl` command: apt install openssl")
    result = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )  # our own command
    assert result.returncode == 0, result.stderr
