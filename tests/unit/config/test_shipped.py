"""The configurations that come with edged: correct as they are, and with their examples taken into use."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edged.cli.check import check
from edged.config.load import load

CONFIG = Path(__file__).parents[3] / "config"


def with_examples(text: str) -> str:
    """The default configuration with every example taken into use, as its first lines tell."""
    lines = [line for line in text.split("\n")[1:] if not line.lstrip().startswith("##")]
    return "\n".join(re.sub(r"^( *)# ", r"\1", line) for line in lines)


def test_it_loads_as_it_is() -> None:
    result = load(CONFIG / "edged.yaml", environ={})
    assert result.config is not None
    assert not result.problems
    assert not result.config.devices


def test_it_loads_with_every_example(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "one.yaml").write_text("devices:\n")
    path = tmp_path / "edged.yaml"
    path.write_text(with_examples((CONFIG / "edged.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    result = load(path, environ={})
    assert not [str(problem) for problem in result.problems]
    assert result.config is not None
    assert set(result.config.buses) == {"plc", "line-a"}
    assert set(result.config.devices) == {"meter-1", "chiller"}
    assert set(result.config.connections) == {"cloud"}


def test_editors_find_the_schema() -> None:
    files = list(CONFIG.glob("*.yaml"))
    assert files
    for file in files:
        assert file.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=edged.schema.json\n"), file


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIG.glob("*.yaml")))
def test_check_finds_no_error_in_a_shipped_configuration_wherever_it_is_called(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(check, [str(CONFIG / file)])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("file", sorted(path.name for path in CONFIG.glob("*.yaml")))
def test_every_shipped_configuration_has_no_problem(file: str, tmp_path: Path) -> None:
    shutil.copytree(CONFIG, tmp_path / "config")
    assert not [str(problem) for problem in load(tmp_path / "config" / file, environ={}).problems]
