"""The connectors, found by name: a module of this package, or a third party's entry point."""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from edged.errors import ConfigError
from edged.uplink.api import Connector, ServerConnector

GROUP = "edged.connectors"
"""The entry-point group under which other packages publish connectors."""


@cache
def _ours() -> frozenset[str]:
    return frozenset(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


@cache
def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def connector_names() -> list[str]:
    """The names of all installed connectors, sorted."""
    return sorted(_ours() | _registered().keys())


def load_connector(name: str) -> Connector | ServerConnector:
    """The connector of this name. Raises ConfigError if it is not installed, or lacks a package that it needs."""
    try:
        if name in _ours():
            connector = import_module(f"{__name__}.{name.replace('-', '_')}").CONNECTOR
        elif name in _registered():
            connector = _registered()[name].load()
        else:
            raise ConfigError(_unknown(name))
    except ModuleNotFoundError as exc:
        raise ConfigError(f"connector {name!r} needs the Python package {exc.name!r}") from exc
    if not isinstance(connector, Connector | ServerConnector):
        raise ConfigError(f"connector {name!r} does not implement edged.uplink.api.Connector")
    return connector


def load_forwarding(name: str) -> Connector:
    """The same, of one that sends. Raises ConfigError for any other."""
    connector = load_connector(name)
    if not isinstance(connector, Connector):
        raise ConfigError(f"connector {name!r} sends nothing")
    return connector


def load_server(name: str) -> ServerConnector:
    """The same, of one that others ask. Raises ConfigError for any other."""
    connector = load_connector(name)
    if not isinstance(connector, ServerConnector):
        raise ConfigError(f"connector {name!r} is no server")
    return connector


def _unknown(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake pays for it

    names = connector_names()
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    close = get_close_matches(plain, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"there is no connector {name!r}{hint}; installed are: {', '.join(names)}"
