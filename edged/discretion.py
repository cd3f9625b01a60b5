"""What may never be written: the texts of secrets that are in use, wherever somebody repeats them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, urlsplit

WORDS = (
    r"pass|pas+w|pwd|secret|token|credential|bearer|hmac|psk|authorization"
    r"|(?:access|account|api|app|bind|encryption|group|private|security|shared|subscription|signing)[-_.]?key"
)
"""What the name of a setting, header or parameter says when a secret stands behind it: a part of a pattern."""
_NAME = re.compile(WORDS, re.IGNORECASE)
_PARAMETER = re.compile(rf"{WORDS}|^(?:auth|code|key|sas|sig|signature)$", re.IGNORECASE)
_SHORTEST = 4
"""Characters. What is shorter would also be found in words that are no secret."""
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Never write this text: not even where a library, a broker or a traceback repeats it."""
    if len(secret) >= _SHORTEST:
        _hidden.update((secret, repr(secret)[1:-1], quote(secret, safe="")))


def discreet(text: str) -> str:
    """The text without any secret. Before it is cut: half a secret would not be recognised."""
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, "***")
    return text


def names_a_secret(name: str) -> bool:
    """Whether what is called so is probably a secret, e.g. a header."""
    return _NAME.search(name) is not None


def secrets_in(url: str) -> Iterator[tuple[str, str]]:
    """(parameter, value) of those in the query of a URL that are probably secrets, as Azure's `code` or `sig`."""
    try:
        query = urlsplit(url).query
    except ValueError:
        return
    yield from ((name, value) for name, value in parse_qsl(query) if value and _PARAMETER.search(name))


def without_parameters(text: str) -> str:
    """The text, with asterisks for the values of such parameters of all URLs in it."""
    return _IN_QUERY.sub(lambda hit: hit["head"] + "*" * len(hit["value"]), text)


_IN_QUERY = re.compile(
    rf"(?P<head>[?&#](?:(?=[\w.%-]*(?:{WORDS}))[\w.%-]++|auth|code|key|sas|sig|signature)=)(?P<value>[^\s&#\"'`<>]*[^\s&#\"'`<>.,;:)])",
    re.IGNORECASE,
)
