"""What is wrong with a configuration, where, and how it is shown to a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from edged.config.jargon import called, folded
from edged.config.masking import discreetly, masked

Severity = Literal["error", "warning"]

_WIDTH = 100
"""How much of a long line is shown around the offending text."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """A file that was read: its name as a person would write it, and its lines."""

    name: str
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of text in one line of a file. `line` and `column` count from 1; a line of 0 is the file as a whole."""

    file: SourceFile
    line: int = 0
    column: int = 0
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}:{self.column}" if self.line else self.file.name

    @property
    def text(self) -> str:
        """The whole line."""
        return self.file.lines[self.line - 1] if 0 < self.line <= len(self.file.lines) else ""

    @property
    def shown(self) -> str:
        """The whole line without secrets."""
        return _shown(self.file, self.line) if self.text else ""

    def discreetly(self, message: str) -> str:
        """A message about it without the secrets of the line."""
        return discreetly(message, self.text, self.shown)


@lru_cache(maxsize=8)
def _shown(file: SourceFile, line: int) -> str:
    """It is asked for several times for each problem."""
    return masked(file.lines, line - 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, for a person or (`as_dict`) for a program."""

    severity: Severity
    message: str
    mark: Mark
    path: str = ""
    """The keys that lead to it, e.g. `devices.meter-1.unit`."""

    def __str__(self) -> str:
        """`file:line:column: path: message`, with `warning: ` before the path where it is only that."""
        severity = "warning" if self.severity == "warning" else ""
        parts = [str(self.mark), severity, self.mark.discreetly(self.path), self.mark.discreetly(self.message)]
        return printable(": ".join(part for part in parts if part))

    def render(self) -> str:
        """The same with the offending line and a caret under the text."""
        return "\n".join([str(self), *_excerpt(self.mark)])

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        mark = self.mark
        return {
            "severity": self.severity, "file": mark.file.name, "line": mark.line, "column": mark.column,
            "length": mark.length, "path": mark.discreetly(self.path), "message": mark.discreetly(self.message),
            "text": mark.shown,
        }  # fmt: skip


@dataclass(slots=True)
class Report:
    """Collects problems; the same words about the same place are kept once."""

    problems: list[Problem] = field(default_factory=list)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def error(self, mark: Mark, path: str, message: str) -> None:
        """Something that keeps the gateway from starting."""
        self._add(Problem("error", message, mark, path))

    def warning(self, mark: Mark, path: str, message: str) -> None:
        """Something that is allowed but probably not meant."""
        self._add(Problem("warning", message, mark, path))

    def _add(self, problem: Problem) -> None:
        # A mistake in a profile is found once per device that uses it.
        key = (str(problem.mark), problem.message)
        if problem.mark.line == 0 or key not in self._seen:
            self._seen.add(key)
            self.problems.append(problem)

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(problem.severity == "error" for problem in self.problems)


def printable(text: str) -> str:
    """`text` without anything that could move the cursor of a terminal or break a log line."""
    return "".join(char if char.isprintable() else "·" for char in text)


def _excerpt(mark: Mark) -> list[str]:
    if not mark.text:
        return []
    line, start = printable(mark.shown), mark.column - 1
    length = max(1, min(mark.length, len(line) - start))
    if len(line) > _WIDTH:
        cut = max(0, min(start - _WIDTH // 4, len(line) - _WIDTH))
        line, start = line[cut : cut + _WIDTH], start - cut
        length = max(1, min(length, len(line) - start))
    return [f"{mark.line:>6} | {line}", f"{'':>6} | {' ' * start}{'^' * length}"]


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that was probably meant."""
    by_key = {folded(one): one for one in known}
    exact = by_key.get(folded(word)) or called(word, by_key.values())
    if exact is not None:
        return exact
    near = difflib.get_close_matches(folded(word), by_key, n=1, cutoff=0.6)
    return by_key[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str], *, what: str = "known") -> str:
    """`did you mean X?`, else a list of what there is: the end of a message about a wrong word."""
    options = list(known)
    near = suggest(word, options)
    if near is not None:
        return f"did you mean `{near}`?"
    if not options:
        return f"{what}: none"
    return f"{what}: {', '.join(options[:20])}{', …' if len(options) > 20 else ''}"  # noqa: PLR2004  # fits a screen


def quoted(text: str, limit: int = 40) -> str:
    """A text a person wrote, shortened, for use inside a message."""
    return f"`{text if len(text) <= limit else text[: limit - 1] + '…'}`"
