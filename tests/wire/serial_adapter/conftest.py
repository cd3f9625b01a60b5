from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edged.config.load import load
from edged_serial import SERIAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edged_serial.bus import Bus

Opened = Callable[..., "AbstractAsyncContextManager[Bus]"]
Configured = Callable[..., tuple[Any, dict[str, Any]]]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """(bus, devices) from the YAML of some devices on one line."""

    def make(port: str, bus: str = "", **devices: str) -> tuple[Any, dict[str, Any]]:
        path = tmp_path / "edged.yaml"
        listed = "".join(f"  {name}:\n    bus: line\n{_indented(text)}" for name, text in devices.items())
        settings = f"{{adapter: serial, port: {port}{bus}}}"
        path.write_text(f"gateway: {{id: test}}\nbuses:\n  line: {settings}\ndevices:\n{listed}", encoding="utf-8")
        loaded = load(path)
        assert loaded.config is not None, loaded.problems
        return loaded.config.buses["line"], dict(loaded.config.devices)

    return make


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip("\n").splitlines())


@pytest.fixture
def opened(configured: Configured) -> Opened:
    """A bus with some devices, closed at the end."""

    @asynccontextmanager
    async def make(port: str, bus: str = "", **devices: str) -> AsyncIterator[Bus]:
        one = SERIAL.open("line", *configured(port, bus, **devices))
        try:
            yield one
        finally:
            await one.close()

    return make
