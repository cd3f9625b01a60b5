"""Flows in SQL, for people who come from AWS IoT rules: turned into the same match and steps. Pure.

Only where the configuration is checked: sqlglot parses, and the daemon never needs it.
"""

from __future__ import annotations

import re

from sqlglot import exp, parse
from sqlglot.errors import SqlglotError

from edged.config.flows import MapConfig, MatchConfig, StepConfig
from edged.flows.expression import Expression

_OPERATORS: dict[type[exp.Expression], str] = {
    exp.EQ: "==", exp.NEQ: "!=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.Add: "+", exp.Sub: "-",
    exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.And: "and", exp.Or: "or", exp.Pow: "**",
}  # fmt: skip
_CALLS: dict[type[exp.Expression], str] = {
    exp.Abs: "abs", exp.Round: "round", exp.Floor: "floor", exp.Ceil: "ceil", exp.Sqrt: "sqrt", exp.Lower: "lower",
    exp.Greatest: "max", exp.Least: "min",
}  # fmt: skip
_MAX = 2000


def compile_sql(text: str) -> tuple[tuple[MatchConfig, ...], tuple[StepConfig, ...]]:
    """The match and the steps of `SELECT … FROM 'site/device' WHERE …`. Raises ValueError with what is wrong."""
    if len(text) > _MAX:
        raise ValueError(f"a SELECT has at most {_MAX} characters")
    try:
        trees = parse(_quoted_from(text), read="mysql")
    except (SqlglotError, RecursionError) as exc:
        raise ValueError(f"not understood: {str(exc).splitlines()[0]}") from exc
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        raise ValueError("write one `SELECT … FROM 'site/device' WHERE …`")
    select = trees[0]
    for clause, value in select.args.items():
        if value and clause not in {"expressions", "from", "from_", "where", "kind"}:
            raise ValueError(f"{clause.strip('_').upper()} is not possible here: SELECT, FROM and WHERE are")
    where = select.args.get("where")
    steps = []
    if where is not None:
        condition = _python(where.this)
        Expression(condition)
        steps.append(StepConfig(filter=condition))
    steps += [StepConfig(map=one) for one in _columns(select.expressions)]
    return (_match(select),), tuple(steps)


def _quoted_from(text: str) -> str:
    """FROM 'plant-7/chiller' as SQL has it: a name in backticks."""
    return re.sub(r"(?i)(\bfrom\s+)(['\"])([^'\"`]+)\2", r"\1`\3`", text, count=1)


def _match(select: exp.Select) -> MatchConfig:
    source = select.args.get("from_") or select.args.get("from")
    if source is None or not isinstance(source.this, exp.Table):
        raise ValueError("FROM is missing: FROM 'site/device', or FROM 'device'")
    name = source.this.name.replace("#", "*").replace("+", "*")
    site, slash, device = name.rpartition("/")
    if "/" in site:
        raise ValueError(f"FROM {name!r}: write 'site/device' or 'device'")
    return MatchConfig(device=device, site=site) if slash else MatchConfig(device=name)


def _columns(columns: list[exp.Expression]) -> list[MapConfig]:
    """None for `SELECT *`; what is worked with is dropped only afterwards."""
    keep: list[str] = []
    add: dict[str, str] = {}
    rename: dict[str, str] = {}
    for column in columns:
        if isinstance(column, exp.Star):
            if len(columns) > 1:
                raise ValueError("`*` stands alone")
            return []
        inner = column.this if isinstance(column, exp.Alias) else column
        if isinstance(inner, exp.Column) and inner.name in keep:
            add[column.alias or inner.name] = f"read({inner.name!r})"
        elif isinstance(inner, exp.Column):
            keep.append(inner.name)
            if column.alias and column.alias != inner.name:
                rename[inner.name] = column.alias
        elif not column.alias:
            raise ValueError(f"{inner.sql()} needs a name: write `{inner.sql()} AS name`")
        else:
            add[column.alias] = _python(inner)
    chosen = MapConfig(keep=(*keep, *add), rename=rename)
    return [MapConfig(add=add), chosen] if add else [chosen]


def _python(node: exp.Expression) -> str:
    """The same in the language of expressions. Raises ValueError."""
    kind = type(node)
    if isinstance(node, exp.Binary) and kind in _OPERATORS:
        return f"({_python(node.this)} {_OPERATORS[kind]} {_python(node.expression)})"
    if kind in _CALLS:
        arguments = [node.this, *([node.args["decimals"]] if node.args.get("decimals") else []), *node.expressions]
        return f"{_CALLS[kind]}({', '.join(map(_python, arguments))})"
    match node:
        case exp.Paren():
            return _python(node.this)
        case exp.Neg():
            return f"(-{_python(node.this)})"
        case exp.Not():
            return f"(not {_python(node.this)})"
        case exp.Between():
            value = _python(node.this)
            return f"({_python(node.args['low'])} <= {value} and {value} <= {_python(node.args['high'])})"
        case exp.In() if node.expressions:
            value = _python(node.this)
            return "(" + " or ".join(f"{value} == {_python(one)}" for one in node.expressions) + ")"
        case exp.Literal():
            return repr(str(node.this)) if node.is_string else str(node.this)
        case exp.Boolean():
            return str(bool(node.this))
        case exp.Column():
            return str(node.name) if node.name.isidentifier() else f"read({node.name!r})"
    raise ValueError(f"{node.sql()} is not possible here")
