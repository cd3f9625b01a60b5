"""What Debian's own checker says of the package."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.system.service.site import built


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif("EDGED_SYSTEM_TEST" not in os.environ, reason="needs the package: `make system-test` builds it")
@pytest.mark.skipif(not shutil.which("lintian"), reason="sudo apt install lintian")
def test_lintian_finds_nothing_in_the_package() -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(built("edged_*.deb"))],
        check=False, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
