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
_QUOTED = re.compile(r"""'(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|""|\\.)*"|`[^`]*`""")
_MAX = 2000


def compile_sql(text: str) -> tuple[tuple[MatchConfig, ...], tuple[StepConfig, ...]]:
    """The match and the steps of `SELECT … FROM 'site/device' WHERE …`. Raises ValueError with what is wrong."""
    if len(text) > _MAX:
        raise ValueError(f"a SELECT has at most {_MAX} characters")
    try:
        trees = parse(_quoted_from(text), read="mysql")
    except (SqlglotError, RecursionError) as exc:
        why = re.sub(r"<Token .*?>", "something else", str(exc).splitlines()[0])
        raise ValueError(f"not understood: {why}") from exc
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        raise ValueError("write one `SELECT … FROM 'site/device' WHERE …`")
    if "||" in _QUOTED.sub("", text):
        raise ValueError("`||` means different things in different SQL: write OR, or `+` to join texts")
    select = trees[0]
    if not select.expressions:
        raise ValueError("SELECT what? `*` for all points, or their names")
    for clause, value in select.args.items():
        if value and clause not in {"expressions", "from", "from_", "where", "kind"}:
            raise ValueError(f"{clause.strip('_').upper()} is not possible here: SELECT, FROM and WHERE are")
    where, match = select.args.get("where"), _match(select)
    for column in select.find_all(exp.Column):
        if column.table and column.table != match.device:
            raise ValueError(f"{column.sql()} is not possible here: a column is the name of a point")
    steps = []
    if where is not None:
        condition = _python(where.this)
        Expression(condition)
        steps.append(StepConfig(filter=condition))
    steps += [StepConfig(map=one) for one in _columns(select.expressions)]
    return (match,), tuple(steps)


def _quoted_from(text: str) -> str:
    """FROM 'plant-7/chiller' as SQL has it: a name in backticks. What is within quotation marks stays."""
    return re.sub(
        rf"(?i)(?P<quoted>{_QUOTED.pattern})|(?P<word>\bfrom\s+)(?P<mark>['\"])(?P<name>[^'\"`]+)(?P=mark)",
        lambda found: found["quoted"] or f"{found['word']}`{found['name']}`",
        text,
    )


def _match(select: exp.Select) -> MatchConfig:
    source = select.args.get("from_") or select.args.get("from")
    if source is None or not isinstance(source.this, exp.Table):
        raise ValueError("FROM is missing: FROM 'site/device', or FROM 'device'")
    if source.this.alias:
        raise ValueError("FROM takes one name, without another one for it: FROM 'site/device', or FROM 'device'")
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
    names = [rename.get(point, point) for point in keep] + list(add)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {twice!r}: give one of them another name with AS")
    used = {*keep, *(one.name for column in columns for one in column.find_all(exp.Column))}
    for i, name in enumerate(sorted(used & add.keys())):  # every column is worked out of the points as they came
        add[f"_column_{i}"] = add.pop(name)
        rename[f"_column_{i}"] = name
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
