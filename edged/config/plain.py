"""Configuration dataclasses to plain JSON data and back, led by their type hints. No validation: it happened before."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from edged.config.types import Duration, FileName, Name, Secret, Size

_Make = Callable[[Any], Any]
_SCALARS = (Duration, Size, Name, FileName, Path)


def dump(value: Any, known: dict[int, Any] | None = None) -> Any:
    """`value` as JSON data. Fields that have their default are left out. Raises TypeError for a foreign type.

    `known` collects the data of mappings by their id: a mapping that occurs in many places, as the points of a profile
    do, is then one object in the data, too.
    """
    match value:
        case Secret():
            return value.plain()
        case enum.Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case Mapping():
            if known is not None and id(value) in known:
                return known[id(value)]
            data = {str(dump(key)): dump(one, known) for key, one in value.items()}
            if known is not None:
                known[id(value)] = data
            return data
        case list() | tuple() | set() | frozenset():
            return [dump(one, known) for one in value]
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"a configuration cannot hold a {type(value).__name__}")
    fields = [(one, getattr(value, one.name)) for one in dataclasses.fields(value) if one.init]
    return {one.name: dump(held, known) for one, held in fields if not _is_default(one, held)}


def build(hint: Any, data: Any) -> Any:
    """What `dump` was given, as an instance of `hint`. Raises ValueError, TypeError or LookupError if it cannot be."""
    return _maker(hint)(data)


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return type(value) is type(default) and bool(value == default)


@cache
def _maker(hint: Any) -> _Make:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _maker(args[0])
    if origin in {typing.Union, types.UnionType}:
        return _union(args)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):  # noqa: PLR2004  # tuple[T, ...]
        makers = [_maker(one) for one in args]
        return lambda data: tuple(make(one) for make, one in zip(makers, data, strict=True))
    if origin in {tuple, list, set, frozenset}:
        item = _maker(args[0])
        return lambda data: origin(map(item, data))
    if origin in {dict, Mapping}:
        return _mapping(*args)
    if hint is Secret:
        return lambda data: Secret(**data)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint)
    if isinstance(hint, type) and issubclass(hint, (*_SCALARS, enum.Enum)):
        return lru_cache(1024)(hint)
    return _as_it_is


def _as_it_is(data: Any) -> Any:
    return data


def _mapping(key: Any, value: Any) -> _Make:
    make_key, make = (int if key is int else _maker(key)), _maker(value)

    def make_all(data: Any) -> Any:
        return {make_key(name): make(one) for name, one in data.items()}

    return _shared(make_all) if dataclasses.is_dataclass(value) else make_all


def _shared(make: _Make) -> _Make:
    """`make`, but equal data gives the same object: a thousand devices of one profile share its points.

    Weakly: what no configuration holds any more is forgotten.
    """
    made: weakref.WeakValueDictionary[str, _Points] = weakref.WeakValueDictionary()

    def make_once(data: Any) -> Any:
        text = json.dumps(data)
        return made.get(text) or made.setdefault(text, _Points(make(data)))

    return make_once


class _Points(dict[Any, Any]):
    """A dict that can be referred to weakly."""

    __slots__ = ("__weakref__",)


def _dataclass(cls: Any) -> _Make:
    makers = {name: _maker(hint) for name, hint in typing.get_type_hints(cls).items()}
    shared: dict[str, Any] = {field.name: {} for field in dataclasses.fields(cls) if _makes_dict(field)}
    return lambda data: cls(**shared | {name: makers[name](one) for name, one in data.items()})


def _makes_dict(field: dataclasses.Field[Any]) -> bool:
    """Whether its default is an empty dict: nobody changes a configuration, so one will do for all."""
    return field.init and field.default_factory is dict


def _union(hints: tuple[Any, ...]) -> _Make:
    def make(data: Any) -> Any:
        return next((_maker(hint)(data) for hint in hints if _fits(hint, data)), data)

    return make


def _fits(hint: Any, data: Any) -> bool:
    """Whether `data` can be the dump of a `hint`."""
    origin = typing.get_origin(hint) or hint
    if origin is typing.Annotated:
        return _fits(typing.get_args(hint)[0], data)
    if origin is Literal:
        return data in typing.get_args(hint)
    if isinstance(data, dict):
        if not isinstance(hint, type) or not dataclasses.is_dataclass(hint):
            return origin in {dict, Mapping}
        fields = [one for one in dataclasses.fields(hint) if one.init]
        needed = {one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING}
        return needed <= data.keys() <= {one.name for one in fields}
    if isinstance(data, list):
        return origin in {tuple, list, set, frozenset}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return any(data == member.value for member in hint)
    wanted = {bool: (bool,), int: (int, Size), float: (float, Duration), str: (str, Name, Path)}
    return any(origin is one for one in wanted.get(type(data), ()))
