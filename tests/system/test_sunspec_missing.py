"""Without the extra `sunspec`: told by `edged check`, and only the device's failure while running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_WITHOUT = "import sys; sys.modules['sunspec2'] = None; from edged.cli import main; main()"
_CONFIG = """\
gateway: {id: g}
buses: {b: {adapter: modbus-tcp, host: 127.0.0.1, port: 1}}
devices:
  inverter: {bus: b, profile: sunspec}
"""


def test_the_missing_package_is_named_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "edged.yaml"
    file.write_text(_CONFIG)
    result = subprocess.run(
        [sys.executable, "-c", _WITHOUT, "check", str(file)], check=False, capture_output=True, text=True, timeout=50
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert f"{file}:4:3: devices.inverter: SunSpec devices need the definitions" in result.stderr
    assert "pip install 'edged[sunspec]'" in result.stderr
