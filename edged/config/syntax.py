"""YAML syntax errors in a technician's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edged.config.problems import Mark, SourceFile, quoted

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError

_LOOKS_LIKE_SPACE = re.compile("[\u00a0\u00ad\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]")

_AT_START = {
    "could not find expected ':'": "there is no `:` after this key; write `key: value`",
    "found unexpected end of stream": "the quote that opens here is never closed",
    "found unexpected document separator": "the quote that opens here is never closed",
}
"""ruamel notices these too late; where it began to read is where the mistake is."""

_HERE = {
    "found character '\\t'": "a tab: YAML is indented with spaces only",
    "mapping values are not allowed": (
        "a `:` is not expected here; check that the line is indented like its neighbours, and put quotes around a "
        "value that contains `: `"
    ),
    "expected <block end>, but found '-'": "a `-` is not expected here; indent it like the other items of its list",
    "expected <block end>": "this line is not indented like its neighbours, or a quote or bracket before it is wrong",
    "expected ',' or ']'": "the list opened by `[` lacks a `,` or its `]` before this",
    "expected ',' or '}'": "the mapping opened by `{` lacks a `,` or its `}` before this",
    "found unknown escape character": r"in double quotes `\` begins an escape; write `\\`, or use single quotes",
    "expected escape sequence": r"in double quotes `\` begins an escape; write `\\`, or use single quotes",
    "expected alphabetic or numeric": "`*` and `&` begin the name of an alias; put quotes around the value",
    "expected chomping or indentation": "`|` and `>` begin a text of several lines; put quotes around the value",
    "expected a comment or a line break": "`|` and `>` begin a text of several lines; put quotes around the value",
    "expected URI": "`!` begins a tag, such as `!secret NAME`; put quotes around any other value",
    "expected ' ', but found": "`!` begins a tag, such as `!secret NAME`; put quotes around any other value",
    "expected '!'": "`!` begins a tag, such as `!secret NAME`; put quotes around any other value",
    "sequence entries are not allowed": "a `-` is not expected here; the items of a list stand on lines of their own",
    "mapping keys are not allowed": "a `?` is not expected here; put quotes around the value",
    "expected '<document start>'": (
        "this does not belong to what stands above it; is something there indented by mistake, or not `key: value`?"
    ),
    "found '<stream end>'": "the file ends before a `[` or `{` is closed",
    "expected the node content": "a value was expected here; put quotes around one that begins with a special sign",
    "found character": "a value cannot begin with this character; put quotes around the value",
    "found undefined tag handle": "this tag is not known; the only one is `!secret NAME`",
    "found duplicate anchor": "this anchor was already given",
}


def explain_syntax(error: MarkedYAMLError, source: SourceFile) -> tuple[Mark, str]:
    """Where a syntax error is and what to do about it."""
    problem = " ".join(str(error.problem or error.context or "").split())
    at = _mark(error.problem_mark or error.context_mark, source)
    if strange := _no_space(source, at.line):
        return strange
    for words, message in _AT_START.items():
        if words in problem and error.context_mark is not None:
            return _mark(error.context_mark, source), message
    for words, message in _HERE.items():
        if words in problem:
            return at, message + _about_braces(error, source, at)
    return at, f"this is not YAML: {problem}"


def _no_space(source: SourceFile, line: int) -> tuple[Mark, str] | None:
    """The first character in this line, or the one above, that an editor shows as a space or not at all."""
    for number in (line, line - 1):
        text = source.lines[number - 1] if 0 < number <= len(source.lines) else ""
        found = _LOOKS_LIKE_SPACE.search(text)
        if found:
            name = quoted(f"U+{ord(found[0]):04X}")
            return Mark(source, number, found.start() + 1), (
                f"the character {name} looks like a space and is none: type it anew, as is needed after copying from a "
                "web page or a document"
            )
    return None


def _about_braces(error: MarkedYAMLError, source: SourceFile, mark: Mark) -> str:
    opened = error.context_mark
    if opened is None or "flow" not in str(error.context or "") or "expected ','" not in str(error.problem):
        return ""
    if "${" in mark.text or "${" in _mark(opened, source).text:
        return '; inside `{ }` and `[ ]` a variable needs quotes: "${NAME}"'
    opening = _mark(opened, source).line
    return f"; it was opened in line {opening}" if opening != mark.line else ""


def _mark(at: Any, source: SourceFile) -> Mark:
    line = min(at.line, max(len(source.lines) - 1, 0))
    text = source.lines[line] if source.lines else ""
    # At the end of the file there is nothing to point at: show the last line that has something.
    while line and not text.strip():
        line -= 1
        text = source.lines[line]
    column = at.column if line == at.line else len(text)
    return Mark(source, line + 1, min(column, len(text)) + 1)


def bad_character(text: str, index: int, source: SourceFile) -> tuple[Mark, str]:
    """Where a character that YAML does not allow stands, and its name."""
    before = text[:index]
    line = before.count("\n")
    column = index - (before.rfind("\n") + 1)
    return Mark(source, line + 1, column + 1), f"the character {quoted(f'U+{ord(text[index]):04X}')} cannot be in YAML"
