"""pydantic's findings in a technician's words, at the place where the mistake was written."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import fields, is_dataclass
from typing import Any

from edged.config.nodes import Mapping, Node, Scalar, core, find, is_empty, locate
from edged.config.problems import Mark, did_you_mean, quoted, suggest
from edged.config.types import Secret

Loc = tuple[str | int, ...]

_KINDS = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of reasonable size", "float_type": "a number", "float_parsing": "a number",
    "bool_type": "`true` or `false`", "bool_parsing": "`true` or `false`", "string_type": "text",
    "list_type": "a list such as [a, b]", "tuple_type": "a list such as [a, b]", "set_type": "a list such as [a, b]",
    "dict_type": "a mapping of `key: value` lines", "mapping_type": "a mapping of `key: value` lines",
    "dataclass_type": "a mapping of `key: value` lines", "model_type": "a mapping of `key: value` lines",
    "none_required": "empty",
}  # fmt: skip
_BOUNDS = {
    "greater_than": ("must be above {gt}"), "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}", "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}", "finite_number": "must be a finite number",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "does not have the form {pattern}",
}  # fmt: skip
_EXTRA = {"extra_forbidden", "unexpected_keyword_argument"}
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false", "1": "true", "0": "false"}
_STRAY = " ,;\"'\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u00a0"
"""What ends up beside a number by mistake."""
_NAMED = re.compile(r"`([^`:]+)(?::[^`]*)?`")


def explain(errors: Iterable[Any], node: Node, target: Any, name: Mark) -> Iterator[tuple[Mark, Loc, str]]:
    """(place, keys that lead to it, message) of each of pydantic's errors about `node`, which should be a `target`.

    `name` is where the key of the whole stands. Values about which the report already says something are left out.
    """
    groups: dict[tuple[Loc, bool], list[Any]] = {}
    for error in errors:
        loc = error["loc"]
        path = _real_path(loc, node, whole=error["type"] in _EXTRA | {"missing"})
        # What is left over are the branches of a union: all its errors are one mistake.
        groups.setdefault((path, len(path) != len([step for step in loc if step != "[key]"])), []).append(error)
    for (path, union), found in groups.items():
        there = find(node, path)
        if isinstance(there, Scalar) and there.faulty:
            continue
        for error in _most_telling(found) if union else found:
            others = [one["type"] for one in found] if union else []
            mark, keys, message = _explain_one(error, path, node, target, others)
            yield name if mark is node.mark and isinstance(node, Mapping) else mark, keys, message


def about_what_is_written(errors: Iterable[Any], node: Mapping) -> Iterator[Any]:
    """Those of pydantic's errors that stay right when settings are added: of unknown keys, and of single values."""
    for error in errors:
        extra = error["type"] in _EXTRA
        there = find(node, _real_path(error["loc"], node, whole=extra))
        if extra or not (there is None or isinstance(there, Mapping)):
            yield error


def _explain_one(error: Any, path: Loc, node: Node, target: Any, others: Sequence[str]) -> tuple[Mark, Loc, str]:
    kind, key = error["type"], str(path[-1]) if path else ""
    here = find(node, path)
    if kind in _EXTRA:
        if key.isdecimal():
            message = f"unknown key {quoted(key)}; is it meant as part of a number? That is written with a point: 1.5"
            return locate(node, path, key=True), path, message
        before, *after = (part.strip() for part in re.split("[:=]", key, maxsplit=1))
        known = sorted(_keys_at(target, path[:-1]))
        if before in known and after:
            message = f"unknown key {quoted(key)}; did you mean `{before}: {after[0]}`, with a space after the `:`?"
            return locate(node, path, key=True), path, message
        return locate(node, path, key=True), path, f"unknown key {quoted(key)}; {did_you_mean(key, known)}"
    if kind == "missing":
        if isinstance(path[-1], int):
            return locate(node, path[:-1]), path[:-1], f"needs at least {path[-1] + 1} values"
        return locate(node, path[:-1], key=True), path[:-1], f"`{key}` is missing{_instead(node, path)}"
    if error["loc"] and error["loc"][-1] == "[key]":
        return locate(node, path, key=True), path, _key_message(error, key)
    if isinstance(here, Scalar) and here.secret:
        return here.mark, path, "a secret cannot be used here; write the value itself"
    if kind in {"value_error", "assertion_error"} and not (isinstance(here, Scalar) and is_empty(here)):
        message = str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else error["msg"]
        culprit = _culprit(message, here)
        if culprit is not None:
            return locate(node, (*path, culprit)), (*path, culprit), message
        return locate(node, path, key=isinstance(here, Mapping)), path, message
    return locate(node, path), path, _about_value(error, here, target, path, others)


def _key_message(error: Any, key: str) -> str:
    if "int" in error["type"]:
        return f"the key {quoted(key)} must be a whole number"
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _instead(node: Node, path: Loc) -> str:
    """Whether one of the keys that are there was meant to be the missing one."""
    there = find(node, path[:-1])
    near = suggest(str(path[-1]), there.entries) if isinstance(there, Mapping) else None
    return f"; is {quoted(near)} meant to be it?" if near else ""


