"""MQTT topics and filters (MQTT 5.0, 4.7). Pure."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 65_535
"""Bytes of a topic."""


def check(text: str, setting: str, *, wildcards: bool = True) -> None:
    """Raises ValueError if it is no topic, or, where those are allowed, no filter."""
    levels = text.split("/")
    if not text or "\0" in text or len(text.encode()) > _LONGEST:
        raise ValueError(f"`{setting}` is empty, or has characters that no topic has")
    if not wildcards and ("+" in text or "#" in text):
        raise ValueError(f"`{setting}: {text}`: this must be one topic, without + or #")
    if any("#" in level and level != "#" for level in levels) or "#" in levels[:-1]:
        raise ValueError(f"`{setting}: {text}`: # stands for all further levels, so it can only be the last one")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(f"`{setting}: {text}`: + stands for a whole level, between two slashes")


def matches(wanted: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a topic (its levels) is one of a filter (its levels)."""
    for i, level in enumerate(wanted):
        if level == "#":
            return not (levels[0].startswith("$") and i == 0)
        if i >= len(levels) or (level != "+" and level != levels[i]):
            return False
        if level == "+" and i == 0 and levels[0].startswith("$"):
            return False
    return len(wanted) == len(levels)
