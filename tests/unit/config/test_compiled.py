"""The cache: true or not used. Real child processes, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.config.compiled import StaleError, compiled, load_compiled, restore, store
from edged.config.inputs import Inputs, digest
from edged.config.load import load
from edged.config.model import Config
from edged.errors import ConfigError

YAML = """\
include: more.yaml
gateway: {id: "${EDGED_TEST_ID:-plant-7}", site: {timezone: Europe/Berlin}}
buses:
  lab: {adapter: sim}
  plc: {adapter: modbus-tcp, host: 192.0.2.10}
devices:
  oven: {bus: lab, every: 500ms, points: {t: {unit: °C, range: [-.inf, 90], deadband: 1%}, u: {waveform: ramp}}}
  meter: {bus: plc, unit: 1, profile: mine, points: {m: {holding: 1, enum: {0: off, 1: on}, map: null}}}
connections:
  cloud: {connector: mqtt, url: mqtts://b, username: me, password: !secret mqtt}
"""
MORE = "buffer: {max_bytes: 64MB}\n"
PROFILE = "profile: mine\npoints: {p: {input: 5, type: float32}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.yaml").write_text(PROFILE)
    (tmp_path / "more.yaml").write_text(MORE)
    (tmp_path / "edged.yaml").write_text(YAML)
    return tmp_path / "edged.yaml"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cache"


def cached_file(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


def direct(path: Path) -> tuple[Config, bytes]:
    """Compiled in this process."""
    result = load(path)
    assert result.config is not None, result.problems
    return result.config, compiled(result.config, result.inputs)


def test_the_second_start_uses_what_the_first_one_found(path: Path, cache: Path) -> None:
    first = load_compiled(path, cache)
    written = cached_file(cache).stat()
    assert load_compiled(path, cache) == first == load(path).config
    assert cached_file(cache).stat().st_ino == written.st_ino
    assert written.st_mode & 0o777 == 0o600


def test_the_running_daemon_needs_neither_yaml_nor_pydantic(path: Path, cache: Path) -> None:
    load_compiled(path, cache)
    code = (
        "import sys; from pathlib import Path; from edged.config.compiled import load_compiled\n"
        f"load_compiled(Path({str(path)!r}), Path({str(cache)!r}))\n"
        "print([name for name in ('pydantic', 'pydantic_core', 'ruamel.yaml', 'rich') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )  # our own code
    assert said.stdout == "[]\n"


def change_main(path: Path) -> None:
    path.write_text(YAML.replace("500ms", "250ms"))


def change_include(path: Path) -> None:
    (path.parent / "more.yaml").write_text("buffer: {max_bytes: 65MB}\n")


def add_to_conf_d(path: Path) -> None:
    (path.parent / "conf.d").mkdir()
    (path.parent / "conf.d/one.yaml").write_text("control: {socket: /run/x}\n")


def change_profile(path: Path) -> None:
    (path.parent / "profiles/mine.yaml").write_text(PROFILE.replace("5", "6"))


def remove_profile(path: Path) -> None:
    (path.parent / "profiles/mine.yaml").unlink()


@pytest.mark.parametrize("change", [change_main, change_include, add_to_conf_d, change_profile, remove_profile])
def test_what_changed_is_noticed(path: Path, change: object) -> None:
    _, content = direct(path)
    restore(content)
    assert callable(change)
    change(path)
    with pytest.raises(StaleError, match="has changed"):
        restore(content)


def test_a_changed_variable_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, content = direct(path)
    monkeypatch.setenv("EDGED_TEST_ID", "other")
    with pytest.raises(StaleError, match="has changed"):
        restore(content)
    _, content = direct(path)
    assert restore(content).gateway.id == "other"
    monkeypatch.delenv("EDGED_TEST_ID")
    with pytest.raises(StaleError, match="has changed"):
        restore(content)


def test_a_profile_that_comes_before_the_adapters_is_noticed(path: Path) -> None:
    path.write_text(YAML.replace("profile: mine", "profile: eastron-sdm120"))
    _, content = direct(path)
    (path.parent / "profiles/eastron-sdm120.yaml").write_text(PROFILE.replace("mine", "eastron-sdm120"))
    with pytest.raises(StaleError, match="has changed"):
        restore(content)


def test_new_code_is_noticed(path: Path) -> None:
    _, content = direct(path)
    files = json.loads(content.partition(b"\n")[2])["inputs"]["files"]
    watched = {Path(file).parent.name + "/" + Path(file).name for file in files}
    assert {
        "config/base.py",
        "config/load.py",
        "edged_sim/__init__.py",
        "edged_modbus/config.py",
        "connectors/mqtt.py",
    } <= watched


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"format": 3', b'"format": 0', "another version"),
        (b":SimBus", b":SimBuz", "another class"),
        (b'"waveform": "ramp"', b'"waveforn": "ramp"', "does not fit"),
        (b'"lab": {', b'"lax": {', "does not fit"),
    ],
)
def test_what_other_code_wrote_is_not_used(path: Path, old: bytes, new: bytes, said: str) -> None:
    _, content = direct(path)
    body = content.partition(b"\n")[2]
    assert old in body
    body = body.replace(old, new)
    with pytest.raises(StaleError, match=said):
        restore(digest(body).encode() + b"\n" + body)


CONTENT = compiled(Config(gateway=load(Path(__file__).parents[3] / "config/edged.yaml").config.gateway), Inputs())  # type: ignore[union-attr]  # the shipped one is valid


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(at: int, change: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at] ^= change
    with pytest.raises(StaleError):
        restore(bytes(damaged))


@given(st.integers(0, len(CONTENT) - 1))
def test_a_torn_file_is_noticed(length: int) -> None:
    with pytest.raises(StaleError):
        restore(CONTENT[:length])


def test_a_damaged_cache_is_replaced(path: Path, cache: Path) -> None:
    first = load_compiled(path, cache)
    cached_file(cache).write_bytes(b"\xff" * 100)
    assert load_compiled(path, cache) == first
    assert restore(cached_file(cache).read_bytes()) == first


def test_a_cache_that_others_could_have_written_is_not_used(path: Path, cache: Path) -> None:
    _, content = direct(path)
    load_compiled(path, cache)
    file = cached_file(cache)
    lie = content.replace(b"192.0.2.10", b"192.0.2.66").partition(b"\n")[2]
    file.write_bytes(digest(lie).encode() + b"\n" + lie)
    file.chmod(0o666)
    assert load_compiled(path, cache).buses["plc"].host == "192.0.2.10"  # type: ignore[attr-defined]  # a Modbus bus


def test_a_cache_that_cannot_be_written_is_done_without(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load_compiled(path, tmp_path / "file" / "cache").gateway.id == "plant-7"


def test_a_secret_in_the_clear_is_written_nowhere(path: Path, cache: Path) -> None:
    path.write_text(YAML.replace("!secret mqtt", "hunter2"))
    assert load_compiled(path, cache).connections["cloud"].password.text == "hunter2"  # type: ignore[attr-defined]  # MQTT
    assert not cache.exists()


def test_errors_are_printed_and_raised(path: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path.write_text(YAML + "bufer: 1\n")
    with pytest.raises(ConfigError, match=r"has errors"):
        load_compiled(path, cache)
    assert f"{path}:11:1: bufer: unknown section `bufer`; did you mean `buffer`?" in capfd.readouterr().err
    assert not cache.exists()


def test_a_start_goes_on_when_a_secret_is_missing(path: Path, cache: Path) -> None:
    assert load_compiled(path, cache).connections["cloud"].enabled


def test_nothing_in_the_working_directory_is_run(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "click.py").write_text("raise SystemExit('this must not be imported')")
    monkeypatch.chdir(path.parent)
    assert load_compiled(path, cache).gateway.id == "plant-7"


def test_storing_leaves_no_temporary_files(tmp_path: Path) -> None:
    store(tmp_path / "a" / "b", b"one")
    store(tmp_path / "a" / "b", b"two")
    assert [file.read_bytes() for file in (tmp_path / "a").iterdir()] == [b"two"]
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on the system
        store(tmp_path, b"three")
    assert sorted(os.listdir(tmp_path)) == ["a"]  # noqa: PTH208  # names are all that matters