def _about_value(error: Any, here: Node | None, target: Any, path: Loc, others: Sequence[str]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if is_empty(here) and kind != "none_required":
        return "has no value: write one, or remove the key"
    written = _written(here, target, path)
    if kind in {"literal_error", "enum"}:
        return _choice(here, context.get("expected", ""), written)
    if kind in _KINDS:
        wanted = " or ".join(dict.fromkeys(_KINDS[one] for one in (others or [kind]) if one in _KINDS))
        return f"must be {wanted}{written}{_advice(kind, here)}"
    if kind in {"too_short", "too_long"}:
        bound, count = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        return f"must have {bound} {context.get(count)} values, and has {context.get('actual_length')}"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context) + written
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}"


def _choice(here: Node | None, expected: str, written: str) -> str:
    options = re.findall(r"'([^']*)'", expected) or [expected]
    text = here.text if isinstance(here, Scalar) else ""
    near = suggest(text, options)
    if near is not None:
        return f"cannot be {quoted(text)}; did you mean `{near}`?"
    return f"must be one of {', '.join(options)}{written}"


def _advice(kind: str, here: Node | None) -> str:
    if not isinstance(here, Scalar):
        return ""
    value = core(here.text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "string_type":
        return f': write "{here.text}" with quotes'
    if kind.startswith("bool"):
        meant = _BOOLEANS.get(here.text.lower()) or (str(value).lower() if isinstance(value, bool) else None)
        return f": write {meant} without quotes" if meant else ""
    if kind == "int_from_float" or (kind.startswith("int") and isinstance(value, float) and value.is_integer()):
        return f": write {value:.0f}" if isinstance(value, float) and value.is_integer() else ""
    if number and isinstance(here.value, str):
        if here.variable:
            return ": remove the quotes around the variable"
        return f": write {here.text} without quotes"
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", here.text):
        return f": write {here.text.replace(',', '.')}"
    return _without_what_surrounds(here.text)


def _without_what_surrounds(text: str) -> str:
    """Advice about a number with a comment that begins too early, quotes of a word processor, or a stray mark."""
    number, hash_, _ = text.partition("#")
    if hash_ and isinstance(core(number.strip()), int | float):
        return ": write a space before the `#` of a comment"
    bare = text.strip(_STRAY)
    return f": write {bare}" if bare != text and isinstance(core(bare), int | float) else ""


def _written(here: Node | None, target: Any, path: Loc) -> str:
    """What is there instead, unless that could be a password."""
    if isinstance(here, Mapping):
        return ", not a mapping"
    if not isinstance(here, Scalar):
        return ", not a list"
    if any(hint is Secret for hint in _hints_at(target, path)):
        return ""
    return f", not {quoted(here.text)}" if not here.quoted else f', not "{quoted(here.text)[1:-1]}"'


def _culprit(message: str, here: Node | None) -> str | None:
    """The key that a message about a whole mapping names, or whose value it begins with."""
    if not isinstance(here, Mapping):
        return None
    named = (name for name in _NAMED.findall(message) if name in here.entries)
    shown = (
        name
        for name, entry in here
        if isinstance(entry.value, Scalar) and entry.value.text and message.startswith(repr(entry.value.text))
    )
    return next(named, None) or next(shown, None)


def _most_telling(errors: Sequence[Any]) -> list[Any]:
    """Of the errors of a union's branches, those of the branch that came furthest: our own words, else the first."""
    own = [error for error in errors if error["type"] in {"value_error", "literal_error", "enum"}]
    return (own or list(errors))[:1]


def _real_path(loc: Loc, node: Node, *, whole: bool) -> Loc:
    """`loc` without the names of union branches, which are not written anywhere."""
    path: list[str | int] = []
    here: Node | None = node
    for index, step in enumerate(loc):
        if step == "[key]":
            continue
        below = find(here, (step,))
        if below is None and not (whole and index == len(loc) - 1):
            continue
        path.append(step)
        here = below
    return tuple(path)


def _keys_at(target: Any, path: Loc) -> set[str]:
    return {
        field.name for hint in _hints_at(target, path) if is_dataclass(hint) for field in fields(hint) if field.init
    }


def _hints_at(target: Any, path: Loc) -> list[Any]:
    """The types that a value at this path may have."""
    hints = _branches(target)
    for step in path:
        below: list[Any] = []
        for hint in hints:
            origin, args = typing.get_origin(hint), typing.get_args(hint)
            if is_dataclass(hint) and isinstance(hint, type):
                below += [found for name, found in typing.get_type_hints(hint).items() if name == step]
            elif origin in {dict, MappingABC}:
                below.append(args[1])
            elif origin in {tuple, list} and args:
                below.append(args[0])
        hints = [branch for hint in below for branch in _branches(hint)]
    return hints


def _branches(hint: Any) -> list[Any]:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _branches(typing.get_args(hint)[0])
    if origin in {typing.Union, types.UnionType}:
        return [branch for one in typing.get_args(hint) for branch in _branches(one)]
    return [hint]
