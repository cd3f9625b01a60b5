from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.fakebluez import FakeBluez
from tests.support.privatebus import PrivateBus, dbus_daemon, private_bus


@pytest.fixture
def daemon() -> None:
    if dbus_daemon() is None:
        pytest.skip("there is no dbus-daemon: sudo apt install dbus-daemon")


@pytest.fixture
def dbus(daemon: None, tmp_path: Path) -> Iterator[PrivateBus]:
    with private_bus(tmp_path) as bus:
        yield bus


@pytest.fixture
async def bluez(dbus: PrivateBus) -> AsyncIterator[FakeBluez]:
    fake = await FakeBluez().start()
    yield fake
    if fake.running:
        fake.stop()
