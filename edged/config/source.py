"""The files of a configuration as one tree: the main file, what it includes, and `conf.d` beside it."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from pathlib import Path

from edged.config.inputs import Inputs, digest
from edged.config.nodes import Entry, Items, Mapping, Node, Scalar, core, is_empty, parse
from edged.config.problems import Mark, Report, SourceFile, quoted
from edged.config.syntax import bad_character

MAX_BYTES = 16 * 2**20
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


@dataclass(slots=True)
class Reader:
    """Reads files, and keeps account of everything that was read."""

    environ: MappingABC[str, str]
    report: Report = field(default_factory=Report)
    inputs: Inputs = field(default_factory=Inputs)
    paths: list[Path] = field(default_factory=list)
    """The files that were read, in order."""
    broken: bool = False
    """Whether a file could not be read or parsed, so that the tree lacks what it says."""

    def read(self, path: Path, *, name: str, asked: Mark | None = None, where: str = "") -> Mapping | None:
        """The tree of one file; None, with the reason in the report, if it has none.

        `asked` is where the file is named, `where` the path of that place.
        """
        source = SourceFile(name)
        content = self._content(path, Mark(source) if asked is None else asked, where, name)
        if content is None:
            self.broken = True
            return None
        self.paths.append(path)
        self.inputs.files[os.path.abspath(path)] = digest(content)  # noqa: PTH100  # symbolic links stay as they are
        text = self._text(content, source)
        tree = None if text is None else self._tree(text, SourceFile(name, re.split("\r\n|\r|\n", text)))
        self.broken |= tree is None
        return tree

    def _content(self, path: Path, mark: Mark, where: str, name: str) -> bytes | None:
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                reason = f"{name} is a folder: give a file, such as {Path(name) / 'edged.yaml'}"
            elif not stat.S_ISREG(status.st_mode):
                reason = f"{name} is not a regular file"
            elif status.st_size > MAX_BYTES:
                reason = f"{name} is larger than {MAX_BYTES // 2**20} MiB: this is not a configuration"
            else:
                return path.read_bytes()
        except FileNotFoundError:
            reason = f"there is no file {name}"
        except PermissionError:
            reason = f"{name} may not be read by this user: change its owner or mode, or use sudo"
        except (OSError, ValueError) as exc:
            reason = f"{name} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        self.report.error(mark, where, reason)
        return None

    def _text(self, content: bytes, source: SourceFile) -> str | None:
        if content.startswith(_UTF_16) or b"\0" in content[:2]:
            self.report.error(
                Mark(source, 1, 1), "", "this file is in UTF-16, which some editors call Unicode: save it as UTF-8"
            )
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            before = content[: exc.start]
            lines = content.decode("utf-8", errors="replace").splitlines()
            column = len(before.rpartition(b"\n")[2].decode("utf-8", errors="replace")) + 1
            mark = Mark(SourceFile(source.name, lines), before.count(b"\n") + 1, column)
            self.report.error(mark, "", f"the byte 0x{content[exc.start]:02x} is not UTF-8: save the file as UTF-8")
            return None
        bad = _FORBIDDEN.search(text)
        if bad:
            lined = SourceFile(source.name, re.split("\r\n|\r|\n", text))
            self.report.error(*_no_path(bad_character(text.replace("\r\n", "\n"), _shifted(text, bad.start()), lined)))
            return None
        return text

    def _tree(self, text: str, source: SourceFile) -> Mapping | None:
        node = parse(text, source, self.report, self._fill)
        if isinstance(node, Mapping):
            return node
        if node is not None and not is_empty(node):
            kind = "a list" if isinstance(node, Items) else "a single value"
            self.report.error(node.mark, "", f"the file must have `key: value` lines at the top, and this is {kind}")
            return None
        return None if node is None else Mapping(node.mark)

    def _fill(self, node: Scalar, path: str) -> None:
        """Replace the variables in a scalar. One that is nothing but a variable gets the type its text has."""
        if "${" not in node.text:
            return
        whole = _VARIABLE.fullmatch(node.text)

        def replace(hit: re.Match[str]) -> str:
            return "${" if hit["body"] is None else self._variable(hit, node.mark, path)

        before = len(self.report.problems)
        text = _VARIABLE.sub(replace, node.text)
        node.variable, node.faulty = True, len(self.report.problems) > before
        typed = whole is not None and whole["body"] is not None and not node.quoted and text
        node.value = core(text) if typed else text
        node.text = text

    def _variable(self, hit: re.Match[str], mark: Mark, path: str) -> str:
        body = _BODY.fullmatch(hit["body"])
        if not hit["end"] or body is None:
            self.report.error(
                mark, path,
                f"{quoted(hit[0])} is not a variable: write `${{NAME}}` or `${{NAME:-default}}`, "
                "and `$${` for the characters themselves",
            )  # fmt: skip
            return ""
        value = self.inputs.variable(body["name"], self.environ)
        if body["default"] is not None:
            return value or body["default"][2:]
        if value is None:
            name = body["name"]
            self.report.error(
                mark, path,
                f"the environment variable {name} is not set; for a default write `${{{name}:-default}}`",
            )  # fmt: skip
        return value or ""


def _shifted(text: str, index: int) -> int:
    return index - text.count("\r\n", 0, index)


def _no_path(found: tuple[Mark, str]) -> tuple[Mark, str, str]:
    return found[0], "", found[1]


def home(path: Path) -> Path:
    """The folder of a configuration: where `conf.d`, `profiles` and `secrets.env` are looked for."""
    real = _real(path).parent
    return path.parent if _real(path.parent) == real else real


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it does not raise for links in a circle


def read_all(path: Path, reader: Reader) -> Mapping:
    """The merged tree of a configuration. What went wrong is in the reader's report."""
    merged = Mapping(Mark(SourceFile(str(path)), 1, 1))
    main = reader.read(path, name=str(path))
    if main is None:
        return merged
    merged.mark = main.mark
    files = _Files(reader)
    files.take(main, path)
    drop_ins = home(path) / "conf.d"
    if drop_ins.is_dir() and not _listable(drop_ins):
        reader.report.error(Mark(SourceFile(str(drop_ins))), "", "this folder may not be read by this user")
    for found in reader.inputs.listing(str(Path(glob.escape(str(drop_ins.absolute()))) / "*")):
        name = drop_ins / Path(found).name
        if name.suffix == ".yaml":
            files.include(name, None, "")
        elif name.suffix == ".yml":
            reader.report.warning(Mark(SourceFile(str(name))), "", "this file is not read: its name must end in .yaml")
    for tree in files.trees:
        _merge(merged, tree, reader.report)
    return merged


