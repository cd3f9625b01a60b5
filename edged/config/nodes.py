"""One YAML file as a tree in which every key and value knows where it was written.

The tree is built from ruamel's events, so that plain scalars are read strictly as YAML 1.2's core schema (section
10.3.2 of the specification) says: `no`, `12:30` and `1_000` are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from edged.config.problems import Mark, Report, SourceFile, did_you_mean, quoted
from edged.config.secrets import SECRET_NAME
from edged.config.syntax import explain_syntax

Plain = None | bool | int | float | str
MAX_DEPTH = 40
MAX_NODES = 500_000
"""Aliases can make a small file stand for a huge tree."""
MAX_DIGITS = 100

_INT = re.compile(r"[-+]?[0-9]+")
_OCT, _HEX = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_WORDS: dict[str, Plain] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False, ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan,
}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")


def core(text: str) -> Plain:
    """The value of a plain scalar in the core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    for pattern, base in ((_OCT, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return int(text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    infinite = _INF.fullmatch(text)
    return float(f"{infinite[1]}inf") if infinite else text


@dataclass(slots=True)
class Node:
    """A value and where it was written."""

    mark: Mark
    size: int = field(default=1, kw_only=True)
    """How many nodes it stands for, aliases written out."""


@dataclass(slots=True)
class Scalar(Node):
    """A single value. Where it is a secret, `secret` is its name."""

    value: Plain
    text: str
    """As written, without quotes."""
    quoted: bool = False
    secret: str = ""
    variable: bool = False
    """Whether it came out of an environment variable."""
    faulty: bool = False
    """Whether the report already says what is wrong with it, so that nothing needs to be said about its value."""


@dataclass(slots=True)
class Entry:
    """A key of a mapping and its value."""

    key: Scalar
    value: Node


@dataclass(slots=True)
class Mapping(Node):
    """Keys and values. Keys are texts, as written; numbers in other notations than decimal become decimal."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def get(self, key: str) -> Node | None:
        """The value of a key."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        return iter(self.entries.items())


@dataclass(slots=True)
class Items(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)


def plain(node: Node) -> Any:
    """The tree as data for a validator."""
    match node:
        case Scalar():
            return {"name": node.secret} if node.secret else node.value
        case Mapping():
            return {key: plain(entry.value) for key, entry in node.entries.items()}
        case Items():
            return [plain(item) for item in node.items]
        case _:
            raise TypeError(type(node))


def is_empty(node: Node | None) -> bool:
    """Whether nothing was written, as in `devices:` with everything below it commented out."""
    return node is None or (isinstance(node, Scalar) and node.value is None and not node.secret)


def find(node: Node | None, path: Sequence[str | int]) -> Node | None:
    """The value at `path`, if it was written."""
    for step in path:
        if isinstance(node, Mapping):
            node = node.get(str(step))
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def locate(node: Node, path: Sequence[str | int], *, key: bool = False) -> Mark:
    """Where the value (or, with `key`, the key) at `path` is written; as near as one can get to what is not there."""
    mark = node.mark
    for step in path:
        if isinstance(node, Mapping) and str(step) in node.entries:
            entry = node.entries[str(step)]
            node = entry.value
            mark = entry.key.mark if key or is_empty(node) else node.mark
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            mark = node.mark
        else:
            break
    return mark


Fill = Callable[[Scalar, str], None]
"""Replaces `${VARIABLE}` in a scalar that was just read; the text is its path."""


def parse(text: str, source: SourceFile, report: Report, fill: Fill) -> Node | None:
    """The tree of one file, or None where its syntax is wrong (which is then in the report). Empty files are empty."""
    builder = _Builder(source, report, fill)
    yaml = YAML(typ="safe", pure=True)
    try:
        for event in yaml.parse(text):
            builder.take(event)
    except MarkedYAMLError as exc:
        mark, message = explain_syntax(exc, source)
        report.error(mark, "", message)
        return None
    except _GaveUpError:
        return None
    except YAMLError as exc:
        report.error(builder.mark(None), "", f"this is not YAML: {exc}".splitlines()[0])
        return None
    except (ValueError, OverflowError):
        # what ruamel's `chr` raises
        report.error(builder.mark(None), "", "after this an escape such as `\\U…` stands for no character")
        return None
    return builder.root or Mapping(Mark(source, 1, 1))


class _GaveUpError(Exception):
    """The report already says why the file cannot be used."""


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    node: Mapping | Items
    path: str
    key: Scalar | None = None
    expects_value: bool = False
    first: dict[str, Mark] = field(default_factory=dict)
    merge: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class _Builder:
    """Makes the tree out of events, without recursion."""

    source: SourceFile
    report: Report
    fill: Fill
    root: Node | None = None
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _documents: int = 0
    _last: Mark | None = None

    def take(self, event: Any) -> None:
        match event:
            case ScalarEvent():
                self._anchored(event, self._scalar(event))
            case MappingStartEvent() | SequenceStartEvent():
                self._open(event)
            case MappingEndEvent() | SequenceEndEvent():
                self._close()
            case AliasEvent():
                self._alias(event)
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._give_up(self.mark(event), "a second document begins here: use one file for each, and include")
            case _:
                pass

    def mark(self, event: Any) -> Mark:
        """Where an event stands; without one, where the last one stood."""
        if event is None:
            return self._last or Mark(self.source, 1, 1)
        start, end = event.start_mark, event.end_mark
        line = min(start.line, max(len(self.source.lines) - 1, 0))
        text = self.source.lines[line] if self.source.lines else ""
        column = min(start.column, len(text))
        stop = end.column if end.line == start.line else len(text.rstrip())
        self._last = Mark(self.source, line + 1, column + 1, max(1, stop - column))
        return self._last

    def _give_up(self, mark: Mark, message: str) -> None:
        self.report.error(mark, "", message)
        raise _GaveUpError

    def _scalar(self, event: Any) -> Scalar:
        mark, text = self.mark(event), event.value
        is_key = bool(self._stack) and isinstance(self._stack[-1].node, Mapping) and not self._stack[-1].expects_value
        node = Scalar(mark, text, text, quoted=bool(event.style))
        tag = self._tag(event)
        if _SURROGATE.search(text):
            self.report.error(mark, self._path(), "half of a surrogate pair is not a character")
            node.faulty = True
            node.value = node.text = _SURROGATE.sub("?", text)
        elif not node.quoted and not tag:
            node.value = core(text)
            if len(text) > MAX_DIGITS and _FLOAT.fullmatch(text):
                self.report.error(mark, self._path(), f"a number with {len(text)} digits is not meant seriously")
                node.faulty = True
        if not is_key:
            self.fill(node, self._path())
        if tag == "!secret":
            node.secret = self._secret(node)
        node.faulty |= tag is None
        return node

    def _secret(self, node: Scalar) -> str:
        name = str(node.value).strip()
        if SECRET_NAME.fullmatch(name):
            return name
        node.faulty = True
        self.report.error(
            node.mark, self._path(),
            "`!secret` needs a name of letters, digits, `-`, `_` and `.`, such as `!secret mqtt`",
        )  # fmt: skip
        return "unnamed"

    def _tag(self, event: Any) -> str | None:
        """The tag, empty without one; None, with the reason in the report, for one that cannot be used."""
        tag = "" if event.tag is None else str(event.tag)
        if not tag or (tag == "!secret" and isinstance(event, ScalarEvent)):
            return tag
        if tag == "!secret":
            message = "`!secret` is followed by the name of one secret"
        else:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            known = did_you_mean(short, ["!secret"], what="the only one is")
            message = f"the tag {quoted(short)} is not known here; {known}"
        self.report.error(self.mark(event), self._path(), message)
        return None

    def _open(self, event: Any) -> None:
        mark = self.mark(event)
        self._tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._give_up(mark, f"nested more than {MAX_DEPTH} levels deep")
        node: Mapping | Items = Mapping(mark) if isinstance(event, MappingStartEvent) else Items(mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._stack.append(_Open(node, self._path()))

    def _close(self) -> None:
        top = self._stack.pop()
        if isinstance(top.node, Mapping):
            self._merge(top)
            top.node.size = 1 + sum(entry.value.size for entry in top.node.entries.values())
        else:
            top.node.size = 1 + sum(item.size for item in top.node.items)
        if top.node.size > MAX_NODES:
            self._give_up(top.node.mark, f"with its aliases written out this has more than {MAX_NODES:,} values")
        self._put(top.node)

    def _alias(self, event: Any) -> None:
        mark, name = self.mark(event), str(event.anchor)
        node = self._anchors.get(name)
        if node is None:
            self._give_up(mark, f"`*{name}` repeats what `&{name}` marks, but there is no `&{name}` above")
        elif any(one.node is node for one in self._stack):
            self._give_up(mark, f"`*{name}` stands inside what `&{name}` marks, so it would never end")
        else:
            self._put(node)

    def _anchored(self, event: Any, node: Scalar) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._put(node)

    def _put(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        if isinstance(top.node, Items):
            top.node.items.append(node)
        elif not top.expects_value:
            top.key, top.expects_value = self._key(node), True
        else:
            self._enter(top, node)
            top.key, top.expects_value = None, False

    def _key(self, node: Node) -> Scalar | None:
        if not isinstance(node, Scalar):
            self.report.error(node.mark, self._path(), "a key must be a word or a number, not a list or a mapping")
            return None
        if node.value is None and not node.text:
            self.report.error(node.mark, self._path(), "there is no key before the `:`")
            return None
        return node

    def _enter(self, top: _Open, value: Node) -> None:
        key = top.key
        if key is None or not isinstance(top.node, Mapping):
            return
        if key.text == "<<" and not key.quoted:
            top.merge.extend(value.items if isinstance(value, Items) else [value])
            return
        whole = isinstance(key.value, int) and not isinstance(key.value, bool)
        name = str(key.value) if whole else key.text
        if name in top.first:
            path = f"{top.path}.{name}" if top.path else name
            self.report.error(
                key.mark, path, f"{quoted(name)} is given twice; the first is in line {top.first[name].line}"
            )
            return
        top.first[name] = key.mark
        top.node.entries[name] = Entry(key, value)

    def _merge(self, top: _Open) -> None:
        for source in top.merge:
            if not isinstance(source, Mapping):
                self.report.error(source.mark, top.path, "`<<` takes over the keys of a mapping, such as `<<: *name`")
            elif isinstance(top.node, Mapping):
                for name, entry in source:
                    top.node.entries.setdefault(name, entry)

    def _path(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.node, Items):
            return f"{top.path}.{len(top.node.items)}"
        if top.key is None:
            return top.path
        return f"{top.path}.{top.key.text}" if top.path else top.key.text
