"""The rules of the house that neither ruff nor import-linter can check."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = sorted(path for folder in ("edged", "adapters") for path in (ROOT / folder).rglob("*.py"))
ALL_SOURCES = SOURCES + sorted(path for folder in ("tests", ".ci") for path in (ROOT / folder).rglob("*.py"))

PROTOCOLS = ("pymodbus", "serial", "bleak", "edged_ble", "edged_modbus", "edged_mqtt", "edged_serial", "edged_sim")
FOR_PEOPLE_ONLY = ("pydantic", "ruamel", "rich", "sqlite_utils", "yaml", "jsonschema", "amqtt", "click")
"""What checks, prints or edits; a daemon at work has no use for it, and a Pi has better use for the memory."""


def loaded_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=50)
    return set(result.stdout.split())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", ["adapters", "config", "docs", "systemd", "tests"])
def test_folders_that_are_no_packages_hold_no_init_file(folder: str) -> None:
    """`import config` or `import adapters` would otherwise find ours in a checkout, and another's once installed."""
    found = (ROOT / folder).rglob("__init__.py") if folder == "tests" else (ROOT / folder).glob("__init__.py")
    assert not list(found)


def test_the_wheel_holds_every_adapter() -> None:
    adapters = {name(path.parent) for path in (ROOT / "adapters").glob("*/__init__.py")}
    assert set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == {"edged"} | adapters


def test_import_linter_and_coverage_know_every_package() -> None:
    packages = {"edged"} | {path.parent.name for path in (ROOT / "adapters").glob("*/__init__.py")}
    assert set(PYPROJECT["tool"]["importlinter"]["root_packages"]) == packages
    assert set(PYPROJECT["tool"]["coverage"]["run"]["source"]) == packages


def test_every_adapter_that_is_announced_is_installed_and_loads() -> None:
    announced = PYPROJECT["project"]["entry-points"]["edged.adapters"]
    installed = {entry.name: entry for entry in entry_points(group="edged.adapters") if entry.name in announced}
    assert installed.keys() == announced.keys(), "an entry point is new: run `pip install -e .` again"
    for entry in installed.values():
        entry.load()


def test_the_core_loads_no_protocol() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "edged").rglob("*.py")
        if path.name != "__main__.py"
    )
    assert not loaded_by("import " + ", ".join(modules)) & set(PROTOCOLS)


def test_the_daemon_loads_nothing_that_is_for_people_or_for_protocols_it_does_not_speak() -> None:
    loaded = loaded_by("import edged.daemon, edged.config.compiled")
    assert not loaded & {*FOR_PEOPLE_ONLY, *PROTOCOLS}


def test_the_modbus_adapter_loads_neither_serial_nor_bluetooth() -> None:
    assert not loaded_by("import edged_modbus") & {*FOR_PEOPLE_ONLY, "serial", "bleak", "dbus_fast"}


def test_help_loads_only_the_command_line_itself() -> None:
    """Help in under 150 ms on a Pi; what it imports can be asserted on every machine, its time cannot."""
    loaded = loaded_by(
        "import contextlib, io, edged.cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    edged.cli.main(['--help'], standalone_mode=False)"
    )
    heavy = {*FOR_PEOPLE_ONLY, *PROTOCOLS, "asyncio", "sqlite3", "ssl", "aiomqtt", "paho", "orjson", "tenacity"}
    assert not loaded & (heavy - {"click"})


def test_the_decoders_for_bluetooth_load_nothing_under_the_gpl() -> None:
    for library in ("bthome", "govee", "inkbird", "ruuvitag", "sensorpush", "thermobeacon", "thermopro", "xiaomi"):
        pytest.importorskip(f"{library}_ble", reason="pip install 'edged[ble-decoders]'")
        assert "pyric" not in loaded_by(f"import {library}_ble")


def comments(path: Path) -> list[tuple[int, str]]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


EXCEPTION = re.compile(r"#\s*(noqa|type:\s*ignore)\b(?P<code>[:\[]\s*[A-Za-z0-9, -]+\]?)?")


@pytest.mark.parametrize("path", ALL_SOURCES, ids=name)
def test_every_exception_to_a_rule_names_the_rule_and_its_reason(path: Path) -> None:
    for line, comment in comments(path):
        exceptions = list(EXCEPTION.finditer(comment))
        if exceptions:
            assert all(found["code"] for found in exceptions), f"{path}:{line}: which rule?"
            assert re.search(r"#\s*\S", comment[exceptions[-1].end() :]), f"{path}:{line}: why?"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it takes any exception and does not pass it on."""
    caught = [] if handler.type is None else [node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)]
    passed_on = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
    return (handler.type is None or bool({"Exception", "BaseException"} & set(caught))) and not passed_on


def test_only_the_supervisor_catches_everything() -> None:
    guilty = [
        name(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert guilty in ([], ["edged/supervisor.py"])


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    assert "://" not in lock
    assert "--index" not in lock
