"""Where a gateway opens its socket, and where it is looked for: the service, a person, a user nobody knows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged import paths
from edged.errors import ConfigError

NOBODY = 54_321
"""A user that the machine does not know."""
_BIND = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine: `run` is the service's folder, `user` that of whoever is logged in. Anybody may look at it."""
    for variable in ("EDGED_SOCKET", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    with tempfile.TemporaryDirectory() as folder:
        machine = Path(folder)
        machine.chmod(0o755)
        for name in ("run", "user"):
            (machine / name).mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine / "user"))
        yield machine


@pytest.fixture
def own(site: Path) -> Iterator[Path]:
    """The socket of a gateway that the user runs."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site / "user" / paths.SOCKET))
        listener.listen()
        yield site / "user" / paths.SOCKET


def test_a_gateway_of_ones_own_is_asked_although_the_service_is_installed(site: Path, own: Path) -> None:
    (site / "run" / paths.SOCKET).touch()
    assert paths.socket_path(system=site / "run") == own


def test_a_socket_that_a_killed_gateway_left_does_not_hide_the_service(site: Path) -> None:
    left, service = site / "user" / paths.SOCKET, site / "run" / paths.SOCKET
    subprocess.run([sys.executable, "-c", _BIND, str(left)], check=True)
    service.touch()
    assert left.is_socket()
    assert paths.socket_path(system=site / "run") == service
    service.unlink()
    assert paths.socket_path(system=site / "run") == left, "the message names the place that was meant"


def test_without_any_the_service_is_meant(site: Path) -> None:
    assert paths.socket_path(system=site / "run") == site / "run" / paths.SOCKET


@pytest.fixture
def stranger(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the test as a user without rights whom the machine does not know."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    (site / "run").chmod(0o755)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.usefixtures("stranger")
def test_where_the_service_is_installed_a_user_can_run_a_gateway_too(site: Path) -> None:
    assert paths.listening_path(system=site / "run") == site / "user" / paths.SOCKET


@pytest.mark.usefixtures("stranger")
def test_a_user_without_a_home_is_told_what_to_name(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--state"):
        paths.state_dir()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(ConfigError, match="--socket"):
        paths.listening_path(system=site / "run")
    assert paths.socket_path(system=site / "run") == site / "run" / paths.SOCKET
