"""Every message that `check` can give is said in a golden case, or is listed here with the reason why not.

The messages are collected from the source: what is handed to a report or raised as ValueError in the modules that check
a configuration, each as a pattern in which the computed parts may be anything.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests/cases/config"
MODULES = [
    *(ROOT / "edged/config" / f"{name}.py" for name in (
        "base", "budget", "cost", "idle", "lint", "load", "machine", "model", "nodes", "profiles", "secrets", "source",
        "types",
    )),
    *(ROOT / "edged/uplink/connectors" / f"{name}.py" for name in (
        "aws_iot", "azure_iot_hub", "file", "http", "mqtt", "thingworx", "watson_iot",
    )),
    *(ROOT / "edged/uplink" / f"{name}.py" for name in ("laidout", "servers", "topics", "upstream")),
    ROOT / "edged/uplink/dialects/http.py",
    ROOT / "edged/media/settings.py",
    *(ROOT / "adapters/edged_modbus" / f"{name}.py" for name in (
        "config", "planner", "point", "serial_bus", "served", "server",
    )),
    *(ROOT / "adapters/edged_serial" / f"{name}.py" for name in ("config", "point")),
    *(ROOT / "adapters/edged_mqtt" / f"{name}.py" for name in ("config", "path", "point", "topics")),
    *(ROOT / "adapters/edged_ble" / f"{name}.py" for name in ("config", "point")),
]  # fmt: skip
TABLES = {"syntax": ("_AT_START", "_HERE"), "words": ("_BOUNDS",)}
REPORTING = {"error", "warning", "_give_up", "ValueError", "ConfigError"}
_BOUND = "no setting that edged ships is bounded so; said for those of other adapters"
_STATE = "depends on the state of the machine, not on the text: test_source.py, test_secrets.py, test_check_costs.py"
_GUARD = "cannot be reached from a file: what comes before it has refused that"
NOT_SAID = {
    "a point needs a register": _GUARD,
    "a secret's name has only": _GUARD,
    ".* is not the address of a serial server": _GUARD,
    "this anchor was already given": "YAML 1.2 allows it; ruamel says so only for 1.1",
    "this does not belong to what stands above": _GUARD,
    ".* may not be written by": _STATE,
    ".* cannot be read: ": _STATE,
    ".* is larger than .* MiB": _STATE,
    ".* is not a regular file": _STATE,
    ".* may not be read by this user": _STATE,
    "this folder may not be read": _STATE,
    "connection .*: there is no folder in which": "the daemon always has one: test_aws.py, test_azure.py",
    "the topic made of": "needs a topic of 65,536 characters",
    "the URL made of": "needs one of 8,000 characters",
    "connection .*: the secret for": "depends on the secret, which is read when a session begins",
    "does not have the form": _BOUND,
    "must be a finite number": _BOUND,
    "must be a multiple of": _BOUND,
    "must be at most": _BOUND,
    "must be below": _BOUND,
    "must have at least .* characters": _BOUND,
    "must have at most .* characters": _BOUND,
}
"""The beginnings of messages without a case, and why."""


def pattern(node: ast.expr) -> str | None:
    """A message as a regular expression; None for what is no text, or says nothing by itself."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values]
        text = "".join(parts)
        return text if re.sub(r"\.\*|\W", "", text) else None
    return None


def texts(node: ast.expr, function: ast.AST) -> Iterator[str]:
    """The messages that an argument may be: itself, both branches, or what its name was given in the function."""
    if isinstance(node, ast.IfExp):
        yield from texts(node.body, function)
        yield from texts(node.orelse, function)
    elif isinstance(node, ast.Name):
        for one in ast.walk(function):
            if isinstance(one, ast.Assign) and not isinstance(one.value, ast.Name):
                named = any(isinstance(target, ast.Name) and target.id == node.id for target in one.targets)
                yield from texts(one.value, function) if named else ()
    else:
        found = pattern(node)
        if found is not None and len(re.sub(r"\.\*", "", found)) > 8:  # paths and keys are shorter
            yield found


def messages(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text("utf-8"))
    for function in [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]:
        for call in [one for one in ast.walk(function) if isinstance(one, ast.Call)]:
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in REPORTING and call.args:
                yield from texts(call.args[-1], function)
    for one in ast.walk(tree):
        if not isinstance(one, ast.Assign | ast.AnnAssign) or not isinstance(one.value, ast.Dict):
            continue
        target = one.targets[0] if isinstance(one, ast.Assign) else one.target
        if isinstance(target, ast.Name) and target.id in TABLES.get(file.stem, ()):
            found = [text for value in one.value.values for text in texts(value, tree)]
            yield from (re.sub(r"\\\{\w+\\\}", ".*", text) for text in found)


ALL = sorted(
    {
        (str(file.relative_to(ROOT)), text)
        for file in [*MODULES, *(ROOT / "edged/config" / f"{name}.py" for name in TABLES)]
        for text in messages(file)
    }
)
SAID = "\n".join(case.read_text("utf-8") for case in sorted(CASES.glob("*/error.txt")))


@pytest.mark.parametrize(("file", "text"), ALL, ids=[f"{file}:{text[:40]}" for file, text in ALL])
def test_every_message_has_a_case(file: str, text: str) -> None:
    said = re.search(text, SAID) is not None
    listed = [reason for start, reason in NOT_SAID.items() if re.sub(r"\\(.)", r"\1", text).startswith(start)]
    assert said or listed, f"{file} can say this, and no case under tests/cases/config does"
    assert not (said and listed), "it is said in a case: strike it off the list"


def test_there_are_many_cases() -> None:
    assert len(list(CASES.glob("*/error.txt"))) >= 60


@pytest.mark.parametrize("case", sorted(CASES.glob("*/error.txt")), ids=lambda path: path.parent.name)
def test_every_problem_names_file_line_and_column(case: Path) -> None:
    """But for a file or folder that cannot be read, which has no lines."""
    for line in case.read_text("utf-8").splitlines():
        if re.match(r" +\d* \| ", line) or line.startswith("exit code") or re.fullmatch(r"\S+: [\d a-z,]+", line):
            continue
        assert re.match(r"\S+:\d+:\d+: ", line) or "is not read" in line or "can be read by every" in line, line
