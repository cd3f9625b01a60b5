"""Which files are read, how they are merged, and what variables become."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.config.nodes import plain
from edged.config.source import Reader, read_all


def read(path: Path, **environ: str) -> tuple[Any, Reader]:
    reader = Reader(environ)
    return plain(read_all(path, reader)), reader


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "edged.yaml"


def messages(reader: Reader) -> list[str]:
    return [problem.message for problem in reader.report.problems]


def test_includes_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    main = write(
        tmp_path, edged="include: sites/a.yaml\nbuses: {m: 1}\n", sites__a="include: [b.yaml]\nbuses: {a: 2}\n",
        sites__b="buses: {b: 3}\n",
    )  # fmt: skip
    data, reader = read(main)
    assert data == {"buses": {"m": 1, "a": 2, "b": 3}}
    assert reader.paths == [main, tmp_path / "sites/a.yaml", tmp_path / "sites/b.yaml"]
    assert not reader.report.problems


def test_a_pattern_includes_its_matches_in_order_and_folders_may_have_strange_names(tmp_path: Path) -> None:
    folder = tmp_path / "pl[a]nt *"
    main = write(folder, edged='include: "s*/*.yaml"\n', s1__b="d: {b: 1}\n", s1__a="d: {a: 1}\n", s2__c="d: {c: 1}\n")
    data, reader = read(main)
    assert list(data["d"]) == ["a", "b", "c"]
    assert not reader.report.problems


def test_absolute_includes(tmp_path: Path) -> None:
    write(tmp_path / "else", one="d: {a: 1}\n", two="d: {b: 1}\n")
    main = write(tmp_path, edged=f"include: [{tmp_path}/else/one.yaml, '{tmp_path}/else/t*.yaml']\n")
    assert read(main)[0] == {"d": {"a": 1, "b": 1}}


def test_a_file_included_twice_counts_once(tmp_path: Path) -> None:
    main = write(
        tmp_path, edged="include: [a.yaml, b.yaml, ./a.yaml]\n", a="include: c.yaml\n", b="include: c.yaml\n",
        c="d: {x: 1}\n",
    )  # fmt: skip
    data, reader = read(main)
    assert data == {"d": {"x": 1}}
    assert not reader.report.problems


def test_conf_d_comes_last_in_the_order_of_names(tmp_path: Path) -> None:
    main = write(tmp_path, edged="d: {m: 1}\n", **{"conf.d__20": "d: {c: 1}\n", "conf.d__10": "d: {b: 1}\n"})
    (tmp_path / "conf.d/30.yaml.bak").write_text("d: {no: 1}\n")
    data, reader = read(main)
    assert list(data["d"]) == ["m", "b", "c"]
    assert not reader.report.problems


def test_a_linked_main_file_uses_the_folder_it_lies_in(tmp_path: Path) -> None:
    write(tmp_path / "real", edged="d: {m: 1}\n", **{"conf.d__1": "d: {a: 1}\n"})
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "real/edged.yaml")
    assert read(link)[0] == {"d": {"m": 1, "a": 1}}


def test_empty_sections_are_filled_by_other_files(tmp_path: Path) -> None:
    main = write(tmp_path, edged="include: a.yaml\nbuses:\ndevices: {x: 1}\n", a="buses: {b: 1}\ndevices:\n")
    assert read(main)[0] == {"buses": {"b": 1}, "devices": {"x": 1}}


@pytest.mark.parametrize("text", ["{a: b}", "[1]", '""', '"a\\0b"', "[[a]]"])
def test_an_include_that_is_no_file_name_is_reported(tmp_path: Path, text: str) -> None:
    assert "`include` takes a file name" in messages(read(write(tmp_path, edged=f"include: {text}\n"))[1])[0]


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    (tmp_path / "edged.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: [x\r\n")
    _, reader = read(tmp_path / "edged.yaml")
    assert str(reader.report.problems[0].mark).endswith("edged.yaml:3:8")


@pytest.mark.parametrize(
    ("name", "said"), [("missing.yaml", "there is no file"), (".", "is a folder"), ("loop.yaml", "cannot be read")]
)
def test_a_main_file_that_cannot_be_read(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    _, reader = read(tmp_path / name)
    assert reader.broken
    assert said in messages(reader)[0]


def test_a_device_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "edged.yaml")
    assert "not a regular file" in messages(read(tmp_path / "edged.yaml")[1])[0]


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user of the machine can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def ordinary_user(public_folder: Path) -> Iterator[None]:
    """Runs the test as somebody whom file modes concern."""
    write(public_folder, edged="include: [closed.yaml]\n", closed="a: 1\n", **{"conf.d__a": "b: 1\n"})
    (public_folder / "closed.yaml").chmod(0)
    (public_folder / "conf.d").chmod(0)
    if os.geteuid() != 0:
        yield
        (public_folder / "conf.d").chmod(0o700)
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("ordinary_user")
def test_permission_denied(public_folder: Path) -> None:
    found = messages(read(public_folder / "edged.yaml")[1])
    assert any("closed.yaml may not be read by this user" in one for one in found)
    assert any("this folder may not be read" in one for one in found)


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("${PORT}", 502), ("'${PORT}'", "502"), ('"${PORT}"', "502"), ("${ON}", True), ("${RATE}", 0.5),
        ("${TEXT}", "a b"), ("${TEXT}:${PORT}", "a b:502"), ("mqtt://${HOST:-localhost}:1883", "mqtt://localhost:1883"),
        ("${HOST:-7}", 7), ("${EMPTY:-8}", 8), ("${EMPTY}", ""), ("${HOST:-}", ""), ("$${PORT}", "${PORT}"),
        ("$PORT", "$PORT"), ("a$${b}${PORT}", "a${b}502"), ("${NESTED}", "${PORT}"), ("${WORD}", "no"),
    ],
)  # fmt: skip
def test_variables(tmp_path: Path, yaml: str, value: object) -> None:
    environ = {
        "PORT": "502",
        "ON": "true",
        "RATE": "0.5",
        "TEXT": "a b",
        "EMPTY": "",
        "NESTED": "${PORT}",
        "WORD": "no",
    }
    data, reader = read(write(tmp_path, edged=f"a: {yaml}\n"), **environ)
    assert data == {"a": value}
    assert type(data["a"]) is type(value)
    assert not reader.report.problems


@pytest.mark.parametrize("yaml", ["${UNSET}", "x${UNSET}", "${1}", "${}", "${a-b}", "${UNSET", "${UNSET:default}"])
def test_a_variable_that_is_not_there_or_not_one_is_reported(tmp_path: Path, yaml: str) -> None:
    _, reader = read(write(tmp_path, edged=f"b: 1\na: {yaml}\n"))
    assert len(reader.report.problems) == 1
    assert (reader.report.problems[0].mark.line, reader.report.problems[0].path) == (2, "a")


def test_variables_in_keys_and_comments_stay(tmp_path: Path) -> None:
    data, reader = read(write(tmp_path, edged="# ${UNSET}\n'${UNSET}': 1\n"))
    assert data == {"${UNSET}": 1}
    assert not reader.report.problems
