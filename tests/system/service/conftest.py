"""A gateway on a booted Debian, and what stands around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.service import machine
from tests.system.service.machine import Machine
from tests.system.service.site import Site


@pytest.fixture
def network() -> Iterator[int]:
    """A network of their own; skips where this computer cannot boot a guest."""
    reason = machine.missing()
    if reason:
        pytest.skip(reason)
    with machine.network() as pid:
        yield pid


@pytest.fixture
def site(tmp_path: Path, network: int) -> Iterator[Site]:
    """Broker, devices and receiver: to be asked for before the guest, which is to find them."""
    folder = tmp_path / "site"
    folder.mkdir()
    with Site(folder, network).open() as around:
        yield around


@pytest.fixture
def guest(tmp_path: Path, network: int) -> Iterator[Machine]:
    """A booted Debian without edged."""
    with machine.guest(tmp_path, network) as booted:
        booted.furnish()
        booted.switch_on()
        yield booted
