"""Certificates right and wrong for TLS towards a broker, made by the `openssl` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_CURVE = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Pki:
    """A certificate authority in a folder, and what it issued."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no `openssl` command: sudo apt install openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "authority.pem"
        self.key = folder / "authority.key"
        _openssl("genpkey", *_CURVE, "-out", self.key)
        subject = f"/CN=authority {folder.name}"
        _openssl("req", "-x509", "-new", "-key", self.key, "-days", "30", "-subj", subject, "-out", self.certificate)

    def issue(self, name: str, *names: str, days: int = 30, passphrase: str = "") -> tuple[Path, Path]:
        """(certificate, key) of a peer with subject alternative names such as `IP:127.0.0.1`."""
        key, request, certificate = (self._folder / f"{name}.{suffix}" for suffix in ("key", "csr", "pem"))
        _openssl("genpkey", *_CURVE, "-out", key)
        _openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "basicConstraints=CA:FALSE\n")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        if passphrase:
            _openssl("ec", "-in", key, "-aes256", "-passout", f"pass:{passphrase}", "-out", key)
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