def _listable(folder: Path) -> bool:
    """`glob` takes a folder that it may not read for an empty one."""
    try:
        os.listdir(folder)  # noqa: PTH208  # only whether it raises counts
    except OSError:
        return False
    return True


@dataclass(slots=True)
class _Files:
    """Follows includes. Each file is taken once, however often it is included."""

    reader: Reader
    trees: list[Mapping] = field(default_factory=list)
    _open: list[Path] = field(default_factory=list)
    _done: set[Path] = field(default_factory=set)

    def include(self, path: Path, asked: Mark | None, where: str) -> None:
        real = _real(path)
        if real in self._open and asked is not None:
            chain = " → ".join(one.name for one in [*self._open[self._open.index(real) :], real])
            self.reader.report.error(asked, where, f"this include goes in a circle: {chain}")
        elif real not in self._done:
            tree = self.reader.read(path, name=str(path), asked=asked, where=where)
            if tree is not None:
                self.take(tree, path)

    def take(self, tree: Mapping, path: Path) -> None:
        self._done.add(_real(path))
        self._open.append(_real(path))
        self.trees.append(tree)
        entry = tree.entries.pop("include", None)
        for index, node in enumerate(_listed(entry)):
            where = f"include.{index}" if entry and isinstance(entry.value, Items) else "include"
            if isinstance(node, Scalar) and isinstance(node.value, str) and node.value and "\0" not in node.value:
                self._included(node, node.value, path.parent, where)
            else:
                self.reader.report.error(node.mark, where, "`include` takes a file name, a pattern, or a list of them")
        self._open.pop()

    def _included(self, node: Scalar, text: str, folder: Path, where: str) -> None:
        if not any(char in text for char in "*?["):
            self.include(folder / text, node.mark, where)
            return
        base = folder.absolute()
        found = self.reader.inputs.listing(str(Path(glob.escape(str(base))) / text))
        if not found:
            self.reader.report.warning(node.mark, where, f"no file matches {quoted(text)}")
        for one in map(Path, found):
            self.include(folder / one.relative_to(base) if one.is_relative_to(base) else one, node.mark, where)


def _listed(entry: Entry | None) -> Iterable[Node]:
    if entry is None or is_empty(entry.value):
        return []
    return entry.value.items if isinstance(entry.value, Items) else [entry.value]


def _merge(into: Mapping, tree: Mapping, report: Report) -> None:
    """Add the sections of one file. Inside a section, each name belongs to one file."""
    for section, entry in tree:
        there = into.entries.get(section)
        if there is None or is_empty(there.value):
            value = entry.value
            copy = Mapping(value.mark, dict(value.entries)) if isinstance(value, Mapping) else value
            into.entries[section] = Entry(entry.key, copy)
        elif isinstance(there.value, Mapping) and isinstance(entry.value, Mapping):
            for name, inner in entry.value:
                first = there.value.entries.setdefault(name, inner)
                if first is not inner:
                    report.error(inner.key.mark, f"{section}.{name}", f"{quoted(name)} is already in {first.key.mark}")
        elif not is_empty(entry.value):
            report.error(entry.key.mark, section, f"`{section}` is already in {there.key.mark}, and cannot be merged")
