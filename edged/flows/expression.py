"""Expressions over readings, in a small safe language. Pure.

The language is Python's expressions without calls of methods, attributes, subscripts, comprehensions and loops: what
remains ends after as many operations as it has signs. simpleeval evaluates it; what it may contain is checked here
before, once, so that a mistake is found by `edged check` and not at three in the morning.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from edged.model import Value

if TYPE_CHECKING:
    from simpleeval import SimpleEval

MAX_LENGTH = 1000
"""Characters of an expression."""
MAX_NODES = 200
"""Names, constants and operations in an expression."""
MAX_DEPTH = 20
"""How deep they may be nested."""
MAX_TEXT = 4096
"""Characters of a text that an expression may make."""
_SHOWN = 60
"""Characters of a value that is named in a message."""
_MAX_BITS = 4096
"""Of an integer on the way to a result."""
PER_READING = frozenset({"value", "point", "quality"})
"""Names that stand for one reading: an expression that uses one is asked once for each reading of a sample."""
SAMPLE_NAMES = frozenset({"device", "time"})
"""Names that every sample has, beside its points. `time` in seconds since 1970."""
_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.In, ast.NotIn, ast.IfExp, ast.Call, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


class UnknownError(Exception):
    """A point that the expression needs is not in the sample, or its value is bad."""


class EvaluationError(Exception):
    """The expression cannot be worked out for these values: a division by zero, a text where a number is needed."""


class Expression:
    """A checked expression."""

    __slots__ = ("_tree", "names", "per_reading", "points", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError with what is wrong."""
        self.text = text
        tree = _parsed(text)
        self._tree = tree.body
        nodes = list(ast.walk(tree))
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        self.names = frozenset(node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called)
        read = {_literal(node) for node in nodes if isinstance(node, ast.Call) and _name(node) == "read"}
        self.per_reading = bool(self.names & PER_READING)
        self.points = (self.names - PER_READING - SAMPLE_NAMES) | read
        """The points whose values it needs."""

    def value(self, names: Mapping[str, Value], label: Callable[[str], str]) -> Value:
        """What it yields. Raises UnknownError and EvaluationError, nothing else."""

        def known(name: str) -> Value:
            found = names.get(name)
            if found is None:
                raise UnknownError(name)
            return found

        evaluator = _evaluator()
        evaluator.names = lambda node: known(node.id)
        evaluator.functions = {**_FUNCTIONS, "read": known, "label": label}
        try:
            return _checked(evaluator.eval("", previously_parsed=self._tree))
        except (UnknownError, EvaluationError):
            raise
        except (_invalid(), ArithmeticError, ValueError, TypeError, LookupError, RecursionError) as exc:
            raise EvaluationError(f"`{self.text}`: {exc}") from exc


def _parsed(text: str) -> ast.Expression:
    if not text.strip():
        raise ValueError("an expression cannot be empty")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an expression has at most {MAX_LENGTH} characters, and this one has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)  # `1or 2`: it would be printed in the middle of a log
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        why = exc.msg if isinstance(exc, SyntaxError) else str(exc) or "too deep"
        raise ValueError(f"{text!r} is not an expression: {why}{_hint(text)}") from exc
    count = sum(1 for node in ast.walk(tree) if isinstance(node, ast.expr))
    if count > MAX_NODES:
        raise ValueError(f"an expression has at most {MAX_NODES} names, constants and operations; this one has {count}")
    if _depth(tree.body) > MAX_DEPTH:
        raise ValueError(f"the expression is nested deeper than {MAX_DEPTH}")
    for node in ast.walk(tree):
        _check(node)
    return tree


_ELSEWHERE = {
    r"&&|\bAND\b": "and", r"\|\||\bOR\b": "or", r"\bNOT\b|!(?!=)": "not", r"<>": "!=", r"===": "==",
    r"(?<![=!<>])=(?!=)": "==",
}  # fmt: skip
"""How other languages write it, and how this one does."""


def _hint(text: str) -> str:
    """What was meant, perhaps, by somebody who comes from SQL, C or JavaScript."""
    found = [(match[0], ours) for theirs, ours in _ELSEWHERE.items() if (match := re.search(theirs, text))]
    return "; " + " and ".join(f"`{theirs}` is written `{ours}`" for theirs, ours in found) if found else ""


