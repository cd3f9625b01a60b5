"""Where secrets come from, and that they go nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.secrets import exposed, resolve
from edged.config.types import Secret
from edged.errors import ConfigError


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def test_the_places_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_SECRET_MQTT_CLOUD", "from-env\n")
    assert resolve(Secret("mqtt-cloud"), base=tmp_path) == "from-env"
    (tmp_path / "secrets.env").write_text("# comment\n\nother=1\nmqtt-cloud = from file \n")
    assert resolve(Secret("mqtt-cloud"), base=tmp_path) == "from file"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert resolve(Secret("mqtt-cloud"), base=tmp_path) == "from file"
    (credentials / "mqtt-cloud").write_text("from systemd\n")
    assert resolve(Secret("mqtt-cloud"), base=tmp_path) == "from systemd"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("x=a=b#c", "a=b#c"), ('x="a b "', "a b "), ("x='a'", "a"), ("x='", "'"), ("x=\"a'", "\"a'"),
        ("x=pässwörd", "pässwörd"), ("x=a\r", "a"),
    ],
)  # fmt: skip
def test_lines_of_the_file(tmp_path: Path, line: str, text: str) -> None:
    (tmp_path / "secrets.env").write_text(line + "\n", encoding="utf-8")
    assert resolve(Secret("x"), base=tmp_path) == text


def test_a_literal_secret_is_itself(tmp_path: Path) -> None:
    assert resolve(Secret(text="hunter2"), base=tmp_path) == "hunter2"


def test_a_missing_secret_names_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/edged.service")
    with pytest.raises(ConfigError) as raised:
        resolve(Secret("mqtt"), base=tmp_path)
    for place in ("/run/credentials/edged.service/mqtt", str(tmp_path / "secrets.env"), "EDGED_SECRET_MQTT"):
        assert place in str(raised.value)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\0b"])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "x").write_text("outside")
    if name:
        with pytest.raises(ConfigError):
            resolve(Secret(name), base=tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"x=\n", "is empty"), (b"just hunter2\n", ":1: this line is not NAME=value"), (b"x=\xff\n", "is not UTF-8")],
)
def test_a_broken_file_is_said_without_its_content(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "secrets.env").write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        resolve(Secret("x"), base=tmp_path)
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "secrets.env").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(Secret("x"), base=tmp_path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everybody_can_read_is_noticed(tmp_path: Path, mode: int, warned: bool) -> None:
    (tmp_path / "secrets.env").write_text("x=1\n")
    (tmp_path / "secrets.env").chmod(mode)
    assert bool(exposed(tmp_path)) is warned
