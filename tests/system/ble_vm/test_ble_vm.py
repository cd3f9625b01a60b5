"""edged on a real kernel with a real bluetoothd, and a sensor in software: `make system-test-ble`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.system.ble_vm import vm

_SECONDS = 1500.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    "EDGED_BLE_VM" not in os.environ,
    reason="boots a virtual machine and builds it first: `make system-test-ble` does it",
)
def test_the_wheel_hears_reads_and_heals_on_a_real_kernel(tmp_path: Path) -> None:
    assert not vm.missing()
    try:
        console = vm.run(tmp_path, _SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail((tmp_path / "console.log").read_text("utf-8", "replace")[-5000:])
    print(console)
    assert "DONE: 0 failed" in console, console[-5000:]
    assert "FAILED" not in console
