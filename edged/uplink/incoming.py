"""JSON that comes from outside, as far as it can be dealt with. Pure."""

from __future__ import annotations

from typing import Any

import orjson

DEEPEST = 32
"""Levels. The clouds allow ten at most; of several hundred neither a comparison nor an encoder takes all."""


def loaded(payload: bytes) -> Any:
    """What the JSON says. Raises orjson.JSONDecodeError, also where it is nested deeper than `DEEPEST`."""
    found = orjson.loads(payload)
    if payload.count(b"[") + payload.count(b"{") > DEEPEST and _depth_of(found) > DEEPEST:
        raise orjson.JSONDecodeError("nested too deeply", "", 0)
    return found


def _depth_of(found: Any) -> int:
    """How many levels it has; one more than `DEEPEST` for any beyond."""
    level, depth = [found], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth
