"""Lines of a configuration without the secrets in them, for whoever is shown what is wrong. Pure.

What stands behind a word such as `password` is a secret, however wrongly it is written: that is when it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from edged.discretion import WORDS, without_parameters

_KEY = re.compile(  # in time that grows with the line only: `++` gives nothing back
    rf"(?<![\w.-])[\"']?(?P<name>(?=[\w.-]*(?:{WORDS}))[\w.-]++)[\"']?\s*+:(?:\s++|$)", re.IGNORECASE
)
_MAY_HOLD_MANY = re.compile(WORDS.replace("pass|", "pass(?:phrase|key|code)|", 1).replace("hmac|", ""), re.IGNORECASE)
"""Below others, such as `bypass` or `hmac`, are settings that are to be shown."""
_NAMED = re.compile(r"!secret\s+[A-Za-z0-9_][\w.-]*(?=\s*(?:[,}\]#]|$))")
_TAG = re.compile(r"!secret\s+")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
_COMMENT = re.compile(r"\s#")
_REST_IN_BRACKETS = re.compile(r"(?:[^,}\]\n]|,(?=\S)|[}\]](?![\s,}\]]|$))*")
_PIECE = re.compile(  # of what stands in brackets: names, keys, values
    r"!secret\s+[\w.-]+|[\w.-]+(?=\s*:(?:\s|$))|(?P<value>\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s{}\[\],:]+)"
)
_KEY_OF_LINE = re.compile(r"^\s*(?:-\s+)*[\"']?[\w.-]+[\"']?\s*:\s+")
_URL_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s/:@]*:)(?P<value>[^\s/@]+)(?=@)")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*")
_SHORTEST = 4
_COMMON = frozenset({"pass", "password", "passwd", "secret", "token", "bearer", "true", "false", "null", "none"})
"""Values that a message says in other meanings."""
_FAR = 64
"""Lines above that are looked at: a private key has about fifty."""


def masked(lines: Sequence[str], index: int) -> str:
    """The line `index` with asterisks for secrets, also where it goes on with one that began above."""
    line = _masked_values(without_url_secrets(lines[index]))
    if line.strip() and _goes_on(lines, index):
        key = _KEY_OF_LINE.match(line)
        start = key.end() if key else len(line) - len(line.lstrip(" -"))
        line = line[:start] + _starred(line[start:])
    return line


def without_url_secrets(text: str) -> str:
    """Without the passwords and keys in URLs."""
    return without_parameters(_URL_PASSWORD.sub(lambda hit: hit["user"] + "*" * len(hit["value"]), text))


def discreetly(message: str, line: str, shown: str) -> str:
    """A message about a line without what is masked in it; `shown`: the line, masked."""
    message = without_url_secrets(message)
    if line != shown:
        for text in sorted(_hidden(line, shown), key=len, reverse=True):
            message = message.replace(text, "***")
    return message


def _hidden(line: str, shown: str) -> set[str]:
    """The texts that are in the line and not in what is shown of it, with and without what marks them for YAML."""
    found: set[str] = set()
    for stretch in re.finditer(r"\*+", shown):
        text = line[stretch.start() : stretch.end()]
        found |= {text, text.strip("\"'"), text.lstrip("*&!@%`\"'").rstrip("\"'"), *re.split(r"[,{}\[\]]+", text)}
    return {one for one in found if len(one) >= _SHORTEST and one.lower() not in _COMMON and one.strip("*")}


@lru_cache
def _masked_values(line: str) -> str:
    line = _PEM.sub(lambda hit: _starred(hit[0]), line)
    done, shown = 0, ""
    for key in _KEY.finditer(line):
        if key.start() < done:
            continue
        tag = None if _NAMED.match(line, key.end()) else _TAG.match(line, key.end())
        begin = tag.end() if tag else key.end()
        many = line.startswith(("{", "["), begin)
        if many and not _MAY_HOLD_MANY.search(key["name"]):
            continue
        flow = "{" in line[: key.start()] or "[" in line[: key.start()]
        end = begin + _length(line[begin:], flow=flow)
        value = line[begin:end]
        shown += line[done:begin] + (_PIECE.sub(_star, value) if many else _starred(value))
        done = end
    return shown + line[done:]


def _length(text: str, *, flow: bool) -> int:
    """How much of the text is the value; 0 where it is none, or only the name of a secret."""
    if not text or text.startswith(("#", '""', "''")) or _NAMED.match(text):
        return 0
    if text[0] in "{[":
        return _closed(text)
    start = 0
    if text[0] in "\"'":
        whole = _QUOTED.match(text)
        if whole is None:
            return len(text)
        start = whole.end()
    end = _REST_IN_BRACKETS.match(text, start) if flow else None
    comment = None if flow else _COMMENT.search(text, start)
    stop = end.end() if end else comment.start() if comment else len(text)
    return len(text[:stop].rstrip())


def _closed(text: str) -> int:
    """Where the bracket that it begins with is closed; its end if it is not."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "{[") - (char in "}]")
        if not depth:
            return index + 1
    return len(text)


def _star(hit: re.Match[str]) -> str:
    return _starred(hit[0]) if hit["value"] else hit[0]


def _starred(text: str) -> str:
    """Asterisks, as many as there were characters: a caret below still points to its place."""
    kept = text.rstrip()
    return "*" * len(kept) + text[len(kept) :]


def _goes_on(lines: Sequence[str], index: int) -> bool:
    """Whether the line belongs to a secret, or to a private key, that begins above it."""
    depth, item = _depth(lines[index])
    for above in reversed(lines[max(0, index - _FAR) : index]):
        bare = above.lstrip()
        if not bare or bare.startswith("#"):
            continue
        if "PRIVATE KEY" in bare and _PEM.search(bare):
            return True
        there, listed = _depth(above)
        if there < depth or (item and not listed and there == depth):
            depth, item = there, listed
            if not _KEY_OF_LINE.match(f"{above} "):
                continue  # it goes on with something itself
            keys = [key for key in _KEY.finditer(above) if _MAY_HOLD_MANY.search(key["name"])]
            rest = above[keys[-1].end() :].rstrip() if keys else ""
            return bool(keys) and _length(rest, flow=False) == len(rest)
    return False


def _depth(line: str) -> tuple[int, bool]:
    """(Indentation, whether it begins an item of a list)."""
    bare = line.lstrip()
    tabs = "\t" in line[: len(line) - len(bare)]
    return len(line) if tabs else len(line) - len(bare), bare.startswith("- ")
