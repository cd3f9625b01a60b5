from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edged.config.load import load

Make = Callable[[str], Any]


@pytest.fixture
def device_of(tmp_path: Path) -> Make:
    """The configuration of one device from YAML, as `edged check` reads it."""

    def make(settings: str) -> Any:
        path = tmp_path / "edged.yaml"
        indented = "\n".join("    " + line for line in settings.strip("\n").splitlines())
        path.write_text(
            f"gateway: {{id: test}}\nbuses:\n  line: {{adapter: serial, port: /dev/ttyS0}}\n"
            f"devices:\n  thing:\n    bus: line\n{indented}\n",
            encoding="utf-8",
        )
        loaded = load(path)
        if loaded.config is None:
            raise ValueError("\n".join(str(problem) for problem in loaded.problems))
        return loaded.config.devices["thing"]

    return make