def _depth(node: ast.AST) -> int:
    return 1 + max((_depth(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)), default=0)


def _check(node: ast.AST) -> None:
    if not isinstance(node, _NODES):
        raise ValueError(f"{_said(node)} is not possible in an expression")  # noqa: TRY004  # findings are ValueErrors
    if isinstance(node, ast.Constant) and not isinstance(node.value, bool | int | float | str):
        raise ValueError(f"{ast.unparse(node)} is not possible in an expression")  # noqa: TRY004  # findings are ValueErrors
    if isinstance(node, ast.Call):
        known = ", ".join(sorted([*_FUNCTIONS, "label", "read"]))
        if _name(node) not in {*_FUNCTIONS, "label", "read"}:
            raise ValueError(f"there is no function {ast.unparse(node.func)!r}; there are {known}")
        if node.keywords:
            raise ValueError(f"{_name(node)}() takes no names for what it is given")
        if not node.args or len(node.args) > _MOST.get(_name(node), 1):
            raise ValueError(f"{ast.unparse(node)}: {_name(node)}() takes {_taken(_MOST.get(_name(node), 1))}")
        if _name(node) in {"read", "label"} and not _literal(node):
            raise ValueError(f"{_name(node)}() takes one name in quotation marks, such as {_name(node)}('flow-1')")


_MOST = {"min": MAX_NODES, "max": MAX_NODES, "round": 2}
"""How many arguments a function takes that takes more than one."""


def _taken(most: int) -> str:
    return "one argument" if most == 1 else "one or two arguments" if most < MAX_NODES else "one argument or more"


def _said(node: ast.AST) -> str:
    if isinstance(node, ast.expr):
        return f"`{ast.unparse(node)}`"
    return type(node).__name__


def _name(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _literal(node: ast.Call) -> str:
    match node.args:
        case [ast.Constant(value=str(text))]:
            return text
    return ""


def _number(value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = repr(value)
        raise EvaluationError(f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'} is not a number")
    return value


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise EvaluationError("a number became too large")
    return value


def _numeric(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: _bounded(work(_number(left), _number(right)))


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > MAX_TEXT:
            raise EvaluationError(f"a text became longer than {MAX_TEXT} characters")
        return left + right
    return _bounded(_number(left) + _number(right))


def _power(base: Any, exponent: Any) -> Any:
    base, exponent = _number(base), _number(exponent)
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MAX_BITS:
        raise EvaluationError("a power is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise EvaluationError("a root of a negative number")
    return _bounded(result)


def _round(value: Any, digits: Any = 0) -> Any:
    if not isinstance(digits, int) or not -12 <= digits <= 12:  # noqa: PLR2004  # beyond a double's digits
        raise EvaluationError("round() takes up to 12 digits")
    return round(_number(value), digits) if digits else round(_number(value))


def _text(value: Any) -> str:
    text = str(value)
    if len(text) > MAX_TEXT:
        raise EvaluationError(f"a text became longer than {MAX_TEXT} characters")
    return text


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: abs(_number(value)),
    "min": lambda *values: min(map(_number, values)),
    "max": lambda *values: max(map(_number, values)),
    "round": _round,
    "floor": lambda value: math.floor(_number(value)),
    "ceil": lambda value: math.ceil(_number(value)),
    "sqrt": lambda value: math.sqrt(_number(value)),
    "log10": lambda value: math.log10(_number(value)),
    "int": lambda value: int(_number(value)),
    "float": lambda value: float(_number(value)),
    "str": _text,
    "lower": lambda value: _text(value).lower(),
}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: _add,
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _power,
    ast.USub: lambda value: -_number(value),
    ast.UAdd: _number,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


@cache
def _evaluator() -> SimpleEval:
    from simpleeval import SimpleEval  # noqa: PLC0415  # only a flow with an expression pays for it

    return SimpleEval(operators=_OPERATORS)


@cache
def _invalid() -> type[Exception]:
    from simpleeval import InvalidExpression  # noqa: PLC0415  # as above

    invalid: type[Exception] = InvalidExpression
    return invalid


def _checked(value: Any) -> Value:
    match value:
        case bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else float(value)
        case float() if math.isfinite(value):
            return value
    raise EvaluationError(f"{value!r} is not a value")
