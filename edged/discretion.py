"""What may never be written: the texts of secrets that are in use, wherever somebody repeats them. Pure."""

from __future__ import annotations

from urllib.parse import quote

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
