"""What the documentation says is true: links lead somewhere, configurations load, commands and options exist."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from edged.cli import COMMANDS, main
from edged.config.load import load

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EDGED = [sys.executable, "-m", "edged"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    fence = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            re.sub(f"(?m)^{found['indent']}", "", found["body"]),
        )
        for found in fence.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
YAML_BLOCKS = [block for block in BLOCKS if block.language == "yaml"]
CONFIGURATIONS = [block for block in YAML_BLOCKS if re.search(r"^gateway:", block.text, re.MULTILINE)]


def commands(program: str) -> list[tuple[str, str]]:
    """(place, command line) of each use of a program in the shell blocks."""
    call = re.compile(rf"^(?:\$ |sudo )?(?:\S*/)?{program}((?: |$).*)", re.MULTILINE)
    return [
        (str(block), found[1].partition(" #")[0].partition(" | ")[0].partition(" &&")[0].strip())
        for block in BLOCKS
        if block.language in {"sh", "console", "bash"}
        for found in call.finditer(block.text)
    ]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(goal), f"{target}: no such heading"


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    missing = {page for page in (ROOT / "docs").rglob("*.md") if page != index} - listed
    assert not {str(page.relative_to(ROOT)) for page in missing}


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert YAML().load(block.text) is not None


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "edged.yaml"
    file.write_text(block.text, "utf-8")
    loaded = load(file)
    assert not [str(problem) for problem in loaded.problems]
    assert loaded.config is not None


def test_the_readme_shows_a_configuration() -> None:
    assert [block for block in CONFIGURATIONS if block.page.name == "README.md"]


@pytest.mark.parametrize(("place", "line"), commands("edged"), ids=lambda text: text.replace("/", "."))
def test_commands_exist_and_take_these_options(place: str, line: str) -> None:
    arguments = shlex.split(line)
    if arguments[0].startswith("-"):
        with contextlib.suppress(click.exceptions.Exit):  # --version and --help
            main.make_context("edged", [*arguments, "check"])
        return
    command = main.get_command(click.Context(main), arguments[0])
    assert command is not None, f"{place}: there is no `edged {arguments[0]}`"
    command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize(("place", "line"), commands("make"), ids=lambda text: text.replace("/", "."))
def test_make_targets_exist(place: str, line: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for word in shlex.split(line):
        assert "=" in word or word in targets, f"{place}: there is no `make {word}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    assert command.get_short_help_str(200) == COMMANDS[name][1]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.opts} has no help"


def test_generated_files_are_current() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / ".ci/generate.py", "--check"], check=False, capture_output=True, text=True, timeout=50
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    """check, simulate and read of docs/tutorial/first-gateway.md; only the port is another one."""
    page = ROOT / "docs/tutorial/first-gateway.md"
    (block,) = [block for block in CONFIGURATIONS if block.page == page]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "gateway.yaml").write_text(block.text.replace("15020", str(port)), "utf-8")
    state = ["--state", str(tmp_path / "state")]

    def run(*arguments: str) -> str:
        result = subprocess.run(
            [*EDGED, *arguments], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=30
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("check", "gateway.yaml")
    simulation = subprocess.Popen(
        [*EDGED, "simulate", "gateway.yaml", *state], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with simulation:
        try:
            assert simulation.stdout
            assert "chiller" in simulation.stdout.readline()
            table = run("read", "chiller", "--config", "gateway.yaml", "--direct", *state)
            assert "supply" in table
            assert "running" in table
        finally:
            simulation.terminate()
    (tmp_path / "typo.yaml").write_text(block.text.replace("type: float32", "typ: float32", 1), "utf-8")
    wrong = subprocess.run(
        [*EDGED, "check", "typo.yaml"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert wrong.returncode != 0
    assert "typo.yaml:16:" in wrong.stdout + wrong.stderr
    assert "type" in wrong.stdout + wrong.stderr
