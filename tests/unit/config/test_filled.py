"""Secrets inside the configuration of buses and devices get their text before an adapter sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edged.config.plain import build, dump
from edged.config.secrets import filled
from edged.config.types import FileName, Secret
from edged.errors import ConfigError


@dataclass(frozen=True)
class Login:
    password: Secret


@dataclass(frozen=True)
class Device:
    key: Secret | None = None
    login: Login | None = None
    points: dict[str, int] = field(default_factory=dict)
    ca: FileName = FileName()


def test_every_secret_gets_its_text_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text("one=first\ntwo=second\n")
    (tmp_path / "secrets.env").chmod(0o600)
    device = Device(Secret(name="one"), Login(Secret(name="two")), {"p": 1})
    done = filled(device, base=tmp_path)
    assert done.key is not None
    assert done.login is not None
    assert (done.key.text, done.login.password.text) == ("first", "second")
    assert done.points is device.points
    assert "first" not in repr(done)


def test_without_secrets_it_is_the_same_object(tmp_path: Path) -> None:
    device = Device(points={"p": 1})
    assert filled(device, base=tmp_path) is device


def test_a_missing_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no secret `one`"):
        filled(Device(Secret(name="one")), base=tmp_path)


def test_a_file_is_looked_for_beside_the_configuration_unless_its_path_is_whole(tmp_path: Path) -> None:
    def place(text: str) -> str:
        device: Device = filled(build(Device, dump(Device(ca=FileName(text)))), base=tmp_path)
        return device.ca

    assert place("certs/ca.pem") == str(tmp_path / "certs/ca.pem")
    assert place("/etc/ssl/ca.pem") == "/etc/ssl/ca.pem"
    assert place("socket://127.0.0.1:15022") == "socket://127.0.0.1:15022"
    assert place("") == ""
