"""What is built holds all that an installation needs, and nothing that it does not."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    return folder


def useless(names: Iterable[str]) -> list[str]:
    """What tools leave behind."""
    return [name for name in names if any(part in name for part in ("__pycache__", ".pyc", "_cache", ".coverage"))]


def test_the_wheel_holds_code_data_unit_and_configurations(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        announced = archive.read(entry_points).decode()
    adapters = [path.parent for path in (ROOT / "adapters").glob("*/__init__.py")]
    sources = [(ROOT / "edged", "edged"), *((path, path.name) for path in adapters)]
    for source, package in sources:
        wanted = {
            f"{package}/{path.relative_to(source).as_posix()}"
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert wanted <= set(names)
    data = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    assert {"share/edged/systemd/edged.service", "share/edged/demo.yaml", "share/edged/edged.schema.json"} <= data
    assert "modbus-tcp = edged_modbus:TCP" in announced
    assert "edged = edged.cli:main" in announced
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert tops == {"edged", *(package for _, package in sources)}, "only our own packages at the top"
    assert not useless(names)


def test_the_sdist_holds_what_make_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "requirements.lock",
        ".ci/venv",
        ".ci/run",
        "tests/conftest.py",
        "LICENSE",
        "README.md",
    } <= names
    assert not useless(names)
